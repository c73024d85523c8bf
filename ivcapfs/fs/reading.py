"""One reading of a folder, from opendir(3) to closedir(3): entries with cookies, so that it can be left and taken up.

Used by the tree and its views, which make them, and by the operations. A reading belongs to one handle, which the
kernel reads with one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from ivcapfs.fs.nodes import Listed


class Reading(Protocol):
    """What was in a folder when the reading of it began."""

    def entries(self, after: int) -> Iterator[tuple[str, Listed, int]]:
        """Iterate (name, what it is, cookie) behind a cookie; 0: all. Cookies only grow, and none is 0."""
        ...


class Fixed:
    """The reading of a small folder, held in memory."""

    def __init__(self, entries: Iterable[tuple[str, Listed]]) -> None:
        self._entries = list(entries)

    def entries(self, after: int) -> Iterator[tuple[str, Listed, int]]:
        """See `Reading.entries`."""
        for cookie, (name, node) in enumerate(self._entries[after:], after + 1):
            yield name, node, cookie
