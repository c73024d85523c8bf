"""How many transfers should go side by side, as long as more of them bring more, and how many bytes one should have.

Used by `ivcapfs.cache.reader`. Pure: no I/O, no clock. Not safe for several threads: the reader calls it under its own
lock.

A fast connection needs two transfers at a time, of which one is ready when the other is read; of slow ones many go side
by side. But a connection may be slow because there are many: they share a link, or this machine's processors. Then
another one brings nothing, makes the others slower still, and takes memory. So the number is doubled step by step, and
halved again, for a while, where all of them together carry no more than before.

A transfer has as many bytes as its connection brings in `TRANSFER_SECONDS`, but no fewer than `LONGEST` blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from ivcapfs.cache.readahead import LONGEST, LONGEST_FAST

ENOUGH = 400_000_000
"""Bytes per second: connections are added until those of all readers carry this together."""
MOST_TRANSFERS = 16
"""Of one reader."""
FEW, MANY = 4, 32
"""Transfers of all readers that are tried at first, and at most; a reader has two in any case."""
GAIN = 1.1
"""So many times what half of them carried, and the larger number is worth it."""
RESTING = 16
"""Rounds before more are tried again. In a round as many transfers end as may go side by side."""
TRANSFER_SECONDS = 0.05
"""How long a transfer should last: its request takes half a millisecond of a processor, whatever it brings."""
SMOOTHING = 0.3


@dataclass(slots=True)
class Pace:
    """How fast connections are, as seen lately, and what follows for the windows.

    Args:
        block: the smallest block, in bytes.

    Attributes:
        rate: of one connection, in bytes per second.
        most: how many transfers may go side by side, of all readers.
        best: what half of them carried together, in bytes per second; 0: not known.
        resting: rounds in which nothing else is tried; 0: `most` was doubled, and is judged at the end of its round.
        ended: transfers of this round so far.
        carried: what they carried together, in bytes per second.
    """

    block: int
    rate: float = 0.0
    most: int = FEW
    best: float = 0.0
    resting: int = 0
    ended: int = 0
    carried: float = 0.0

    def note(self, size: int, seconds: float, together: int) -> None:
        """Note a finished transfer; short ones tell more of the latency than of the rate.

        Args:
            size: in bytes.
            together: how many were under way, this one included.
        """
        if size < LONGEST * self.block // 8 or seconds <= 0:
            return
        rate = size / seconds
        self.rate = _smooth(self.rate, rate)
        if 4 * together < 3 * self.most:
            return  # so many were not wanted, and say nothing of whether that would be too many
        self.carried = _smooth(self.carried, rate * together)
        self.ended += 1
        if self.ended >= self.most:
            self._judge()

    def transfers(self, readers: int) -> int:
        """Return how many transfers should go side by side for one of so many readers."""
        if not self.rate:
            return 2
        wanted = min(self.most, ENOUGH / self.rate)
        return max(2, min(MOST_TRANSFERS, round(wanted / readers)))

    def longest(self, readers: int) -> int:
        """Return how many bytes one transfer for one of so many readers should have at most."""
        most = int(self.rate * TRANSFER_SECONDS / readers)
        return max(LONGEST * self.block, min(LONGEST_FAST * self.block, most))

    def largest(self, limit: int, readers: int) -> int:
        """Return the largest useful window of one of so many readers, within `limit` bytes."""
        return min(limit, self.transfers(readers) * self.longest(readers))

    def _judge(self) -> None:
        """End a round."""
        if self.resting:
            self.resting -= 1
            tries_more = not self.resting
        else:
            tries_more = self.carried > GAIN * self.best
            if not tries_more:
                self.most = max(FEW, self.most // 2)
        if tries_more and self.most < MANY:
            self.most, self.best = 2 * self.most, self.carried
        elif not self.resting:
            self.resting = RESTING
        self.ended, self.carried = 0, 0.0


def _smooth(before: float, value: float) -> float:
    return (1 - SMOOTHING) * before + SMOOTHING * value if before else value
