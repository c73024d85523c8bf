"""What must be in each file of the torture: stretches of one pool of noise, named by numbers alone.

Used by all of `tests.torture`, in every process. Whoever has a new file's first bytes knows which version it is, and so
every other byte of it.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path

POOL = 4 * 1024 * 1024
HEADER = struct.Struct(">8sII")
MAGIC = b"torture\0"
_SHARED_SIZES = (0, 1, 300, 4096, 20_000, 65_536, 131_072, 131_073, 300_000, 700_000)
_OWN_SIZES = (HEADER.size, 100, 5_000, 5_000, 40_000, 70_000, 300_000)


def make_pool(path: Path, seed: int) -> None:
    """Write the pool."""
    path.write_bytes(random.Random(f"pool/{seed}").randbytes(POOL))


def shared_size(number: int) -> int:
    """Return the size of a shared artifact."""
    return _SHARED_SIZES[number % len(_SHARED_SIZES)]


def shared_name(number: int) -> str:
    """Return the name of a shared artifact; 50 are in a folder."""
    return f"shared/{number // 50:02}/item-{number:04}.bin"


def shared(pool: bytes, number: int) -> memoryview:
    """Return the content of a shared artifact."""
    size = shared_size(number)
    start = number * 7919 % (POOL - size)
    return memoryview(pool)[start : start + size]


def own_size(worker: int, version: int) -> int:
    """Return the size of a file that a worker writes."""
    return _OWN_SIZES[(worker + version * 31) % len(_OWN_SIZES)]


def own(pool: bytes, worker: int, version: int) -> bytes:
    """Return the content of a file that a worker writes."""
    size = own_size(worker, version) - HEADER.size
    start = (worker * 1_000_003 + version * 104_729) % (POOL - size)
    return HEADER.pack(MAGIC, worker, version) + pool[start : start + size]


def whose(data: bytes | memoryview) -> tuple[int, int] | None:
    """Return the worker and version that a content begins like; None: of nobody."""
    if len(data) < HEADER.size:
        return None
    magic, worker, version = HEADER.unpack(data[: HEADER.size])
    return (worker, version) if magic == MAGIC else None
