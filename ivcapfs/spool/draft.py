"""One new file while it is here: its bytes in the spool, and how much of them the server has.

Used by `drafts`, which knows them by path, by `sender`, which sends them, and by `ivcapfs.fs`, which writes and reads
them. What is sent is always a beginning of the content: a write or a cut below what was sent makes the upload *stale*,
and it begins anew under another record.

Threading: any thread may call anything. `Draft.lock` guards the fields; bytes are read and written outside of it.
`Draft.journal_lock` puts the changes of the entry, their journal and what is at its path into one order, and is held
for that alone; it is taken before `lock`.
`Draft.sending` is held by the one thread that sends.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from ivcapfs.errors import BadHandle, IvcapfsError, TooLarge
from ivcapfs.models import inode_of_text
from ivcapfs.spool.entry import Entry, State
from ivcapfs.spool.folder import Folder, explain, read_all, write_all

log = logging.getLogger(__name__)

LARGEST = 5 << 30
"""Bytes that an artifact may have, as the platform documents."""


class Draft:
    """See the module.

    Args:
        folder: where its files are.
        entry: what the journal says.
        fd: of the bytes, where they are open already.

    Attributes:
        progress: tells whoever waits that the server has more of it.
        handles, writers: open files of it, and those of them that may write.
        changes: counts writes and cuts.
        flushed: the count at the last flush that succeeded; -1: none did.
        closed_at: the count at the last close(2) that succeeded; -1: none did.
        ticket: counts flushes; only the last may say how it went.
        failure: why the last flush failed; None after one that did not.
        killed: whether the last to close it was killed.
        restarts: how often what was sent had to be given up.
        sending_began: whether this process knows what became of `entry.begun`.
        due: when it is to be completed, as the uploader's clock tells; None: not by itself.
        sent: bytes at the beginning that the server has.
        reserved: bytes at the beginning that it has, or that are on their way.
        stale: whether what it has is not the beginning of the content any more.
        in_order: whether it was written from the beginning to the end so far.
        is_gone: whether it is no longer at any path: it was removed, or has become an artifact.
        is_ending: whether its upload is being completed: nobody may write, rename or remove it any more.
        is_final: whether the server may have completed it, for all we know, or has, so that `is_ending` stays.
    """

    def __init__(self, folder: Folder, entry: Entry, fd: int | None = None) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        self.progress = threading.Condition(self.lock)
        self.journal_lock = threading.RLock()
        self.sending = threading.Lock()
        self.entry = entry  # written under journal_lock and lock
        self.inode = inode_of_text(f"draft/{entry.id}")
        self._fd = fd  # guarded by lock, as all that follows
        self._users = 0
        self.size = entry.size
        self.mtime_ns = entry.mtime_ns
        self.handles = 0
        self.writers = 0
        self.changes = 0
        self.flushed = self.closed_at = -1
        self.ticket = 0
        self.failure: IvcapfsError | None = None
        self.killed = False
        self.sent = 0
        self.reserved = 0
        self.stale = False
        self.in_order = True
        self.restarts = 0
        self.is_gone = False
        self.is_final = self.is_ending = entry.is_perhaps_complete
        self.due: float | None = None
        self.sending_began = False
        self._end = 0

    # -- the journal ---------------------------------------------------------------------------------------------

    def note(self, change: Callable[[Entry], Entry], *, durable: bool = False) -> Entry:
        """Change the entry, and write it into the journal.

        Raises:
            NoSpace, FileSystemError: the journal cannot be written; the entry stays as it was.
        """
        with self.journal_lock:
            before = self.entry
            after = change(before)
            if after != before or durable:
                if not self.is_gone:
                    self.folder.save(after, durable=durable)
                with self.lock:
                    self.entry = after
            return after

    def note_anyway(self, change: Callable[[Entry], Entry]) -> None:
        """As `note`; where the journal cannot be written, it holds for as long as this process lives."""
        try:
            self.note(change)
        except IvcapfsError as exc:
            log.error("%s: the journal cannot be written: %s", self.entry.path, exc)
            with self.journal_lock, self.lock:
                self.entry = change(self.entry)

    def leave(self, seen: Entry) -> bool:
        """It is an artifact, and at no path any more; return False, and leave it, where the entry is not `seen` now."""
        with self.journal_lock, self.lock:
            self.is_gone = self.entry == seen
            return self.is_gone

    # -- bytes ---------------------------------------------------------------------------------------------------

    def write(self, data: memoryview | bytes, offset: int) -> int:
        """Write at an offset (pwrite(2)); return the count of bytes, always all.

        Raises:
            TooLarge: it would be more than an artifact can have.
            NoSpace: the spool's disk is full.
        """
        end = offset + len(data)
        if end > LARGEST:
            raise TooLarge(f"{self.entry.path}: an artifact may have {LARGEST} bytes at most")
        self._begin_change()
        try:
            write_all(self._held(), data, offset)
        except OSError as exc:
            explain(exc, self.folder.path)
        finally:
            with self.lock:  # also after a part
                self.size = max(self.size, os.fstat(self._held()).st_size)
                self.stale = self.stale or offset < self.reserved
                self.in_order = self.in_order and offset == self._end
                self._end = end
        return len(data)

    def truncate(self, size: int) -> None:
        """Cut, or lengthen by zeros (ftruncate(2)). Raises as `write`."""
        if size > LARGEST:
            raise TooLarge(f"{self.entry.path}: an artifact may have {LARGEST} bytes at most")
        self._begin_change()
        self.acquire()
        try:
            os.ftruncate(self._held(), size)
        except OSError as exc:
            explain(exc, self.folder.path)
        finally:
            self.release()
        with self.lock:
            self.stale = self.stale or size < self.reserved
            self.in_order = self.in_order and size in (0, self._end)
            self.size, self._end = size, min(self._end, size)

    def read(self, size: int, offset: int) -> bytes:
        """Return the bytes of [offset, offset + size), fewer only at the end (pread(2))."""
        return read_all(self._held(), size, offset)

    def sync(self) -> None:
        """See that the bytes are on the disk (fdatasync(2)).

        Raises:
            NoSpace, FileSystemError: they are not.
        """
        try:
            os.fdatasync(self._held())
        except OSError as exc:
            explain(exc, self.folder.path)

    def set_time(self, mtime_ns: int) -> None:
        """Set when it was written last (utimensat(2))."""
        with self.lock:
            self.mtime_ns = mtime_ns
            is_closed = self.entry.state is State.CLOSED
        if is_closed:
            self.note(lambda entry: replace(entry, mtime_ns=mtime_ns))

    def _begin_change(self) -> None:
        """Count a change; the journal hears of it if it says that the file is closed."""
        with self.lock:
            self.changes += 1
            self.mtime_ns = time.time_ns()
            is_closed = self.entry.state is not State.WRITING
        if is_closed:
            self.note(lambda entry: replace(entry, state=State.WRITING, reason=""))

    # -- what the server has -------------------------------------------------------------------------------------

    def claim(self, most: int, *, whole: bool) -> tuple[int, int] | None:
        """Return the next bytes to send, as [start, stop), and count them as on their way; None: there are none.

        Args:
            most: bytes at a time.
            whole: only so many, no fewer.
        """
        with self.lock:
            start, stop = self.sent, min(self.sent + most, self.size)
            if stop <= start or self.stale or self.is_gone or (whole and (stop - start < most or not self.in_order)):
                return None
            self.reserved = max(self.reserved, stop)
            return start, stop

    def reached(self, offset: int) -> None:
        """Take note of how far the server is."""
        with self.lock:
            self.sent = offset
            self.reserved = max(self.reserved, offset)
            self.progress.notify_all()

    def set_final(self, *, is_final: bool) -> None:
        """Say whether the server may have completed the upload: from before it is asked to, until it is known."""
        with self.lock:
            self.is_final = is_final

    def begin_anew(self) -> None:
        """The server has nothing of the content any more."""
        with self.lock:
            self.sent = self.reserved = 0
            self.stale = self.is_final = False
            self.restarts += 1

    def is_on_server(self) -> bool:
        """Return whether the server has all of the content as it is now."""
        with self.lock:
            return self.entry.begun is not None and not self.stale and self.sent == self.size

    # -- the descriptor ------------------------------------------------------------------------------------------

    def acquire(self) -> None:
        """Hold the bytes open; `release` must follow."""
        with self.lock:
            self._hold()

    def _hold(self) -> None:
        """As `acquire`; the lock is held."""
        if self._fd is None:
            self._fd = self.folder.open_data(self.entry)
        self._users += 1

    def release(self) -> None:
        """Let go of the bytes; the last one closes them."""
        with self.lock:
            self._users -= 1
            if not self._users and self._fd is not None:
                os.close(self._fd)
                self._fd = None

    @property
    def descriptor(self) -> int:
        """The descriptor of the bytes; of whoever acquired it."""
        return self._held()

    def _held(self) -> int:
        if self._fd is None:
            raise BadHandle(f"{self.entry.path} is not open")
        return self._fd

    # -- handles -------------------------------------------------------------------------------------------------

    def opened(self, *, writes: bool) -> bool:
        """Count one more open file of it; return False where it is too late for that: it is becoming an artifact."""
        with self.lock:
            if self.is_gone or (writes and self.is_ending):
                return False
            self._hold()
            self.handles += 1
            self.writers += writes
            if writes:
                self.due = None
            return True

    def closed(self, *, writes: bool) -> bool:
        """Count one open file less; return whether it was the last one that could write."""
        with self.lock:
            self.handles -= 1
            self.writers -= writes
            was_last = writes and self.writers == 0
        self.release()
        return was_last
