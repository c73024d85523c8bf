"""The memory of all blocks: one budget, buffers that are used again, and the least recently used block dropped first.

Used by `ivcapfs.cache.reader` alone, which holds its lock around every call: nothing here is safe by itself.

Every buffer counts against the budget, whether it is being filled, cached or lying ready for the next block. A fresh
buffer costs a page fault for every 4 KiB and a zero written to each byte; one that is used again costs nothing. Sizes
are powers of two, so that an evicted block's buffer fits the next block.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable

from cachetools import LRUCache

from ivcapfs.cache.block import Block

SMALLEST = 64
MAPPED = 1024 * 1024
"""From this size on a buffer is mapped by itself, with huge pages where the kernel has them."""


class _Cached(LRUCache[int, Block]):
    """Whole blocks by identity, the least recently used evicted first."""

    def __init__(self, evicted: Callable[[Block], None]) -> None:
        super().__init__(2**62, getsizeof=lambda block: len(block.buffer))
        self._evicted = evicted

    def popitem(self) -> tuple[int, Block]:
        """Evict one block."""
        key, block = super().popitem()
        self._evicted(block)
        return key, block


class Memory:
    """Buffers within a budget.

    Args:
        budget: bytes of all buffers together.
        forget: told of each evicted block.
    """

    def __init__(self, budget: int, forget: Callable[[Block], None]) -> None:
        self.budget = budget
        self._forget = forget
        self._cached = _Cached(self._evicted)
        self._free: dict[int, list[memoryview]] = {}
        self._free_bytes = 0
        self.filling = 0
        """Bytes of buffers that are being filled."""

    @property
    def used(self) -> int:
        """Bytes of all buffers."""
        return self.filling + int(self._cached.currsize) + self._free_bytes

    def take(self, size: int, *, ahead: bool) -> memoryview | None:
        """Return a buffer of at least `size` bytes; None where the budget has no room now.

        Args:
            ahead: for bytes that nobody waits for: half of the budget is kept for those that somebody does.
        """
        size = _rounded(size)
        if self.filling + size > (self.budget // 2 if ahead else self.budget):
            return None
        while self.used + size > self.budget and not self._free.get(size) and self._cached:
            self._cached.popitem()
        free = self._free.get(size)
        if free:
            self._free_bytes -= size
            buffer = free.pop()
        else:
            self._drop_free(self.used + size - self.budget)
            buffer = _fresh(size)
        self.filling += size
        return buffer

    def keep(self, block: Block) -> None:
        """Cache a block that was filled."""
        self.filling -= len(block.buffer)
        self._cached[id(block)] = block

    def drop(self, block: Block) -> None:
        """Give back the buffer of a block that will not be filled."""
        self.filling -= len(block.buffer)
        self._recycle(block)

    def use(self, block: Block) -> None:
        """Note that a block was read, if it is cached."""
        self._cached.get(id(block))

    def _evicted(self, block: Block) -> None:
        self._forget(block)
        self._recycle(block)

    def _recycle(self, block: Block) -> None:
        """Keep a buffer for the next block, unless somebody still copies out of it."""
        if block.readers == 0:
            self._free.setdefault(len(block.buffer), []).append(block.buffer)
            self._free_bytes += len(block.buffer)

    def _drop_free(self, excess: int) -> None:
        """Give buffers that lie ready back to the system until so many bytes are free."""
        for size, buffers in self._free.items():
            while excess > 0 and buffers:
                buffers.pop()
                self._free_bytes -= size
                excess -= size


def _rounded(size: int) -> int:
    return max(SMALLEST, 1 << (size - 1).bit_length())


def _fresh(size: int) -> memoryview:
    if size < MAPPED:
        return memoryview(bytearray(size))
    mapped = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        mapped.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(mapped)
