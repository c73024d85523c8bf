"""Paths -> nodes: one view per top folder.

Used by the operations. Holds no state but the catalog's; any thread may call it. Every method that may have to ask the
server takes the caller's `check` (see `ivcapfs.waits`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

from ivcapfs.catalog.interface import Catalog, FileEntry, Folder, Listing
from ivcapfs.catalog.names import Parts
from ivcapfs.errors import NoSuchEntry
from ivcapfs.fs.byid import ByIdView
from ivcapfs.fs.nodes import FileNode, FolderNode, Listed, Node
from ivcapfs.fs.reading import Fixed, Reading
from ivcapfs.models import inode_of_text
from ivcapfs.waits import Check

ROOT_INODE = 1
ARTIFACTS_INODE = 2
BY_ID_INODE = 3


class View(Protocol):
    """What is below one top folder."""

    def node(self, parts: Parts, check: Check) -> Node:
        """Return what is at a path below the view.

        Raises:
            NoSuchEntry: there is nothing.
        """
        ...

    def reading(self, parts: Parts, check: Check) -> Reading:
        """Begin to read a folder below the view.

        Raises:
            NoSuchEntry, NotAFolder: there is no such folder.
        """
        ...


class ArtifactsView:
    """`artifacts/`: every ready artifact under its name."""

    def __init__(self, catalog: Catalog, started_ns: int) -> None:
        self._catalog = catalog
        self._started_ns = started_ns

    def node(self, parts: Parts, check: Check) -> Node:
        """See `View.node`."""
        if not parts:
            return FolderNode(ARTIFACTS_INODE, self._time(self._catalog.root()))
        found = self._catalog.find(parts, check)
        if isinstance(found, Folder):
            return FolderNode(_inode(parts), self._time(found))
        return FileNode(found, self._catalog.size(found, check))

    def reading(self, parts: Parts, check: Check) -> Reading:
        """See `View.reading`."""
        return _ArtifactsReading(parts, self._catalog.listing(parts, check), self._started_ns)

    def _time(self, folder: Folder) -> int:
        return folder.time_ns or self._started_ns


class _ArtifactsReading:
    """One reading of a folder below `artifacts/`. Belongs to one handle."""

    def __init__(self, parts: Parts, listing: Listing, started_ns: int) -> None:
        self._parts = parts
        self._listing = listing
        self._started_ns = started_ns

    def entries(self, after: int) -> Iterator[tuple[str, Listed, int]]:
        """See `Reading.entries`."""
        for name, child, cookie in self._listing.entries(after):
            if isinstance(child, FileEntry):
                yield name, None if child.size is None else child, cookie
            else:
                yield name, FolderNode(_inode((*self._parts, name)), child.time_ns or self._started_ns), cookie


class Tree:
    """The whole mount.

    Args:
        catalog: what exists.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._started_ns = time.time_ns()
        self._views: dict[str, View] = {
            "artifacts": ArtifactsView(catalog, self._started_ns),
            "by-id": ByIdView(catalog, FolderNode(BY_ID_INODE, self._started_ns)),
        }

    def node(self, parts: Parts, check: Check) -> Node:
        """Return what is at a path.

        Raises:
            NoSuchEntry: there is nothing.
        """
        if not parts:
            return FolderNode(ROOT_INODE, self._started_ns)
        return self._view(parts[0]).node(parts[1:], check)

    def reading(self, parts: Parts, check: Check) -> Reading:
        """Begin to read a folder; `.` and `..` are not in it.

        Raises:
            NoSuchEntry, NotAFolder: there is no such folder.
        """
        if not parts:
            return Fixed((name, view.node((), check)) for name, view in self._views.items())
        return self._view(parts[0]).reading(parts[1:], check)

    def _view(self, name: str) -> View:
        try:
            return self._views[name]
        except KeyError:
            raise NoSuchEntry(f"no such folder: {name!r}") from None


def _inode(parts: Parts) -> int:
    return inode_of_text("artifacts/" + "/".join(parts))
