"""A block: some neighbouring bytes of an artifact, which can be read while they are still coming.

Used by the reader, which makes blocks and copies out of them, and by the transfers, which fill them from the front.

Threading: `filled` and `failure` are written under the block's own lock, and read without; everything else of it is
guarded by the reader's lock. One transfer fills a block, any number of readers wait for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from ivcapfs.errors import DeadlineExceeded
from ivcapfs.waits import POLL_SECONDS, Check, now

Sink = Callable[[Sequence[memoryview], bool], None]
"""Takes the next bytes of a read, which are valid during the call only, and whether they are the last."""

_Waiter = tuple[int, threading.Lock]
"""How many bytes somebody needs, and a lock that is let go when they are there: unlike a condition's, whoever waits for
it has nothing more to take afterwards."""


class Block:
    """The bytes [start, start + size) of an artifact's content.

    Args:
        start, size: bytes; `start` is a multiple of the smallest block.
        buffer: room for them, at least `size` bytes.
        ahead: whether they are fetched ahead, and no reader has asked for them yet.

    Attributes:
        readers: how many copy out of the buffer or wait for it.
        is_filling: whether its transfer has not ended.
        is_lost: whether its transfer failed.
        is_spent: whether it was read to its end: the kernel has its bytes now.
    """

    __slots__ = (
        "_lock", "_waiters", "ahead", "buffer", "failure", "filled", "is_filling", "is_lost", "is_spent", "readers",
        "size", "start",
    )  # fmt: skip

    def __init__(self, start: int, size: int, buffer: memoryview, *, ahead: bool) -> None:
        self.start = start
        self.size = size
        self.buffer = buffer
        self.ahead = ahead
        self.readers = 0
        self.is_filling = True
        self.is_lost = False
        self.is_spent = False
        self._lock = threading.Lock()
        self._waiters: list[_Waiter] = []  # guarded by _lock
        self.filled = 0  # written under _lock
        self.failure: Exception | None = None  # written under _lock

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.start + self.size

    @property
    def is_whole(self) -> bool:
        """Whether all bytes have come."""
        return self.filled == self.size

    def advance(self, count: int) -> None:
        """Note that so many more bytes were put into the buffer."""
        with self._lock:
            self.filled += count
            woken = [waiter for waiter in self._waiters if waiter[0] <= self.filled]
            for waiter in woken:
                self._waiters.remove(waiter)
        for _, bell in woken:
            bell.release()

    def fail(self, failure: Exception) -> None:
        """Note that no more bytes will come; who waits for them gets the exception."""
        with self._lock:
            self.failure = failure
            woken, self._waiters = self._waiters, []
        for _, bell in woken:
            bell.release()

    def part(self, start: int, end: int) -> memoryview:
        """Return what the block has of [start, end), all of which is there, for a read."""
        begin, stop = max(start, self.start), min(end, self.end)
        if stop == self.end:
            self.is_spent = True
        return self.buffer[begin - self.start : stop - self.start]

    def wait(self, offset: int, check: Check, seconds: float, what: str) -> bool:
        """Wait until the bytes before `offset` (of the artifact) are there.

        Args:
            check: see `ivcapfs.waits`.
            seconds: without any progress.

        Returns:
            Whether there was anything to wait for.

        Raises:
            DeadlineExceeded: nothing came for so long.
            Exception: what the transfer failed with.
        """
        needed = offset - self.start
        if self.filled >= needed:
            return False
        waiter = self._enter(needed)
        seen, end = -1, 0.0
        try:
            while not self._has(needed):
                if waiter[1].acquire(timeout=POLL_SECONDS):
                    continue
                check()
                if self.filled != seen:
                    seen, end = self.filled, now() + seconds
                elif now() > end:
                    raise DeadlineExceeded(f"{what}: no bytes for {seconds:.0f} s")
        finally:
            self._leave(waiter)
        return True

    def _enter(self, needed: int) -> _Waiter:
        """Return a waiter whose bell is rung as soon as `_has` says something else than now."""
        bell = threading.Lock()
        bell.acquire()
        waiter = (needed, bell)
        with self._lock:
            self._waiters.append(waiter)
        return waiter

    def _has(self, needed: int) -> bool:
        """Return whether so many bytes are there; raise what the transfer failed with, if they will never be."""
        failure = self.failure  # before `filled`: what came before the failure counts
        if self.filled >= needed:
            return True
        if failure is not None:
            raise failure
        return False

    def _leave(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
