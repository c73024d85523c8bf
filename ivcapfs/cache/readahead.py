"""When to read ahead, and how far: one small state per open file.

Used by `ivcapfs.cache.reader`. Pure: no I/O, no clock. Not safe for several threads: the reader calls it under its
own lock.

The kernel splits one read(2) into requests that may arrive out of order, and readers skip a little (headers, padding).
So a read counts as sequential when it begins near where the reading has got to, not only exactly there. The first read
of a file is never followed by read-ahead: ``head``, ``file`` and ``tail`` stop after it. Then the window doubles with
each step forward, and one read elsewhere closes it again.
"""

from __future__ import annotations

from dataclasses import dataclass

BEHIND_BLOCKS = 4
AHEAD_BLOCKS = 2


@dataclass(slots=True)
class ReadAhead:
    """The read-ahead of one open file. All sizes in bytes.

    Args:
        block: the block size.
        largest: the largest window; 0 switches read-ahead off.
    """

    block: int
    largest: int
    _front: int = 0
    _window: int = 0
    _steps: int = 0

    def window(self, offset: int, size: int) -> int:
        """Note a read of [offset, offset + size) and return how many bytes behind its end are worth fetching now."""
        end = offset + size
        near = self._front - BEHIND_BLOCKS * self.block <= offset <= self._front + AHEAD_BLOCKS * self.block
        if not near:
            self._front, self._window, self._steps = end, 0, 0
            return 0
        if end > self._front:
            before, self._front = self._front, end
            if end // self.block > before // self.block:
                self._step()
        return max(0, self._front + self._window - end)

    def _step(self) -> None:
        """The reader went into another block."""
        self._steps += 1
        grown = max(self._window * 2, self.block)
        self._window = min(grown, self.largest)
