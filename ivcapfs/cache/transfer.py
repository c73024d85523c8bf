"""One transfer: one block, filled by one streaming request, readable while it fills.

Used by `ivcapfs.cache.reader`. A transfer runs on a thread of the pool and owns its block: whatever happens, the block
gets all its bytes or a failure.

Threading: `Blob.blocks` is guarded by the reader's lock, `content` and `changed` by `Blob.lock`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from ivcapfs.cache.block import Block
from ivcapfs.cache.shelf import Shelf
from ivcapfs.errors import ContentChanged, ProtocolError
from ivcapfs.models import Content


class ByteStream(Protocol):
    """The answer to one ranged request, verified before its first byte is handed out."""

    @property
    def content(self) -> Content:
        """Which content the server shows."""
        ...

    def readinto(self, view: memoryview) -> int:
        """Read what has come, at least one byte; 0 once the whole range was read."""
        ...


class BlobSource(Protocol):
    """Gives an artifact's bytes by range; the client's `Blobs`, or a fake."""

    def open_range(
        self,
        uuid: str,
        start: int,
        stop: int,
        *,
        expected: Content | None,
        size: int | None,
        stopped: Callable[[], bool],
    ) -> AbstractContextManager[ByteStream]:
        """Ask for the bytes [start, stop) of an artifact."""
        ...


@dataclass(slots=True, eq=False)
class Blob:
    """What the readers of one artifact share.

    Attributes:
        size: bytes, as the record says.
        trusts_shelf: whether a content noted on disk may stand for what the server would show.
        content: what the server showed first; all later answers must show the same. Guarded by `lock`.
        changed: set once an answer showed something else: nothing more is fetched. Guarded by `lock`.
        blocks: those cached or on their way, by each smallest block that they cover. Guarded by the reader's lock.
        number: no other one of this process has it, also when this one is gone.
        lock: one for all: there are many artifacts, and it is held for a comparison.
    """

    uuid: str
    size: int
    trusts_shelf: bool = True
    content: Content | None = None
    changed: ContentChanged | None = None
    blocks: dict[int, Block] = field(default_factory=dict)
    number: int = field(default_factory=itertools.count(1).__next__)
    lock: ClassVar[threading.Lock] = threading.Lock()

    def missing(self, start: int, end: int, unit: int) -> int:
        """Return the bytes of the smallest blocks, of `unit` bytes, of [start, end) that are neither here nor on their
        way. The reader's lock is held."""
        return sum(unit for number in range(start // unit, -(-end // unit)) if number not in self.blocks)

    def admit(self, content: Content) -> None:
        """Compare what an answer shows with what is known.

        Raises:
            ContentChanged: it is something else.
        """
        with self.lock:
            if self.content is None and content.size == self.size:
                self.content = content
            elif content != self.content:
                seen = self.content or f"{self.size} bytes in its record"
                raise ContentChanged(f"artifact {self.uuid} has other content now: {content}, was {seen}")

    def suppose(self, content: Content) -> None:
        """Take what was noted for what the server would show, unless that is known by now, or the size differs."""
        with self.lock:
            if self.content is None and content.size == self.size:
                self.content = content

    def mark_changed(self, exc: ContentChanged) -> None:
        """Remember that an answer showed other content: what is not here yet will never be fetched."""
        with self.lock:
            self.changed = self.changed or exc


def transfer(
    blob: Blob, block: Block, source: BlobSource, shelf: Shelf | None, stopped: Callable[[], bool]
) -> Exception | None:
    """Fill a block, or the rest of it; return why it failed, or None. Never raises. Nobody is told of a failure yet.

    Args:
        shelf: is looked at first, and gets what the server sent.
        stopped: whether to end early.
    """
    try:
        if shelf is not None and not block.filled:
            _restore(blob, block, shelf)
        begin = block.filled
        if not block.is_whole:
            _fetch(blob, block, source, shelf, stopped)
        if not block.is_whole:
            raise ProtocolError(f"artifact {blob.uuid}: {block.filled} bytes came instead of {block.size}")
        if shelf is not None and blob.content is not None and begin < block.size:
            shelf.keep(blob.uuid, blob.content, block.start + begin, block.buffer[begin : block.size])
    except Exception as exc:  # noqa: BLE001 - handed on to every reader that waits
        if isinstance(exc, ContentChanged):
            blob.mark_changed(exc)
        return exc
    return None


def _restore(blob: Blob, block: Block, shelf: Shelf) -> None:
    """Fill as much of the block as the shelf has from its beginning on."""
    if blob.content is None and blob.trusts_shelf:
        noted = shelf.content(blob.uuid)
        if noted is not None:
            blob.suppose(noted)
    if blob.content is not None:
        for count in shelf.restore(blob.uuid, blob.content, block.start, block.buffer[: block.size]):
            block.advance(count)


def _fetch(
    blob: Blob, block: Block, source: BlobSource, shelf: Shelf | None, stopped: Callable[[], bool]
) -> None:
    """Fill the rest of the block from the server."""
    known = blob.content
    start = block.start + block.filled
    with source.open_range(
        blob.uuid, start, block.end, expected=known, size=blob.size, stopped=stopped
    ) as stream:
        blob.admit(stream.content)
        if shelf is not None and known is None:
            shelf.note(blob.uuid, stream.content, again=not blob.trusts_shelf)
        room = block.buffer[: block.size]
        while got := stream.readinto(room[block.filled :]):
            block.advance(got)
