"""The read engine: a byte range of an open file -> blocks -> cached, under way, or to be fetched.

Used by `ivcapfs.fs.operations`, through `open`, `read` and `close`. A read never makes a request on its own thread: it
claims what is missing, hands it to the pool as transfers (`ivcapfs.cache.transfer`), and waits for the futures of the
blocks that it needs. A block under way is never asked for twice, whoever needs it.

Threading: any thread may call anything. What is claimed is decided under `Reader._lock`; waiting, copying and every
request happen outside it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

from cachetools import LRUCache

from ivcapfs.cache.blocks import BlockCache
from ivcapfs.cache.readahead import ReadAhead
from ivcapfs.cache.transfer import Blob, BlobSource, Run, fail, transfer
from ivcapfs.config import CacheSettings
from ivcapfs.errors import BadHandle, Closing
from ivcapfs.waits import Check, submit, wait_for

RUN_BLOCKS = 8
"""The most blocks that one transfer fetches: a longer one would keep a window waiting for a single connection."""
BLOBS = 10_000


@dataclass(slots=True, eq=False)
class Handle:
    """One open file."""

    blob: Blob
    ahead: ReadAhead
    is_open: bool = True


@dataclass(slots=True)
class _Plan:
    """What one read needs, and what it claimed for fetching.

    Attributes:
        blocks: the blocks of the read in order: the bytes, or their future.
        claimed: newly claimed block numbers with their futures.
    """

    blocks: list[bytes | Future[bytes]] = field(default_factory=list)
    claimed: dict[int, Future[bytes]] = field(default_factory=dict)


class Reader:
    """Reads artifacts through the block cache.

    Args:
        source: gives bytes by range (the client's `Blobs`).
        origin, identity: part of every cache key; see `BlockKey`.
        bound: seconds that one read waits at most for a block.
        stopped: tells transfers to end, because the mount is going away.
    """

    def __init__(
        self,
        source: BlobSource,
        settings: CacheSettings,
        *,
        origin: str,
        identity: str,
        bound: float = 60.0,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._source = source
        self._settings = settings
        self._scope = (origin, identity)
        self._bound = bound
        self._stopped = stopped
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="transfer")
        self.cache = BlockCache(settings.memory)
        self._lock = threading.Lock()
        self._blobs: LRUCache[str, Blob] = LRUCache(BLOBS)  # guarded by _lock
        self._ahead_bytes = 0  # claimed ahead of any reader and not there yet; guarded by _lock

    def blob(self, uuid: str, size: int) -> Blob:
        """Return what all readers of an artifact share; a fresh one if its content changed. Makes no request.

        Args:
            size: the content's bytes, as the record says.
        """
        with self._lock:
            blob = self._blobs.get(uuid)
            if blob is None or blob.changed is not None or blob.size != size:
                blob = self._blobs[uuid] = Blob(uuid, size, *self._scope)
        return blob

    def open(self, blob: Blob) -> Handle:
        """Open an artifact for reading; makes no request."""
        largest = min(self._settings.read_ahead, self._settings.memory // 2)
        return Handle(blob, ReadAhead(self._settings.block_size, largest))

    def close(self, handle: Handle) -> None:
        """Close a handle; transfers under way for it go on, others may want their blocks."""
        handle.is_open = False

    def read(self, handle: Handle, offset: int, size: int, check: Check) -> bytes:
        """Return the bytes of [offset, offset + size), fewer only where the file ends.

        Raises:
            ContentChanged: the server has other content now.
            BadHandle: the handle was closed.
            TransportError, ApiError, ProtocolError: the bytes cannot be had.
        """
        if not handle.is_open:
            raise BadHandle("read of a closed handle")
        end = min(offset + size, handle.blob.size)
        if offset >= end:
            return b""
        plan = self._plan(handle, offset, end)
        self._fetch(handle.blob, plan.claimed)
        what = f"artifact {handle.blob.uuid}"
        blocks = [
            block if isinstance(block, bytes) else wait_for(block, check, self._bound, what) for block in plan.blocks
        ]
        return self._join(blocks, offset, end)

    def shutdown(self) -> None:
        """Take no more work. Transfers under way end by themselves, when `stopped` tells them."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    # -- deciding ------------------------------------------------------------------------------------------------

    def _plan(self, handle: Handle, offset: int, end: int) -> _Plan:
        """Decide what is to be fetched for a read of [offset, end), and claim it."""
        blob, block = handle.blob, self._settings.block_size
        plan = _Plan()
        with self._lock:
            ahead_end = min(end + handle.ahead.window(offset, end - offset), blob.size)
            last = (end - 1) // block
            held = {number: self._held(blob, number) for number in range(offset // block, last + 1)}
            if blob.changed is not None and None in held.values():
                raise blob.changed.with_traceback(None)
            plan.blocks = [found or self._claim(blob, number, plan) for number, found in held.items()]
            for number in range(last + 1, -(-ahead_end // block)):
                if blob.changed or self._ahead_bytes + block > self._settings.read_ahead_total:
                    break
                if self._held(blob, number) is None:
                    self._claim(blob, number, plan, ahead=True)
        return plan

    def _held(self, blob: Blob, number: int) -> bytes | Future[bytes] | None:
        """Return a block that is cached or under way. The lock is held."""
        future = blob.flying.get(number)
        if future is not None:
            return future
        key = blob.key(number)
        return self.cache.get(key) if key is not None else None

    def _claim(self, blob: Blob, number: int, plan: _Plan, *, ahead: bool = False) -> Future[bytes]:
        """Take a block on as this read's to fetch. The lock is held."""
        future: Future[bytes] = Future()
        blob.flying[number] = plan.claimed[number] = future
        if ahead:
            self._ahead_bytes += self._settings.block_size
            blob.ahead.add(number)
        return future

    def _fetch(self, blob: Blob, claimed: dict[int, Future[bytes]]) -> None:
        """Hand claimed blocks to the pool, neighbours as one transfer."""
        for numbers in _runs(sorted(claimed)):
            run = Run(blob, numbers[0], [claimed[number] for number in numbers], self._settings.block_size)
            try:
                submit(self._pool, transfer, run, self._source, self._landed, self._stopped)
            except Closing as exc:
                fail(run, exc, self._landed)

    def _landed(self, blob: Blob, number: int, outcome: bytes | Exception) -> None:
        """A block arrived, or will not. Called by the transfer, before its future is settled."""
        key = blob.key(number)
        if isinstance(outcome, bytes) and key is not None:
            self.cache.put(key, outcome)
        with self._lock:
            del blob.flying[number]
            if number in blob.ahead:
                blob.ahead.remove(number)
                self._ahead_bytes -= self._settings.block_size

    def _join(self, blocks: list[bytes], offset: int, end: int) -> bytes:
        block = self._settings.block_size
        first = offset - offset % block
        if len(blocks) == 1:
            return blocks[0][offset - first : end - first]
        head = memoryview(blocks[0])[offset - first :]
        tail = memoryview(blocks[-1])[: end - first - block * (len(blocks) - 1)]
        return b"".join([head, *blocks[1:-1], tail])


def _runs(numbers: list[int]) -> list[list[int]]:
    """Split ascending block numbers into runs of neighbours, none longer than RUN_BLOCKS."""
    runs = [numbers[:1]] if numbers else []
    for before, number in pairwise(numbers):
        if number == before + 1 and len(runs[-1]) < RUN_BLOCKS:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs
