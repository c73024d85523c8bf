"""The read engine: a byte range of an open file -> blocks -> cached, on their way, or to be fetched.

Used by `ivcapfs.fs.operations`, and by `ivcapfs.fs.neighbours`, through `fetch`. A read never makes a request on its
own thread: it claims what is missing as new blocks, hands each to the pool as a transfer (`ivcapfs.cache.transfer`),
and waits until what it needs of them has come. A byte on its way is never asked for twice, whoever needs it.

Threading: any thread may call anything. What is claimed is decided under `Reader._lock`; waiting, copying and every
request happen outside it. A read waits for memory only while it uses no block, and a transfer waits for no read: so
there is always one that goes on.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import inf

from cachetools import LRUCache

from ivcapfs.cache.block import Block, Sink
from ivcapfs.cache.memory import Memory, rounded
from ivcapfs.cache.pace import Pace
from ivcapfs.cache.readahead import LONGEST_FAST, Handle, Read, ReadAhead, Slots
from ivcapfs.cache.shelf import Shelf
from ivcapfs.cache.transfer import Blob, BlobSource, transfer
from ivcapfs.config import CacheSettings
from ivcapfs.errors import BadHandle, Closing, ContentChanged, DeadlineExceeded
from ivcapfs.waits import POLL_SECONDS, Check, now, submit

BLOBS = 10_000
TIGHT_SECONDS, TIGHT_FOR_SECONDS = 0.2, 5.0
"""When no transfer ends for so long, the memory is taken to be short for so long."""


class Reader:
    """Reads artifacts through the block cache.

    Args:
        source: gives bytes by range (the client's `Blobs`).
        shelf: keeps bytes beyond the life of the mount.
        bound: seconds that one read waits at most without any progress.
        stopped: tells transfers to end, because the mount is going away.
    """

    def __init__(
        self,
        source: BlobSource,
        settings: CacheSettings,
        *,
        shelf: Shelf | None = None,
        bound: float = 60.0,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._source = source
        self._settings = settings
        self._shelf = shelf
        self._bound = bound
        self._stopped = stopped
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="transfer")
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._owners: dict[int, Blob] = {}  # of each block, by its identity; guarded by _lock
        budget = max(settings.memory, rounded(settings.block_size))
        self._memory = Memory(budget, self._forget)  # guarded by _lock
        self._blobs: LRUCache[str, Blob] = LRUCache(BLOBS)  # guarded by _lock
        self._pace = Pace(settings.block_size)  # guarded by _lock
        self._ahead = Slots()  # blocks being filled, and asked for by nobody; guarded by _lock
        self._streams: set[Handle] = set()  # whose windows are open, and share the memory; guarded by _lock
        self._tight_until = 0.0  # reads take what room there is, however little; guarded by _lock
        self._waiting: deque[Read] = deque()  # reads that found no room, in turn; guarded by _lock
        self._finished = self.used = self.claimed = 0  # transfers; blocks of reads, new ones of these; guarded by _lock
        self._is_over = False

    def blob(self, uuid: str, size: int) -> Blob:
        """Return what all readers of an artifact share; a fresh one if its content changed. Makes no request.

        Args:
            size: the content's bytes, as the record says.
        """
        with self._lock:
            blob = self._blobs.get(uuid)
            if blob is None or blob.changed is not None or blob.size != size:
                trusts_shelf = blob is None or (blob.changed is None and blob.trusts_shelf)
                blob = self._blobs[uuid] = Blob(uuid, size, trusts_shelf)
        return blob

    def open(self, blob: Blob) -> Handle:
        """Open an artifact for reading; makes no request."""
        return Handle(blob, ReadAhead(self._settings.block_size))

    def close(self, handle: Handle) -> None:
        """Close a handle; transfers under way for it go on, others may want their blocks."""
        handle.is_open = False
        with self._lock:
            self._streams.discard(handle)
            self._leave(handle.blob, handle.ahead.front, handle.ahead.ahead)

    def read_into(self, handle: Handle, offset: int, size: int, sink: Sink, check: Check) -> int:
        """Hand the bytes of [offset, offset + size) to `sink`, in order; return how many, fewer only at the file's end.

        Raises:
            BadHandle: the handle was closed.
            ContentChanged, DeadlineExceeded, TransportError, ApiError, ProtocolError: the bytes cannot be had.
        """
        if not handle.is_open:
            raise BadHandle("read of a closed handle")
        read = Read(handle, min(offset + size, handle.blob.size))
        position = offset
        while position < read.end:
            try:
                self._plan(read, position, check)
                for block in read.blocks:  # all first: who waits with half an answer has memory for all of it
                    block.wait(min(read.end, block.end), check, self._bound, f"artifact {handle.blob.uuid}")
                pieces = [block.part(position, read.end) for block in read.blocks]
                position = min(read.end, read.blocks[-1].end)
                sink(pieces, position == read.end)
            finally:
                self._done_with(read)
        return max(0, position - offset)

    def fetch(self, blob: Blob, seconds: float) -> None:
        """Cache a blob of no more than one block, unless it is here or on its way, or there is no room to read ahead.

        The request is made on this thread, which must not be one that answers the kernel; after some seconds it is
        left to the pool. A failure is told to who waits for the same block, and to nobody else.
        """
        read = Read(self.open(blob), blob.size)
        with self._lock:
            self._claim_ahead(read, 0, blob.size, blob.size)
        for block in read.claimed:
            self._transfer(blob, block, now() + seconds)

    def shutdown(self) -> None:
        """Take no more work, and see to it that what was fetched is kept on disk. May be called again.

        Transfers under way end by themselves, when `stopped` tells them; no other one begins.
        """
        self._is_over = True
        self._pool.shutdown(wait=False)
        if self._shelf is not None:
            self._shelf.close()

    @property
    def memory_used(self) -> int:
        """Bytes of all blocks' buffers now."""
        with self._lock:
            return self._memory.used

    # -- deciding ------------------------------------------------------------------------------------------------

    def _plan(self, read: Read, start: int, check: Check) -> None:
        """Find or claim the blocks of [start, read.end), or of its beginning where memory is short."""
        try:
            with self._lock:
                planned = self._try_plan(read, start)
            if not planned:
                self._await_room(read, start, check)
        finally:
            self._start(read)  # whatever happened: others may wait for what was claimed

    def _await_room(self, read: Read, start: int, check: Check) -> None:
        """Plan once there is memory for it. Reads that wait take turns: who came first is served first."""
        seen, give_up = -1, 0.0
        with self._lock:
            self._waiting.append(read)
        try:
            while True:
                with self._lock:
                    if self._try_plan(read, start):
                        return
                    self._room.wait(POLL_SECONDS)
                    finished = self._finished
                    if finished == seen and now() > give_up - self._bound + TIGHT_SECONDS:
                        self._tight_until = now() + TIGHT_FOR_SECONDS
                check()
                if finished != seen:
                    seen, give_up = finished, now() + self._bound
                elif now() > give_up:
                    raise DeadlineExceeded("no memory for another block: all of it is waiting for the server")
        finally:
            with self._lock:
                self._waiting.remove(read)
                self._room.notify_all()

    def _try_plan(self, read: Read, start: int) -> bool:
        """As `_plan`; False where memory has no room now even for the first block. The lock is held."""
        handle, end = read.handle, read.end
        if read.window is None:
            read.window = self._window(handle, start, end - start)
        length = handle.ahead.transfer(self._pace.longest(len(self._streams) or 1)) if read.window else 0
        if self._is_worth_waiting(handle.blob, start, end):
            return False
        position = start
        while position < end:
            block = self._held(handle.blob, position)
            if block is None:
                begin = position - position % self._settings.block_size
                block = self._claim(read, begin, max(end, begin + length))
            if block is None:
                break
            self._memory.use(block)  # at once: claiming the next block must not evict this one
            read.blocks.append(block)
            self._ahead.discard(block)
            position = block.end
        if not read.blocks:
            return False
        self.used, self.claimed = self.used + len(read.blocks), self.claimed + len(read.claimed)
        if read.window and position >= end:
            self._claim_ahead(read, position, min(end + read.window, handle.blob.size), length)
        return True

    def _is_worth_waiting(self, blob: Blob, start: int, end: int) -> bool:
        """Return whether all of a read will soon find room that only a part of it has now. The lock is held.

        Who has a part of the answer keeps it, beyond the budget, until the rest has come.
        """
        missing = blob.missing(start, end, self._settings.block_size)
        is_whole = missing <= self._settings.block_size
        return not is_whole and self._memory.is_short_of(missing) and now() > self._tight_until

    def _claim_ahead(self, read: Read, position: int, end: int, length: int) -> None:
        """Claim what is missing of [position, end), which nobody waits for yet. The lock is held."""
        while position < end:
            block = self._held(read.handle.blob, position)
            if block is None and self._ahead.is_free(now()):
                block = self._claim(read, position, position + length, ahead=True)
            if block is None:
                read.handle.ahead.fall_back(position)
                return
            position = block.end

    def _held(self, blob: Blob, position: int) -> Block | None:
        """Return the block that has the byte at `position`, whole or on its way. The lock is held."""
        return blob.blocks.get(position // self._settings.block_size)

    def _claim(self, read: Read, start: int, end: int, *, ahead: bool = False) -> Block | None:
        """Make the block that begins with `start`; None where there is no room. The lock is held.

        It ends with `end`, rounded up, or before: with the file, at the next block that is held, after the longest
        transfer, or, for bytes that somebody waits for, where memory is short.
        """
        blob, unit = read.handle.blob, self._settings.block_size
        if blob.changed is not None and not ahead:
            raise ContentChanged(str(blob.changed))
        if blob.changed is not None or (self._waiting and self._waiting[0] is not read):
            return None
        first = start // unit
        last, stop = first + 1, min(-(-min(end, blob.size) // unit), first + LONGEST_FAST)
        while last < stop and last not in blob.blocks:
            last += 1
        is_first, size = not read.blocks, min(last * unit, blob.size) - start
        buffer = self._memory.take(size, ahead=ahead, least=is_first and last == first + 1)
        while buffer is None and last - first > 1 and not ahead:
            last = (first + last) // 2
            buffer = self._memory.take(last * unit - start, ahead=False, least=is_first and last == first + 1)
        if buffer is None:
            return None
        block = Block(start, min(last * unit, blob.size) - start, buffer, ahead=ahead)
        if ahead:
            self._ahead.add(block, now())
        self._owners[id(block)] = blob
        for number in range(first, last):
            blob.blocks[number] = block
        read.claimed.append(block)
        return block

    def _window(self, handle: Handle, start: int, size: int) -> int:
        """Return how many bytes behind a read are worth fetching now. The lock is held."""
        ahead = handle.ahead
        front, reached = ahead.front, ahead.ahead
        readers = len(self._streams) + (handle not in self._streams)
        share = self._memory.most_unread // readers
        largest = self._pace.largest(min(self._settings.read_ahead, share), readers)
        window = ahead.window(start, size, largest if largest >= self._settings.block_size else 0)
        if ahead.size and handle.is_open:
            self._streams.add(handle)
        else:
            self._streams.discard(handle)
            self._leave(handle.blob, front, reached)
        return window

    def _leave(self, blob: Blob, start: int, end: int) -> None:
        """Note that nobody will ask for what was fetched ahead of [start, end). The lock is held."""
        unit = self._settings.block_size
        for number in range(start // unit, -(-min(end, blob.size) // unit)):
            block = blob.blocks.get(number)
            if block is not None:
                self._memory.note_wanted(block)

    def _start(self, read: Read) -> None:
        """Hand claimed blocks to the pool."""
        for block in read.claimed:
            self._hand_over(read.handle.blob, block)
        read.claimed.clear()

    # -- transfers -----------------------------------------------------------------------------------------------

    def _hand_over(self, blob: Blob, block: Block) -> None:
        try:
            submit(self._pool, self._transfer, blob, block)
        except Closing as exc:
            self._finish(blob, block, exc, 0.0)

    def _transfer(self, blob: Blob, block: Block, until: float = inf) -> None:
        """Fill a block. What has not come by `until` is left to the pool."""
        began = now()
        if self._is_over:
            failure: Exception | None = Closing("the mount is being taken down")
        else:
            stopped = self._stopped if until == inf else lambda: self._stopped() or now() > until
            failure = transfer(blob, block, self._source, self._shelf, stopped)
        if failure is not None and now() > until:
            self._hand_over(blob, block)
        else:
            self._finish(blob, block, failure, now() - began)

    def _finish(self, blob: Blob, block: Block, failure: Exception | None, seconds: float) -> None:
        """Cache a block that is whole; forget one that failed, and tell who waits for it."""
        with self._lock:
            self._ahead.discard(block)
            self._finished += 1
            if failure is None:
                self._pace.note(block.size, seconds, self._memory.filling // len(block.buffer))
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
        if not blob.blocks:
            blob.blocks = {}  # an emptied one keeps its table

    def _done_with(self, read: Read) -> None:
        with self._lock:
            for block in read.blocks:
                self._memory.release(block)
            self._room.notify_all()
        read.blocks.clear()
