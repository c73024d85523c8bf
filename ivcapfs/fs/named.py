"""Artifacts under their names: `artifacts/` itself, and every other folder that shows a set of them so.

Used by the tree and its views. Holds no state but the catalog's; any thread may call it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ivcapfs.catalog.interface import Catalog, FileEntry, Folder, Listing
from ivcapfs.catalog.names import Parts
from ivcapfs.fs.nodes import FileNode, FolderNode, Listed, Node
from ivcapfs.fs.reading import Reading
from ivcapfs.models import ArtifactRecord, inode_of_text
from ivcapfs.waits import Check


class Names(Protocol):
    """Artifacts under their names: a catalog, or what was gathered from one (see `ivcapfs.catalog.interface`)."""

    def root(self, check: Check) -> Folder:
        """Return the top folder."""
        ...

    def find(self, parts: Parts, check: Check) -> Folder | ArtifactRecord:
        """Return what is at a path, or raise `NoSuchEntry`."""
        ...

    def listing(self, parts: Parts, check: Check) -> Listing:
        """Begin to read a folder, or raise `NoSuchEntry` or `NotAFolder`."""
        ...


class NamedView:
    """A set of artifacts under their names.

    Args:
        names: which artifacts.
        catalog: what is known of each.
        base: the set's own path in the mount, from which the inode numbers of its folders are made.
        inode: the top folder's.
        started_ns: the time of a folder that has none, in nanoseconds since the epoch.
    """

    def __init__(self, names: Names, catalog: Catalog, base: str, inode: int, started_ns: int) -> None:
        self._names = names
        self._catalog = catalog
        self._base = base
        self._inode = inode
        self._started_ns = started_ns

    def node(self, parts: Parts, check: Check) -> Node:
        """See `ivcapfs.fs.tree.View.node`."""
        if not parts:
            return FolderNode(self._inode, self._names.root(check).time_ns or self._started_ns)
        found = self._names.find(parts, check)
        if isinstance(found, Folder):
            return FolderNode(folder_inode(self._base, parts), found.time_ns or self._started_ns)
        return FileNode(found, self._catalog.size(found, check), self._catalog)

    def reading(self, parts: Parts, check: Check) -> Reading:
        """See `ivcapfs.fs.tree.View.reading`."""
        return _NamedReading(self._base, parts, self._names.listing(parts, check), self._started_ns)


class _NamedReading:
    """One reading of a folder of artifacts. Belongs to one handle."""

    def __init__(self, base: str, parts: Parts, listing: Listing, started_ns: int) -> None:
        self._base = base
        self._parts = parts
        self._listing = listing
        self._started_ns = started_ns

    def entries(self, after: int) -> Iterator[tuple[str, Listed, int]]:
        """See `Reading.entries`."""
        for name, child, cookie in self._listing.entries(after):
            if isinstance(child, FileEntry):
                yield name, None if child.size is None else child, cookie
            else:
                inode = folder_inode(self._base, (*self._parts, name))
                yield name, FolderNode(inode, child.time_ns or self._started_ns), cookie


def folder_inode(base: str, parts: Parts) -> int:
    """Return the inode number of a folder at a path within a set."""
    return inode_of_text("/".join((base, *parts)))
