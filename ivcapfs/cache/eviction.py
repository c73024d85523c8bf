"""Room in the persistent tier: what is written when, and what has to go for it.

Used by the writer thread of `ivcapfs.cache.disk`.

A block is written in three steps. Under the folder's lock: is there room within the limit and beside the disk's
reserve, if necessary after evicting; then its file is made and booked. Without the lock: its bytes are written. Under
the lock again: it is renamed into place and its booking moved. So the limit holds before every write, for all processes
together, while they write at the same time.

Least recently used, by sampling: a random choice of directories is measured until it has shown enough blocks (a folder
of some dozens of blocks is seen whole, and the order is exact), and the oldest eighth becomes a stock of candidates,
oldest first. The stock lasts for many evictions; a candidate that was used or removed since is passed over. Names are
hashes, so every directory is a fair sample. The time of last use is a file's mtime, which readers renew every few
minutes at most. Cost and memory are bounded whatever the folder's size.

Threading: a `Store` belongs to the one thread that writes. It holds the folder's lock for one step at a time: a few
system calls, or the measuring of a sample.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import random
from collections.abc import Callable

from ivcapfs.cache.diskledger import ENTRY, STAGING_SLOT, Busy, Entry, Ledger
from ivcapfs.cache.diskstore import FANOUT, GRAIN, HEADER, Folder, Staged, cost_of, round_up
from ivcapfs.waits import never

DISK_RESERVE = 20
"""One part in so many of the disk stays free."""
SAMPLE_BLOCKS = 1024
SAMPLE_FOLDERS = 64
EVICT_BLOCKS = 512
"""The most that one step evicts; what is still over goes with the next ones."""

_NOT_OURS = {errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EEXIST, errno.ENOTEMPTY, errno.EXDEV}
"""Something foreign stands in the place of this one block; other blocks do not suffer from it."""


class Written(enum.Enum):
    """What became of a block."""

    WRITTEN = "written"
    HELD = "held"
    """It was there already."""
    NO_ROOM = "no room"


class Store:
    """Writes blocks into a folder, within a limit.

    Args:
        limit: bytes of everything in the folder, as du(1) counts them.

    Attributes:
        held: bytes and blocks of the whole folder, as the account said last.

    Raises:
        OSError: the folder's account cannot be opened.
    """

    def __init__(self, folder: Folder, limit: int) -> None:
        self.folder = folder
        self.held = (0, 0)
        self._limit = limit
        self._ledger = Ledger(folder)
        self._surveyed = False  # whether every directory's account is trusted, as far as this store has seen
        self._stock: list[Entry] = []  # candidates for eviction, the oldest last
        self._round: list[int] = []  # directories that the background still has to measure

    def write(self, digest: bytes, block: bytes, check: Callable[[], None] = never) -> Written:
        """Write a block, if there is room for it.

        Args:
            check: raises what should end a long wait.

        Raises:
            OSError: the disk refuses, also after some blocks were evicted.
            Busy: another process keeps the lock.
        """
        if not self._surveyed:
            self._survey(check)
        try:
            return self._write(digest, block)
        except OSError as exc:
            if exc.errno in _NOT_OURS:
                return Written.NO_ROOM
            with contextlib.suppress(OSError), self._ledger.locked():
                self._evict(4 * len(block))
                self._ledger.measure(STAGING_SLOT)
            return self._write(digest, block)

    def upkeep(self, check: Callable[[], None] = never) -> None:
        """Do one step of what is to be done now and then: clear leftovers, correct the account, keep to the limit.

        Raises:
            OSError, Busy: as for `write`.
        """
        self._survey(check)
        if not self._round:
            self._round = random.sample(range(FANOUT), FANOUT)
        with self._ledger.locked():
            self._ledger.measure(STAGING_SLOT)
            self._ledger.measure(self._round.pop())
            self._make_room(0)
            self._note()

    def _survey(self, check: Callable[[], None]) -> None:
        """Measure what nobody has measured since the last boot, a directory at a time."""
        while True:
            check()
            with self._ledger.locked():
                slot = self._ledger.unknown()
                if slot is None:
                    self._surveyed = True
                    self._note()
                    return
                self._ledger.measure(slot)

    def _write(self, digest: bytes, block: bytes) -> Written:
        need = round_up(HEADER.size + len(block), max(GRAIN, os.fstatvfs(self.folder.fd).f_frsize)) + ENTRY
        with self._ledger.locked():
            if self.folder.has(digest.hex()):
                return Written.HELD
            if self._ledger.unknown() is not None:
                self._surveyed = False
                return Written.NO_ROOM
            if not self._make_room(need):
                if self._lacking(need) > 0 and not self._ledger.files():
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # others filled it: nothing of ours is left
                return Written.NO_ROOM
            staged = self.folder.stage(len(block))
            self._ledger.book(STAGING_SLOT, need, 1)
        try:
            staged.fill(digest, block)
            return self._place(staged, digest, need)
        except (OSError, Busy):
            staged.discard()
            with contextlib.suppress(OSError, Busy), self._ledger.locked():
                self._ledger.measure(STAGING_SLOT)
            raise
        finally:
            staged.discard()

    def _place(self, staged: Staged, digest: bytes, need: int) -> Written:
        with self._ledger.locked():
            held = self.folder.has(digest.hex())
            if held:
                staged.discard()
            else:
                # Booked before it is there: who is killed in between leaves the account too high, never too low.
                self._ledger.book(digest[0], need, 1)
                self._ledger.book(digest[0], self.folder.place(staged, digest) + ENTRY - need, 0)
            self._ledger.book(STAGING_SLOT, -need, -1)
            self._note()
        return Written.HELD if held else Written.WRITTEN

    # -- with the lock held --------------------------------------------------------------------------------------

    def _note(self) -> None:
        self.held = (self._ledger.total(), self._ledger.files())

    def _make_room(self, need: int) -> bool:
        """Return whether `need` bytes may be written, after evicting what must go for it."""
        if need > self._limit:
            return False
        over = self._over(need)
        if over > 0:
            self._evict(over)
            over = self._over(need)
        return over <= 0

    def _over(self, need: int) -> int:
        return max(self._ledger.total() + need - self._limit, self._lacking(need))

    def _lacking(self, need: int) -> int:
        """Return how many bytes the disk lacks for `need` more beside its reserve."""
        disk = os.fstatvfs(self.folder.fd)
        reserve, free = disk.f_blocks // DISK_RESERVE * disk.f_frsize, disk.f_bavail * disk.f_frsize
        return reserve + need - free if disk.f_blocks else 0

    def _evict(self, size: int) -> None:
        """Remove blocks of `size` bytes together, or as many as one step may."""
        for _ in range(EVICT_BLOCKS):
            if size <= 0 or not (self._stock or self._sample()):
                return
            entry = self._stock.pop()
            gone = contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError)
            with gone, self.folder.entered(entry.name[:2]) as fd:
                status = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
                if status.st_mtime > entry.used:
                    continue
                os.unlink(entry.name, dir_fd=fd)
                self._ledger.book(entry.slot, -cost_of(status), -1)
                size -= cost_of(status)

    def _sample(self) -> bool:
        """Fill the stock from a random choice of directories; return whether there is anything to evict."""
        seen: list[Entry] = []
        slots = self._ledger.filled()
        for slot in random.sample(slots, min(len(slots), SAMPLE_FOLDERS)):
            seen += self._ledger.measure(slot)
            if len(seen) >= SAMPLE_BLOCKS:
                break
        seen.sort(key=lambda entry: entry.used)
        self._stock = seen[: -(-len(seen) // 8)]
        self._stock.reverse()
        return bool(self._stock)
