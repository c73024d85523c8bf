"""Random operations on one new file through the kernel, against a plain array of bytes (in the manner of fsx).

A process of its own: ``python fsx.py FILE EXPECTED SEED COUNT``. It writes what the file must hold at the end into
EXPECTED, and ends with 1 and a few words where a read showed something else. It imports nothing of the project.
"""

from __future__ import annotations

import mmap
import os
import random
import sys

LARGEST = 300_000


class Exerciser:
    """One file, and what must be in it."""

    def __init__(self, path: str, seed: int) -> None:
        self.path = path
        self.chance = random.Random(seed)
        self.model = bytearray()
        self.done: list[str] = []
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    def run(self, count: int) -> None:
        """Do so many operations, and read all at the end."""
        operations = [self.write, self.read, self.truncate, self.map_write, self.map_read, self.append, self.stat]
        weights = [30, 30, 10, 10, 8, 6, 4]
        rare = [self.sync, self.reopen, self.by_path, self.second]
        for _ in range(count):
            operation = self.chance.choice(rare) if self.chance.random() < 0.03 else None
            operation = operation or self.chance.choices(operations, weights)[0]
            operation()
            del self.done[:-20]
        self.reopen()
        self.check(os.pread(self.fd, LARGEST * 2, 0), 0, len(self.model))
        os.close(self.fd)

    def span(self) -> tuple[int, int]:
        """Return an offset and a length."""
        offset = self.chance.randrange(LARGEST)
        return offset, self.chance.choice([1, 7, 512, 4096, 10_000, 60_000, 140_000])

    def put(self, offset: int, data: bytes) -> None:
        """Write into the model."""
        if len(self.model) < offset:
            self.model += bytes(offset - len(self.model))
        self.model[offset : offset + len(data)] = data

    def check(self, found: bytes, offset: int, size: int) -> None:
        """Compare what was read."""
        expected = bytes(self.model[offset : offset + size])
        if found != expected:
            at = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), "the end")
            sys.exit(f"read {len(found)} at {offset}, expected {len(expected)}, differs at {at}; {self.done}")

    def write(self) -> None:
        """pwrite(2)."""
        offset, size = self.span()
        data = self.chance.randbytes(size)
        self.done.append(f"write {offset} {size}")
        assert os.pwrite(self.fd, data, offset) == size
        self.put(offset, data)

    def append(self) -> None:
        """Write at the end, by another descriptor (O_APPEND)."""
        if len(self.model) > LARGEST:
            return
        data = self.chance.randbytes(100)
        self.done.append("append")
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.write(fd, data)
        os.close(fd)
        self.put(len(self.model), data)

    def read(self) -> None:
        """pread(2)."""
        offset, size = self.span()
        self.done.append(f"read {offset} {size}")
        self.check(os.pread(self.fd, size, offset), offset, size)

    def truncate(self) -> None:
        """ftruncate(2)."""
        size = self.chance.choice([0, self.chance.randrange(LARGEST), len(self.model)])
        self.done.append(f"truncate {size}")
        os.ftruncate(self.fd, size)
        self.resize(size)

    def by_path(self) -> None:
        """truncate(2)."""
        size = self.chance.randrange(LARGEST)
        self.done.append(f"truncate by path {size}")
        os.truncate(self.path, size)
        self.resize(size)

    def resize(self, size: int) -> None:
        """Cut or lengthen the model."""
        del self.model[size:]
        self.model += bytes(size - len(self.model))

    def map_write(self) -> None:
        """Write into a shared mapping."""
        offset, size = self.span()
        size = min(size, len(self.model) - offset)
        if size <= 0:
            return
        data = self.chance.randbytes(size)
        self.done.append(f"map write {offset} {size}")
        with mmap.mmap(self.fd, len(self.model)) as mapped:
            mapped[offset : offset + size] = data
            if self.chance.random() < 0.5:
                mapped.flush()
        self.put(offset, data)

    def map_read(self) -> None:
        """Read from a mapping."""
        offset, size = self.span()
        if offset < len(self.model):
            self.done.append(f"map read {offset} {size}")
            with mmap.mmap(self.fd, len(self.model), access=mmap.ACCESS_READ) as mapped:
                self.check(mapped[offset : offset + size], offset, size)

    def stat(self) -> None:
        """fstat(2), stat(2)."""
        sizes = {os.fstat(self.fd).st_size, os.stat(self.path).st_size}
        if sizes != {len(self.model)}:
            sys.exit(f"size {sizes}, expected {len(self.model)}; {self.done}")

    def sync(self) -> None:
        """fsync(2)."""
        self.done.append("fsync")
        os.fsync(self.fd)

    def reopen(self) -> None:
        """close(2) and open(2)."""
        self.done.append("reopen")
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_RDWR)

    def second(self) -> None:
        """Read all by another descriptor."""
        self.done.append("second")
        fd = os.open(self.path, os.O_RDONLY)
        self.check(os.pread(fd, LARGEST * 2, 0), 0, len(self.model))
        os.close(fd)


if __name__ == "__main__":
    exerciser = Exerciser(sys.argv[1], int(sys.argv[3]))
    exerciser.run(int(sys.argv[4]))
    with open(sys.argv[2], "wb") as file:
        file.write(exerciser.model)
