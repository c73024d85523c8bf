"""When to read ahead, and how far: one small state per open file; and how many transfers do so, for the whole mount.

Used by `ivcapfs.cache.reader`. Pure: no I/O, no clock. Not safe for several threads: the reader calls it under its own
lock.

The kernel splits one read(2) into requests that may arrive out of order, and readers skip a little (headers, padding).
So a read counts as sequential when it begins near where the reading has got to, not only exactly there. The first read
of a file is never followed by read-ahead: ``head``, ``file`` and ``tail`` stop after it. Then the window doubles each
time that the reader has used up half of it, and one read elsewhere closes it again.

How far the window may grow depends on the connections (`ivcapfs.cache.pace`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ivcapfs.cache.block import Block
from ivcapfs.cache.transfer import Blob

FIRST_WINDOW = 4
NEAR_BEHIND = 32
NEAR_AHEAD = 16
LONGEST, LONGEST_FAST = 64, 256
"""Of one transfer, and of one whose connection is fast (`ivcapfs.cache.pace`). All in smallest blocks."""
MOST_MOVING, MOST_STILL = 32, 96
"""Transfers at a time, of all readers, that fetch what nobody waits for yet; those that stand still count apart."""
STILL_SECONDS = 2.0


@dataclass(slots=True)
class ReadAhead:
    """The read-ahead of one open file. All sizes in bytes.

    Args:
        block: the smallest block.

    Attributes:
        front: how far the reader has got.
        ahead: how far the read-ahead has got.
        size: of the window now.
    """

    block: int
    front: int = 0
    ahead: int = 0
    size: int = 0
    started: bool = False

    def window(self, offset: int, size: int, largest: int) -> int:
        """Note a read of [offset, offset + size); return how many bytes behind its end are worth fetching now.

        Args:
            largest: how far the window may grow now; 0: no read-ahead.
        """
        end = offset + size
        near = self.front - NEAR_BEHIND * self.block <= offset <= self.front + NEAR_AHEAD * self.block
        first, self.started = not self.started, True
        if first or not near:
            self.front, self.ahead, self.size = end, end, 0
            return 0
        if end <= self.front:
            return 0
        self.front = end
        self.size = min(self.size, largest)
        if largest == 0 or self.front + self.size // 2 < self.ahead:
            return 0
        self.size = min(max(self.size * 2, FIRST_WINDOW * self.block), largest)
        self.ahead = max(self.ahead, self.front + self.size)
        return max(0, self.ahead - end)

    def fall_back(self, ahead: int) -> None:
        """Note that the read-ahead got only so far, because there was no room: the window shrinks to that."""
        self.ahead = max(self.front, ahead)
        self.size = max(self.ahead - self.front, 0)

    def transfer(self, longest: int) -> int:
        """Return how long the transfers of the window should be: half of it, a power of two, and at most `longest`."""
        half = max(self.block, min(longest, self.size // 2))
        return 1 << (half.bit_length() - 1)


@dataclass(slots=True, eq=False)
class Handle:
    """One open file."""

    blob: Blob
    ahead: ReadAhead
    is_open: bool = True


@dataclass(slots=True, eq=False)
class Read:
    """One read on its way.

    Attributes:
        end: where it ends.
        window: how much to read ahead of it; None: not yet decided.
        blocks: those that it uses now.
        claimed: those that it is to hand to the pool.
    """

    handle: Handle
    end: int
    window: int | None = None
    blocks: list[Block] = field(default_factory=list)
    claimed: list[Block] = field(default_factory=list)


@dataclass(slots=True)
class Slots:
    """The transfers that fetch what nobody waits for yet, of all readers, and whether there may be another one.

    One whose server has fallen silent takes nobody's slot for long: others are read ahead for as before.

    Attributes:
        noted: for each block how many bytes it had, and when it was seen to have more than before, in seconds.
    """

    noted: dict[Block, tuple[int, float]] = field(default_factory=dict)

    def add(self, block: Block, time: float) -> None:
        """A transfer begins."""
        self.noted[block] = (0, time)

    def discard(self, block: Block) -> None:
        """A transfer has ended, or somebody waits for its block."""
        self.noted.pop(block, None)

    def is_free(self, time: float) -> bool:
        """Return whether another one may begin."""
        if len(self.noted) < MOST_MOVING:
            return True
        moving = 0
        for block, (filled, since) in self.noted.items():
            if block.filled != filled:
                self.noted[block] = (block.filled, time)
                moving += 1
            elif time - since < STILL_SECONDS:
                moving += 1
        return moving < MOST_MOVING and len(self.noted) < MOST_MOVING + MOST_STILL
