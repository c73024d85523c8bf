"""The platform's JSON to records: both spellings, lenient times and sizes, nothing but ProtocolError."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.client import jsontext, wire
from ivcapfs.errors import ConfigError, ProtocolError
from ivcapfs.models import EPOCH, ArtifactStatus
from tests.client.fakeorigin import URN, UUID, record

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KNOWN = st.sampled_from(
    ["id", "name", "status", "size", "mime-type", "mime_type", "created-at", "items", "artifacts", "links",
    "rel",
     "href", "entity", "schema", "content", "valid-from", "valid_to", "data-href", "at-time"]
)  # fmt: skip
PLAUSIBLE = st.recursive(
    ANY_JSON | st.sampled_from([URN, UUID, "next", "https://h/x?page=%FF", "//[", "0001-01-01T00:00:00Z", -1, 2**70]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KNOWN, inner, max_size=6),
    max_leaves=20,
)


@given(PLAUSIBLE)
def test_arbitrary_json_raises_nothing_but_protocol_error(value: Any) -> None:
    readers = (
        wire.artifact_from_json, wire.aspect_from_json, wire.artifact_page_from_json,
        wire.aspect_page_from_json,
    )  # fmt: skip
    for read in readers:
        with contextlib.suppress(ProtocolError):
            read(value)


@given(st.dictionaries(KNOWN, PLAUSIBLE))
def test_any_record_with_an_id_is_read(fields: dict[str, Any]) -> None:
    got = wire.artifact_from_json({**fields, "id": URN})
    assert got.uuid == UUID and (got.size is None or got.size >= 0) and got.created_at.tzinfo is not None


def test_a_whole_record() -> None:
    got = wire.artifact_from_json(record(**{"mime-type": "text/csv", "etag": "e", "policy": "p", "account": "a"}))
    assert (got.uuid, got.name, got.size, got.mime_type, got.whole) == (UUID, "n", 10, "text/csv", True)
    assert (got.etag, got.policy, got.account, got.status) == ("e", "p", "a", ArtifactStatus.READY)
    assert got.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_both_spellings() -> None:
    kebab = {"id": UUID, "mime-type": "a/b", "data-href": "/x", "last-modified-at": "2026-01-01"}
    snake = {"id": URN, "mime_type": "a/b", "data_href": "/x", "last_modified_at": "2026-01-01"}
    assert wire.artifact_from_json(kebab) == wire.artifact_from_json(snake)
    listed = [{"id": URN}]
    assert wire.artifact_page_from_json({"items": listed}) == wire.artifact_page_from_json({"artifacts": listed})
    aspect = {"id": "i", "entity": "e", "schema": "s", "valid_from": "2026-01-01T00:00:00Z"}
    assert wire.aspect_from_json(aspect).valid_from.year == 2026


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02t03:04:05z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02 03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.1Z", datetime(2026, 1, 2, 3, 4, 5, 100000, tzinfo=UTC)),
        ("2026-01-02T03:04:05.123456789+10:00", datetime(2026, 1, 1, 17, 4, 5, 123456, tzinfo=UTC)),
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        ("yesterday", EPOCH),
        ("9999-12-31T23:59:59-12:00", EPOCH),
        (17, EPOCH),
        (None, EPOCH),
    ],
)
def test_times(text: Any, moment: datetime) -> None:
    assert wire.parse_time(text) == moment


def test_times_are_written_in_utc() -> None:
    there = timezone(timedelta(hours=10))
    assert wire.format_time(datetime(2026, 1, 2, 3, tzinfo=there)) == "2026-01-01T17:00:00Z"
    assert wire.format_time(datetime(2026, 1, 2, 3)) == "2026-01-02T03:00:00Z"


def test_the_zero_time_means_none() -> None:
    aspect = {"id": "i", "entity": "e", "schema": "s", "valid-to": "0001-01-01T00:00:00Z"}
    assert wire.aspect_from_json(aspect).valid_to is None


@pytest.mark.parametrize("size", [-1, 2**63, 1.5, "7", True, None])
def test_sizes_that_are_none(size: Any) -> None:
    assert wire.artifact_from_json({"id": URN, "size": size}).size is None


@pytest.mark.parametrize("size", [0, 5, 2**63 - 1])
def test_sizes(size: int) -> None:
    assert wire.artifact_from_json({"id": URN, "size": size}).size == size


def test_odd_items_are_left_out_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    page = wire.artifact_page_from_json({"items": [{"id": "urn:other"}, 7, {"id": URN}, None, {"id": "\ud800"}]})
    assert [item.uuid for item in page.items] == [UUID]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("page", [{}, {"items": 7}, {"items": {}}, [], None, {"items": [], "links": [
    {"rel": "next", "href": "/1/artifacts?limit=1"}]}])  # fmt: skip
def test_what_is_no_page(page: Any) -> None:
    with pytest.raises(ProtocolError):
        wire.artifact_page_from_json(page)


@pytest.mark.parametrize(
    ("links", "cursor"),
    [
        (None, None),
        ([], None),
        ([{"rel": "self", "href": "/1/artifacts?page=x"}], None),
        ([{"rel": "next", "href": ""}], None),
        ([{"rel": "next", "href": "https://h/1/artifacts?page=ab%2Fc%3D"}], "ab/c="),
        ([{"rel": "next", "href": "/1/artifacts?limit=5&page=x.y_z~-"}], "x.y_z~-"),
        ({"next": "/1/artifacts?page=q"}, "q"),
    ],
)
def test_cursors(links: Any, cursor: str | None) -> None:
    assert wire.artifact_page_from_json({"items": None, "links": links}).cursor == cursor


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[" * 200_000, b'{"a":' * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b'{"a": NaN}', b'{"a": -Infinity}',
        b"\xff\xfe", b'{"a": "\xff"}', b"[]", b"7", b"null", b"<html>", b'{"a": 1} x', b"\x00",
    ],
)  # fmt: skip
def test_json_horrors(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        jsontext.parse_object(body, what="asking")


def test_lone_surrogates_and_double_keys_are_let_through() -> None:
    assert jsontext.parse_object(b'{"a": 1, "a": "\\ud800"}', what="asking") == {"a": "\ud800"}
    assert jsontext.to_bytes({"a": "\ud800"}, what="telling") == b'{"a":"\\ud800"}'


@pytest.mark.parametrize("value", [float("nan"), object(), {1: {2}}, b"x"])
def test_what_json_cannot_carry(value: Any) -> None:
    with pytest.raises(ConfigError):
        jsontext.to_bytes(value, what="telling")
