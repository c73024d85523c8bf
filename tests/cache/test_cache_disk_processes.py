"""The persistent tier shared by processes, killed at every step, on a full disk: no wrong byte, within the limit."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivcapfs.cache import disk
from ivcapfs.cache.disk import DiskSettings, DiskTier
from ivcapfs.cache.diskadmin import info, verify
from ivcapfs.config import KIB, MIB
from tests.cache.disk_world import LIMIT, block_of, check_account, child, du, get, key_of, leftovers
from tests.fakes import PATIENCE

KILLS = 50


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def settle(folder: Path) -> DiskTier:
    """Begin a mount on the folder, and let it do what it does at the beginning."""
    tier = DiskTier(DiskSettings(folder, LIMIT))
    tier.put(key_of(-1), block_of(-1))
    tier.flush(PATIENCE)
    return tier


def test_processes_that_write_three_times_the_limit_stay_within_it(folder: Path) -> None:
    """The account is looked at in the middle of it too, at moments when nobody may change it."""
    count = 3 * LIMIT // (128 * KIB) // 2
    with child("fill", folder, 0, count) as one, child("fill", folder, count // 2, count) as other:
        while one.poll() is None or other.poll() is None:
            if (folder / "ivcapfs.usage").exists():
                assert check_account(folder) <= LIMIT
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.wait(0.05)
        outputs = [process.communicate(timeout=PATIENCE)[0] for process in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], outputs
    assert sum(map(int, outputs)) * 128 * KIB > 2 * LIMIT
    assert du(folder) <= LIMIT
    assert du(folder) > LIMIT // 2
    tier = settle(folder)
    found = sum(get(tier, number) for number in range(2 * count))
    assert 0 < found <= info(folder).files
    assert tier.info().bad == 0
    tier.close()
    assert verify(folder).bad == 0


@pytest.mark.parametrize("work", ["mid-air", "step"])
def test_killed_in_the_middle_of_filling(folder: Path, work: str) -> None:
    """Fifty processes one after the other: killed by chance, or each before another one of its system calls."""
    with child(work, folder, KILLS) as process:
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "ok\n")
    assert du(folder) <= LIMIT
    check_account(folder)  # it may be above the limit: a block was booked twice by who was killed in between
    tier = settle(folder)
    assert check_account(folder) <= LIMIT, "the next one that writes puts it right"
    assert leftovers(folder) == []
    assert sum(get(tier, number) for number in range(KILLS * 50 + 1000)) > 0
    assert tier.info().bad == 0
    tier.close()
    assert verify(folder).bad == 0


@contextlib.contextmanager
def small_disk(path: Path, options: str) -> Iterator[Path]:
    """Give a folder on a disk of its own, or skip the test where none can be mounted."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "tmpfs", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE)
    except OSError as exc:
        pytest.skip(f"no mount(8): {exc}")
    if done.returncode:
        pytest.skip("may not mount a tmpfs here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True, timeout=PATIENCE)


def fill_up(path: Path) -> None:
    """Leave no byte of a disk free."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert os.statvfs(path.parent).f_bavail == 0


def test_a_twentieth_of_the_disk_stays_free_and_a_full_disk_is_no_readers_concern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(disk, "OFF_SECONDS", 0.0)
    with small_disk(tmp_path / "disk", "size=8m") as folder:
        tier = DiskTier(DiskSettings(folder, LIMIT))
        for number in range(200):
            tier.put(key_of(number), block_of(number))
            tier.flush(PATIENCE)
            state = os.statvfs(folder)
            assert state.f_bavail >= state.f_blocks // 20
        there = [number for number in range(200) if get(tier, number)]
        assert len(there) > 20
        assert tier.info().written == 200
        for attempt in range(100):  # somebody else takes all that is free, and again what the cache gives way
            fill_up(folder / f"ballast{attempt}")
            assert [number for number in range(200) if get(tier, number)] == there
            tier.put(key_of(200 + attempt), block_of(200 + attempt))
            tier.flush(PATIENCE)
            there = [number for number in there if get(tier, number)]
            if info(folder).files == 0:
                break
        assert there == []
        for number in range(300, 303):
            tier.put(key_of(number), block_of(number))
            tier.flush(PATIENCE)
            assert not get(tier, number)
        (said,) = caplog.records
        assert said.levelname == "WARNING"
        assert os.strerror(errno.ENOSPC) in said.getMessage()
        for ballast in folder.glob("ballast*"):
            ballast.unlink()
        for number in range(230, 240):
            tier.put(key_of(number), block_of(number))
        tier.flush(PATIENCE)
        assert all(get(tier, number) for number in range(230, 240))
        assert tier.info().bad == 0
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
        tier.close()


def test_a_disk_without_inodes_is_told_once_and_reads_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(disk, "OFF_SECONDS", 0.0)
    with small_disk(tmp_path / "disk", "size=32m,nr_inodes=64") as folder:
        tier = DiskTier(DiskSettings(folder, LIMIT))
        for number in range(100):
            tier.put(key_of(number), block_of(number, 8 * KIB))
            tier.flush(PATIENCE)
        found = [number for number in range(100) if get(tier, number, 8 * KIB)]
        assert found
        assert [record.levelname for record in caplog.records][:1] == ["WARNING"]
        assert os.strerror(errno.ENOSPC) in caplog.text
        levels = [record.levelname for record in caplog.records]
        assert all(one != other for one, other in itertools.pairwise(levels))  # never twice the same
        subprocess.run(["mount", "-o", "remount,nr_inodes=10000", str(folder)], check=True, timeout=PATIENCE)
        for number in range(100):
            tier.put(key_of(number), block_of(number, 8 * KIB))
        tier.flush(PATIENCE)
        assert all(get(tier, number, 8 * KIB) for number in range(100))
        assert tier.info().bad == 0
        assert MIB > info(folder).bytes > 100 * 4 * KIB
        tier.close()
