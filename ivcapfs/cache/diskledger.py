"""The account of the persistent tier: how many bytes lie in each directory, shared by all processes without a daemon.

Used by `ivcapfs.cache.eviction` and `ivcapfs.cache.diskadmin`.

The file `ivcapfs.usage` holds, per directory, its bytes and its files; it is also the lock (flock) under which it may
be changed. Nobody holds a list of the files. What keeps the account right:

* A writer books a block before it writes it, on the directory of blocks being written, and moves the booking when it
  puts the block in place; removing books off afterwards. A process killed in between leaves the account too high at
  worst, and the tier too small, never over its limit.
* `measure` reads one directory under the lock and sets its account to exactly what is there. Looking for something to
  evict does this anyway, and a slow round in the background does it for all.
* After a boot (and where the file is new or damaged) no directory's account is trusted until it is measured: what the
  disk kept of the account may be older than what it kept of the blocks. Nothing is written until all are measured;
  that is the only time that all directories are read in one go, it is done by the writer, and reads do not wait.

Directories count with what they themselves take, since a directory that held many names stays large.

Threading: a `Ledger` belongs to the one thread that writes. Other processes, and other ledgers in this one, are kept
out by the lock. What the methods below `locked` say holds only inside it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
import time
import weakref
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ivcapfs.cache.diskstore import BLOCK_NAME, FANOUT, GRAIN, Folder, cost_of, slot_name
from ivcapfs.waits import now

STAGING_SLOT = FANOUT
"""The directory of blocks being written, behind the fan-out."""
BASE = 8 * GRAIN
"""Bytes of the folder itself, the account and the tag, rounded up."""
ENTRY = 192
"""Bytes by which one more name may make a directory larger, until the next measuring."""
LOCK_SECONDS = 2.0

_SLOTS = FANOUT + 1
_HEAD = struct.Struct("<8s40s")
_MAGIC = b"ivcapuse"
_SIZE = _HEAD.size + _SLOTS * 16
_UNKNOWN = 2**64 - 1


class Busy(Exception):
    """Another process holds the lock for longer than it is worth waiting."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A block's file, as measured."""

    used: float
    slot: int
    name: str
    cost: int


class Ledger:
    """The account of one folder. Values are read under the lock, afresh each time it is taken.

    Raises:
        OSError: its file cannot be opened.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._fd = folder.open_usage()
        self._closer = weakref.finalize(self, os.close, self._fd)
        self._closer.atexit = False  # a thread may still be at it then
        self._boot = _boot()
        self._adopted = False  # whether the file is known to be of this boot
        self._slots = array("Q")  # bytes and files of each directory in turn; valid while the lock is held

    @contextlib.contextmanager
    def locked(self, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """Hold the lock, and with it the current account.

        Raises:
            Busy: it was not to be had in that time.
            OSError: the account cannot be read, for example because the folder is gone.
        """
        self._lock(seconds)
        try:
            self._load()
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _lock(self, seconds: float) -> None:
        end = now() + seconds
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as exc:
                if now() > end:
                    raise Busy(f"another process keeps the cache folder {self._folder.path} locked") from exc
                time.sleep(0.001)

    def _load(self) -> None:
        if os.fstat(self._fd).st_nlink == 0:
            raise FileNotFoundError(f"the cache folder {self._folder.path} was removed")
        raw = os.pread(self._fd, _SIZE + 1, 0)
        magic, boot = _HEAD.unpack(raw[: _HEAD.size].ljust(_HEAD.size, b"\0"))
        if len(raw) == _SIZE and magic == _MAGIC and (self._adopted or boot == self._boot):
            self._slots = array("Q", raw[_HEAD.size :])
        else:
            self._slots = array("Q", [_UNKNOWN, 0] * _SLOTS)
            os.pwrite(self._fd, _HEAD.pack(_MAGIC, self._boot) + self._slots.tobytes(), 0)
            os.ftruncate(self._fd, _SIZE)
        self._adopted = True

    # -- inside the lock -----------------------------------------------------------------------------------------

    def unknown(self) -> int | None:
        """Return a directory that must be measured before `total` means anything."""
        return self._slots.index(_UNKNOWN) // 2 if _UNKNOWN in self._slots else None

    def total(self) -> int:
        """Return the bytes of the whole folder. No directory is unknown."""
        return BASE + sum(self._slots[::2])

    def filled(self) -> list[int]:
        """Return the directories of the fan-out that have blocks."""
        return [slot for slot in range(FANOUT) if self._slots[2 * slot + 1]]

    def files(self) -> int:
        """Return the number of blocks."""
        return sum(self._slots[1 : 2 * FANOUT : 2])

    def book(self, slot: int, size: int, files: int) -> None:
        """Change a directory's account."""
        before, count = self._slots[2 * slot], self._slots[2 * slot + 1]
        if before != _UNKNOWN:
            self._set(slot, max(before + size, 0), max(count + files, 0))

    def measure(self, slot: int) -> list[Entry]:
        """Set a directory's account to what is in it; return its blocks. Removes what killed writers left behind."""
        total, found, clean = GRAIN, list[Entry](), slot == STAGING_SLOT
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self._folder.entered(slot_name(slot)) as fd:
            total = max(cost_of(os.fstat(fd)), GRAIN)
            with os.scandir(fd) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        if clean and stat.S_ISREG(status.st_mode) and _remove_leftover(fd, entry.name):
                            continue
                        cost = cost_of(status)
                        total += cost
                        if clean or (BLOCK_NAME.fullmatch(entry.name) and not stat.S_ISDIR(status.st_mode)):
                            found.append(Entry(status.st_mtime, slot, entry.name, cost))
        self._set(slot, total, len(found))
        return found

    def _set(self, slot: int, size: int, files: int) -> None:
        self._slots[2 * slot], self._slots[2 * slot + 1] = size, files
        os.pwrite(self._fd, self._slots[2 * slot : 2 * slot + 2].tobytes(), _HEAD.size + 16 * slot)


def _remove_leftover(folder: int, name: str) -> bool:
    """Remove a block being written whose writer is gone (its lock is free); return whether it was one."""
    try:
        fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=folder)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _boot() -> bytes:
    """Return what tells this boot of the machine from the last one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()[:36].ljust(40, b"\0")
    except OSError:
        return bytes(40)
