"""A file while it comes: `<name>.part`, and the note that says which ranges of which content are in it.

Used by `get`. Only a file that the note knows by its inode is gone on with, or begun anew; any other one stays.

Threading: the ranges of a `Part` come from several threads. `Part._lock` guards what is known of them; bytes are
written outside of it, and `Part._noting` lets one thread write the note at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ivcapfs.errors import AlreadyThere
from ivcapfs.models import Content
from ivcapfs.transfers.choose import PART
from ivcapfs.transfers.notes import Note

NOTE_SECONDS = 1.0
"""How much work a crash may cost."""
_LONGEST_NAME = 255
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class Part:
    """See the module.

    Args:
        note: held as long as this.
        fd: of the file.
        content: which content; None: whatever comes, in one range.
        size: bytes of the whole.
        range_size: bytes of a range.
        done: the ranges that are in the file already.

    Attributes:
        failed: a range could not be fetched, so that the others need not be.
    """

    def __init__(
        self, note: Note, path: Path, fd: int, content: Content | None, size: int, range_size: int, done: set[int]
    ) -> None:
        self.path = path
        self.fd = fd
        self.content = content
        self.size = size
        self.count = -(-size // range_size)
        self.failed = False
        self._range = range_size
        self._note = note
        self._lock = threading.Lock()
        self._noting = threading.Lock()
        self._done = done  # guarded by _lock, as all that follows
        self._whole = sum(stop - start for start, stop in map(self.bounds, done))  # bytes of those
        self._coming: dict[int, int] = {}  # bytes of ranges on their way
        self._noted_at = time.monotonic()

    def bounds(self, number: int) -> tuple[int, int]:
        """Return where a range begins, and where it ends (excluded), in bytes."""
        return number * self._range, min((number + 1) * self._range, self.size)

    def missing(self) -> Iterator[int]:
        """Iterate the ranges that were not here at the beginning."""
        with self._lock:
            done = frozenset(self._done)
        return (number for number in range(self.count) if number not in done)

    def came(self, number: int, count: int) -> int:
        """Take note that so many bytes of a range are here; return how many are of all."""
        with self._lock:
            self._coming[number] = count
        return self.here()

    def here(self) -> int:
        """Return how many bytes are here."""
        with self._lock:
            return self._whole + sum(self._coming.values())

    def done(self, number: int) -> None:
        """All of a range is here; now and then that is noted."""
        with self._lock:
            self._coming.pop(number, None)
            self._done.add(number)
            start, stop = self.bounds(number)
            self._whole += stop - start
            is_time = time.monotonic() > self._noted_at + NOTE_SECONDS
        if is_time and self._noting.acquire(blocking=False):
            try:
                self._note_now()
            finally:
                self._noting.release()

    def note_all(self) -> None:
        """Note what is here, unless it is everything."""
        with self._noting:
            if len(self._done) < self.count:
                self._note_now()

    def _note_now(self) -> None:
        with self._lock:
            done = sorted(self._done)
            self._noted_at = time.monotonic()
        os.fdatasync(self.fd)  # what is noted is here even after a power failure
        self._note.save(_value(self.fd, self.content, self._range, done))


@contextlib.contextmanager
def opened(
    note: Note, path: Path, content: Content | None, size: int, range_size: int, *, force: bool
) -> Iterator[Part]:
    """Open the file for what is to come: the one that was left, if it is of the same content.

    Args:
        force: a file of that name that is none of ours goes.

    Raises:
        AlreadyThere: there is such a file.
        OSError: the disk refuses.
    """
    fd = _open(note, path, force=force)
    try:
        done = _done(note.value, content, range_size)
        if not done:
            os.ftruncate(fd, 0)
        os.ftruncate(fd, size)
        note.save(_value(fd, content, range_size, sorted(done)))
        yield Part(note, path, fd, content, size, range_size, done)
    finally:
        os.close(fd)


def part_path(target: Path) -> Path:
    """Return where a file is while it comes."""
    name = target.name + PART
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:32] + PART
    return target.with_name(name)


def _open(note: Note, path: Path, *, force: bool) -> int:
    """Return the descriptor of a file that is ours, made now if there is none; else nothing is noted of it."""
    try:
        fd = os.open(path, _OLD)
    except FileNotFoundError:
        note.value = None
        return os.open(path, _NEW, 0o666)
    if note.value is not None and note.value.get("file") == _identity(fd):
        return fd
    os.close(fd)
    if not force:
        raise AlreadyThere(f"{path} is there already, and was not begun here: remove it, or --force does")
    path.unlink()
    note.value = None
    return os.open(path, _NEW, 0o666)


def _done(value: dict[str, Any] | None, content: Content | None, range_size: int) -> set[int]:
    """Return the ranges that are in the file, if they are of this content."""
    if value is None or content is None or value.get("content") != _described(content):
        return set()
    ranges = value.get("done")
    if value.get("range") != range_size or not isinstance(ranges, list):
        return set()
    return {number for number in ranges if isinstance(number, int) and 0 <= number * range_size < content.size}


def _value(fd: int, content: Content | None, range_size: int, done: list[int]) -> dict[str, Any]:
    return {"file": _identity(fd), "content": _described(content), "range": range_size, "done": done}


def _described(content: Content | None) -> list[Any] | None:
    return None if content is None else [content.validator, content.size]


def _identity(fd: int) -> list[int]:
    status = os.fstat(fd)
    return [status.st_dev, status.st_ino]
