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
FROZEN = pytest.mark.xfail(
    raises=subprocess.TimeoutExpired,
    reason="what was being read ahead for stalled readers keeps its memory until their deadline: nothing is left",
)
STALL_SECONDS = 300
"""The mount waits so long for a byte: longer than the whole test takes."""
WAIT = 60.0
"""What is held up is not waited for longer."""


@contextlib.contextmanager
def stalled_readers(
    world: World, mount: Mount, urns: list[str], *, far: bool
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that read contents of which no byte comes, or some bytes.

    Args:
        far: a third of them get so far that they are read ahead for.
    """
    for number, urn in enumerate(urns):
        middle = world.origin.stretches[urn].size // 4 if far else 5_000
        world.origin.silent[urn] = (middle, 10_000, -1)[number % 3]
    before = len(world.origin.requests)
    readers: list[subprocess.Popen[bytes]] = []
    try:
        for urn in urns:
            command = ["cat", str(mount.by_id(urn) / "content")]
            readers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        asked = world.origin.requests
        eventually(lambda: {urn for urn, *_ in asked[before:]} >= set(urns), "all of them wait", seconds=60.0)
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
    ("stalls", "size", "rounds", "budget", "far"),
    [
        pytest.param([0, 1, 20], 4 * MIB, 1, 256 * MIB, True, id="small"),
        pytest.param([0, 1, 100], 512 * MIB, 7, 1024 * MIB, False, id="long-at-once", marks=LONG),
        pytest.param([0, 1, 100], 512 * MIB, 7, 128 * MIB, False, id="long-at-once-128M", marks=LONG),
        pytest.param([0, 1, 100], 512 * MIB, 7, 1024 * MIB, True, id="long-far", marks=LONG),
        pytest.param([0, 1, 100], 512 * MIB, 7, 128 * MIB, True, id="long-far-128M", marks=(*LONG, FROZEN)),
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
    far: bool,
) -> None:
    """Mounts with none, one and many stalled readers, in turn: read a cold file, list the folder, look at a file.

    In turn, because the machine has other things to do as well. No stalled reader has ended then.
    """
    world.fill_pool(size + MIB)
    silent = [world.add(f"silent-{number:03}", size) for number in range(max(stalls))]
    cold = [world.add(f"cold-{number:03}", size, number) for number in range(rounds)]
    mounts = {count: mounter(world.platform.url, timeout=STALL_SECONDS, cache_size=budget) for count in stalls}
    names = len(silent) + len(cold)
    rates: dict[int, list[float]] = {count: [] for count in stalls}
    looks: dict[int, list[float]] = {count: [] for count in stalls}
    with contextlib.ExitStack() as stack:
        waiting: list[subprocess.Popen[bytes]] = []
        for count, mount in mounts.items():
            eventually(lambda mount=mount: len(os.listdir(mount.artifacts)) == names, "all are listed")
            waiting += stack.enter_context(stalled_readers(world, mount, silent[:count], far=far))
        for urn in cold:
            for count, mount in mounts.items():
                (file,) = world.files(mount, [urn])
                rates[count].append(size / 1e6 / read_all("sequential", [file], WAIT))
                looks[count].append(look_around(mount, names, file[0]))
        assert all(reader.poll() is None for reader in waiting), "a stalled reader's deadline has come"
    for count in stalls:
        rate, alone = statistics.median(rates[count]), statistics.median(rates[stalls[0]])
        tell(
            f"{count} stalled: a cold file at {rate:.0f} MB/s ({rate / alone:.2f} of without), "
            f"ls -l of {names} and stat {statistics.median(looks[count]) * 1000:.0f} ms"
        )
