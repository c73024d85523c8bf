"""A table of one fixed size that remembers a number for each of many texts: a direct-mapped cache.

Used by `ivcapfs.fs.bindings`, which hears of every path that is looked up. What it takes does not grow with their
number, 16 bytes a place: a text whose place another one has taken since is forgotten.

Threading: none of its own; whoever uses it has a lock.
"""

from __future__ import annotations

import mmap

_PAIR = 16
"""Bytes: the text's hash, and its number."""


class DirectMapped:
    """See the module. Texts are told apart by their 64-bit hashes, which nobody outside this process can choose.

    Args:
        places: how many there are; a power of two. Their memory is taken as they are used.
    """

    def __init__(self, places: int) -> None:
        self._last = places - 1
        memory = mmap.mmap(-1, places * _PAIR, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._table = memoryview(memory).cast("q")

    def get(self, text: str, fresh: int | None = None) -> int | None:
        """Return the number of a text; None where it is not remembered.

        Args:
            fresh: returned where nothing was ever noted in its place, so that nothing of it can be forgotten.
        """
        key, place = self._find(text)
        there = self._table[place]
        if there == key:
            return self._table[place + 1]
        return None if there else fresh

    def note(self, text: str, number: int) -> None:
        """Remember the number, of 64 bits, of a text."""
        key, place = self._find(text)
        self._table[place], self._table[place + 1] = key, number

    def _find(self, text: str) -> tuple[int, int]:
        """Return a text's hash, never 0, and where its pair is, if anywhere."""
        key = hash(text) or 1
        return key, (key & self._last) * 2
