"""The filesystem that the faults are to reach: its operations without a kernel, or a real mount, by the same calls.

Used by `reads`. Without a kernel every call is one callback, and nothing is kept by anybody but ivcapfs: so each
answer, each errno and each wait is its own. A real mount adds libfuse, the kernel's caches and its read-ahead.

Threading: any thread may call anything.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from ivcapfs.cache.disk import DiskSettings, DiskTier
from ivcapfs.cache.reader import Reader
from ivcapfs.cache.shelf import Shelf
from ivcapfs.catalog.index import Index
from ivcapfs.catalog.store import Store
from ivcapfs.client import connect
from ivcapfs.config import KIB, MIB, CacheSettings, ClientSettings, Limits, Secret, ViewSettings
from ivcapfs.fs.bindings import Bindings
from ivcapfs.fs.neighbours import Neighbours
from ivcapfs.fs.operations import Operations
from ivcapfs.fs.views import Views
from ivcapfs.waits import never, now
from tests.fakes import AtOnce
from tests.mount.conftest import Mounter, eventually, is_mounted

LIMITS = Limits(connect=0.4, idle=0.4, total=0.6, backoff=0.02, backoff_max=0.2, json_size=MIB)
DEADLINE = LIMITS.idle + LIMITS.total
"""Seconds that any one operation may wait, without a kernel."""
MOUNT_TIMEOUT = 0.4
MOUNT_DEADLINE = MOUNT_TIMEOUT + 1.5
"""The same in a mount with the option `timeout`: as docs/SEMANTICS.md has it, T and 1.5 T, at least 1.5 s."""
HASTE = 50.0
"""How much faster the catalog's clock runs: what is kept for 30 s is kept for 0.6 s."""
CACHE = CacheSettings(block_size=16 * KIB, memory=4 * MIB, read_ahead=128 * KIB, workers=64)


class FileSystem(Protocol):
    """What is called.

    Attributes:
        deadline: seconds that one callback may wait.
        largest: bytes of a read that is surely one callback.
    """

    deadline: float
    largest: int

    def size(self, path: str) -> int:
        """stat(2)."""
        ...

    def names(self, path: str) -> list[str]:
        """readdir(3)."""
        ...

    def open(self, path: str) -> int:
        """open(2)."""
        ...

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        """pread(2)."""
        ...

    def close(self, handle: int) -> None:
        """close(2)."""
        ...

    def attribute(self, path: str, name: str) -> bytes:
        """getxattr(2)."""
        ...

    def attributes(self, path: str) -> list[str]:
        """listxattr(2)."""
        ...

    def first_listing(self) -> list[str]:
        """List `artifacts/` as a mount does that knows nothing yet."""
        ...


class Unexpected(logging.Handler):
    """Notes what is logged with a traceback: an error that is none of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0] is not None:
            self.seen.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


@contextlib.contextmanager
def logging_only_to(handler: logging.Handler, level: int = logging.WARNING) -> Iterator[None]:
    """Hand what we log, from a level on, to a handler and to nobody else; afterwards it goes where it went before."""
    logger = logging.getLogger("ivcapfs")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before[1]
        logger.setLevel(before[0])


class Floor:
    """The operations, without a kernel.

    Args:
        disk: where blocks are kept on disk, too; None: nowhere.
    """

    deadline = DEADLINE
    largest = 1 << 30

    def __init__(self, url: str, token: str, disk: Path | None = None) -> None:
        self._pool = ThreadPoolExecutor(64)
        self._connection = connect(ClientSettings(url, Secret(token), limits=LIMITS))
        api, blobs = self._connection.api, self._connection.blobs
        self._store = Store(None, "")
        self._index = self._new_index(self._store)
        clock = {"refresh": 30.0, "bound": DEADLINE, "clock": _hasty}
        self._views = Views(api, self._index, self._store, self._pool, **clock)  # type: ignore[arg-type]
        self._tier = DiskTier(DiskSettings(disk, 4 * MIB)) if disk else None
        shelf = Shelf(self._tier, CACHE.block_size, url, "somebody") if self._tier else None
        self.reader = Reader(blobs, CACHE, shelf=shelf, bound=DEADLINE)
        bindings, neighbours = Bindings(lambda path: None, AtOnce()), Neighbours(lambda *_: [], self.reader, 0, bool)
        self._fs = Operations(
            self._index, self.reader, bindings, neighbours, ViewSettings(), never, self._views.by_name
        )

    def _new_index(self, store: Store) -> Index:
        api, blobs = self._connection.api, self._connection.blobs
        return Index(api, blobs, self._pool, store, refresh=30.0, bound=DEADLINE, clock=_hasty, wall=_hasty)

    def shut(self) -> None:
        """Take everything down."""
        self._connection.close()
        self.reader.shutdown()
        self._index.close()
        self._views.close()
        self._pool.shutdown(cancel_futures=True)

    def size(self, path: str) -> int:
        return self._fs.getattr(path).size

    def names(self, path: str) -> list[str]:
        return _listed(self._fs, path)

    def open(self, path: str) -> int:
        return self._fs.open(path, os.O_RDONLY).handle

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        return self._fs.read(handle, size, offset)

    def close(self, handle: int) -> None:
        self._fs.release(handle)

    def attribute(self, path: str, name: str) -> bytes:
        return self._fs.getxattr(path, name)

    def attributes(self, path: str) -> list[str]:
        return self._fs.listxattr(path, 0)

    def first_listing(self) -> list[str]:
        store = Store(None, "")
        index = self._new_index(store)
        bindings, neighbours = Bindings(lambda path: None, AtOnce()), Neighbours(lambda *_: [], self.reader, 0, bool)
        try:
            return _listed(Operations(index, self.reader, bindings, neighbours, ViewSettings(), never), "/artifacts")
        finally:
            index.close()


def _hasty() -> float:
    return now() * HASTE


def _listed(fs: Operations, path: str) -> list[str]:
    handle = fs.opendir(path)
    try:
        return [name for name, _, _ in fs.readdir(handle, 0) if name not in (".", "..")]
    finally:
        fs.releasedir(handle)


class Mounted:
    """A real mount."""

    deadline = 2 * MOUNT_DEADLINE  # of what it could not read ahead, the kernel asks a second time
    largest = 64 * KIB

    def __init__(self, root: Path) -> None:
        self._root = root

    def size(self, path: str) -> int:
        return os.stat(self._at(path)).st_size

    def names(self, path: str) -> list[str]:
        return os.listdir(self._at(path))

    def open(self, path: str) -> int:
        return os.open(self._at(path), os.O_RDONLY)

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(handle, size, offset)

    def close(self, handle: int) -> None:
        os.close(handle)

    def attribute(self, path: str, name: str) -> bytes:
        return os.getxattr(self._at(path), name)

    def attributes(self, path: str) -> list[str]:
        return os.listxattr(self._at(path))

    def first_listing(self) -> list[str]:
        return self.names("/artifacts")

    def _at(self, path: str) -> str:
        return f"{self._root}{path}"


@contextlib.contextmanager
def floor(url: str, token: str, folder: Path) -> Iterator[tuple[FileSystem, Callable[[], list[str]]]]:
    """The operations without a kernel, half of whose blocks' lives are on disk; and what was logged as unexpected."""
    unexpected = Unexpected()
    with logging_only_to(unexpected):
        world = Floor(url, token, folder / "blocks")
        try:
            yield world, lambda: unexpected.seen
        finally:
            world.shut()


@contextlib.contextmanager
def mounted(url: str, token: str, folder: Path) -> Iterator[tuple[FileSystem, Callable[[], list[str]]]]:
    """A real mount of its own, and what its log has of errors that are none of ours."""
    mounter = Mounter(folder)
    mounter.token_file.write_text(token + "\n")
    options = {"timeout": MOUNT_TIMEOUT, "refresh": 1, "cache_size": "2M", "read_ahead": "128K", "catalog_dir": "none"}
    try:
        mount = mounter(url, **options)
        eventually(lambda: is_mounted(mount.path), "it is mounted")
        yield Mounted(mount.path), lambda: [line for line in mount.logged().splitlines() if "unexpected" in line]
    finally:
        mounter.close()


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ivcapfs-faults-") as name:
        yield Path(name)


