"""How much was read and fetched: counters around the reads and the requests for contents.

Used by `ivcapfs.fs.floors`, which puts them in place, by `ivcapfs.fs.operations`, and told by `ivcapfs.fs.status`.

Threading: any thread may call anything. `Traffic._lock` is held for an addition, never during I/O or a wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
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

    @contextmanager
    def transfer(self) -> Iterator[None]:
        """One request is under way."""
        with self._lock:
            self._requests += 1
            self._transfers += 1
        failed = 1
        try:
            yield
            failed = 0
        finally:
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
        return self._counted(
            self._source.open_range(uuid, start, stop, expected=expected, size=size, stopped=stopped)
        )

    @contextmanager
    def _counted(self, opening: AbstractContextManager[ByteStream]) -> Iterator[ByteStream]:
        with self._traffic.transfer(), opening as stream:
            yield _CountedStream(stream, self._traffic)


class _CountedStream:
    """A stream whose bytes are counted; see `ByteStream`."""

    def __init__(self, stream: ByteStream, traffic: Traffic) -> None:
        self._readinto = stream.readinto
        self._count = traffic.count_fetched
        self.content = stream.content

    def readinto(self, view: memoryview) -> int:
        """See `ByteStream.readinto`."""
        got = self._readinto(view)
        self._count(got)
        return got
