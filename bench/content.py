"""The bytes that are read: how much of what, made anew for each run.

Used by `bench.world`. Each MiB begins with its number and goes on with random bytes, turned by another amount each
time: no two are alike, and none can be compressed. One thread; writes several GiB.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from bench.processes import StepFailed

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

ONE = "one"
FOUR = "four"
BIG = "big"
SMALL = "small"
MANY = "many"

_POOL = 8 * MIB
_SPARE = 1 * GIB


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything. Sizes in bytes, times in seconds.

    Attributes:
        one: the file of the sequential reads, also over the slow link.
        four: each of the four files that are read at the same time.
        big: the file of the random reads: larger than any peer's cache.
        small, small_size: how many small files, and their size.
        many: how many files are listed.
        fio_seconds: how long random reads go on.
        counted_reads: how many random reads are counted.
    """

    one: int = 1 * GIB
    four: int = 512 * MIB
    big: int = 4 * GIB
    small: int = 1000
    small_size: int = 10 * KIB
    many: int = 100_000
    fio_seconds: int = 5
    counted_reads: int = 400

    def on_disk(self) -> int:
        """Return the bytes that all files take, with what a caching peer may put beside them."""
        served = self.one + 4 * self.four + self.big + self.small * (self.small_size + 4 * KIB)
        return served + max(self.one, 4 * self.four, self.big)


FULL = Sizes()
QUICK = Sizes(one=256 * MIB, four=64 * MIB, big=1 * GIB, small=200, many=10_000, fio_seconds=1, counted_reads=100)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of files that every peer sees; the artifacts' names begin with the folder's."""

    name: str
    files: tuple[str, ...]
    size: int


def folders(sizes: Sizes) -> dict[str, Folder]:
    """Return what there is to read."""
    return {
        ONE: Folder(ONE, ("one.bin",), sizes.one),
        FOUR: Folder(FOUR, tuple(f"{number}.bin" for number in range(1, 5)), sizes.four),
        BIG: Folder(BIG, ("big.bin",), sizes.big),
        SMALL: Folder(SMALL, tuple(f"small-{number:05}.bin" for number in range(sizes.small)), sizes.small_size),
        MANY: Folder(MANY, tuple(f"file-{number:06}.dat" for number in range(sizes.many)), 10),
    }


def check_room(place: Path, sizes: Sizes) -> None:
    """See that the files fit on the disk and into the page cache.

    Raises:
        StepFailed: they do not.
    """
    free = shutil.disk_usage(place).free
    if free < sizes.on_disk() + _SPARE:
        need = (sizes.on_disk() + _SPARE) / GIB
        raise StepFailed(f"{place} has {free / GIB:.1f} GiB free, {need:.1f} are needed: set TMPDIR, or use --quick")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    served = sizes.one + 4 * sizes.four + sizes.big
    if memory < served + _SPARE:
        raise StepFailed(f"the files ({served / GIB:.0f} GiB) do not fit into the page cache: use --quick")


def make_files(root: Path, sizes: Sizes) -> None:
    """Make all files below `root`; they are in the page cache afterwards, and on the disk.

    The many files are holes: only their names and sizes are looked at.
    """
    pool = os.urandom(_POOL) * 2
    number = 0
    for folder in folders(sizes).values():
        place = root / folder.name
        place.mkdir(parents=True)
        for name in folder.files:
            with (place / name).open("wb", buffering=0) as file:
                if folder.name == MANY:
                    file.truncate(folder.size)
                    continue
                number = _fill(file.fileno(), folder.size, pool, number)
    os.sync()


def _fill(descriptor: int, size: int, pool: bytes, number: int) -> int:
    """Write `size` bytes that occur nowhere else; return the number to go on with."""
    left = size
    while left:
        length = min(MIB, left)
        at = number * 4099 % _POOL
        os.write(descriptor, (number.to_bytes(16, "big") + pool[at : at + MIB - 16])[:length])
        left -= length
        number += 1
    return number
