"""Memory: however many files are read at the same time, the process stays within the budget and a fixed rest."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ivcapfs.config import CacheSettings
from tests.long.conftest import World, peak_memory
from tests.long.origin import MIB
from tests.long.readers import read_all
from tests.mount.conftest import Mounter

REST = 200 * MIB
LONG = (pytest.mark.long, pytest.mark.timeout(1800))

Tell = Callable[[str], None]


def read_within_budget(
    world: World, mounter: Mounter, work: str, count: int, size: int, budget: int | None, tell: Tell
) -> None:
    """Read files at the same time, all bytes compared; the peak stays within the budget and REST."""
    urns = world.add_many(count, size)
    mount = mounter(world.platform.url, **({} if budget is None else {"cache_size": budget}))
    before = peak_memory(mount)
    seconds = read_all(work, world.files(mount, urns), timeout=1500)
    peak, most = peak_memory(mount), (budget or CacheSettings().memory)
    tell(
        f"{count} files of {size / MIB:g} MiB; budget {most // MIB} MiB, peak {peak // MIB} MiB (before: "
        f"{before // MIB}), at most {(most + REST) // MIB}; {count * size / seconds / 1e6:.0f} MB/s; "
        f"asked of the server: {world.origin.sent / (count * size):.3f} of the size"
    )
    assert peak <= most + REST
    assert world.origin.sent >= count * size


@pytest.mark.parametrize(
    ("count", "size", "budget"),
    [
        pytest.param(8, 24 * MIB, 16 * MIB, id="small"),
        pytest.param(32, 512 * MIB, 64 * MIB, id="long-64M", marks=LONG),
        pytest.param(32, 512 * MIB, None, id="long-default", marks=LONG),
    ],
)
def test_sequential_readers_stay_within_the_budget(
    world: World, mounter: Mounter, tell: Tell, count: int, size: int, budget: int | None
) -> None:
    read_within_budget(world, mounter, "sequential", count, size, budget, tell)


@pytest.mark.parametrize(
    ("count", "size", "budget"),
    [
        pytest.param(120, MIB, 16 * MIB, id="small"),
        pytest.param(1000, 8 * MIB, 64 * MIB, id="long-64M", marks=LONG),
        pytest.param(1000, 8 * MIB, None, id="long-default", marks=LONG),
    ],
)
def test_many_open_files_read_in_turn_stay_within_the_budget(
    world: World, mounter: Mounter, tell: Tell, count: int, size: int, budget: int | None
) -> None:
    read_within_budget(world, mounter, "in-turn", count, size, budget, tell)
