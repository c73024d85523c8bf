"""Attributes that are set, as changes of aspects: whatever is asked for is understood, or refused, without a server."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.catalog.names import decode
from ivcapfs.client.aspectedits import same_content
from ivcapfs.errors import AttributesUnsupported, FileSystemError, Invalid, NoSuchAttribute, NotAllowed
from ivcapfs.fs.aspectchange import ADDING, Action, Change, parse, parse_removal
from ivcapfs.fs.described import label_of, labels
from ivcapfs.fs.xattrs import ASPECT_PREFIX, MAX_NAME
from ivcapfs.models import (
    ARTIFACT_COLLECTION_SCHEMA,
    COLLECTION_ITEM_SCHEMA,
    COLLECTION_SCHEMA,
    AspectRecord,
)
from tests.fakes import START

SCHEMA = "urn:x:schema:note.1"
LONG = "urn:x:" + "n" * 300
CUT_IN_AN_ESCAPE = ["urn:" + "n" * count + "/" * 30 for count in range(203, 207)]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
contents = st.dictionaries(texts, values, max_size=3)
odd = ["urn:a/b", "urn:%2F", "urn:x~2", "urn:x~2~3", "urn:@0123abcd", "urn:é" + "é" * 200, LONG, "a:b"]
simple = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)
schemas = st.builds("urn:{}".format, simple) | st.sampled_from([*odd, *CUT_IN_AN_ESCAPE])


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


def aspect(schema: str, age: float = 0.0) -> AspectRecord:
    return AspectRecord(f"urn:a:{schema}:{age}", "urn:e", schema, {}, None, START - timedelta(seconds=age))


def matches(pattern: str, schema: str) -> bool:
    """Return whether the server finds a schema by a pattern."""
    return re.fullmatch(re.escape(pattern).replace("%", ".*"), schema) is not None


@given(schemas, contents)
def test_every_schema_can_be_set_by_its_label_with_its_content(schema: str, content: dict[str, Any]) -> None:
    label = label_of(schema)
    assert len((ASPECT_PREFIX + label).encode()) <= MAX_NAME
    for value in ({**content, "$schema": schema}, *([] if decode([label]) != schema else [content])):
        change = parse(ASPECT_PREFIX + label, text(value))
        assert (change.action, change.label, change.content) == (Action.SET, label, value)
        assert change.names_schema == ("$schema" in value)
        assert change.schema == schema or ("~" in schema and value is content)


@given(st.lists(schemas, max_size=6))
def test_the_label_of_every_aspect_that_stands_asks_for_it(listed: list[str]) -> None:
    standing = labels([aspect(schema, age) for age, schema in enumerate(listed)])
    for label, each in standing.items():
        name = ASPECT_PREFIX + label
        for change in (parse(name, text({"$schema": each.schema})), parse_removal(name)):
            assert matches(change.pattern, each.schema)
            found = labels(one for one in standing.values() if matches(change.pattern, one.schema))
            assert found[label] is each, "what else stands is not needed to know which one the label means"


@given(schemas, contents)
def test_the_content_alone_says_the_schema_of_one_that_is_added(schema: str, content: dict[str, Any]) -> None:
    value = {**content, "$schema": schema}
    assert parse(ADDING, text(value)) == Change(Action.ADD, "", schema, value)


@given(schemas, contents)
def test_a_change_comes_back_from_the_journal(schema: str, content: dict[str, Any]) -> None:
    name, value = ASPECT_PREFIX + label_of(schema), text({**content, "$schema": schema})
    for change in (parse(name, value), parse(ADDING, value), parse_removal(name)):
        assert Change.from_json(json.loads(json.dumps(change.to_json()))) == change


@given(values)
def test_what_is_no_change_is_refused_in_the_journal(value: Any) -> None:
    with pytest.raises(Invalid):
        Change.from_json(value)


@pytest.mark.parametrize(
    "change",
    [
        {"action": "set", "label": "urn:x", "schema": None, "content": None},
        {"action": "remove", "label": "urn:x", "schema": None, "content": {}},
        {"action": "add", "label": "", "schema": None, "content": {}},
        {"action": "eat", "label": "urn:x", "schema": "urn:x", "content": {}},
        {"action": "set", "label": 5, "schema": "urn:x", "content": {}},
    ],
)
def test_half_a_change_is_refused_in_the_journal(change: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        Change.from_json(change)


@given(st.text(max_size=40), st.binary(max_size=40) | contents.map(text))
def test_whatever_is_set_is_understood_or_refused(name: str, value: bytes) -> None:
    for each in (name, "user." + name, "user.ivcap." + name, ASPECT_PREFIX + name, ASPECT_PREFIX + "urn:" + name):
        for attempt in (lambda each=each: parse(each, value), lambda each=each: parse_removal(each)):  # type: ignore[misc]
            try:
                attempt()
            except FileSystemError:
                continue


def test_a_number_means_a_further_aspect_unless_the_content_says_otherwise() -> None:
    numbered = ASPECT_PREFIX + "urn:x~2"
    assert parse(numbered, b"{}").schema == "urn:x"
    assert parse(numbered, text({"$schema": "urn:x"})).schema == "urn:x"
    assert parse(numbered, text({"$schema": "urn:x~2"})).schema == "urn:x~2"
    assert parse(ASPECT_PREFIX + "urn:x~1", b"{}").schema == "urn:x~1"
    assert parse(ASPECT_PREFIX + "urn:x~02", b"{}").schema == "urn:x~02"


def test_a_schema_that_is_too_long_for_a_name_is_told_by_the_content() -> None:
    name = ASPECT_PREFIX + label_of(LONG)
    assert parse(name, text({"$schema": LONG})).schema == LONG
    assert parse_removal(name).schema is None
    for content in ({}, {"$schema": LONG + "n"}):
        with pytest.raises(Invalid):
            parse(name, text(content))


@pytest.mark.parametrize(
    "value",
    [
        b"", b"null", b"5", b'"text"', b"[{}]", b"{", b"{} {}", b"\xff", b"\xef\xbb\xbf{}", b"{'a': 1}",
        b'{"a": NaN}', b'{"a": Infinity}', b'{"a": -Infinity}', b'{"a": 1e999}', b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": "\\ud800"}', b'{"\\udfff": 1}', b'{"a": ["\\ud83d", "\\ude00"]}', b'{"a": "\xed\xa0\x80"}',
        b'{"a": 1, "a": 1}', b'{"b": [{"a": 1, "c": 2, "a": 3}]}',
        b'{"a": ' * 101 + b"1" + b"}" * 101, b'{"a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_object_that_every_parser_reads_alike_is_refused(value: bytes) -> None:
    with pytest.raises(Invalid):
        parse(ASPECT_PREFIX + SCHEMA, value)


@pytest.mark.parametrize(
    "value", [b" {}\n", b'{"a": "\\ud83d\\ude00"}', b'{"a": "\xf0\x9f\x98\x80"}', b'{"a": ' * 99 + b"1" + b"}" * 99]
)
def test_what_every_parser_reads_alike_is_taken(value: bytes) -> None:
    assert parse(ASPECT_PREFIX + SCHEMA, value).content == json.loads(value)


def test_only_what_this_mount_escapes_is_unescaped() -> None:
    assert parse(ASPECT_PREFIX + "urn:x%41%2F", b"{}").schema == "urn:x%41/"


@pytest.mark.parametrize(
    "label", ["", "note", "~2", "urn:", "urn: x", "urn:x\n", "urn:\udcff", "urn:x/y", "urn:@0abcdef1"]
)
def test_a_name_that_is_no_schemas_is_refused(label: str) -> None:
    with pytest.raises(Invalid):
        parse(ASPECT_PREFIX + label, b"{}")
    with pytest.raises(Invalid):
        parse_removal(ASPECT_PREFIX + label)


@pytest.mark.parametrize("schema", [None, 5, "", "note", ["urn:x"], "urn:a b", "urn:other"])
def test_a_schema_in_the_content_that_is_none_or_contradicts_the_name_is_refused(schema: Any) -> None:
    with pytest.raises(Invalid):
        parse(ASPECT_PREFIX + SCHEMA, text({"$schema": schema}))


@pytest.mark.parametrize("schema", [None, 5, "", "note", "urn:a b"])
def test_what_is_added_needs_a_schema(schema: Any) -> None:
    with pytest.raises(Invalid):
        parse(ADDING, text({"$schema": schema}))
    with pytest.raises(Invalid):
        parse(ADDING, b"{}")


@pytest.mark.parametrize(
    ("name", "removed"),
    [
        ("user.mime_type", NotAllowed), ("user.ivcap.id", NotAllowed), ("user.ivcap.other", NotAllowed),
        ("user.other", NoSuchAttribute), ("user.ivcap.aspect", NoSuchAttribute), ("user.ivcap", NoSuchAttribute),
        ("security.selinux", AttributesUnsupported), ("trusted.x", AttributesUnsupported),
        ("system.posix_acl_access", AttributesUnsupported),
    ],
)  # fmt: skip
def test_what_the_platform_sets_and_what_is_not_here_can_neither_be_set_nor_removed(
    name: str, removed: type[Exception]
) -> None:
    if name != ADDING:
        with pytest.raises(AttributesUnsupported):
            parse(name, b"{}")
    with pytest.raises(removed):
        parse_removal(name)


@pytest.mark.parametrize("schema", [COLLECTION_SCHEMA, COLLECTION_ITEM_SCHEMA, ARTIFACT_COLLECTION_SCHEMA])
def test_collections_are_not_made_filled_or_taken_away_by_attributes(schema: str) -> None:
    name = ASPECT_PREFIX + schema
    for attempt, content in (
        (name, {}), (name + "~2", {"name": "c"}), (ADDING, {"$schema": schema, "name": "c"}), (name, {"name": ""}),
    ):  # fmt: skip
        with pytest.raises(AttributesUnsupported):
            parse(attempt, text(content))
    for attempt in (name, name + "~2"):
        with pytest.raises(NotAllowed):
            parse_removal(attempt)
    if schema == COLLECTION_SCHEMA:
        assert parse(name, text({"name": "c", "description": "all"})).describes_collection
    assert not parse(ASPECT_PREFIX + SCHEMA, b"{}").describes_collection


@given(contents, contents)
def test_contents_are_the_same_if_their_text_is(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert same_content(one, json.loads(text(one)))
    if same_content(one, other) and not any(isinstance(value, float) for value in (*one.values(), *other.values())):
        assert one == other
    assert same_content({**one, "$schema": "a", "$entity": "b"}, {"$schema": "c", **one}) or "$schema" in one


@pytest.mark.parametrize(("one", "other"), [(1, True), (0, False), ("1", 1), ([1], [True]), ([1], [1, 2]), ({}, [])])
def test_contents_that_are_alike_only_to_python_are_not_the_same(one: Any, other: Any) -> None:
    assert not same_content({"a": one}, {"a": other})
    assert not same_content({"a": one}, {})
    assert same_content({"a": 1.0}, {"a": 1})
