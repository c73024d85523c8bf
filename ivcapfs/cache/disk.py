"""The persistent tier: blocks that outlive the mount, in a folder that several mounts of one user may share.

Used by `ivcapfs.cache.reader`, through `DiskTier`; the command line's ``cache`` commands use `ivcapfs.cache.diskadmin`.

`get` reads and verifies on the caller's thread: open, one preadv straight into the caller's memory, one checksum. `put`
only hands over: a block waits in a queue bounded in bytes, from which `get` serves it too, and one thread writes. When
that thread cannot keep up, blocks are dropped; the tier never slows down whoever reads from the network.

How a block lies in the folder and why it cannot be wrong: `ivcapfs.cache.diskstore`. How all mounts together stay
within the limit, without a daemon and without anybody's list of all files: `ivcapfs.cache.diskledger`. What has to go
when it is reached: `ivcapfs.cache.eviction`. Nothing of this depends on the folder's size when a mount begins.

When the disk refuses to write even after some blocks were evicted (full, quota, read-only, an I/O error, the folder
removed), the tier says so once and stops writing; reads go on. It tries again every minute, with the folder opened
anew, and says when it writes again. No error of the disk ever reaches a reader.

Threading: any thread may call anything, before or after `close`. What is guarded by `DiskTier._lock` says so; all disk
I/O happens outside it, and the writer's own state belongs to its thread alone. The thread begins with the first `get`
or `put`, so that a tier may be made before the process goes into the background.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from ivcapfs.cache.diskledger import Busy
from ivcapfs.cache.diskstore import Folder, Found, digest_of
from ivcapfs.cache.eviction import Store, Written
from ivcapfs.config import MIB
from ivcapfs.errors import Closing, ConfigError
from ivcapfs.models import BlockKey
from ivcapfs.waits import now

log = logging.getLogger(__name__)

SMALLEST = 4 * MIB
QUEUE_BYTES = 64 * MIB
QUEUE_ENTRY = 512
"""Bytes that a queued block counts with besides its content."""
OFF_SECONDS = 60.0
UPKEEP_SECONDS = 10.0
UPKEEP_SHARE = 20.0
"""Upkeep rests so many times longer than it took."""
LOG_SECONDS = 10.0
JOIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class DiskSettings:
    """The persistent tier.

    Attributes:
        folder: of this user alone; made if it is not there.
        size: bytes that it may take, all mounts that share it together.
    """

    folder: Path
    size: int


@dataclass(frozen=True, slots=True)
class DiskInfo:
    """How the tier does.

    Attributes:
        bytes, files: of the whole folder, as this tier last saw it; what all mounts wrote.
        hits, misses, bad: of this tier's `get`; a bad block also counts as a miss.
        written: blocks that this tier wrote.
        dropped: blocks that it did not write, for want of room, time or a working disk.
        active: whether it writes at present.
    """

    bytes: int
    files: int
    hits: int
    misses: int
    bad: int
    written: int
    dropped: int
    active: bool


class DiskTier:
    """Blocks on the disk.

    Raises:
        ConfigError: the folder cannot be used, or the size is too small to be of use.
    """

    def __init__(self, settings: DiskSettings) -> None:
        if settings.size < SMALLEST:
            raise ConfigError(f"a cache folder needs at least {SMALLEST // MIB}M, not {settings.size} bytes")
        self._settings = settings
        self._path = settings.folder.absolute()
        self._store: Store | None = None  # the writer's own
        self._failing = False  # writing failed last time, and that has been said; the writer's own
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._folder: Folder | None = Folder(self._path, create=True)  # None once closed; guarded by _lock
        self._thread: threading.Thread | None = None  # guarded by _lock
        self._queue: OrderedDict[bytes, bytes] = OrderedDict()  # by digest, the oldest first; guarded by _lock
        self._queued = 0  # bytes of _queue, with QUEUE_ENTRY for each; guarded by _lock
        self._writing: tuple[bytes, bytes] | None = None  # what the writer has in hand; guarded by _lock
        self._off_until = 0.0  # no writing before this moment; guarded by _lock
        self._held = (0, 0)  # bytes and files of the folder, as last seen; guarded by _lock
        self._hits = self._misses = self._bad = self._written = self._dropped = 0  # guarded by _lock
        self._bad_said = 0  # guarded by _lock
        self._say_bad_at = 0.0  # guarded by _lock

    def get(self, key: BlockKey, into: memoryview) -> bool:
        """Fill `into` with a block; return whether it was there, whole, and of exactly that length.

        After False, what `into` holds means nothing. Raises nothing, whatever the disk does.
        """
        digest = digest_of(key)
        with self._lock:
            folder = self._folder
            if folder is None:
                return False
            self._begin()
            waiting = self._queue.get(digest)
            if waiting is None and self._writing is not None and self._writing[0] == digest:
                waiting = self._writing[1]
        if waiting is not None and len(waiting) == len(into):
            into[:] = waiting
            found = Found.HIT
        else:
            found = folder.read(digest, into)
        self._count(found)
        return found is Found.HIT

    def put(self, key: BlockKey, block: memoryview | bytes, patience: float = 0.0) -> None:
        """Hand a block over to be written, some time; its bytes are copied.

        Args:
            patience: seconds to wait for room in the queue, while the disk is slower than who hands over; then the
                block is dropped.
        """
        digest, size = digest_of(key), len(block) + QUEUE_ENTRY
        with self._lock:
            if patience:
                self._changed.wait_for(lambda: self._has_room(size) or self._is_idle(), patience)
            if not self._takes(digest, size):
                return
            self._queued += size  # before the copy, so that others who wait do not count on this room
        copy = bytes(block)
        with self._lock:
            if self._folder is None or digest in self._queue:
                self._queued -= size
                return
            self._queue[digest] = copy
            self._begin()
            self._changed.notify_all()

    def forget(self, key: BlockKey) -> None:
        """Remove a block that turned out to be untrue. Raises nothing, whatever the disk does."""
        digest = digest_of(key)
        with self._lock:
            folder = self._folder
            waiting = self._queue.pop(digest, None)
            self._queued -= len(waiting) + QUEUE_ENTRY if waiting is not None else 0
        if folder is not None:
            folder.remove(digest.hex())

    def flush(self, seconds: float) -> None:
        """Wait until everything handed over is written or dropped, or that time is over."""
        with self._lock:
            self._changed.wait_for(lambda: not self._queue and self._writing is None, seconds)

    def close(self) -> None:
        """Give up what is still queued, end the thread, let go of the folder. May be called again."""
        with self._lock:
            self._folder = None
            self._drop_queue()
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not None:
            thread.join(JOIN_SECONDS)
            log.info("%s: %d blocks written, %d not, %d found", self._path, self._written, self._dropped, self._hits)

    def info(self) -> DiskInfo:
        """Return how the tier does; no disk I/O."""
        with self._lock:
            active = self._folder is not None and now() >= self._off_until
            counts = (self._hits, self._misses, self._bad, self._written, self._dropped)
            return DiskInfo(*self._held, *counts, active)

    def _takes(self, digest: bytes, size: int) -> bool:
        """Return whether a block can be queued, and count it if not. The lock is held."""
        if self._folder is None or digest in self._queue:
            return False
        if not self._has_room(size) or now() < self._off_until:
            self._dropped += 1
            return False
        return True

    def _has_room(self, size: int) -> bool:
        """Return whether the queue has room for so many bytes. The lock is held."""
        return self._queued + size <= QUEUE_BYTES

    def _is_idle(self) -> bool:
        """Return whether nothing is written at present. The lock is held."""
        return self._folder is None or now() < self._off_until

    def _begin(self) -> None:
        """Start the writer, if it does not run yet. The lock is held."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="disk-cache", daemon=True)
            with contextlib.suppress(RuntimeError):  # no thread to be had now; the next call tries again
                thread.start()
                self._thread = thread

    def _count(self, found: Found) -> None:
        with self._lock:
            if found is Found.HIT:
                self._hits += 1
                return
            self._misses += 1
            if found is not Found.BAD:
                return
            self._bad += 1
            if now() < self._say_bad_at:
                return
            self._say_bad_at = now() + LOG_SECONDS
            fresh, self._bad_said = self._bad - self._bad_said, self._bad
        log.warning("removed %d bad block(s) from the cache folder %s", fresh, self._path)

    def _drop_queue(self) -> None:
        """Forget what waits to be written. The lock is held."""
        self._dropped += len(self._queue)
        self._queued -= sum(len(block) + QUEUE_ENTRY for block in self._queue.values())
        self._queue.clear()

    # -- the writer's thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        upkeep_at = 0.0
        while True:
            item = self._next(upkeep_at)
            if self._is_closed():
                break
            start = now()
            try:
                written = self._work(item)
            except Closing:
                break
            except Busy as exc:
                log.debug("%s", exc)
                self._finish(None)
            except (OSError, ConfigError) as exc:
                self._switch_off(exc)
            else:
                self._finish(written)
            if item is None:
                upkeep_at = now() + max(UPKEEP_SECONDS, UPKEEP_SHARE * (now() - start))
        self._store = None
        self._finish(None)

    def _next(self, upkeep_at: float) -> tuple[bytes, bytes] | None:
        """Wait for the next block to write, or None when it is time for something else."""
        with self._lock:
            while self._folder is not None:
                moment, due = now(), max(upkeep_at, self._off_until)
                if moment >= due:
                    return None
                if self._queue and moment >= self._off_until:
                    self._writing = self._queue.popitem(last=False)
                    self._queued -= len(self._writing[1]) + QUEUE_ENTRY
                    return self._writing
                self._changed.wait(due - moment)
            return None

    def _work(self, item: tuple[bytes, bytes] | None) -> Written | None:
        if self._store is None:
            self._store = self._opened()
        written = None
        if item is not None:
            written = self._store.write(*item, self._check)
        else:
            self._store.upkeep(self._check)
        with self._lock:
            self._held = self._store.held
        return written

    def _opened(self) -> Store:
        """Open the folder's account; also the folder itself, after a failure."""
        with self._lock:
            folder = self._folder
        if folder is None or self._failing:
            folder = Folder(self._path, create=True)
        store = Store(folder, self._settings.size)
        with self._lock:
            if self._folder is not None:
                self._folder = folder
        return store

    def _finish(self, written: Written | None) -> None:
        """Note what became of the block in hand: None if there was none, or it could not be tried."""
        if self._failing and written in (Written.WRITTEN, Written.HELD):
            log.info("the cache folder %s is written again", self._path)
            self._failing = False
        with self._lock:
            if self._writing is not None:
                self._written += written is Written.WRITTEN
                self._dropped += written in (Written.NO_ROOM, None)
                self._writing = None
            self._changed.notify_all()

    def _switch_off(self, cause: OSError | ConfigError) -> None:
        self._store = None
        if not self._failing:
            log.warning("nothing more is written to the cache folder %s for now: %s", self._path, cause)
            self._failing = True
        with self._lock:
            self._dropped += self._writing is not None
            self._writing = None
            self._drop_queue()
            self._off_until = now() + OFF_SECONDS
            self._changed.notify_all()

    def _check(self) -> None:
        if self._is_closed():
            raise Closing("the mount is being taken down")

    def _is_closed(self) -> bool:
        with self._lock:
            return self._folder is None
