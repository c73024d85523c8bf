"""How the mount does, as one value and as JSON: `.ivcapfs/status.json` in its root, which no listing shows.

Used by `ivcapfs.fs.floors`, and read through the mount by `ivcapfs status`. Telling it makes no request and waits for
nothing, so it is there while the server is down, and during the first synchronization.

Threading: any thread may call anything. `StatusView._lock` guards the last text.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ivcapfs import __version__
from ivcapfs.cache.reader import Reader
from ivcapfs.cache.traffic import Traffic
from ivcapfs.catalog.index import Index
from ivcapfs.catalog.interface import CatalogStatus
from ivcapfs.catalog.names import Parts
from ivcapfs.config import MountSettings
from ivcapfs.errors import CatalogError, NoSuchEntry
from ivcapfs.fs.nodes import FolderNode, Node, TextNode, json_text
from ivcapfs.fs.reading import Fixed, Reading
from ivcapfs.models import inode_of_text
from ivcapfs.places import STATUS_FILE, STATUS_FOLDER
from ivcapfs.spool.describe import UploadsStatus
from ivcapfs.waits import Check, now

SNAPSHOT_SECONDS = 0.5
"""How long one text is told: what stat(2) says of its size is then true when it is opened, mostly."""


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """The blocks.

    Attributes:
        memory_used, memory_limit: bytes.
        blocks_used: by reads.
        blocks_hit: those of them that were in memory, or on their way.
        folder: where blocks are kept on disk; None: nowhere.
        folder_limit: bytes that they may take there.
    """

    memory_used: int
    memory_limit: int
    blocks_used: int
    blocks_hit: int
    folder: str | None
    folder_limit: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """How a mount does.

    Attributes:
        url: of the deployment; no part of it is secret.
        pid: the mount's process.
        uptime: seconds.
        catalog: see `CatalogStatus`.
        reads: see `ivcapfs.cache.traffic.TrafficCounts`.
        uploads: of new files; None: the mount only reads.
    """

    version: str
    url: str
    mountpoint: str
    pid: int
    uptime: float
    catalog: CatalogStatus
    cache: CacheStatus
    reads: dict[str, int]
    uploads: UploadsStatus | None


class StatusSource:
    """Makes the status of a mount.

    Args:
        clock: seconds, only ever forward.

    Attributes:
        uploads: tells how the new files do; set once, before the mount serves.
    """

    def __init__(
        self,
        settings: MountSettings,
        index: Index,
        reader: Reader,
        traffic: Traffic,
        clock: Callable[[], float] = now,
    ) -> None:
        self.uploads: Callable[[], UploadsStatus | None] = lambda: None
        self._settings = settings
        self._index = index
        self._reader = reader
        self._traffic = traffic
        self._clock = clock
        self._began = clock()

    def __call__(self) -> Status:
        """Return how the mount does now."""
        return Status(
            version=__version__,
            url=self._settings.client.url,
            mountpoint=str(self._settings.mountpoint),
            pid=os.getpid(),
            uptime=round(self._clock() - self._began, 3),
            catalog=self._catalog(),
            cache=self._cache(),
            reads=self._traffic.counts()._asdict(),
            uploads=self.uploads(),
        )

    def _catalog(self) -> CatalogStatus:
        try:
            return self._index.status()
        except CatalogError as exc:
            return CatalogStatus("unusable", 0, 0, 0, 0.0, None, str(exc), None)

    def _cache(self) -> CacheStatus:
        cache, reader = self._settings.cache, self._reader
        folder = None if cache.folder is None else str(cache.folder)
        return CacheStatus(
            memory_used=reader.memory_used,
            memory_limit=cache.memory,
            blocks_used=reader.used,
            blocks_hit=reader.used - reader.claimed,
            folder=folder,
            folder_limit=None if folder is None else cache.folder_size,
        )


def status_json(status: Status) -> bytes:
    """Return a status as JSON text."""
    told: dict[str, Any] = dataclasses.asdict(status)
    path = told["catalog"]["path"]
    told["catalog"]["path"] = None if path is None else str(path)
    return json_text(told) + b"\n"


class StatusView:
    """The folder `.ivcapfs/`. Whoever opens the file gets one text, with the size that stat(2) says of it.

    Args:
        status: makes the status.
        clock: seconds, only ever forward.
    """

    def __init__(self, status: Callable[[], Status], clock: Callable[[], float] = now) -> None:
        self._status = status
        self._clock = clock
        self._started_ns = time.time_ns()
        self._lock = threading.Lock()
        self._told: tuple[float, TextNode] | None = None  # guarded by _lock

    def node(self, parts: Parts, check: Check) -> Node:
        """See `ivcapfs.fs.tree.View.node`."""
        if not parts:
            return FolderNode(inode_of_text(STATUS_FOLDER), self._started_ns)
        if parts == (STATUS_FILE,):
            return self._text()
        raise NoSuchEntry(f"no {'/'.join(parts)!r} in {STATUS_FOLDER}")

    def reading(self, parts: Parts, check: Check) -> Reading:
        """See `ivcapfs.fs.tree.View.reading`."""
        self.node(parts, check)
        return Fixed([(STATUS_FILE, None)])

    def look_again(self) -> None:
        """Tell a new text to whoever asks next."""
        with self._lock:
            self._told = None

    def _text(self) -> TextNode:
        with self._lock:
            if self._told is not None and self._clock() - self._told[0] < SNAPSHOT_SECONDS:
                return self._told[1]
        text = status_json(self._status())
        node = TextNode(text, inode_of_text(f"{STATUS_FOLDER}/{STATUS_FILE}"), time.time_ns())
        with self._lock:
            self._told = (self._clock(), node)
        return node
