"""Extended attributes: what a record and its aspects say, within the bounds of Linux, with no request too many."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from ivcapfs.errors import AttributesUnsupported, AttributeTooLarge, NoSuchAttribute, ReadOnly
from ivcapfs.fs.nodes import FileNode, FolderNode, LinkNode, Node, TextNode
from ivcapfs.fs.xattrs import MAX_LIST, PROBE, ExtendedAttributes
from ivcapfs.models import ArtifactRecord
from ivcapfs.waits import never
from tests.fakes import START, MemoryCatalog, artifact, aspect

LISTED = ["user.mime_type", "user.ivcap.id", "user.ivcap.name", "user.ivcap.status", "user.ivcap.size",
          "user.ivcap.created-at"]  # fmt: skip
WHOLE = ["user.ivcap.etag", "user.ivcap.policy", "user.ivcap.account", "user.ivcap.last-modified-at"]


class World:
    """One artifact with everything, and its attributes."""

    def __init__(self) -> None:
        self.catalog = MemoryCatalog()
        self.record = artifact("a.csv", size=5, mime_type="text/csv")
        self.catalog.add(self.record)
        self.catalog.whole[self.record.uuid] = replace(
            self.record, etag="e1", policy="urn:p", account="urn:a", last_modified_at=START
        )
        self.attributes = ExtendedAttributes(self.catalog)

    def node(self, record: ArtifactRecord | None = None) -> Node:
        return FileNode(record or self.record, 5)

    def value(self, name: str, record: ArtifactRecord | None = None) -> bytes:
        return self.attributes.value(self.node(record), name, never)

    def names(self, room: int = 0, record: ArtifactRecord | None = None) -> list[str]:
        return self.attributes.names(self.node(record), room, never)

    def describe(self, schema: str, content: object, age: float = 0) -> None:
        self.catalog.describe(aspect(self.record, schema, content, age=age))


@pytest.fixture
def world() -> World:
    return World()


def test_every_field_of_the_record_is_an_attribute(world: World) -> None:
    assert {name: world.value(name).decode() for name in world.names()} == {
        "user.mime_type": "text/csv",
        "user.ivcap.id": world.record.urn,
        "user.ivcap.name": "a.csv",
        "user.ivcap.status": "ready",
        "user.ivcap.size": "5",
        "user.ivcap.created-at": "2026-06-01T10:00:00Z",
        "user.ivcap.etag": "e1",
        "user.ivcap.policy": "urn:p",
        "user.ivcap.account": "urn:a",
        "user.ivcap.last-modified-at": "2026-06-01T10:00:00Z",
    }


def test_what_a_list_item_tells_needs_no_request(world: World) -> None:
    for name in LISTED:
        assert world.value(name)
    assert world.catalog.requests == []


@pytest.mark.parametrize("name", WHOLE)
def test_what_only_the_whole_record_tells_is_asked_for(world: World, name: str) -> None:
    assert world.value(name)
    assert world.catalog.requests == [("record", world.record.uuid)]


def test_everything_that_is_listed_can_be_read_though_a_list_item_lacks_it(world: World) -> None:
    bare = replace(world.record, name=None, size=None, mime_type=None)
    world.catalog.add(bare)
    names = world.names(record=bare)
    assert set(names) == {*LISTED, *WHOLE}
    for name in names:
        assert world.value(name, bare)


@pytest.mark.parametrize(
    "name", ["user.none", "user.ivcap.none", "user.etag", "user.size", "user.", "user.ivcap.", "user.ivcap.mime-type"]
)
def test_an_unknown_attribute_is_no_attribute_and_no_request(world: World, name: str) -> None:
    with pytest.raises(NoSuchAttribute):
        world.value(name)
    assert world.catalog.requests == []


@pytest.mark.parametrize(
    "name", ["security.selinux", "security.capability", "system.posix_acl_access", "trusted.x", "user", "USER.x", ""]
)
def test_other_namespaces_are_unsupported_without_any_request(world: World, name: str) -> None:
    with pytest.raises(AttributesUnsupported):
        world.value(name)
    assert world.catalog.requests == []


def test_what_the_record_does_not_have_is_no_attribute(world: World) -> None:
    world.catalog.whole.clear()
    with pytest.raises(NoSuchAttribute):
        world.value("user.ivcap.etag")
    assert set(world.names()) == set(LISTED)


def test_a_name_that_is_no_text_can_still_be_read(world: World) -> None:
    assert world.value("user.ivcap.name", replace(world.record, name="a\ud800\0b")) == b"a\\ud800\0b"


# -- aspects -----------------------------------------------------------------------------------------------------


def test_aspects_are_attributes_with_their_content_as_json(world: World) -> None:
    world.describe("urn:s:1", {"k": "é", "n": [1, None]})
    assert "user.ivcap.aspect.urn:s:1" in world.names()
    assert json.loads(world.value("user.ivcap.aspect.urn:s:1")) == {"k": "é", "n": [1, None]}
    assert b"\n" not in world.value("user.ivcap.aspect.urn:s:1")


def test_several_aspects_of_one_schema_are_numbered_newest_first(world: World) -> None:
    for age, content in enumerate(["newest", "second", "third"]):
        world.describe("urn:s", content, age)
    world.describe("urn:s~2", "a schema that looks like a number")
    prefix = "user.ivcap.aspect."
    named = [name for name in world.names() if name.startswith(prefix)]
    assert {name.removeprefix(prefix): json.loads(world.value(name)) for name in named} == {
        "urn:s": "newest",
        "urn:s~2": "a schema that looks like a number",
        "urn:s~3": "second",
        "urn:s~4": "third",
    }


def test_an_aspect_that_is_not_there_is_no_attribute(world: World) -> None:
    with pytest.raises(NoSuchAttribute):
        world.value("user.ivcap.aspect.urn:none")


def test_one_big_aspect_is_left_out_of_the_list_and_hides_no_other(world: World) -> None:
    world.describe("urn:a", 1)
    world.describe("urn:big", "x" * 100 * 1024)
    world.describe("urn:z", 2)
    assert [name for name in world.names() if "aspect" in name] == [
        "user.ivcap.aspect.urn:a",
        "user.ivcap.aspect.urn:z",
    ]
    with pytest.raises(AttributeTooLarge):
        world.value("user.ivcap.aspect.urn:big")


def test_exactly_64_kib_is_an_attribute_and_one_byte_more_is_not(world: World) -> None:
    world.describe("urn:fits", "x" * (64 * 1024 - 2))
    world.describe("urn:over", "x" * (64 * 1024 - 1))
    assert len(world.value("user.ivcap.aspect.urn:fits")) == 64 * 1024
    assert [name for name in world.names() if "aspect" in name] == ["user.ivcap.aspect.urn:fits"]


def test_long_schema_names_are_cut_and_stay_apart(world: World) -> None:
    for number in range(3):
        world.describe("urn:" + "é" * 300 + str(number), number)
        world.describe("urn:" + "é" * 300 + str(number), number + 10, age=5)
    named = [name for name in world.names() if "aspect" in name]
    assert sorted(json.loads(world.value(name)) for name in named) == [0, 1, 2, 10, 11, 12]
    assert max(len(name.encode()) for name in named) <= 255


@pytest.mark.parametrize("schema", ["a/b", "..", "", "a\0b", "\ud800", "x" * 5000, "@12345678"])
def test_any_schema_gives_a_name_that_linux_takes(world: World, schema: str) -> None:
    world.describe(schema, 1)
    (name,) = (name for name in world.names() if "aspect" in name)
    assert len(name.encode()) <= 255 and "\0" not in name and "/" not in name
    assert world.value(name) == b"1"


# -- the list ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [1, 30, 152, PROBE - 1])
def test_a_probe_with_little_room_makes_no_request_and_gets_what_fits(world: World, room: int) -> None:
    world.describe("urn:s", 1)
    names = world.names(room)
    assert names == LISTED[: len(names)]
    assert sum(len(name) + 1 for name in names) <= room
    assert world.catalog.requests == []


@pytest.mark.parametrize("room", [0, PROBE, 65536])
def test_a_list_that_is_asked_for_is_whole(world: World, room: int) -> None:
    world.describe("urn:s", 1)
    assert world.names(room) == [*LISTED, *WHOLE, "user.ivcap.aspect.urn:s"]


def test_a_probe_gets_the_whole_list_when_it_is_known_anyway(world: World) -> None:
    world.describe("urn:s", 1)
    world.catalog.is_detailed = True
    assert "user.ivcap.aspect.urn:s" in world.names(100)
    assert world.catalog.requests == []


def test_a_list_over_64_kib_is_cut_at_a_whole_name(world: World) -> None:
    for number in range(1000):
        world.describe(f"urn:{number:04}:" + "s" * 150, number)
    names = world.names()
    assert 60_000 < sum(len(name) + 1 for name in names) <= MAX_LIST
    assert names[:10] == [*LISTED, *WHOLE]


@pytest.mark.parametrize("node", [FolderNode(2, 0), TextNode(b"{}", 5, 0), LinkNode("a", 5, 0)])
def test_what_is_no_artifact_has_no_attributes_and_needs_no_request(world: World, node: Node) -> None:
    for room in (0, 100, 65536):
        assert world.attributes.names(node, room, never) == []
    with pytest.raises(NoSuchAttribute):
        world.attributes.value(node, "user.ivcap.id", never)
    with pytest.raises(AttributesUnsupported):
        world.attributes.value(node, os.fsdecode(b"security.\xff"), never)
    assert world.catalog.requests == []


def test_the_folder_of_an_artifact_has_its_attributes(world: World) -> None:
    folder = FolderNode(5, 0, world.record)
    assert world.attributes.value(folder, "user.ivcap.id", never) == world.record.urn.encode()
    assert world.attributes.names(folder, 0, never) == world.names()


class Noted:
    """A writer that notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    def set(self, urn: str, name: str, value: bytes, flags: int, check: object) -> None:
        self.asked.append((urn, name, value, flags))

    def remove(self, urn: str, name: str, check: object) -> None:
        self.asked.append((urn, name))


def test_aspects_are_set_and_removed_by_the_urn_of_what_has_them() -> None:
    world, writer = World(), Noted()
    attributes, name = ExtendedAttributes(world.catalog, writer), "user.ivcap.aspect.urn:x"
    for node in (world.node(), FolderNode(5, 5, world.record), FileNode(world.record, 5, world.catalog)):
        attributes.set(node, name, b"{}", os.XATTR_CREATE, never)
        attributes.remove(node, name, never)
    assert writer.asked == [(world.record.urn, name, b"{}", os.XATTR_CREATE), (world.record.urn, name)] * 3


def test_what_the_platform_sets_can_be_set_to_the_value_that_it_has_alone() -> None:
    world, writer = World(), Noted()
    attributes = ExtendedAttributes(world.catalog, writer)
    for name in (*LISTED, *WHOLE):
        value = world.value(name)
        attributes.set(world.node(), name, value, 0, never)
        with pytest.raises(AttributesUnsupported):
            attributes.set(world.node(), name, value + b"!", 0, never)
    assert writer.asked == []


def test_without_a_writer_below_the_past_and_on_what_has_none_nothing_is_set() -> None:
    world, writer = World(), Noted()
    past = FileNode(world.record, 5, MemoryCatalog())
    cases: list[tuple[ExtendedAttributes, Node, str, type[Exception]]] = [
        (ExtendedAttributes(world.catalog), world.node(), "user.ivcap.aspect.urn:x", ReadOnly),
        (ExtendedAttributes(world.catalog, writer), past, "user.ivcap.aspect.urn:x", ReadOnly),
        (ExtendedAttributes(world.catalog, writer), FolderNode(5, 5), "user.ivcap.aspect.urn:x", AttributesUnsupported),
        (ExtendedAttributes(world.catalog, writer), TextNode(b"", 5, 5), "user.x", AttributesUnsupported),
        (ExtendedAttributes(world.catalog, writer), world.node(), "security.selinux", AttributesUnsupported),
    ]
    for attributes, node, name, error in cases:
        with pytest.raises(error):
            attributes.set(node, name, b"{}", 0, never)
        with pytest.raises(error):
            attributes.remove(node, name, never)
    assert writer.asked == []
