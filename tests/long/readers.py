"""A process that reads files through a mount and compares every byte with what it should be.

Run as a module, with the job as JSON on standard input: ``python -m tests.long.readers WORK``. It ends with 1 and a
line on standard error at the first wrong byte or failing read, and else prints the seconds that the reads took.
"""

from __future__ import annotations

import contextlib
import functools
import json
import mmap
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.long.origin import MIB, Stretch
from tests.together import together

ROOT = Path(__file__).parent.parent.parent
PIECE = MIB

Job = list[tuple[str, str, int, int]]
"""Of each file: its path, the file that its bytes are from, where they begin there, how many."""


def job_of(files: list[tuple[Path, Stretch]]) -> str:
    """Return the job of reading files whose contents are these."""
    return json.dumps([(str(path), str(place.file), place.start, place.size) for path, place in files])


@contextlib.contextmanager
def reading(work: str, files: list[tuple[Path, Stretch]]) -> Iterator[subprocess.Popen[str]]:
    """A process that reads files and does not outlive the block; see `seconds_of`."""
    command = [sys.executable, "-m", "tests.long.readers", work]
    with tempfile.TemporaryFile("w+") as job:
        job.write(job_of(files))
        job.seek(0)
        process = subprocess.Popen(
            command, cwd=ROOT, text=True, stdin=job, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def seconds_of(process: subprocess.Popen[str], timeout: float) -> float:
    """Wait for a reading process; return how long its reads took. Fails the test if one of them went wrong."""
    output, errors = process.communicate(timeout=timeout)
    assert process.returncode == 0, errors[-2000:]
    return float(output)


def read_all(work: str, files: list[tuple[Path, Stretch]], timeout: float) -> float:
    """Read files in a process of its own and compare all bytes; return how long the reads took."""
    with reading(work, files) as process:
        return seconds_of(process, timeout)


# -- in the process --------------------------------------------------------------------------------------------------


@dataclass
class _File:
    """A file to be read, open, and what must be in it."""

    path: str
    fd: int
    expected: memoryview
    buffer: bytearray

    def check(self, at: int, size: int) -> None:
        """Read some bytes and compare them."""
        size = min(size, len(self.expected) - at)
        got = os.preadv(self.fd, [memoryview(self.buffer)[:size]], at)
        # Not a memoryview on the left: those compare element by element.
        if got != size or self.buffer[:size] != self.expected[at : at + size]:
            raise ValueError(f"wrong bytes in {self.path}: {got} of {size} at {at}")


def _opened(job: Job) -> list[_File]:
    pools: dict[str, memoryview] = {}
    files = []
    for path, pool, start, size in job:
        if pool not in pools:
            with Path(pool).open("rb") as file:
                pools[pool] = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        fd = os.open(path, os.O_RDONLY)
        files.append(_File(path, fd, pools[pool][start : start + size], bytearray(min(PIECE, size))))
    return files


def sequential(files: list[_File]) -> None:
    """Read all files at the same time, each from its beginning to its end."""
    together(functools.partial(one_by_one, [file]) for file in files)


def one_by_one(files: list[_File]) -> None:
    """Read one file after the other."""
    for file in files:
        for at in range(0, len(file.expected), PIECE):
            file.check(at, PIECE)


def in_turn(files: list[_File], piece: int = 128 * 1024) -> None:
    """Read a piece of each file, then the next one of each, by one thread."""
    for at in range(0, max(len(file.expected) for file in files), piece):
        for file in files:
            if at < len(file.expected):
                file.check(at, piece)


def main(work: str) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files = _opened(json.load(sys.stdin))
    begin = time.monotonic()
    {"sequential": sequential, "one-by-one": one_by_one, "in-turn": in_turn}[work](files)
    print(time.monotonic() - begin, flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (OSError, ValueError) as failure:
        sys.exit(f"{type(failure).__name__}: {failure}")
