"""A process that writes files into a mount and records every close(2) that returned 0.

Started by the tests of what a killed mount leaves: ``python writer.py FOLDER RECORD SEED LARGEST``. It imports nothing
of the project. Content and size follow from the name and the seed, so the test can tell what must be in each file.
"""

from __future__ import annotations

import os
import random
import sys


def content(name: str, seed: int, largest: int) -> bytes:
    """Return what is written into a file."""
    chance = random.Random(f"{seed}/{name}")
    size = chance.choice([0, 1, 100, 5_000, 70_000, largest // 7, largest])
    return chance.randbytes(size)


def main() -> None:
    """Write files, each in some pieces, sometimes rewriting a part, until the mount is gone."""
    folder, record, seed, largest = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    chance = random.Random(seed)
    log = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in range(1_000_000):
        name = f"{seed}-{number:04}"
        data = content(name, seed, largest)
        os.write(log, f"begun {name}\n".encode())
        try:
            fd = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                write(fd, data, chance)
            finally:
                os.close(fd)
        except OSError:
            os.write(log, f"failed {name}\n".encode())
            return
        os.write(log, f"closed {name}\n".encode())


def write(fd: int, data: bytes, chance: random.Random) -> None:
    """Write the content: in order, or some of it twice."""
    if data and chance.random() < 0.3:
        os.pwrite(fd, bytes(len(data)), 0)
        if chance.random() < 0.5:
            os.fsync(fd)
    step = max(len(data) // 3, 1)
    for start in range(0, len(data), step):
        os.pwrite(fd, data[start : start + step], start)
    if chance.random() < 0.1:
        os.fsync(fd)


if __name__ == "__main__":
    main()
