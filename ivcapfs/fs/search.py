"""`search/<expression>/`: the artifacts that the server finds, under their names. `search/` itself lists nothing.

Used by the tree. Holds no state; any thread may call it.
"""

from __future__ import annotations

from ivcapfs.catalog.interface import Catalog
from ivcapfs.catalog.names import Parts
from ivcapfs.catalog.search import Searches, is_question, unescaped
from ivcapfs.errors import NoSuchEntry
from ivcapfs.fs.named import NamedView, folder_inode
from ivcapfs.fs.nodes import FolderNode, Node
from ivcapfs.fs.reading import Fixed, Reading
from ivcapfs.waits import Check


class SearchView:
    """All searches; see `ivcapfs.catalog.search` for what an expression is."""

    def __init__(self, searches: Searches, catalog: Catalog, root: FolderNode) -> None:
        self._searches = searches
        self._catalog = catalog
        self._root = root

    def node(self, parts: Parts, check: Check) -> Node:
        """See `View.node`."""
        if not parts:
            return self._root
        if len(parts) > 1:
            return self._found(parts[0], check).node(parts[1:], check)
        self._searches.begun(_expression(parts[0]), check)  # else there is no such folder
        return FolderNode(folder_inode("search/" + parts[0], ()), self._root.time_ns)

    def reading(self, parts: Parts, check: Check) -> Reading:
        """See `View.reading`."""
        return self._found(parts[0], check).reading(parts[1:], check) if parts else Fixed(())

    def _found(self, component: str, check: Check) -> NamedView:
        names = self._searches.found(_expression(component), check)
        base = "search/" + component
        return NamedView(names, self._catalog, base, folder_inode(base, ()), self._root.time_ns)


def _expression(component: str) -> str:
    expression = unescaped(component)
    if not is_question(expression):
        raise NoSuchEntry(f"neither a filter nor aspect:SCHEMA: {component!r}")
    return expression
