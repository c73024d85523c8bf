"""Tells a slow transfer from one that will never end.

Used by `ivcapfs.client.blobs`. One `LeastRate` belongs to one transfer, hence to one thread.
"""

from __future__ import annotations

from ivcapfs.config import MIB, Limits
from ivcapfs.errors import DeadlineExceeded

MOST_SILENCES = 1
"""After so many another connection is tried."""
MUCH = 8 * MIB
"""Bytes after which earlier silences are forgotten: a long download may meet many."""


class TooSlow(DeadlineExceeded):
    """The transfer is under the least rate; unlike a single late read, this is not worth another try."""


class LeastRate:
    """Counts bytes against the time spent waiting for them; what the consumer takes its time for does not
    count.

    Args:
        limits: `idle` is the window in seconds, `least_rate` the bytes per second that each window must bring.
    """

    def __init__(self, limits: Limits) -> None:
        self._window = limits.idle
        self._least = limits.least_rate
        self._seconds = 0.0
        self._bytes = 0
        self._silences = self._since_silence = 0

    def waited(self, seconds: float, gained: int) -> None:
        """Take note of one wait.

        Raises:
            TooSlow: a window is over, and brought too little.
        """
        self._seconds += seconds
        self._bytes += gained
        self._since_silence += gained
        if self._seconds < self._window:
            return
        if self._bytes < self._least * self._seconds:
            raise TooSlow(f"{self._bytes} bytes in {self._seconds:.0f} s, under {self._least} B/s")
        self._seconds, self._bytes, self._silences = 0.0, 0, 0

    def silent(self, seconds: float) -> None:
        """Take note of a wait that brought nothing until its bound. Another connection may help, but not for ever: with
        half of what is missing before each silence, a transfer would never end.

        Raises:
            TooSlow: it is the second time without a good window or much in between; or as `waited`.
        """
        silences = 1 if self._since_silence >= MUCH else self._silences + 1
        self._since_silence = 0
        self.waited(seconds, 0)
        if silences > MOST_SILENCES:
            raise TooSlow(f"nothing for {seconds:.0f} s, and that {silences} times")
        self._silences = silences
