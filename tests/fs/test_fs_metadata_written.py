"""Attributes set and removed on the embedded platform: read back here at once, and by the official SDK."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ivcap_client.ivcap import IVCAP

from ivcapfs.errors import AttributesUnsupported, Invalid, NoSuchAttribute, NotAllowed, ReadOnly
from ivcapfs.fs.nodes import Node
from ivcapfs.fs.operations import split
from ivcapfs.fs.tree import Tree
from ivcapfs.fs.xattrs import ASPECT_PREFIX, ExtendedAttributes
from ivcapfs.models import COLLECTION_ITEM_SCHEMA, COLLECTION_SCHEMA
from ivcapfs.waits import never
from tests.fs.views_world import COLLECTION, ViewsWorld

SCHEMA, OTHER = "urn:test:schema:thing.1", "urn:test:schema:other.1"


class Setter:
    """setfattr(1) on paths."""

    def __init__(self, views: ViewsWorld) -> None:
        self._tree = Tree(views.index, views.views.by_name)
        self._attributes = ExtendedAttributes(views.index, views.views.aspects)

    def set(self, path: str, schema: str, value: dict[str, Any]) -> None:
        name = ASPECT_PREFIX + schema if schema else "user.ivcap.aspect"
        self.set_raw(path, name, json.dumps(value).encode())

    def set_raw(self, path: str, name: str, value: bytes) -> None:
        self._attributes.set(self._node(path), name, value, 0, never)

    def remove(self, path: str, schema: str) -> None:
        self._attributes.remove(self._node(path), ASPECT_PREFIX + schema, never)

    def _node(self, path: str) -> Node:
        return self._tree.node(split(path), never)


@pytest.fixture
def setter(views: ViewsWorld) -> Setter:
    return Setter(views)


def shown(views: ViewsWorld, path: str) -> dict[str, Any]:
    """Return the contents of the aspects that getfattr shows, without what they say of themselves."""
    found = {
        name.removeprefix(ASPECT_PREFIX): json.loads(value)
        for name, value in views.attributes(path).items()
        if name.startswith(ASPECT_PREFIX)
    }
    return {label: {key: content[key] for key in content if key[0] != "$"} for label, content in found.items()}


def test_what_is_set_here_is_shown_at_once_and_what_the_sdk_reads(
    views: ViewsWorld, setter: Setter, sdk: IVCAP
) -> None:
    urn = views.add("a.csv", b"a")
    assert shown(views, "/artifacts/a.csv") == {}
    setter.set("/artifacts/a.csv", SCHEMA, {"k": "ü", "n": [1, None, 2.5]})
    assert shown(views, "/artifacts/a.csv") == {SCHEMA: {"k": "ü", "n": [1, None, 2.5]}}
    (metadata,) = sdk.get_artifact(urn).metadata
    assert (metadata.entity, metadata.schema) == (urn, SCHEMA)
    assert metadata.content == {"$schema": SCHEMA, "$entity": urn, "k": "ü", "n": [1, None, 2.5]}
    setter.set(f"/by-id/{urn}", SCHEMA, {"k": "2"})
    assert shown(views, "/artifacts/a.csv") == {SCHEMA: {"k": "2"}}
    assert json.loads(views.cat(f"/by-id/{urn}/aspects/{SCHEMA}.json"))["k"] == "2"
    assert [each.content["k"] for each in sdk.get_artifact(urn).metadata] == ["2"]
    setter.remove("/artifacts/a.csv", SCHEMA)
    assert shown(views, "/artifacts/a.csv") == {}
    assert list(sdk.get_artifact(urn).metadata) == []
    with pytest.raises(NoSuchAttribute):
        setter.remove("/artifacts/a.csv", SCHEMA)


def test_our_aspects_are_those_that_the_sdk_writes(views: ViewsWorld, setter: Setter, sdk: IVCAP) -> None:
    ours, theirs = views.add("ours"), views.add("theirs")
    setter.set("/artifacts/ours", "", {"$schema": SCHEMA, "k": {"a": [True, 1]}})
    sdk.get_artifact(theirs).add_metadata({"$schema": SCHEMA, "k": {"a": [True, 1]}})
    own, other = (next(iter(sdk.get_artifact(urn).metadata)).content for urn in (ours, theirs))
    assert own == {**other, "$entity": ours}
    assert list(own) == list(other)


def test_what_the_sdk_added_is_replaced_and_retracted_here(views: ViewsWorld, setter: Setter, sdk: IVCAP) -> None:
    urn = views.add("a")
    artifact = sdk.get_artifact(urn)
    for n in range(3):
        artifact.add_metadata({"n": n}, schema=SCHEMA)
    artifact.add_metadata({"n": 9}, schema=OTHER)
    views.refresh()
    assert shown(views, "/artifacts/a") == {
        SCHEMA: {"n": 2}, SCHEMA + "~2": {"n": 1}, SCHEMA + "~3": {"n": 0}, OTHER: {"n": 9},
    }  # fmt: skip
    setter.set("/artifacts/a", SCHEMA, {"n": 5})
    setter.remove("/artifacts/a", SCHEMA + "~2")
    assert shown(views, "/artifacts/a") == {SCHEMA: {"n": 5}, SCHEMA + "~2": {"n": 0}, OTHER: {"n": 9}}
    setter.set("/artifacts/a", "", {"$schema": OTHER, "n": 10})
    assert sorted(each.content["n"] for each in artifact.metadata) == [0, 5, 9, 10]
    assert sdk.update_aspect(urn, {"n": 6}, schema="urn:test:schema:third.1").schema == "urn:test:schema:third.1"


def test_metadata_that_a_copy_brings_along_is_the_copys(views: ViewsWorld, setter: Setter, sdk: IVCAP) -> None:
    views.describe(views.add("a"), SCHEMA, n=1)
    urn = views.add("copy")
    setter.set("/artifacts/a", SCHEMA, {"n": 2})
    for name, value in views.attributes("/artifacts/a").items():
        if name.startswith(ASPECT_PREFIX):
            setter.set_raw("/artifacts/copy", name, value.encode())
    (metadata,) = sdk.get_artifact(urn).metadata
    assert metadata.content == {"$schema": SCHEMA, "$entity": urn, "n": 2}
    for name, value in views.attributes("/artifacts/copy").items():
        setter.set_raw("/artifacts/copy", name, value.encode())  # each to the value that it has
    with pytest.raises(AttributesUnsupported):
        setter.set_raw("/artifacts/copy", "user.ivcap.name", b"another")


def test_schemas_that_need_an_escape_or_are_cut(views: ViewsWorld, setter: Setter, sdk: IVCAP) -> None:
    urn = views.add("a")
    schemas = ["urn:x:a/b", "urn:x:@1a2b3c4d", "urn:x:%", "urn:x:%2F", "urn:x:" + "n" * 300]
    for schema in schemas:
        setter.set("/artifacts/a", "", {"$schema": schema, "n": 1})
    assert {each.schema for each in sdk.get_artifact(urn).metadata} == set(schemas)
    found = shown(views, "/artifacts/a")
    for label in found:
        value = json.loads(views.fs.getxattr("/artifacts/a", ASPECT_PREFIX + label))
        setter.set("/artifacts/a", label, {**value, "n": 2})
    assert shown(views, "/artifacts/a") == {label: {"n": 2} for label in found}
    assert {each.schema: each.content["n"] for each in sdk.list_aspects(entity=urn)} == dict.fromkeys(schemas, 2)
    for label in found:
        setter.remove("/artifacts/a", label)
    assert shown(views, "/artifacts/a") == {}


def test_a_collection_has_metadata_of_its_own(views: ViewsWorld, setter: Setter, sdk: IVCAP) -> None:
    views.collect("c", views.add("a"))
    assert shown(views, "/collections/c") == {COLLECTION_SCHEMA: {"name": "c"}}
    setter.set("/collections/c", SCHEMA, {"n": 1})
    assert shown(views, "/collections/c") == {SCHEMA: {"n": 1}, COLLECTION_SCHEMA: {"name": "c"}}
    assert [each.content["n"] for each in sdk.list_aspects(entity=COLLECTION, schema=SCHEMA)] == [1]
    setter.set("/collections/c", COLLECTION_SCHEMA, {"name": "c", "description": "all of them"})
    assert views.attributes("/collections/c")["user.ivcap.description"] == "all of them"
    assert sdk.get_collection(COLLECTION).description == "all of them"
    assert views.ls("/collections/c") == ["a"]
    for schema in (COLLECTION_SCHEMA, COLLECTION_ITEM_SCHEMA):
        with pytest.raises(AttributesUnsupported):
            setter.set("/collections/c", schema, {"name": "d"})
    with pytest.raises(NotAllowed):
        setter.remove("/collections/c", COLLECTION_SCHEMA)
    setter.remove("/collections/c", SCHEMA)
    assert list(shown(views, "/collections/c")) == [COLLECTION_SCHEMA]


def test_the_past_cannot_be_set_and_stays_as_it_was(views: ViewsWorld, setter: Setter) -> None:
    views.describe(views.add("a"), SCHEMA, n=1)
    views.collect("c")
    views.ls("/artifacts")
    moment = views.moment()
    setter.set("/artifacts/a", SCHEMA, {"n": 2})
    for path in (f"/at/{moment}/artifacts/a", f"/at/{moment}/collections/c"):
        with pytest.raises(ReadOnly):
            setter.set(path, SCHEMA, {"n": 3})
        with pytest.raises(ReadOnly):
            setter.remove(path, SCHEMA)
    assert shown(views, f"/at/{moment}/artifacts/a") == {SCHEMA: {"n": 1}}
    assert shown(views, "/artifacts/a") == {SCHEMA: {"n": 2}}


def test_what_the_server_has_no_place_for_changes_nothing(views: ViewsWorld, setter: Setter) -> None:
    views.describe(views.add("a"), SCHEMA, n=1)
    views.asked()
    for value in (b"", b"[]", b'{"a": NaN}', b'{"$schema": "urn:other"}', b'{"a": 1, "a": 2}'):
        with pytest.raises(Invalid):
            setter.set_raw("/artifacts/a", ASPECT_PREFIX + SCHEMA, value)
    assert views.asked()["aspect.list"] == 0, "nothing is asked for what cannot be done"
    assert shown(views, "/artifacts/a") == {SCHEMA: {"n": 1}}


def test_an_only_aspect_is_replaced_in_one_step(views: ViewsWorld, setter: Setter) -> None:
    first = views.describe(views.add("a"), SCHEMA, n=1)
    views.ls("/artifacts")
    views.asked()
    setter.set("/artifacts/a", SCHEMA, {"n": 2})
    assert views.asked() == {"aspect.list": 1, "aspect.update": 1}
    (standing,) = views.connection.api.iter_aspects(schema=SCHEMA)
    replaced = views.platform.store.aspects.get(standing.id)
    assert replaced is not None
    assert replaced.replaces == first
