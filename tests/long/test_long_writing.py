"""The long forms of the proofs of writing: 200 kills of a mount that writes. Each seed is printed with the figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ivcap_client.ivcap import IVCAP as SDK

from ivcapfs.server.runner import Platform
from tests.long.origin import MIB
from tests.mount.conftest import SDK_LEAKS, Mounter, faults, mounter, platform, sdk
from tests.mount.killing import Killing

__all__ = ["faults", "mounter", "platform", "sdk"]  # fixtures here, too

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600), pytest.mark.filterwarnings(SDK_LEAKS)]
Tell = Callable[[str], None]


@pytest.mark.parametrize(("seed", "largest", "settle"), [(11, 40_000, 0.05), (12, 12 * MIB, 0.2)])
def test_what_was_closed_is_there_once_and_whole(
    platform: Platform, mounter: Mounter, sdk: SDK, tmp_path: Path, tell: Tell, seed: int, largest: int, settle: float
) -> None:
    killing = Killing(platform, mounter, tmp_path, seed, largest, settle)
    for number in range(100):
        killing.once(number)
    figures = killing.check(sdk, killing.finish())
    told = ", ".join(f"{number} {what}" for what, number in figures.items())
    tell(f"100 kills, seed {seed}, files of up to {largest} bytes: {told}")
    assert figures["closed"] > 100, "they came too early to prove anything"
