"""The catalog's database: a SQLite file of this user alone, or memory where no file can be had.

Used by `ivcapfs.catalog.store`. Whatever becomes of the file, the mount goes on: what is damaged is made anew, and where
the disk refuses (full, read-only, an I/O error) what can still be read is copied into memory. Each is said once.

Several processes may have the file open (WAL: readers never wait for a writer, writers wait for one another).

Threading: any thread may call anything. Connections are lent to one thread at a time: libfuse's threads come and go, so
they are pooled and not thread-local. One connection writes, under `_Opened.writing`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ivcapfs.catalog.schema import APPLICATION_ID, TABLES, VERSION
from ivcapfs.errors import CatalogError, Closing, ConfigError
from ivcapfs.privatefolder import open_private_folder

log = logging.getLogger(__name__)

V = TypeVar("V")
Work = Callable[[sqlite3.Connection], V]

READERS = 8
BUSY_SECONDS = 20.0
READER_CACHE_KIB = 2 * 1024
WRITER_CACHE_KIB = 24 * 1024
CHECKPOINT_PAGES = 4000
JOURNAL_BYTES = 64 * 1024 * 1024
MOST_REPAIRS = 3
"""A database that has failed so often in one process is not opened again: its place is taken by memory."""

_DISK = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_MOVED = 1032
"""SQLITE_READONLY_DBMOVED: the file was deleted, or replaced, while it was open."""
_NEWER = "of a newer version"


class _Unusable(Exception):
    """A file that is no catalog of ours; the text says why. Never leaves this module."""


@dataclass(eq=False, slots=True)
class _Opened:
    """One database that is open.

    Attributes:
        path: None for one in memory, whose one connection serves everybody in turn.
        writing: held while `writer` is used.
    """

    path: Path | None
    writer: sqlite3.Connection
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
                self.writer.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self.writer.execute("ROLLBACK")
                raise
            return result

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


class Database:
    """See the module. The file is opened with the first use.

    Args:
        folder: where the file is; None: there is none.
        name: the file's name without suffix: a hash, never a text of the server's.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self._folder = folder
        self._name = name
        self._lock = threading.Lock()
        self._opened: _Opened | None = None  # guarded by _lock
        self._repairs = 0  # guarded by _lock
        self._closed = False  # guarded by _lock

    @property
    def path(self) -> Path | None:
        """Where the database is at present; None: in memory."""
        return self._current().path

    def read(self, work: Work[V]) -> V:
        """Return what `work` makes of a connection; it must not write, nor keep the connection or a cursor.

        Raises:
            CatalogError: another process keeps the database locked, or it fails again and again.
            Closing: the database was closed.
        """
        return self._attempt(lambda opened: opened.read(work))

    def write(self, work: Work[V]) -> V:
        """Return what `work` makes of a connection within one transaction, which is undone if it raises.

        May be called twice with the same work, when the database had to be replaced. Raises as `read`.
        """
        return self._attempt(lambda opened: opened.write(work))

    def close(self) -> None:
        """Close all connections. May be called again."""
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.retire()

    # -- opening -------------------------------------------------------------------------------------------------

    def _attempt(self, run: Callable[[_Opened], V]) -> V:
        for left in range(MOST_REPAIRS + 2, -1, -1):
            opened = self._current()
            try:
                return run(opened)
            except sqlite3.ProgrammingError as exc:
                if not opened.retired:
                    raise
                log.debug("the catalog was replaced meanwhile: %s", exc)
            except sqlite3.DatabaseError as exc:
                if _primary(exc) in _BUSY:
                    raise CatalogError(f"the catalog {opened.path} is locked by another process") from exc
                if left == 0:
                    raise CatalogError(f"the catalog cannot be used: {exc}") from exc
                self._replace(opened, exc)
        raise CatalogError("the catalog cannot be used: it is replaced again and again")

    def _current(self) -> _Opened:
        with self._lock:
            if self._closed:
                raise Closing("the mount is being taken down")
            if self._opened is None:
                self._opened = self._open_first()
            return self._opened

    def _open_first(self) -> _Opened:
        """Open the file, or memory where that cannot be. The lock is held."""
        if self._folder is None:
            return _in_memory(None)
        path = self._folder / f"{self._name}.sqlite"
        try:
            return self._open_file(path)
        except ConfigError as exc:
            log.warning("the catalog is kept in memory: %s", exc)
        except (OSError, sqlite3.Error) as exc:
            log.warning("the catalog is kept in memory, for %s cannot be written: %s", path, exc)
        return _in_memory(path)

    def _open_file(self, path: Path) -> _Opened:
        folder = open_private_folder(path.parent, "catalog folder")
        try:
            try:
                _check_file(folder, path.name)
                return _open(path)
            except _Unusable as exc:
                log.warning("the catalog %s is %s: made anew", path, exc)
            except sqlite3.DatabaseError as exc:
                if _primary(exc) in _DISK | _BUSY:
                    raise
                log.warning("the catalog %s is damaged (%s): made anew", path, exc)
            _remove(folder, path.name)
            _check_file(folder, path.name)
            return _open(path)
        finally:
            os.close(folder)

    def _replace(self, broken: _Opened, cause: sqlite3.DatabaseError) -> None:
        """Put another database in place of one that failed, once, whoever notices first."""
        with self._lock:
            if self._opened is not broken or self._closed:
                return
            self._repairs += 1
            path = broken.path
            disk = _primary(cause) in _DISK and cause.sqlite_errorcode != _MOVED
            if path is None:
                log.warning("the catalog in memory failed and begins anew: %s", cause)
                self._opened = _in_memory(None)
            elif disk or self._repairs > MOST_REPAIRS:
                log.warning("the catalog goes on in memory, for %s cannot be written: %s", path, cause)
                self._opened = _in_memory(path if disk else None)
            else:
                log.warning("the catalog %s is damaged (%s): made anew", path, cause)
                self._discard(path)
                self._opened = self._open_first()
        broken.retire()

    def _discard(self, path: Path) -> None:
        with contextlib.suppress(OSError, ConfigError):
            folder = open_private_folder(path.parent, "catalog folder")
            try:
                _remove(folder, path.name)
            finally:
                os.close(folder)


def _check_file(folder: int, name: str) -> None:
    """Make the file where it is not there, and look whether it can be ours and whole, before SQLite opens it.

    Raises:
        _Unusable: it is not.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    fd = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise _Unusable("no file of this user")
        if stat.S_IMODE(status.st_mode) & 0o077:
            os.fchmod(fd, 0o600)
        head = os.pread(fd, 100, 0)
    finally:
        os.close(fd)
    if not status.st_size:
        return
    if len(head) < 100 or not head.startswith(b"SQLite format 3\0"):
        raise _Unusable("no database")
    page, count = struct.unpack_from(">H", head, 16)[0], struct.unpack_from(">I", head, 28)[0]
    if status.st_size < (65536 if page == 1 else page) * count:
        raise _Unusable("cut short")


def _open(path: Path) -> _Opened:
    conn = _connect(path, WRITER_CACHE_KIB)
    try:
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("BEGIN IMMEDIATE")
        version = conn.execute("PRAGMA user_version").fetchone()[0]
        mark = conn.execute("PRAGMA application_id").fetchone()[0]
        if (version, mark) == (0, 0) and not conn.execute("SELECT 1 FROM sqlite_master").fetchone():
            _make_tables(conn)
        elif mark != APPLICATION_ID:
            raise _Unusable("no catalog")
        elif version != VERSION:
            raise _Unusable(_NEWER if version > VERSION else "of an older version")
        conn.execute("SELECT count(*) FROM meta").fetchone()
        conn.execute("COMMIT")
    except BaseException:
        conn.close()
        raise
    return _Opened(path, conn)


def _in_memory(source: Path | None) -> _Opened:
    """Return a database in memory, with what can still be read of a file."""
    conn = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    if source is not None and source.exists():
        with contextlib.suppress(sqlite3.Error), contextlib.closing(_connect_readonly(source)) as old:
            (version,) = old.execute("PRAGMA user_version").fetchone()
            (mark,) = old.execute("PRAGMA application_id").fetchone()
            if (version, mark) == (VERSION, APPLICATION_ID):
                old.backup(conn)
                conn.execute("SELECT count(*) FROM meta").fetchone()
                return _Opened(None, conn)
        conn.close()
        conn = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    conn.execute("BEGIN")
    _make_tables(conn)
    conn.execute("COMMIT")
    return _Opened(None, conn)


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


def _remove(folder: int, name: str) -> None:
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name + suffix, dir_fd=folder)


def _primary(exc: sqlite3.Error) -> int:
    """Return SQLite's primary result code; of an error without one, that of any damage."""
    code = getattr(exc, "sqlite_errorcode", None)
    return sqlite3.SQLITE_CORRUPT if code is None else code & 0xFF
