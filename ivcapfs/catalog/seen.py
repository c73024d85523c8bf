"""Which rows a walk has seen: one bit each, so that a million take 125 kB.

Used by `sync` and `reconcile`. Belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Iterable


class Seen:
    """Rows from 1 to `last`; later ones are not kept."""

    def __init__(self, last: int) -> None:
        self.last = last
        self._bits = bytearray(last // 8 + 1)

    def add(self, rows: Iterable[int]) -> None:
        """These were seen."""
        for row in rows:
            if row <= self.last:
                self._bits[row >> 3] |= 1 << (row & 7)

    def saved(self) -> bytes:
        """Return what was seen, for `restore`."""
        return bytes(self._bits)

    def restore(self, saved: bytes) -> None:
        """Go on with what was seen before."""
        self._bits = bytearray(saved.ljust(len(self._bits), b"\0")[: len(self._bits)])

    def __contains__(self, row: int) -> bool:
        return row <= self.last and bool(self._bits[row >> 3] >> (row & 7) & 1)
