"""`by-id/<uuid>/`: one folder per artifact, with its content, its record and its aspects.

Used by `ivcapfs.fs.tree`. A uuid that no list has shown is asked for directly, so a new artifact is here at once.
Threading as in the tree.
"""

from __future__ import annotations

from collections.abc import Iterator

from ivcapfs.catalog.interface import Catalog, Listing
from ivcapfs.catalog.names import Parts, leaf_name
from ivcapfs.catalog.schema import nanoseconds
from ivcapfs.errors import NoSuchEntry, NotAFolder, NotFound
from ivcapfs.fs.described import fields, labels
from ivcapfs.fs.nodes import FileNode, FolderNode, LinkNode, Listed, Node, TextNode, json_text
from ivcapfs.fs.reading import Fixed, Reading
from ivcapfs.models import ArtifactRecord, AspectRecord, artifact_uuid, inode_of, inode_of_text
from ivcapfs.waits import Check

FOLDER, LINK, RECORD, ASPECTS = 1, 2, 3, 4
"""Salts: what is in an artifact's folder has inode numbers of its own, made from the same uuid."""
SALTS = 8


class ByIdView:
    """`by-id/`.

    Args:
        root: the view's own node.
        world: tells this view's folders, which have other contents, from those of another moment.
    """

    def __init__(self, catalog: Catalog, root: FolderNode, world: int = 0) -> None:
        self._catalog = catalog
        self._root = root
        self._world = world * SALTS

    def node(self, parts: Parts, check: Check) -> Node:
        """See `View.node`."""
        if not parts:
            return self._root
        record = self._record(parts[0], check)
        match parts[1:]:
            case ():
                return self._folder(record)
            case ("aspects", *rest) if rest:
                return self._aspect(record, tuple(rest), check)
            case (name,):
                return self._member(record, name, check)
            case _:
                raise NoSuchEntry(f"nothing at by-id/{'/'.join(parts)}")

    def reading(self, parts: Parts, check: Check) -> Reading:
        """See `View.reading`."""
        if not parts:
            return _AllReading(self._catalog.everything(check), self._world + FOLDER)
        record = self._record(parts[0], check)
        if len(parts) == 1:
            return Fixed(self._members(record))
        if parts[1:] == ("aspects",):
            found = labels(self._catalog.aspects(record.uuid, check))
            return Fixed((f"{label}.json", _aspect_node(aspect)) for label, aspect in found.items())
        raise NotAFolder(f"by-id/{'/'.join(parts)} is no folder")

    def _record(self, name: str, check: Check) -> ArtifactRecord:
        uuid = artifact_uuid(name)
        if uuid is None:
            raise NoSuchEntry(f"neither a uuid nor the URN of an artifact: {name!r}")
        try:
            return self._catalog.record(uuid, check)
        except NotFound as exc:
            raise NoSuchEntry(f"there is no artifact {uuid}") from exc

    def _members(self, record: ArtifactRecord) -> Iterator[tuple[str, Listed]]:
        if record.is_ready:
            yield leaf_name(record), None if record.size is None else FileNode(record, record.size, self._catalog)
            yield "content", _link(record)
        yield "artifact.json", None
        yield "aspects", self._aspects_folder(record)

    def _member(self, record: ArtifactRecord, name: str, check: Check) -> Node:
        if name == "artifact.json":
            whole = self._catalog.whole_record(record.uuid, check)
            text = json_text(fields(whole)) + b"\n"
            return TextNode(text, inode_of(record.uuid, RECORD), nanoseconds(record.created_at))
        if name == "aspects":
            return self._aspects_folder(record)
        if name == "content" and record.is_ready:
            return _link(record)
        if name == leaf_name(record) and record.is_ready:
            return FileNode(record, self._catalog.size(record, check), self._catalog)
        raise NoSuchEntry(f"no {name!r} in by-id/{record.uuid}")

    def _aspect(self, record: ArtifactRecord, rest: Parts, check: Check) -> Node:
        label = rest[0].removesuffix(".json")
        if len(rest) == 1 and label != rest[0] and not label.startswith("."):
            aspect = labels(self._catalog.aspects(record.uuid, check)).get(label)
            if aspect is not None:
                return _aspect_node(aspect)
        raise NoSuchEntry(f"no aspect {'/'.join(rest)!r} of artifact {record.uuid}")

    def _folder(self, record: ArtifactRecord) -> FolderNode:
        inode = inode_of(record.uuid, self._world + FOLDER)
        return FolderNode(inode, nanoseconds(record.created_at), record, self._catalog)

    def _aspects_folder(self, record: ArtifactRecord) -> FolderNode:
        return FolderNode(inode_of(record.uuid, self._world + ASPECTS), nanoseconds(record.created_at))


class _AllReading:
    """One reading of `by-id/` itself. Belongs to one handle."""

    def __init__(self, listing: Listing, salt: int) -> None:
        self._listing = listing
        self._salt = salt

    def entries(self, after: int) -> Iterator[tuple[str, Listed, int]]:
        """See `Reading.entries`."""
        for name, child, cookie in self._listing.entries(after):
            yield name, FolderNode(inode_of(name, self._salt), child.time_ns), cookie


def _link(record: ArtifactRecord) -> LinkNode:
    return LinkNode(leaf_name(record), inode_of(record.uuid, LINK), nanoseconds(record.created_at))


def _aspect_node(aspect: AspectRecord) -> TextNode:
    text = json_text(aspect.content) + b"\n"
    return TextNode(text, inode_of_text(aspect.id), nanoseconds(aspect.valid_from))
