"""What the platform has, and over it what is only here: new files, and folders made for them.

Used by `ivcapfs.fs.writing` in place of the plain tree. A new file hides an artifact of the same name, as it will own
that name; the artifact can still be opened by its @id form. Threading as in the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ivcapfs.catalog.names import Parts
from ivcapfs.errors import NoSuchEntry, NotAFolder
from ivcapfs.fs.named import folder_inode
from ivcapfs.fs.nodes import DraftNode, FolderNode, Listed, Node
from ivcapfs.fs.reading import Fixed, Reading
from ivcapfs.fs.tree import Nodes
from ivcapfs.spool.draft import Draft
from ivcapfs.spool.drafts import Drafts, Made
from ivcapfs.spool.entry import is_removed
from ivcapfs.waits import Check

LAST = 1 << 61
"""Cookies of folders that nothing else lists begin behind this one."""


class OverlaidTree:
    """See the module.

    Args:
        describe: makes the node of a new file.
    """

    def __init__(self, tree: Nodes, drafts: Drafts, describe: Callable[[Draft], DraftNode]) -> None:
        self._tree = tree
        self._drafts = drafts
        self._describe = describe

    def node(self, parts: Parts, check: Check) -> Node:
        """See `Nodes.node`."""
        match self._drafts.at(parts):
            case Draft() as draft:
                return self._describe(draft)
            case Made(is_made=True) as made:
                return _folder(parts, made)
            case Made() as made:
                return self._below_or(parts, made, check)
        return self._tree.node(parts, check)

    def reading(self, parts: Parts, check: Check) -> Reading:
        """See `Nodes.reading`."""
        within: list[tuple[str, DraftNode | FolderNode]] = []
        implied: list[tuple[str, FolderNode]] = []
        for name, found in self._drafts.within(parts):
            if is_removed(name):
                continue
            if isinstance(found, Draft):
                within.append((name, self._describe(found)))
            else:
                folder = name, _folder((*parts, name), found)
                (within if found.is_made else implied).append(folder)
        try:
            below = self._tree.reading(parts, check)
        except (NoSuchEntry, NotAFolder):
            if not isinstance(self._drafts.at(parts), Made):
                raise
            below = Fixed([])
        return _Overlaid(within, implied, below) if within or implied else below

    def _below_or(self, parts: Parts, made: Made, check: Check) -> Node:
        try:
            found = self._tree.node(parts, check)
        except (NoSuchEntry, NotAFolder):
            return _folder(parts, made)
        return found if isinstance(found, FolderNode) else _folder(parts, made)


class _Overlaid:
    """One reading of a folder: what is only here, the rest, and folders that only a new file below them makes.

    Belongs to one handle.
    """

    def __init__(self, within: list[tuple[str, DraftNode | FolderNode]], implied: list[tuple[str, FolderNode]],
                 below: Reading) -> None:  # fmt: skip
        self._within = within
        self._implied = dict(implied)
        self._below = below
        self._hidden = {name for name, _ in within}

    def entries(self, after: int) -> Iterator[tuple[str, Listed, int]]:
        """See `Reading.entries`."""
        count = len(self._within)
        for cookie, (name, node) in enumerate(self._within[after:], after + 1):
            yield name, node, cookie
        if after < LAST:
            for name, listed, cookie in self._below.entries(max(after - count, 0)):
                if name not in self._hidden:
                    self._implied.pop(name, None)
                    yield name, listed, cookie + count
        missing = list(self._implied.items())
        for cookie, (name, folder) in enumerate(missing[max(after - LAST, 0) :], max(after, LAST) + 1):
            yield name, folder, cookie


def _folder(parts: Parts, made: Made) -> FolderNode:
    return FolderNode(folder_inode(parts[0], parts[1:]), made.time_ns)
