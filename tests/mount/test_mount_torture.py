"""The small forms of the torture (`scripts/torture`): requests fail, mounts die, disks are full; a bug would be found.

The harnesses are in `tests/torture`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ivcapfs.crashing import POINTS, arm
from ivcapfs.errors import ConfigError
from tests.torture.cli import crashes, full_disks, storm
from tests.torture.crashes import Crashes
from tests.torture.world import Difference, World

SMALL_DISKS = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make small disks")


def test_reads_and_writes_while_requests_fail() -> None:
    figures = storm(seed=1, percent=5, operations=12_000, minutes=None, workers=4)
    assert figures["operations"] >= 12_000
    assert figures["faults"] > 10, "too few to prove anything"
    assert figures["artifacts made"] > 10


def test_a_mount_that_dies_at_any_point_loses_nothing(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        run = Crashes(world, seed=2)
        run.run(len(POINTS), print, check_every=len(POINTS))
    assert run.deaths.total() >= len(POINTS) - 2, f"not reached: {run.missed}"
    assert len(run.closed) > 5


@SMALL_DISKS
def test_a_full_disk_is_told_to_who_writes_and_to_nobody_else() -> None:
    figures = full_disks(3, [92, 97, 99])
    assert figures["ENOSPC"]
    assert figures["files written"] > 3


@pytest.mark.parametrize(
    ("bug", "harness"),
    [
        ("flipped byte", lambda bug: storm(4, 0, 6_000, None, bug, workers=4)),
        ("early close", lambda bug: crashes(4, 4, None, bug)),
        pytest.param("silent loss", lambda bug: full_disks(4, [92, 94], bug), marks=SMALL_DISKS),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_planted_bug_is_found(bug: str, harness: object) -> None:
    with pytest.raises(Difference):
        harness(bug)  # type: ignore[operator]


@pytest.mark.parametrize("text", ["nowhere", "upload create:often", ":2"])
def test_only_a_known_point_is_one_to_die_at(text: str) -> None:
    with pytest.raises(ConfigError, match="IVCAPFS_CRASH_AT"):
        arm(text)
