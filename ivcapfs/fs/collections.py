"""`collections/<name>/`: the members of each collection under their names, and itself as the folder's attributes.

Used by the tree, and below `at/<time>/` for a moment of the past. Holds no state; any thread may call it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from ivcapfs.catalog.collections import Collection, Collections, time_ns
from ivcapfs.catalog.interface import Catalog, FileEntry, Folder, Listing
from ivcapfs.catalog.names import Parts
from ivcapfs.fs.described import timestamp
from ivcapfs.fs.named import NamedView, folder_inode
from ivcapfs.fs.nodes import FolderNode, Listed, Node
from ivcapfs.fs.reading import Reading
from ivcapfs.fs.xattrs import PREFIX, attribute
from ivcapfs.models import AspectRecord, uuid_text
from ivcapfs.waits import Check


class CollectionsView:
    """All collections.

    Args:
        catalog: what is known of each artifact.
        base: the view's own path in the mount.
        root: the view's own node.
        moment: the past that is shown; None: the present.
    """

    def __init__(
        self, collections: Collections, catalog: Catalog, base: str, root: FolderNode, moment: datetime | None = None
    ) -> None:
        self._collections = collections
        self._catalog = catalog
        self._base = base
        self._root = root
        self._moment = moment

    def node(self, parts: Parts, check: Check) -> Node:
        """See `View.node`."""
        if not parts:
            return self._root
        found, rest = self._collections.find(parts, self._moment, check)
        if isinstance(found, Folder):
            return FolderNode(folder_inode(self._base, parts), found.time_ns or self._root.time_ns)
        if rest:
            return self._members(found, check).node(rest, check)
        described = _Collection(self._collections, found, self._moment)
        return FolderNode(self._inode(found.uuid), time_ns(found), described=described)

    def reading(self, parts: Parts, check: Check) -> Reading:
        """See `View.reading`."""
        if parts:
            found, rest = self._collections.find(parts, self._moment, check)
            if isinstance(found, Collection):
                return self._members(found, check).reading(rest, check)
        return _Reading(self, parts, self._collections.listing(parts, self._moment, check))

    def entry(self, parts: Parts, child: Folder | FileEntry) -> FolderNode:
        """Return a folder that is listed: of collections, or the one that an entry like an artifact's stands for."""
        if isinstance(child, Folder):
            return FolderNode(folder_inode(self._base, parts), child.time_ns or self._root.time_ns)
        return FolderNode(self._inode(uuid_text(child.uuid)), child.time_ns)

    def _members(self, collection: Collection, check: Check) -> NamedView:
        contents = self._collections.contents(collection, self._moment, check)
        base, started_ns = f"{self._base}/{collection.uuid}", time_ns(collection)
        return NamedView(contents.members, self._catalog, base, self._inode(collection.uuid), started_ns)

    def _inode(self, uuid: str) -> int:
        """Return the inode number of a collection's folder: the same whatever it is called."""
        return folder_inode(self._base, ("", uuid))


class _Reading:
    """One reading of a folder of collections. Belongs to one handle."""

    def __init__(self, view: CollectionsView, parts: Parts, listing: Listing) -> None:
        self._view = view
        self._parts = parts
        self._listing = listing

    def entries(self, after: int) -> Iterator[tuple[str, Listed, int]]:
        """See `Reading.entries`."""
        for name, child, cookie in self._listing.entries(after):
            yield name, self._view.entry((*self._parts, name), child), cookie


class _Collection:
    """A collection's attributes; see `ivcapfs.fs.nodes.Described`."""

    names = frozenset(PREFIX + name for name in ("id", "name", "description", "valid-from", "members"))

    def __init__(self, collections: Collections, collection: Collection, moment: datetime | None) -> None:
        self._collections = collections
        self._collection = collection
        self._moment = moment
        self.urn = collection.urn if moment is None else None

    def at_hand(self) -> dict[str, bytes]:
        told = {
            "id": self._collection.urn,
            "name": self._collection.name,
            "description": self._collection.description,
            "valid-from": timestamp(self._collection.valid_from),
        }
        return {PREFIX + name: attribute(text) for name, text in told.items() if text is not None}

    def known(self) -> None:
        return

    def everything(self, check: Check) -> tuple[dict[str, bytes], tuple[AspectRecord, ...]]:
        return self.fields(check), self.aspects(check)

    def fields(self, check: Check) -> dict[str, bytes]:
        count = self._collections.contents(self._collection, self._moment, check).count
        return {**self.at_hand(), PREFIX + "members": attribute(str(count))}

    def aspects(self, check: Check) -> tuple[AspectRecord, ...]:
        return self._collections.contents(self._collection, self._moment, check).aspects
