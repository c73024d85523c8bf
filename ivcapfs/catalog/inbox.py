"""Pages that were taken from the server and are not in the database yet: two files beside it.

Used by `ivcapfs.catalog.first`. Rows go into the database in large batches, sorted, since each page by itself would
touch fifty places of an index: more is then written to the disk than a second core can do meanwhile. So that a process
that is killed need not ask for those pages again, each is appended to a file at once. There are two, so that one can
be dropped while pages go into the other.

A file is records, each a number, a length, a checksum and a body: what walk the pages are of (number 0, JSON), then one
page each, as the server sent it. A record that is not whole ends it. Nothing here is needed: where a file cannot be
written or read, pages are asked for again.

Threading: one thread at a time: the one that fetches, and before and after it the one that started it. Another one
raises `Walk.pages` meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ivcapfs.client import wire
from ivcapfs.errors import ProtocolError
from ivcapfs.models import PageText

log = logging.getLogger(__name__)

FORMAT = 1
LARGEST = 128 * 1024 * 1024
"""Bytes of a file; a larger one is none of ours."""
_SUFFIXES = (".inbox-a", ".inbox-b")
_HEAD = struct.Struct(">III")


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
        self._turned_at = 0  # of the last page in the file that is not written to
        self._fd = -1

    def kept(self, walk: Walk | None) -> tuple[Walk, list[PageText]] | None:
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
        following: list[PageText] = []
        while page := pages.get(walk.pages + len(following) + 1):
            following.append(page)
        return (walk, following) if following else None

    def begin(self, walk: Walk) -> None:
        """Pages of a walk are about to come, the first of them that behind `walk.pages`; what was kept is dropped."""
        self.clear()
        self._walk, self._number = walk, walk.pages
        self._turn()

    def append(self, page: PageText) -> None:
        """Keep a page; drop the file that it does not go into, once all that is there is in the database."""
        if self._turned_at < self._number and self._turned_at <= self._walk.pages:
            self._turn()
        self._number += 1
        self._write(self._number, page.body)

    def _turn(self) -> None:
        """Go on in the other file, from its beginning."""
        self.close()
        self._turned_at = self._number
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
        head = {"format": FORMAT, "walk": walk.token, "at": walk.at, "begun": walk.begun}
        self._write(0, json.dumps(head).encode())

    def clear(self) -> None:
        """All pages are in the database, or not wanted."""
        self.close()
        for path in self._paths:
            with contextlib.suppress(OSError):
                path.unlink()

    def _write(self, number: int, body: bytes) -> None:
        if self._fd < 0:
            return
        head = _HEAD.pack(number, len(body), zlib.crc32(body))
        try:
            if os.writev(self._fd, (head, body)) == len(head) + len(body):
                return
        except OSError as exc:
            log.debug("pages are not kept before they are stored: %s", exc)
        self.close()

    def close(self) -> None:
        """Append no more; what is there stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _read(path: Path) -> tuple[Walk | None, dict[int, PageText]]:
    """Return which walk a file is of, and its pages by their numbers, up to where it makes no sense."""
    walk: Walk | None = None
    pages: dict[int, PageText] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, ProtocolError):
        for number, body in _records(path):
            if walk is not None:
                pages[number] = wire.page_text(body)
                continue
            head = json.loads(body)
            if head["format"] != FORMAT:
                break
            walk = Walk(int(head["at"]), float(head["begun"]), token=str(head["walk"]))
    return walk, pages


def _records(path: Path) -> Iterator[tuple[int, bytes]]:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size > LARGEST:
            return
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            number, length, check = _HEAD.unpack(head)
            body = file.read(length)
            if len(body) != length or zlib.crc32(body) != check:
                return
            yield number, body
