"""The catalog's database: a SQLite file of this user alone, or memory where no file can be had.

Used by `ivcapfs.catalog.store`. Whatever becomes of the file, the mount goes on: what is damaged is made anew, and
where the disk refuses (full, read-only, an I/O error) what can still be read is copied into memory. Each is said once.

Several processes may have the file open (WAL: readers never wait for a writer, writers wait for one another).

Threading: any thread may call anything; see `ivcapfs.catalog.opened`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ivcapfs.catalog.opened import (
    BUSY,
    Opened,
    Unusable,
    Work,
    check_file,
    open_file,
    open_memory,
    primary_code,
    remove_file,
)
from ivcapfs.errors import CatalogError, Closing, ConfigError
from ivcapfs.privatefolder import open_private_folder

log = logging.getLogger(__name__)

V = TypeVar("V")

MOST_REPAIRS = 3
"""A database that has failed so often in one process is not opened again: its place is taken by memory."""

_DISK = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
}
_MOVED = 1032
"""SQLITE_READONLY_DBMOVED: the file was deleted, or replaced, while it was open."""


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
        self._opened: Opened | None = None  # guarded by _lock
        self._repairs = 0  # guarded by _lock
        self._losses = 0  # guarded by _lock
        self._closed = False  # guarded by _lock

    @property
    def path(self) -> Path | None:
        """Where the database is at present; None: in memory."""
        return self._current().path

    @property
    def losses(self) -> int:
        """How often what was known had to be given up: what was read before a loss and after it does not fit."""
        with self._lock:
            return self._losses

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

    def shrink(self) -> None:
        """Give back memory that is not in use just now; see `Opened.shrink`. Fails never, and opens nothing."""
        with self._lock:
            opened = self._opened
        if opened is not None:
            opened.shrink()

    def close(self) -> None:
        """Close all connections. May be called again."""
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.retire()

    # -- opening -------------------------------------------------------------------------------------------------

    def _attempt(self, run: Callable[[Opened], V]) -> V:
        for left in range(MOST_REPAIRS + 2, -1, -1):
            opened = self._current()
            try:
                return run(opened)
            except sqlite3.ProgrammingError as exc:
                if not opened.retired:
                    raise
                log.debug("the catalog was replaced meanwhile: %s", exc)
            except sqlite3.DatabaseError as exc:
                if primary_code(exc) in BUSY:
                    raise CatalogError(f"the catalog {opened.path} is locked by another process") from exc
                if left == 0:
                    raise CatalogError(f"the catalog cannot be used: {exc}") from exc
                self._replace(opened, exc)
        raise CatalogError("the catalog cannot be used: it is replaced again and again")

    def _current(self) -> Opened:
        with self._lock:
            if self._closed:
                raise Closing("the mount is being taken down")
            if self._opened is None:
                self._opened = self._open_first()
            return self._opened

    def _open_first(self) -> Opened:
        """Open the file, or memory where that cannot be. The lock is held."""
        if self._folder is None:
            return open_memory(None)
        path = self._folder / f"{self._name}.sqlite"
        try:
            return self._open_at(path)
        except ConfigError as exc:
            log.warning("the catalog is kept in memory: %s", exc)
            return open_memory(None)  # the folder is not to be trusted
        except (OSError, sqlite3.Error) as exc:
            log.warning("the catalog is kept in memory, for %s cannot be written: %s", path, exc)
        return open_memory(path)

    def _open_at(self, path: Path) -> Opened:
        folder = open_private_folder(path.parent, "catalog folder")
        try:
            try:
                check_file(folder, path.name)
                return open_file(path)
            except Unusable as exc:
                log.warning("the catalog %s is %s: made anew", path, exc)
            except sqlite3.DatabaseError as exc:
                if primary_code(exc) in _DISK | BUSY:
                    raise
                log.warning("the catalog %s is damaged (%s): made anew", path, exc)
            remove_file(folder, path.name)
            check_file(folder, path.name)
            return open_file(path)
        finally:
            os.close(folder)

    def _replace(self, broken: Opened, cause: sqlite3.DatabaseError) -> None:
        """Put another database in place of one that failed, once, whoever notices first."""
        with self._lock:
            if self._opened is not broken or self._closed:
                return
            self._repairs += 1
            path = broken.path
            disk = primary_code(cause) in _DISK and cause.sqlite_errorcode != _MOVED
            if path is None:
                log.warning("the catalog in memory failed and begins anew: %s", cause)
                self._opened = open_memory(None)
            elif disk or self._repairs > MOST_REPAIRS:
                log.warning("the catalog goes on in memory, for %s cannot be written: %s", path, cause)
                self._opened = open_memory(path if disk else None)
            else:
                log.warning("the catalog %s is damaged (%s): made anew", path, cause)
                self._discard(path)
                self._opened = self._open_first()
            self._losses += not self._opened.is_copy
        broken.retire()

    def _discard(self, path: Path) -> None:
        with contextlib.suppress(OSError, ConfigError):
            folder = open_private_folder(path.parent, "catalog folder")
            try:
                remove_file(folder, path.name)
            finally:
                os.close(folder)
