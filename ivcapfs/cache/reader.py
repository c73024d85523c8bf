"""The read engine: a byte range of an open file -> blocks -> cached, on their way, or to be fetched.

Used by `ivcapfs.fs.operations`, through `open`, `read_into` and `close`. A read never makes a request on its own
thread: it claims what is missing as new blocks, hands each to the pool as a transfer (`ivcapfs.cache.transfer`), and
waits until what it needs of them has come. A byte on its way is never asked for twice, whoever needs it.

Threading: any thread may call anything. What is claimed is decided under `Reader._lock`; waiting, copying and every
request happen outside it. A block in use (`Block.readers`) keeps its buffer, even when it is evicted meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cachetools import LRUCache

from ivcapfs.cache.block import Block
from ivcapfs.cache.memory import Memory
from ivcapfs.cache.readahead import LONGEST, Pace, ReadAhead
from ivcapfs.cache.transfer import Blob, BlobSource, transfer
from ivcapfs.config import CacheSettings
from ivcapfs.errors import BadHandle, Closing, DeadlineExceeded
from ivcapfs.waits import POLL_SECONDS, Check, now, submit

BLOBS = 10_000
AHEAD_TRANSFERS = 32
"""The most transfers at a time, of all readers, that fetch what nobody waits for yet."""

Sink = Callable[[memoryview], None]
"""Takes the next bytes of a read; they are valid during the call only."""


@dataclass(slots=True, eq=False)
class Handle:
    """One open file."""

    blob: Blob
    ahead: ReadAhead
    is_open: bool = True


class Reader:
    """Reads artifacts through the block cache.

    Args:
        source: gives bytes by range (the client's `Blobs`).
        origin, identity: whose bytes these are.
        bound: seconds that one read waits at most without any progress.
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
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._owners: dict[int, Blob] = {}  # of each block, by its identity; guarded by _lock
        self._memory = Memory(settings.memory, self._forget)  # guarded by _lock
        self._blobs: LRUCache[str, Blob] = LRUCache(BLOBS)  # guarded by _lock
        self._pace = Pace(settings.block_size)  # guarded by _lock
        self._ahead = 0  # transfers of blocks that nobody waits for; guarded by _lock

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
        return Handle(blob, ReadAhead(self._settings.block_size))

    def close(self, handle: Handle) -> None:
        """Close a handle; transfers under way for it go on, others may want their blocks."""
        handle.is_open = False

    def read(self, handle: Handle, offset: int, size: int, check: Check) -> bytes:
        """Return the bytes of [offset, offset + size), fewer only where the file ends; errors as `read_into`."""
        pieces: list[bytes] = []
        self.read_into(handle, offset, size, lambda view: pieces.append(bytes(view)), check)
        return b"".join(pieces)

    def read_into(self, handle: Handle, offset: int, size: int, sink: Sink, check: Check) -> int:
        """Hand the bytes of [offset, offset + size) to `sink`, in order; return how many, fewer only at the file's end.

        Raises:
            ContentChanged: the server has other content now.
            BadHandle: the handle was closed.
            TransportError, ApiError, ProtocolError: the bytes cannot be had.
        """
        if not handle.is_open:
            raise BadHandle("read of a closed handle")
        end = min(offset + size, handle.blob.size)
        position = offset
        while position < end:
            blocks, claimed = self._plan(handle, position, end, check)
            try:
                self._start(handle.blob, claimed)
                for block in blocks:
                    position = self._copy(handle.blob, block, position, end, sink, check)
            finally:
                self._done_with(blocks)
        return max(0, position - offset)

    def shutdown(self) -> None:
        """Take no more work. Transfers under way end by themselves, when `stopped` tells them."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def memory_used(self) -> int:
        """Bytes of all blocks' buffers now."""
        with self._lock:
            return self._memory.used

    def _copy(self, blob: Blob, block: Block, position: int, end: int, sink: Sink, check: Check) -> int:
        """Hand what the block has of [position, end) to the sink, once it is there; return how far that got."""
        stop = min(end, block.end)
        block.wait(stop, check, self._bound, f"artifact {blob.uuid}")
        sink(block.buffer[position - block.start : stop - block.start])
        return stop

    # -- deciding ------------------------------------------------------------------------------------------------

    def _plan(self, handle: Handle, start: int, end: int, check: Check) -> tuple[list[Block], list[Block]]:
        """Return the blocks of [start, end), or of its beginning where memory is short, and those newly claimed."""
        give_up = now() + self._bound
        while True:
            with self._lock:
                plan = self._try_plan(handle, start, end)
                if plan is not None:
                    return plan
                self._room.wait(POLL_SECONDS)
            check()
            if now() > give_up:
                raise DeadlineExceeded("no memory for another block: all of it is waiting for the server")

    def _try_plan(self, handle: Handle, start: int, end: int) -> tuple[list[Block], list[Block]] | None:
        """As `_plan`; None where memory has no room now even for the first block. The lock is held."""
        blob, claimed = handle.blob, list[Block]()
        largest = self._pace.largest(min(self._settings.read_ahead, self._fair_share()))
        window = handle.ahead.window(start, end - start, largest)
        length = handle.ahead.transfer
        needed: list[Block] = []
        position = start
        while position < end:
            block = self._held(blob, position) or self._claim(blob, position, max(end - position, length), claimed)
            if block is None:
                break
            needed.append(block)
            position = block.end
        if not needed:
            return None
        for block in needed:
            block.readers += 1
            self._memory.use(block)
        if window and position >= end:
            self._claim_ahead(handle, position, min(end + window, blob.size), length, claimed)
        return needed, claimed

    def _claim_ahead(self, handle: Handle, position: int, end: int, length: int, claimed: list[Block]) -> None:
        """Claim what is missing of [position, end), which nobody waits for yet. The lock is held."""
        while position < end and handle.blob.changed is None:
            block = self._held(handle.blob, position)
            if block is None:
                room = self._ahead < AHEAD_TRANSFERS
                block = self._claim(handle.blob, position, length, claimed, ahead=True) if room else None
            if block is None:
                handle.ahead.fall_back(position)
                return
            position = block.end

    def _held(self, blob: Blob, position: int) -> Block | None:
        """Return the block that has the byte at `position`, whole or on its way. The lock is held."""
        return blob.blocks.get(position // self._settings.block_size)

    def _claim(
        self, blob: Blob, position: int, length: int, claimed: list[Block], *, ahead: bool = False
    ) -> Block | None:
        """Make the block that begins with `position`, rounded; None where there is no room. The lock is held.

        Args:
            length: bytes wanted; up to the next block that is held.
        """
        if blob.changed is not None:
            raise blob.changed.with_traceback(None)
        unit = self._settings.block_size
        first = position // unit
        last = first + 1
        stop = min(-(-min(position + length, blob.size) // unit), first + LONGEST)
        while last < stop and last not in blob.blocks:
            last += 1
        start, end = first * unit, min(last * unit, blob.size)
        buffer = self._memory.take(end - start, ahead=ahead)
        if buffer is None:
            return None
        block = Block(start, end - start, buffer, ahead=ahead)
        self._ahead += ahead
        self._owners[id(block)] = blob
        for number in range(first, last):
            blob.blocks[number] = block
        claimed.append(block)
        return block

    def _fair_share(self) -> int:
        """Return how far one window may grow, so that all that are read ahead find room. The lock is held."""
        return max(0, self._settings.memory // 2 - self._memory.filling)

    def _start(self, blob: Blob, claimed: list[Block]) -> None:
        """Hand claimed blocks to the pool."""
        for block in claimed:
            try:
                submit(self._pool, self._transfer, blob, block)
            except Closing as exc:
                self._finish(blob, block, exc, 0.0)

    # -- transfers -----------------------------------------------------------------------------------------------

    def _transfer(self, blob: Blob, block: Block) -> None:
        began = now()
        failure = transfer(blob, block, self._source, self._stopped)
        self._finish(blob, block, failure, now() - began)

    def _finish(self, blob: Blob, block: Block, failure: Exception | None, seconds: float) -> None:
        """Cache a block that is whole; forget one that failed, and tell who waits for it."""
        with self._lock:
            self._ahead -= block.ahead
            block.ahead = False
            if failure is None:
                self._pace.note(block.size, seconds)
                self._memory.keep(block)
            else:
                self._forget(block)
                self._memory.drop(block)
            self._room.notify_all()
        if failure is not None:
            block.fail(failure)

    def _forget(self, block: Block) -> None:
        """Take a block out of its blob. The lock is held."""
        blob = self._owners.pop(id(block))
        for number in range(block.start // self._settings.block_size, -(-block.end // self._settings.block_size)):
            blob.blocks.pop(number, None)

    def _done_with(self, blocks: list[Block]) -> None:
        with self._lock:
            for block in blocks:
                block.readers -= 1
