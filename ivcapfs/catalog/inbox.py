"""Pages that were taken from the server and are not in the database yet: two files beside it.

Used by `ivcapfs.catalog.first`. Rows go into the database in large batches, sorted, since each page by itself would
touch fifty places of an index: more is then written to the disk than a second core can do meanwhile. So that a process
that is killed need not ask for those pages again, each is appended to a file at once. One file has the pages of the
batch that is being stored, the other those that have come since.

A file is lines, each a checksum and JSON: what walk the pages are of, then one page each. A line that is not whole ends
it. Nothing here is needed: where a file cannot be written or read, pages are asked for again.

Threading: one thread at a time: the one that fetches, and before and after it the one that started it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from ivcapfs.catalog.schema import EPOCH, microseconds
from ivcapfs.models import ArtifactRecord, ArtifactStatus, Page

log = logging.getLogger(__name__)

FORMAT = 1
LARGEST = 256 * 1024 * 1024
"""Bytes of a file; a larger one is none of ours."""
_SUFFIXES = (".inbox-a", ".inbox-b")
_MICROSECOND = timedelta(microseconds=1)


@dataclass(slots=True)
class Walk:
    """One first synchronization.

    Attributes:
        at: the moment that its list is of, in microseconds of the server's time.
        begun: when it began, in seconds since the epoch by this machine.
        pages: how many are in the database.
        cursor: of the page behind them; None: the first page is still to come, or there is none behind.
        token: tells walks apart.
    """

    at: int = 0
    begun: float = 0.0
    pages: int = 0
    cursor: str | None = None
    token: str = field(default_factory=lambda: secrets.token_hex(8))


class Inbox:
    """See the module.

    Args:
        path: of the database; None: it is in memory, and so is all that has come.
    """

    def __init__(self, path: Path | None) -> None:
        self._paths = [] if path is None else [path.with_suffix(suffix) for suffix in _SUFFIXES]
        self._walk = Walk()
        self._number = 0  # of the last page that was appended
        self._fd = -1

    def kept(self, walk: Walk | None) -> tuple[Walk, list[Page[ArtifactRecord]]] | None:
        """Return the pages that follow those in the database, with their walk; None where there are none.

        Args:
            walk: the one that the database knows of; None: it knows of none, and only one from its first page on will
                do.
        """
        found = [(kept, pages) for kept, pages in map(_read, self._paths) if kept is not None and pages]
        if walk is not None:
            found = [(kept, pages) for kept, pages in found if kept.token == walk.token]
        if not found or len({kept.token for kept, _ in found}) > 1:
            return None
        walk = walk or found[0][0]
        pages = {number: page for _, some in found for number, page in some.items()}
        following: list[Page[ArtifactRecord]] = []
        while page := pages.get(walk.pages + len(following) + 1):
            following.append(page)
        return (walk, following) if following else None

    def begin(self, walk: Walk) -> None:
        """Pages of a walk are about to come, the first of them that behind `walk.pages`; what was kept is dropped."""
        self.clear()
        self._walk, self._number = walk, walk.pages
        self.turn()

    def append(self, page: Page[ArtifactRecord]) -> None:
        """Keep a page."""
        self._number += 1
        if self._fd >= 0:
            rows = [(r.uuid, r.name, r.status, r.mime_type, r.size, microseconds(r.created_at)) for r in page.items]
            self._write([self._number, page.cursor, rows])

    def turn(self) -> None:
        """The pages in the other file are in the database: the next ones go there."""
        self.close()
        if not self._paths:
            return
        self._paths.reverse()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            self._fd = os.open(self._paths[0], flags, 0o600)
        except OSError as exc:
            log.debug("pages are not kept before they are stored: %s", exc)
            return
        walk = self._walk
        self._write({"format": FORMAT, "walk": walk.token, "at": walk.at, "begun": walk.begun})

    def clear(self) -> None:
        """All pages are in the database, or not wanted."""
        self.close()
        for path in self._paths:
            with contextlib.suppress(OSError):
                path.unlink()

    def _write(self, value: Any) -> None:
        text = json.dumps(value, separators=(",", ":"), check_circular=False).encode("ascii")
        line = b"%08x %b\n" % (zlib.crc32(text), text)
        try:
            if os.write(self._fd, line) == len(line):
                return
        except OSError as exc:
            log.debug("pages are not kept before they are stored: %s", exc)
        self.close()

    def close(self) -> None:
        """Append no more; what is there stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _read(path: Path) -> tuple[Walk | None, dict[int, Page[ArtifactRecord]]]:
    """Return which walk a file is of, and its pages by their numbers, up to where it makes no sense."""
    walk: Walk | None = None
    pages: dict[int, Page[ArtifactRecord]] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        for value in _values(path):
            if walk is None:
                if value["format"] != FORMAT:
                    break
                walk = Walk(int(value["at"]), float(value["begun"]), token=str(value["walk"]))
            else:
                number, cursor, rows = value
                pages[number] = Page(tuple(_record(*row) for row in rows), cursor)
    return walk, pages


def _values(path: Path) -> Iterator[Any]:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size > LARGEST:
            return
        for line in file:
            check, _, text = line.partition(b" ")
            if not line.endswith(b"\n") or int(check, 16) != zlib.crc32(text[:-1]):
                return
            yield json.loads(text)


def _record(
    uuid: str, name: str | None, status: str, mime: str | None, size: int | None, created: int
) -> ArtifactRecord:
    return ArtifactRecord(uuid, name, ArtifactStatus(status), mime, size, EPOCH + created * _MICROSECOND)
