"""One database of the catalog that is open: a file that was looked at first, or memory.

Used by `ivcapfs.catalog.database`, which decides what to do when one fails.

Threading: `Opened` may be used by any thread: connections are lent to one at a time (libfuse's threads come and go, so
they are pooled and not thread-local). One of them writes, under `Opened.writing`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ivcapfs.catalog.schema import APPLICATION_ID, TABLES, VERSION
from ivcapfs.crashing import reach
from ivcapfs.waits import now

V = TypeVar("V")
Work = Callable[[sqlite3.Connection], V]

READERS = 8
BUSY_SECONDS = 20.0
OPENING_SECONDS = 5.0
OPENING_POLL_SECONDS = 0.02
BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
READER_CACHE_KIB = 256
"""The kernel has the pages as well: a look-up among 600,000 artifacts takes no longer than with eight times as many.
But what grows and shrinks by megabytes every minute leaves the heap in pieces."""
WRITER_CACHE_KIB = 24 * 1024
CHECKPOINT_PAGES = 4000
JOURNAL_BYTES = 64 * 1024 * 1024
_NEWER = "of a newer version"


class Unusable(Exception):
    """A file that is no catalog of ours; the text says why. Never leaves the catalog."""


@dataclass(eq=False, slots=True)
class Opened:
    """One database that is open.

    Attributes:
        path: None for one in memory, whose one connection serves everybody in turn.
        writing: held while `writer` is used.
        is_copy: whether it has what another one had.
    """

    path: Path | None
    writer: sqlite3.Connection
    is_copy: bool = False
    writing: threading.RLock = field(default_factory=threading.RLock)
    slots: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(READERS))
    idle: list[sqlite3.Connection] = field(default_factory=list)  # list.append and list.pop are atomic
    retired: bool = False

    def read(self, work: Work[V]) -> V:
        if self.path is None:
            with self.writing:
                return work(self.writer)
        with self.slots:
            try:
                conn = self.idle.pop()
            except IndexError:
                conn = _connect(self.path, READER_CACHE_KIB)
            try:
                return work(conn)
            finally:
                self.idle.append(conn)
                if self.retired:
                    self._close_idle()

    def write(self, work: Work[V]) -> V:
        with self.writing:
            self.writer.execute("BEGIN IMMEDIATE")
            try:
                result = work(self.writer)
                reach("catalog write")
                self.writer.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self.writer.execute("ROLLBACK")
                raise
            return result

    def shrink(self) -> None:
        """Give back the pages of the file that SQLite keeps in memory, but for connections that are in use.

        A connection keeps as much as it ever read, up to its limit (``PRAGMA shrink_memory``). The kernel has the
        pages as well, and gives them again in no time.
        """
        if self.path is None:
            return
        if self.writing.acquire(blocking=False):
            try:
                _shrink(self.writer)
            finally:
                self.writing.release()
        lent: list[sqlite3.Connection] = []
        while self.idle and self.slots.acquire(blocking=False):  # a slot for each, or others would be opened meanwhile
            try:
                lent.append(self.idle.pop())
            except IndexError:
                self.slots.release()
        for conn in lent:
            _shrink(conn)
            self.idle.append(conn)
            self.slots.release()
        if self.retired:
            self._close_idle()

    def retire(self) -> None:
        """Close what nobody uses at the moment; the rest when it is given back."""
        self.retired = True
        with self.writing, contextlib.suppress(sqlite3.Error):
            self.writer.close()
        self._close_idle()

    def _close_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                conn = self.idle.pop()
                with contextlib.suppress(sqlite3.Error):
                    conn.close()


def _shrink(conn: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):  # it was closed just now
        conn.execute("PRAGMA shrink_memory")


def check_file(folder: int, name: str) -> None:
    """Make the file where it is not there, and look whether it can be ours and whole, before SQLite opens it.

    Raises:
        Unusable: it is not.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    fd = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise Unusable("no file of this user")
        if stat.S_IMODE(status.st_mode) & 0o077:
            os.fchmod(fd, 0o600)
        head = os.pread(fd, 100, 0)
    finally:
        os.close(fd)
    if not status.st_size:
        return
    if len(head) < 100 or not head.startswith(b"SQLite format 3\0"):
        raise Unusable("no database")
    page, count = struct.unpack_from(">H", head, 16)[0], struct.unpack_from(">I", head, 28)[0]
    if status.st_size < (65536 if page == 1 else page) * count:
        raise Unusable("cut short")


def open_file(path: Path) -> Opened:
    """Open a file, and make its tables where it is empty.

    Raises:
        Unusable: it is no catalog of this version.
        sqlite3.Error: it cannot be opened, or read.
    """
    end = now() + OPENING_SECONDS
    while True:
        try:
            return _open_once(path)
        except sqlite3.OperationalError as exc:
            if primary_code(exc) not in BUSY or now() > end:
                raise
        time.sleep(OPENING_POLL_SECONDS)  # another process is just making it; SQLite does not wait for that by itself


def _open_once(path: Path) -> Opened:
    conn = _connect(path, WRITER_CACHE_KIB)
    try:
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("BEGIN IMMEDIATE")
        version = conn.execute("PRAGMA user_version").fetchone()[0]
        mark = conn.execute("PRAGMA application_id").fetchone()[0]
        if (version, mark) == (0, 0) and not conn.execute("SELECT 1 FROM sqlite_master").fetchone():
            _make_tables(conn)
        elif mark != APPLICATION_ID:
            raise Unusable("no catalog")
        elif version != VERSION:
            raise Unusable(_NEWER if version > VERSION else "of an older version")
        conn.execute("SELECT count(*) FROM meta").fetchone()
        conn.execute("COMMIT")
    except BaseException:
        conn.close()
        raise
    return Opened(path, conn)


def open_memory(source: Path | None) -> Opened:
    """Return a database in memory, with what can still be read of a file."""
    conn = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    if source is not None and os.path.exists(source):  # noqa: PTH110 - False also where one may not look
        with contextlib.suppress(sqlite3.Error), contextlib.closing(_connect_readonly(source)) as old:
            (version,) = old.execute("PRAGMA user_version").fetchone()
            (mark,) = old.execute("PRAGMA application_id").fetchone()
            if (version, mark) == (VERSION, APPLICATION_ID):
                old.backup(conn)
                conn.execute("SELECT count(*) FROM meta").fetchone()
                return Opened(None, conn, is_copy=True)
        conn.close()
        conn = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    conn.execute("BEGIN")
    _make_tables(conn)
    conn.execute("COMMIT")
    return Opened(None, conn)


def _make_tables(conn: sqlite3.Connection) -> None:
    """Make the tables within the transaction under way (`executescript` would commit it)."""
    for statement in TABLES.split(";"):
        if statement.strip():
            conn.execute(statement)
    conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    conn.execute(f"PRAGMA user_version = {VERSION}")


def _connect(path: Path, cache_kib: int) -> sqlite3.Connection:
    conn = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    try:
        for pragma in (
            "synchronous = NORMAL",
            f"cache_size = -{cache_kib}",
            f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
            f"journal_size_limit = {JOURNAL_BYTES}",
            "temp_store = MEMORY",
            "mmap_size = 0",
            "cell_size_check = ON",
            "trusted_schema = OFF",
        ):
            conn.execute(f"PRAGMA {pragma}")
    except BaseException:
        conn.close()  # it is no database
        raise
    return conn


def _connect_readonly(path: Path) -> sqlite3.Connection:
    """Open a file for a copy; where not even a lock can be had there, as if nobody else could write to it."""
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        conn = sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True, timeout=1.0, check_same_thread=False)
        try:
            conn.execute("SELECT count(*) FROM meta").fetchone()
            return conn
        except sqlite3.Error:
            conn.close()
    raise sqlite3.OperationalError("it cannot be read")


def remove_file(folder: int, name: str) -> None:
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name + suffix, dir_fd=folder)


def primary_code(exc: sqlite3.Error) -> int:
    """Return SQLite's primary result code; of an error without one, that of any damage."""
    code = getattr(exc, "sqlite_errorcode", None)
    return sqlite3.SQLITE_CORRUPT if code is None else code & 0xFF
