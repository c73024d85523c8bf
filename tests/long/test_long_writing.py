"""The long forms of the proofs of writing: kills of a mount, and random operations against plain models. Each
seed is printed with the figures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ivcap_client.ivcap import IVCAP as SDK

from ivcapfs.server.runner import Platform
from tests.long.origin import MIB
from tests.mount.conftest import SDK_LEAKS, Mounter, faults, mounter, platform, run, sdk
from tests.mount.killing import Killing
from tests.mount.test_mount_writing_model import FSX
from tests.mount.writing import arrived, once, writing_mount
from tests.mount.writing_model import compare

__all__ = ["faults", "mounter", "platform", "sdk"]  # fixtures here, too

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600), pytest.mark.filterwarnings(SDK_LEAKS)]
Tell = Callable[[str], None]


@pytest.mark.parametrize(("number", "largest", "settle"), [(11, 40_000, 0.05), (12, 12 * MIB, 0.2)])
def test_what_was_closed_is_there_once_and_whole(
    platform: Platform, mounter: Mounter, sdk: SDK, tmp_path: Path, tell: Tell, number: int, largest: int, settle: float
) -> None:
    killing = Killing(platform, mounter, tmp_path, number, largest, settle)
    for kill in range(100):
        killing.once(kill)
    figures = killing.check(sdk, killing.finish())
    told = ", ".join(f"{number} {what}" for what, number in figures.items())
    tell(f"100 kills, seed {number}, files of up to {largest} bytes: {told}")
    assert figures["closed"] > 100, "they came too early to prove anything"


@pytest.mark.parametrize("number", [21, 22])
def test_random_operations_on_one_file(
    platform: Platform, mounter: Mounter, sdk: SDK, tmp_path: Path, tell: Tell, number: int
) -> None:
    mount = writing_mount(platform, mounter, settle=1000)
    result = run(sys.executable, FSX, mount.artifacts / "fsx", tmp_path / "expected", number, 100_000, timeout=3000)
    assert result.returncode == 0, f"seed {number}: {result.stderr}"
    arrived(mount)
    assert once(sdk) == {"fsx": (tmp_path / "expected").read_bytes()}, f"seed {number}"
    assert "Traceback" not in mount.logged()
    tell(f"100,000 operations, seed {number}: no difference")


def test_random_operations_on_names(platform: Platform, mounter: Mounter, sdk: SDK, tell: Tell) -> None:
    mount = writing_mount(platform, mounter, settle=1000)
    tell(compare(mount, sdk, runs=220, steps=50, number=31))
