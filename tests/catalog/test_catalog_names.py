"""Names -> paths: any name gives components that Linux takes, nothing is lost, and nothing is ambiguous."""

from __future__ import annotations

import pytest
from hypothesis import given

from ivcapfs.catalog.names import (
    MAX_PATH,
    RESERVED,
    decode,
    encode,
    id_in,
    id_path,
    leaf_name,
    plain_path,
    split_suffix,
)
from tests.fakes import artifact, uuid_of
from tests.hostile import HOSTILE, assert_fit, names

UUID = "0a1b2c3d-4e5f-4607-8899-aabbccddeeff"


@given(names)
def test_decode_is_the_inverse_of_encode(name: str) -> None:
    assert decode(encode(name)) == name


@given(names, names)
def test_encode_is_injective(one: str, other: str) -> None:
    assert (encode(one) == encode(other)) == (one == other)


@given(names)
def test_encoded_components_are_fit_for_linux_lengths_aside(name: str) -> None:
    for part in encode(name):
        assert_fit(part, longest=None)


@given(names)
def test_no_encoded_component_looks_like_an_id_form(name: str) -> None:
    assert [part for part in encode(name) if id_in(part)] == []


@pytest.mark.parametrize("name", HOSTILE)
def test_every_hostile_name_survives(name: str) -> None:
    assert decode(encode(name)) == name
    for part in plain_path(artifact(name)):
        assert_fit(part)


@given(names)
def test_plain_and_id_paths_are_fit_for_linux(name: str) -> None:
    record = artifact(name, uuid=UUID)
    for path in (plain_path(record), id_path(record), id_path(record, 36)):
        for part in path:
            assert_fit(part)
        assert sum(len(part.encode()) + 1 for part in path) <= MAX_PATH + 64


@given(names)
def test_the_id_form_carries_the_uuid_and_keeps_the_suffix(name: str) -> None:
    record = artifact(name, uuid=UUID)
    for digits in (8, 13, 36):
        assert id_in(id_path(record, digits)[-1]) == UUID[:digits]
    suffix = split_suffix(encode(name)[-1])[1]
    assert id_path(record)[-1].endswith(f"@0a1b2c3d{suffix}")


@given(names)
def test_a_leaf_name_is_never_one_of_the_reserved(name: str) -> None:
    leaf = leaf_name(artifact(name, uuid=UUID))
    assert leaf not in RESERVED
    assert_fit(leaf)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a/b.csv", ("a", "b.csv")),
        ("a//b", ("a", "%2Fb")),
        ("/a", ("%2Fa",)),
        ("a/", ("a%2F",)),
        ("/", ("%2F",)),
        (".", ("%2E",)),
        ("x/..", ("x", "%2E%2E")),
        ("50%20off", ("50%20off",)),
        ("100%", ("100%",)),
        ("a%2Fb", ("a%252Fb",)),
        ("line\nbreak", ("line%0Abreak",)),
        ("half \ud83d", ("half %ED%A0%BD",)),
        ("mail@12345678.txt", ("mail%4012345678.txt",)),
        ("me@example.org", ("me@example.org",)),
        ("\N{GRINNING FACE}.txt", ("\N{GRINNING FACE}.txt",)),
    ],
)
def test_names_become_these_paths(name: str, path: tuple[str, ...]) -> None:
    assert plain_path(artifact(name)) == path


@pytest.mark.parametrize(
    ("component", "parts"),
    [
        ("data.csv", ("data", ".csv")),
        ("a.tar.gz", ("a", ".tar.gz")),
        ("a.GZ", ("a", ".GZ")),
        (".bashrc", (".bashrc", "")),
        (".tar.gz", (".tar", ".gz")),
        ("Dr. Smith", ("Dr. Smith", "")),
        ("none", ("none", "")),
        ("end.", ("end.", "")),
    ],
)
def test_suffixes(component: str, parts: tuple[str, str]) -> None:
    assert split_suffix(component) == parts


@pytest.mark.parametrize("name", [None, ""])
@pytest.mark.parametrize(
    ("mime_type", "suffix"),
    [
        ("text/csv", ".csv"),
        ("application/json; charset=utf-8", ".json"),
        ("application/x-never-heard-of", ""),
        ("", ""),
        (None, ""),
        ("../../etc", ""),
    ],
)
def test_without_a_name_the_file_is_its_uuid_and_the_suffix_of_its_type(
    name: str | None, mime_type: str | None, suffix: str
) -> None:
    assert plain_path(artifact(name, uuid=UUID, mime_type=mime_type)) == (UUID + suffix,)


def test_a_long_file_name_is_cut_before_its_suffix_and_carries_the_id() -> None:
    (name,) = plain_path(artifact("é" * 200 + ".tar.gz", uuid=UUID))
    assert name.endswith("é@0a1b2c3d.tar.gz")
    assert 253 <= len(name.encode()) <= 255


def test_members_of_a_long_folder_stay_together_and_those_of_another_do_not_join_them() -> None:
    long = "folder " * 60
    one, two = plain_path(artifact(f"{long}/one")), plain_path(artifact(f"{long}/two"))
    other = plain_path(artifact(f"{long}!/one"))
    assert one[0] == two[0] != other[0]


def test_a_path_that_is_too_long_loses_its_folders() -> None:
    record = artifact("/".join(["folder"] * 1000) + "/data.csv", uuid=UUID)
    assert plain_path(record) == id_path(record) == ("data@0a1b2c3d.csv",)


def test_a_uuid_with_a_number_in_it_is_still_one() -> None:
    assert id_in(f"x@{uuid_of(7)}.txt") == uuid_of(7)
    assert id_in("x@1234567.txt") is None
    assert id_in("x@12345678.a.b.c") is None
