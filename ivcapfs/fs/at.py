"""`at/<time>/`: artifacts, by-id and collections as they were. `at/` itself lists nothing.

Used by the tree. All ways to write a moment lead to the same nodes. Holds no state but the catalog's; any thread may
call it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from ivcapfs.catalog.interface import Catalog
from ivcapfs.catalog.moments import moment_text, parse_moment
from ivcapfs.catalog.names import Parts
from ivcapfs.catalog.schema import microseconds, nanoseconds
from ivcapfs.errors import NoSuchEntry
from ivcapfs.fs.byid import ByIdView
from ivcapfs.fs.collections import CollectionsView
from ivcapfs.fs.named import NamedView, folder_inode
from ivcapfs.fs.nodes import FolderNode, Node
from ivcapfs.fs.reading import Fixed, Reading
from ivcapfs.fs.tree import View
from ivcapfs.waits import Check

FURTHER = 1 << 80
"""Added to the number of a moment, so that none is 0, which stands for the present."""


class AtView:
    """The past.

    Args:
        catalogs: returns the catalog of a moment.
        collections: returns the collections of a moment, from (its catalog, their path, their node, the moment).
        present: returns the time until which there is a past.
        root: the view's own node.
    """

    def __init__(
        self,
        catalogs: Callable[[datetime], Catalog],
        collections: Callable[[Catalog, str, FolderNode, datetime], CollectionsView],
        present: Callable[[], datetime],
        root: FolderNode,
    ) -> None:
        self._catalogs = catalogs
        self._collections = collections
        self._present = present
        self._root = root

    def node(self, parts: Parts, check: Check) -> Node:
        """See `View.node`."""
        if not parts:
            return self._root
        moment = self._moment(parts[0])
        if len(parts) == 1:
            return FolderNode(folder_inode(f"at/{moment_text(moment)}", ()), nanoseconds(moment))
        return self._view(moment, parts[1]).node(parts[2:], check)

    def reading(self, parts: Parts, check: Check) -> Reading:
        """See `View.reading`."""
        if not parts:
            return Fixed(())
        moment = self._moment(parts[0])
        if len(parts) == 1:
            return Fixed((name, view.node((), check)) for name, view in self._views(moment).items())
        return self._view(moment, parts[1]).reading(parts[2:], check)

    def _moment(self, text: str) -> datetime:
        moment = parse_moment(text)
        if moment is None:
            raise NoSuchEntry(f"not a time: {text[:100]!r}; it looks like 2026-06-01 or 2026-06-01T10:00:00Z")
        if moment > self._present():
            raise NoSuchEntry(f"{moment_text(moment)} is still to come")
        return moment

    def _view(self, moment: datetime, name: str) -> View:
        try:
            return self._views(moment)[name]
        except KeyError:
            raise NoSuchEntry(f"no {name!r} below a time: there are artifacts, by-id and collections") from None

    def _views(self, moment: datetime) -> Mapping[str, View]:
        base, time_ns = f"at/{moment_text(moment)}", nanoseconds(moment)
        catalog = self._catalogs(moment)

        def root(name: str) -> FolderNode:
            return FolderNode(folder_inode(base, (name,)), time_ns)

        return {
            "artifacts": NamedView(catalog, catalog, f"{base}/artifacts", root("artifacts").inode, time_ns),
            "by-id": ByIdView(catalog, root("by-id"), microseconds(moment) + FURTHER),
            "collections": self._collections(catalog, f"{base}/collections", root("collections"), moment),
        }
