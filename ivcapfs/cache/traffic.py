"""How much was read and fetched: counters around the reads and the requests for contents.

Used by `ivcapfs.fs.floors`, which puts them in place, by `ivcapfs.fs.operations`, and told by `ivcapfs.fs.status`.

Threading: any thread may call anything. `Traffic._lock` is held for an addition, never during I/O or a wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import NamedTuple

from ivcapfs.cache.block import Sink
from ivcapfs.cache.transfer import BlobSource, ByteStream
from ivcapfs.models import Content


class TrafficCounts(NamedTuple):
    """What was counted since the mount began.

    Attributes:
        reads: of programs, as far as the kernel's page cache did not answer them.
        bytes_read: what those got.
        requests: for contents; what the client repeats by itself is counted once.
        bytes_fetched: what came of them.
        failures: requests that ended with an error.
        transfers: requests under way now.
    """

    reads: int
    bytes_read: int
    requests: int
    bytes_fetched: int
    failures: int
    transfers: int


class Traffic:
    """The counters of one mount."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reads = self._bytes_read = 0  # guarded by _lock
        self._requests = self._bytes_fetched = self._failures = self._transfers = 0  # guarded by _lock

    def counts(self) -> TrafficCounts:
        """Return what was counted so far."""
        with self._lock:
            return TrafficCounts(
                self._reads, self._bytes_read, self._requests, self._bytes_fetched, self._failures, self._transfers
            )

    def counted(self, sink: Sink) -> Sink:
        """Return what takes the bytes of one read in place of `sink`, and counts them before it hands them on.

        Before: a program that has its bytes may look at the counters at once.
        """

        def take(pieces: Sequence[memoryview], is_last: bool) -> None:
            with self._lock:
                self._reads += is_last
                self._bytes_read += sum(map(len, pieces))
            sink(pieces, is_last)

        return take

    def begun(self) -> None:
        """A request begins."""
        with self._lock:
            self._requests += 1
            self._transfers += 1

    def ended(self, *, failed: bool) -> None:
        """A request has ended."""
        with self._lock:
            self._transfers -= 1
            self._failures += failed

    def count_fetched(self, size: int) -> None:
        """So many bytes came."""
        with self._lock:
            self._bytes_fetched += size


class CountedSource:
    """A source of bytes whose requests are counted; see `BlobSource`."""

    def __init__(self, source: BlobSource, traffic: Traffic) -> None:
        self._source = source
        self._traffic = traffic

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
        """See `BlobSource.open_range`."""
        opening = self._source.open_range(uuid, start, stop, expected=expected, size=size, stopped=stopped)
        return _CountedStream(opening, self._traffic)


class _CountedStream(AbstractContextManager[ByteStream]):
    """A request, and then its stream, whose bytes are counted; see `ByteStream`."""

    def __init__(self, opening: AbstractContextManager[ByteStream], traffic: Traffic) -> None:
        self._opening = opening
        self._traffic = traffic
        self._count = traffic.count_fetched

    def __enter__(self) -> ByteStream:
        self._traffic.begun()
        try:
            stream = self._opening.__enter__()
        except BaseException:
            self._traffic.ended(failed=True)
            raise
        self._readinto, self.content = stream.readinto, stream.content
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._opening.__exit__(kind, value, trace)
        finally:
            self._traffic.ended(failed=kind is not None)

    def readinto(self, view: memoryview) -> int:
        """See `ByteStream.readinto`."""
        got = self._readinto(view)
        self._count(got)
        return got
