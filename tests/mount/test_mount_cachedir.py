"""The cache folder: a later mount reads without asking the server, and damage is noticed and mended."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ivcapfs.server.runner import Platform
from tests.mount.conftest import Mount, Mounter, daemons, eventually, ivcapfs, output, run

MIB = 1024 * 1024
CONTENT = random.Random(5).randbytes(20 * MIB + 4321)


@pytest.fixture
def urn(platform: Platform) -> str:
    return platform.store.add_artifact(name="data.bin", content=CONTENT, mime_type="application/octet-stream")


def read_and_unmount(mount: Mount, urn: str) -> None:
    """Read everything, then unmount and let the process write what it still has."""
    assert (mount.by_id(urn) / "content").read_bytes() == CONTENT
    output(*ivcapfs("umount", mount.path))
    eventually(lambda: not daemons(mount.path), "the process ends")


def test_a_second_mount_asks_for_no_content(platform: Platform, mounter: Mounter, urn: str, tmp_path: Path) -> None:
    folder = tmp_path / "blocks"
    read_and_unmount(mounter(platform.url, cache_dir=folder), urn)
    assert platform.counters()["blob_bytes_sent"] == len(CONTENT)
    platform.reset_counters()
    read_and_unmount(mounter(platform.url, cache_dir=folder), urn)
    assert platform.counters()["blob_bytes_sent"] == 0
    assert folder.stat().st_mode & 0o777 == 0o700


def test_two_mounts_share_a_folder_at_once(platform: Platform, mounter: Mounter, urn: str, tmp_path: Path) -> None:
    folder = tmp_path / "blocks"
    first, second = (mounter(platform.url, cache_dir=folder) for _ in range(2))
    assert (first.by_id(urn) / "content").read_bytes() == CONTENT
    assert (second.by_id(urn) / "content").read_bytes() == CONTENT


def test_damaged_blocks_are_fetched_again(platform: Platform, mounter: Mounter, urn: str, tmp_path: Path) -> None:
    folder = tmp_path / "blocks"
    read_and_unmount(mounter(platform.url, cache_dir=folder), urn)
    chance = random.Random(7)
    blocks = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size > 100_000]
    damaged = chance.sample(blocks, len(blocks) // 2)
    for path in damaged:
        data = bytearray(path.read_bytes())
        if chance.random() < 0.5:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        else:
            del data[chance.randrange(len(data)) :]
        path.write_bytes(data)
    platform.reset_counters()
    read_and_unmount(mounter(platform.url, cache_dir=folder), urn)
    assert 0 < platform.counters()["blob_bytes_sent"] <= len(CONTENT)
    output(*ivcapfs("cache", "verify", folder))
    assert "; 0 damaged" in output(*ivcapfs("cache", "verify", folder))


def test_the_folder_can_be_looked_after(platform: Platform, mounter: Mounter, urn: str, tmp_path: Path) -> None:
    folder = tmp_path / "blocks"
    read_and_unmount(mounter(platform.url, cache_dir=folder), urn)
    count = int(output(*ivcapfs("cache", "info", folder)).split()[0])
    assert count >= 20
    assert output(*ivcapfs("cache", "clear", folder)) == f"{count} blocks removed\n"
    assert output(*ivcapfs("cache", "info", folder)).startswith("0 blocks")


def test_a_folder_that_others_can_read_is_refused(platform: Platform, tmp_path: Path) -> None:
    folder, where = tmp_path / "blocks", tmp_path / "here"
    folder.mkdir(mode=0o755)
    where.mkdir()
    result = run(*ivcapfs("mount", platform.url, where, "-o", f"cache-dir={folder}"))
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
