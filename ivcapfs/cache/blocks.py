"""The block cache: immutable blocks of bytes in memory, the least recently used dropped first.

Used by `ivcapfs.cache.reader` alone. A block's key names its content (origin, identity, artifact, validator, number),
so a block never has to be invalidated: it can only become useless, and is dropped in time.

Threading: any thread may call anything; every method holds the lock for a dictionary operation only.
"""

from __future__ import annotations

import threading

from cachetools import LRUCache

from ivcapfs.models import BlockKey


class BlockCache:
    """Blocks within a budget of bytes.

    Args:
        budget: bytes of all blocks together; 0 keeps nothing.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._lock = threading.Lock()
        self._blocks: LRUCache[BlockKey, bytes] = LRUCache(budget, getsizeof=len)  # guarded by _lock

    def get(self, key: BlockKey) -> bytes | None:
        """Return a block and count it as used, or None."""
        with self._lock:
            return self._blocks.get(key)

    def put(self, key: BlockKey, block: bytes) -> None:
        """Keep a block, unless it alone is over the budget."""
        if len(block) > self.budget:
            return
        with self._lock:
            self._blocks[key] = block

    @property
    def used(self) -> int:
        """Bytes of all blocks held now."""
        with self._lock:
            return int(self._blocks.currsize)
