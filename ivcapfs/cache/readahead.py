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

    Attributes:
        front: how far the reader has got; None before the first read.
        ahead: how far the read-ahead has got.
        size: of the window now.
    """

    block: int
    largest: int
    front: int | None = None
    ahead: int = 0
    size: int = 0

    def window(self, offset: int, size: int) -> int:
        """Note a read of [offset, offset + size); return how many bytes behind its end are worth fetching now.

        A new stretch begins when half of the last one is used up, so that it is fetched as one long transfer while
        the reader still has something to read.
        """
        end, before = offset + size, self.front
        if before is None or not self._is_near(offset, before):
            self.front, self.ahead, self.size = end, end, 0
            return 0
        self.front = max(before, end)
        if self.front // self.block > before // self.block:
            self.size = min(max(self.size * 2, self.block), self.largest)
        if self.size == 0 or self.front + self.size // 2 < self.ahead:
            return 0
        self.ahead = self.front + self.size
        return self.ahead - end

    def _is_near(self, offset: int, front: int) -> bool:
        return front - BEHIND_BLOCKS * self.block <= offset <= front + AHEAD_BLOCKS * self.block
