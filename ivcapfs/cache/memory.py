"""The memory of all blocks: one budget, buffers that are used again, and the least recently used block dropped first.

Used by `ivcapfs.cache.reader` alone, which holds its lock around every call: nothing here is safe by itself.

Every buffer counts against the budget, whether it is being filled, copied out of, cached or lying ready for the next
block. What is being filled or copied out of stays where it is; the rest makes room. A fresh buffer costs a page fault
for every 4 KiB and a zero written to each byte; one that is used again costs nothing. Sizes are powers of two, so that
an evicted block's buffer fits the next block.

What a reader has gone through is in the kernel's page cache as well. So of long blocks that were read to their end only
`MOST_SPENT` bytes are kept: a file read through once does not push out everything else, and the few buffers that it
goes through again and again stay in the processor's cache.
"""

from __future__ import annotations

import contextlib
import mmap
from collections import OrderedDict
from collections.abc import Callable

from ivcapfs.cache.block import Block

SMALLEST = 64
MAPPED = 64 * 1024
"""From this size on a buffer is mapped by itself: given back, it is gone. malloc(3) keeps what it was given back, in
pieces that fit nothing: with a thousand open files a process took 600 MiB more than its budget."""
LONG = 1024 * 1024
"""From this size on a buffer has huge pages, where the kernel has them, and goes early once it was read through."""
MOST_SPENT = 16 * 1024 * 1024
"""Bytes of long buffers that are kept though their readers are through with them; and of free buffers of other sizes
that are kept though a fresh one is made: a window goes through all sizes while it grows, and does not come back."""


class Memory:
    """Buffers within a budget.

    Args:
        budget: bytes of all buffers together.
        forget: told of each evicted block.

    Attributes:
        filling: bytes of buffers that are being filled.
        in_use: bytes of the other buffers that somebody copies out of.
        unread: bytes of buffers for what was fetched ahead and nobody has asked for yet.
    """

    def __init__(self, budget: int, forget: Callable[[Block], None]) -> None:
        self.budget = budget
        self._forget = forget
        self._cached: OrderedDict[Block, None] = OrderedDict()  # whole and not in use, least recently used first
        self._cached_bytes = 0
        self._spent: OrderedDict[Block, None] = OrderedDict()  # those of them that were read through, oldest first
        self._spent_bytes = 0
        self._free: dict[int, list[memoryview]] = {}
        self._free_bytes = 0
        self.filling = 0
        self.in_use = 0
        self.unread = 0

    @property
    def most_unread(self) -> int:
        """Return how many bytes may be there unread: more, and one reader's would push out another's."""
        return self.budget // 2

    @property
    def used(self) -> int:
        """Bytes of all buffers."""
        return self.filling + self.in_use + self._cached_bytes + self._free_bytes

    def is_short_of(self, size: int) -> bool:
        """Return whether so many bytes, which do find room in time, find none now."""
        kept_back = self.budget // 4
        return rounded(size) <= kept_back and self.filling + self.in_use + rounded(size) > self.budget - kept_back

    def take(self, size: int, *, ahead: bool, least: bool = True) -> memoryview | None:
        """Return a buffer of at least `size` bytes; None where the budget, or the system, has no room now.

        Args:
            ahead: for bytes that nobody waits for: `most_unread` of them are kept.
            least: whether it is the least that a read can do with. The last quarter of the budget is for these: as
                long as servers are silent, what was begun for their readers takes all the rest.
        """
        size = rounded(size)
        busy = self.filling + self.in_use
        if busy + size > self.budget - (0 if least and not ahead else self.budget // 4):
            return None
        if ahead and max(self.filling, self.unread) + size > self.most_unread:
            return None
        while not self._free.get(size) and busy + self._cached_bytes + size > self.budget:
            self._evict(next(iter(self._cached)))
        while not self._free.get(size) and self._spent_bytes + size > MOST_SPENT and self._spent:
            self._evict(next(iter(self._spent)))
        free = self._free.get(size)
        if free:
            buffer = free.pop()
            self._free_bytes -= size
        else:
            self._drop_free(max(self.used + size - self.budget, self._free_bytes - MOST_SPENT))
            try:
                buffer = _fresh(size)
            except (MemoryError, OSError):
                return None
        self.filling += size
        self.unread += size if ahead else 0
        return buffer

    def keep(self, block: Block) -> None:
        """Cache a block that was filled."""
        self.filling -= len(block.buffer)
        block.is_filling = False
        self._settle(block)

    def drop(self, block: Block) -> None:
        """Give back the buffer of a block that will not be filled."""
        self.filling -= len(block.buffer)
        block.is_filling, block.is_lost = False, True
        self._settle(block)

    def use(self, block: Block) -> None:
        """Note that somebody is going to copy out of a block: until `release` its buffer stays."""
        self.note_wanted(block)
        block.readers += 1
        if block.readers == 1 and not block.is_filling:
            self._uncount(block)
            self.in_use += len(block.buffer)

    def release(self, block: Block) -> None:
        """Note that somebody is done with a block."""
        block.readers -= 1
        if block.readers == 0 and not block.is_filling:
            self.in_use -= len(block.buffer)
            self._settle(block)

    def note_wanted(self, block: Block) -> None:
        """Note that a block that was fetched ahead has been asked for, or never will be."""
        if block.ahead:
            block.ahead = False
            self.unread -= len(block.buffer)

    def _settle(self, block: Block) -> None:
        """Count a block that is no longer being filled, or no longer in use, where it belongs now."""
        if block.readers:
            self.in_use += len(block.buffer)
        elif block.is_lost:
            self._recycle(block)
        else:
            self._cached[block] = None
            self._cached_bytes += len(block.buffer)
            if block.is_spent and len(block.buffer) >= LONG:
                self._spent[block] = None
                self._spent_bytes += len(block.buffer)

    def _uncount(self, block: Block) -> None:
        """Take a block out of those cached."""
        del self._cached[block]
        self._cached_bytes -= len(block.buffer)
        if block in self._spent:
            del self._spent[block]
            self._spent_bytes -= len(block.buffer)

    def _evict(self, block: Block) -> None:
        self._uncount(block)
        self._forget(block)
        self._recycle(block)

    def _recycle(self, block: Block) -> None:
        """Keep a buffer for the next block."""
        self.note_wanted(block)
        self._free.setdefault(len(block.buffer), []).append(block.buffer)
        self._free_bytes += len(block.buffer)

    def _drop_free(self, excess: int) -> None:
        """Give buffers that lie ready back to the system until so many bytes are free."""
        for size, buffers in self._free.items():
            while excess > 0 and buffers:
                buffers.pop()
                self._free_bytes -= size
                excess -= size


def rounded(size: int) -> int:
    """Return how long the buffer for so many bytes is."""
    return max(SMALLEST, 1 << (size - 1).bit_length())


def _fresh(size: int) -> memoryview:
    if size < MAPPED:
        return memoryview(bytearray(size))
    mapped = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= LONG and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            mapped.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(mapped)
