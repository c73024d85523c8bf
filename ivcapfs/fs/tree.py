"""Paths -> nodes: one view per top folder.

Used by the operations. Holds no state but the catalog's; any thread may call it. Every method that may have to ask the
server takes the caller's `check` (see `ivcapfs.waits`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from ivcapfs.catalog.interface import Catalog
from ivcapfs.catalog.names import Parts
from ivcapfs.errors import NoSuchEntry
from ivcapfs.fs.byid import ByIdView
from ivcapfs.fs.named import NamedView
from ivcapfs.fs.nodes import FolderNode, Node
from ivcapfs.fs.reading import Fixed, Reading
from ivcapfs.waits import Check

ROOT_INODE = 1
ARTIFACTS_INODE = 2
BY_ID_INODE = 3


class Nodes(Protocol):
    """What there is: below one top folder (a `View`), or in the whole mount."""

    def node(self, parts: Parts, check: Check) -> Node:
        """Return what is at a path.

        Raises:
            NoSuchEntry: there is nothing.
        """
        ...

    def reading(self, parts: Parts, check: Check) -> Reading:
        """Begin to read a folder; `.` and `..` are not in it.

        Raises:
            NoSuchEntry, NotAFolder: there is no such folder.
        """
        ...


View = Nodes


class Tree:
    """The whole mount.

    Args:
        catalog: what exists.
        views: further top folders; those whose names begin with ``.`` are not listed.
    """

    def __init__(self, catalog: Catalog, views: Mapping[str, View]) -> None:
        self._started_ns = time.time_ns()
        self._views: dict[str, View] = {
            "artifacts": NamedView(catalog, catalog, "artifacts", ARTIFACTS_INODE, self._started_ns),
            "by-id": ByIdView(catalog, FolderNode(BY_ID_INODE, self._started_ns)),
            **views,
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
            shown = {name: view for name, view in self._views.items() if not name.startswith(".")}
            return Fixed((name, view.node((), check)) for name, view in shown.items())
        return self._view(parts[0]).reading(parts[1:], check)

    def _view(self, name: str) -> View:
        try:
            return self._views[name]
        except KeyError:
            raise NoSuchEntry(f"no such folder: {name!r}") from None
