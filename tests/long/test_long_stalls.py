"""A server that has fallen silent: who reads from it waits, and nobody else does."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.long.conftest import World
from tests.long.origin import MIB
from tests.long.readers import read_all
from tests.mount.conftest import Mount, Mounter, eventually, output

LONG = (pytest.mark.long, pytest.mark.timeout(900))
STALL_SECONDS = 300
"""The mount waits so long for a byte: longer than the whole test takes."""
WAIT = 60.0
"""What is held up is not waited for longer."""


@contextlib.contextmanager
def stalled_readers(world: World, mount: Mount, urns: list[str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that read contents of which no byte comes, or none after the first few."""
    for number, urn in enumerate(urns):
        world.origin.silent[urn] = -1 if number % 2 else 10_000
    readers: list[subprocess.Popen[bytes]] = []
    try:
        for urn in urns:
            command = ["cat", str(mount.by_id(urn) / "content")]
            readers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        eventually(lambda: world.origin.stalled >= set(urns), "all of them wait", seconds=60.0)
        yield readers
    finally:
        for reader in readers:
            reader.kill()
        for reader in readers:
            reader.wait(timeout=30)


def look_around(mount: Mount, names: int, known: Path) -> float:
    """List everything, with attributes, and look at one file; return how long that took."""
    begin = time.monotonic()
    assert len(output("ls", "-l", mount.artifacts, timeout=WAIT).splitlines()) == names + 1
    assert "regular file" in output("stat", "-L", known, timeout=WAIT)
    return time.monotonic() - begin


@pytest.mark.parametrize(
    ("stalls", "size", "rounds", "budget"),
    [
        pytest.param([0, 1, 20], 4 * MIB, 1, 64 * MIB, id="small"),
        pytest.param([0, 1, 100, 0], 512 * MIB, 5, 1024 * MIB, id="long", marks=LONG),
        pytest.param([0, 1, 100, 0], 512 * MIB, 5, 128 * MIB, id="long-128M", marks=LONG),
    ],
)
def test_stalled_readers_hold_up_nobody(
    world: World,
    mounter: Mounter,
    tell: Callable[[str], None],
    stalls: list[int],
    size: int,
    rounds: int,
    budget: int,
) -> None:
    """Read cold files and list the folder, beside more or fewer stalled readers; none of those has ended then."""
    world.fill_pool(size + MIB)
    mount = mounter(world.platform.url, timeout=STALL_SECONDS, cache_size=budget)
    silent = [world.add(f"silent-{number:03}", size) for number in range(max(stalls))]
    cold = iter([world.add(f"cold-{number:03}", size, number) for number in range(rounds * len(stalls))])
    names = len(silent) + rounds * len(stalls)
    eventually(lambda: len(os.listdir(mount.artifacts)) == names, "all are listed")
    alone = 0.0
    for count in stalls:
        with stalled_readers(world, mount, silent[:count]) as waiting:
            files = world.files(mount, [next(cold) for _ in range(rounds)])
            rates = [size / 1e6 / read_all("sequential", [file], WAIT) for file in files]
            listing = statistics.median(look_around(mount, names, files[0][0]) for _ in range(rounds))
            assert all(reader.poll() is None for reader in waiting), "a stalled reader's deadline has come"
        rate = statistics.median(rates)
        alone = alone or rate
        tell(
            f"{count} stalled: a cold file at {rate:.0f} MB/s ({rate / alone:.2f} of without), "
            f"ls -l of {names} and stat {listing * 1000:.0f} ms"
        )
