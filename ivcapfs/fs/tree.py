"""Paths -> nodes: one view per top folder.

Used by the operations. Holds no state but the catalog's; any thread may call it. Every method that may have to ask the
server takes the caller's `check` (see `ivcapfs.waits`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

from ivcapfs.catalog.interface import Catalog
from ivcapfs.catalog.names import Parts
from ivcapfs.catalog.namespace import EPOCH, Folder
from ivcapfs.errors import NoSuchEntry, NotAFolder
from ivcapfs.fs.byid import ByIdView
from ivcapfs.fs.nodes import FileNode, FolderNode, Node, time_ns
from ivcapfs.models import ArtifactRecord, inode_of_text
from ivcapfs.waits import Check

ROOT_INODE = 1
ARTIFACTS_INODE = 2
BY_ID_INODE = 3


Entry = tuple[str, Node | None]
"""A name, and what it is; None where its size is not known without asking: stat(2) will ask."""


class View(Protocol):
    """What is below one top folder."""

    def node(self, parts: Parts, check: Check) -> Node:
        """Return what is at a path below the view.

        Raises:
            NoSuchEntry: there is nothing.
        """
        ...

    def entries(self, parts: Parts, check: Check) -> Iterator[Entry]:
        """List a folder below the view.

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
            return FolderNode(ARTIFACTS_INODE, self._time(self._catalog.known().root))
        found = self._catalog.find(parts, check)
        if isinstance(found, Folder):
            return FolderNode(_inode(parts), self._time(found))
        return FileNode(found, self._catalog.size(found, check))

    def entries(self, parts: Parts, check: Check) -> Iterator[Entry]:
        """See `View.entries`."""
        folder = self._catalog.namespace(check).find(parts)
        if folder is None:
            raise NoSuchEntry(f"no folder artifacts/{'/'.join(parts)}")
        if not isinstance(folder, Folder):
            raise NotAFolder(f"artifacts/{'/'.join(parts)} is a file")
        return ((name, self._child((*parts, name), child)) for name, child in folder.children.items())

    def _child(self, parts: Parts, child: Folder | ArtifactRecord) -> Node | None:
        if isinstance(child, Folder):
            return FolderNode(_inode(parts), self._time(child))
        return None if child.size is None else FileNode(child, child.size)

    def _time(self, folder: Folder) -> int:
        return self._started_ns if folder.newest == EPOCH else time_ns(folder.newest)


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

    def entries(self, parts: Parts, check: Check) -> Iterator[Entry]:
        """List a folder, without `.` and `..`.

        Raises:
            NoSuchEntry, NotAFolder: there is no such folder.
        """
        if not parts:
            return ((name, view.node((), check)) for name, view in self._views.items())
        return self._view(parts[0]).entries(parts[1:], check)

    def _view(self, name: str) -> View:
        try:
            return self._views[name]
        except KeyError:
            raise NoSuchEntry(f"no such folder: {name!r}") from None


def _inode(parts: Parts) -> int:
    return inode_of_text("artifacts/" + "/".join(parts))
