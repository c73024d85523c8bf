"""A block: some neighbouring bytes of an artifact, which can be read while they are still coming.

Used by the reader, which makes blocks and copies out of them, and by the transfers, which fill them from the front.

Threading: a block's own condition guards `filled` and `failure`; everything else of it is guarded by the reader's lock.
One transfer fills a block, any number of readers wait for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ivcapfs.errors import DeadlineExceeded
from ivcapfs.waits import POLL_SECONDS, Check, now

Sink = Callable[[memoryview], None]
"""Takes the next bytes of a read; they are valid during the call only."""


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
        "_changed", "_wanted", "ahead", "buffer", "failure", "filled", "is_filling", "is_lost", "is_spent", "readers",
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
        self._changed = threading.Condition()
        self._wanted: list[int] = []  # how many bytes each waiter needs; guarded by _changed
        self.filled = 0  # guarded by _changed
        self.failure: Exception | None = None  # guarded by _changed

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
        with self._changed:
            self.filled += count
            if self._wanted and self.filled >= min(self._wanted):
                self._changed.notify_all()

    def fail(self, failure: Exception) -> None:
        """Note that no more bytes will come; who waits for them gets the exception."""
        with self._changed:
            self.failure = failure
            self._changed.notify_all()

    def copy(self, position: int, end: int, sink: Sink) -> int:
        """Hand what the block has of [position, end), all of which is there, to the sink; return how far that got."""
        stop = min(end, self.end)
        sink(self.buffer[position - self.start : stop - self.start])
        if stop == self.end:
            self.is_spent = True
        return stop

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
        seen, end = -1, 0.0
        while not self._wait_once(needed):
            check()
            if self.filled != seen:
                seen, end = self.filled, now() + seconds
            elif now() > end:
                raise DeadlineExceeded(f"{what}: no bytes for {seconds:.0f} s")
        return True

    def _wait_once(self, needed: int) -> bool:
        """Wait a moment; return whether the bytes are there."""
        with self._changed:
            self._wanted.append(needed)
            try:
                there = self._changed.wait_for(lambda: self.filled >= needed or self.failure, POLL_SECONDS)
                if there and self.filled < needed and self.failure is not None:
                    raise self.failure
                return bool(there)
            finally:
                self._wanted.remove(needed)
