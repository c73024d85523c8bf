"""Random operations through a mount that writes, against plain models: one file's bytes, and the names of many."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from ivcap_client.ivcap import IVCAP as SDK

from ivcapfs.server.runner import Platform
from tests.mount.conftest import Mounter, run
from tests.mount.writing import arrived, once, writing_mount
from tests.mount.writing_model import compare

FSX = Path(__file__).with_name("fsx.py")


def test_random_operations_on_one_file(platform: Platform, mounter: Mounter, sdk: SDK, tmp_path: Path) -> None:
    mount = writing_mount(platform, mounter, settle=1000)
    seed = random.SystemRandom().randrange(10**9)
    print(f"seed {seed}")
    result = run(sys.executable, FSX, mount.artifacts / "fsx", tmp_path / "expected", seed, 2000, timeout=110)
    assert result.returncode == 0, f"seed {seed}: {result.stderr}"
    arrived(mount)
    assert once(sdk) == {"fsx": (tmp_path / "expected").read_bytes()}, f"seed {seed}"
    assert "Traceback" not in mount.logged()


def test_random_operations_on_names(platform: Platform, mounter: Mounter, sdk: SDK) -> None:
    compare(writing_mount(platform, mounter, settle=1000), sdk, runs=12, steps=25)
