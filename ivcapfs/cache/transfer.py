"""One transfer: a run of neighbouring blocks, fetched by one streaming request, each handed over as it fills.

Used by `ivcapfs.cache.reader`. A transfer runs on a thread of the pool and owns the futures of its blocks: whatever
happens, each of them gets its bytes or an exception.

Threading: `Blob.flying` and `Blob.ahead` are guarded by the reader's lock, `content` and `changed` by `Blob.lock`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from ivcapfs.errors import ContentChanged, ProtocolError
from ivcapfs.models import BlockKey, Content
from ivcapfs.waits import settle


class ByteStream(Protocol):
    """The answer to one ranged request, verified before its first byte is handed out."""

    @property
    def content(self) -> Content:
        """Which content the server shows."""
        ...

    def __iter__(self) -> Iterator[bytes]:
        """Iterate chunks that add up to exactly the range."""
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
        stopped: Callable[[], bool],
    ) -> AbstractContextManager[ByteStream]:
        """Ask for the bytes [start, stop) of an artifact."""
        ...


@dataclass(slots=True, eq=False)
class Blob:
    """What the readers of one artifact share.

    Attributes:
        size: bytes, as the record says.
        content: what the server showed first; all later answers must show the same. Guarded by `lock`.
        changed: set once an answer showed something else: nothing more is fetched. Guarded by `lock`.
        flying: blocks under way. Guarded by the reader's lock.
        ahead: those of them that no reader waits for yet. Guarded by the reader's lock.
    """

    uuid: str
    size: int
    origin: str
    identity: str
    content: Content | None = None
    changed: ContentChanged | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    flying: dict[int, Future[bytes]] = field(default_factory=dict)
    ahead: set[int] = field(default_factory=set)

    def key(self, number: int) -> BlockKey | None:
        """Return a block's cache key; None before the server has shown which content there is."""
        content = self.content
        if content is None:
            return None
        return BlockKey(self.origin, self.identity, self.uuid, content.validator, number)

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

    def mark_changed(self, exc: ContentChanged) -> None:
        """Remember that an answer showed other content: what is not here yet will never be fetched."""
        with self.lock:
            self.changed = self.changed or exc


@dataclass(slots=True)
class Run:
    """Neighbouring blocks to fetch, with the futures of those who wait."""

    blob: Blob
    first: int
    futures: list[Future[bytes]]
    block_size: int


Landed = Callable[[Blob, int, bytes | Exception], None]


def transfer(run: Run, source: BlobSource, landed: Landed, stopped: Callable[[], bool]) -> None:
    """Fetch a run of blocks and settle their futures; never raises.

    Args:
        landed: told of each block, before its future is settled.
        stopped: whether to end early.
    """
    done = 0
    try:
        for block in _blocks(run, source, stopped):
            landed(run.blob, run.first + done, block)
            settle(run.futures[done], block)
            done += 1
        if done != len(run.futures):
            raise ProtocolError(f"artifact {run.blob.uuid}: {done} blocks came instead of {len(run.futures)}")
    except Exception as exc:  # noqa: BLE001 - every waiting reader gets it
        if isinstance(exc, ContentChanged):
            run.blob.mark_changed(exc)
        fail(run, exc, landed, done)


def fail(run: Run, exc: Exception, landed: Landed, done: int = 0) -> None:
    """Give the run's futures, but the first `done` of them, an exception."""
    for number, future in enumerate(run.futures[done:], run.first + done):
        landed(run.blob, number, exc)
        settle(future, exc)


def _blocks(run: Run, source: BlobSource, stopped: Callable[[], bool]) -> Iterator[bytes]:
    """Yield the run's blocks, whole, in order."""
    blob, size = run.blob, run.block_size
    start = run.first * size
    stop = min(start + len(run.futures) * size, blob.size)
    with source.open_range(blob.uuid, start, stop, expected=blob.content, stopped=stopped) as stream:
        blob.admit(stream.content)
        left = stop - start
        block = bytearray()
        for chunk in stream:
            block += chunk
            while len(block) >= min(size, left) > 0:
                whole = min(size, left)
                yield bytes(memoryview(block)[:whole])
                left -= whole
                block = block[whole:]
