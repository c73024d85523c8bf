"""The persistent tier's files: whatever happens to them, no wrong byte comes out and nothing outside is touched."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivcapfs.cache import disk, diskledger
from ivcapfs.cache.disk import DiskSettings, DiskTier
from ivcapfs.cache.diskadmin import FolderInfo, clear, info, verify
from ivcapfs.cache.diskledger import STAGING_SLOT, Ledger
from ivcapfs.cache.diskstore import HEADER, Folder, digest_of
from ivcapfs.cache.eviction import Store, Written
from ivcapfs.config import KIB, MIB
from ivcapfs.errors import ConfigError
from tests.cache.disk_world import block_of, check_account, du, get, key_of, leftovers, path_of
from tests.fakes import PATIENCE

LARGEST = 20 * KIB


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def tier(folder: Path) -> Iterator[DiskTier]:
    tier = DiskTier(DiskSettings(folder, 64 * MIB))
    yield tier
    tier.close()


def fill(tier: DiskTier, count: int) -> None:
    for number in range(count):
        tier.put(key_of(number), block_of(number, LARGEST))
    tier.flush(PATIENCE)
    assert tier.info().dropped == 0


def damage(path: Path, other: Path, chance: random.Random) -> None:
    """Do one of the things that happen to files; all of them change the file."""
    raw = bytearray(path.read_bytes())
    match chance.randrange(6):
        case 0 | 1:
            raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        case 2:
            raw[chance.randrange(HEADER.size)] ^= 1 << chance.randrange(8)
        case 3:
            del raw[chance.randrange(len(raw)) :]
        case 4:
            raw += bytes(chance.randrange(1, 5000))
        case _:
            raw[:] = other.read_bytes()
    path.write_bytes(raw)


def test_flips_cuts_and_exchanged_files_are_misses_and_mend(
    tier: DiskTier, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(disk, "LOG_SECONDS", 1e9)
    chance = random.Random(100)
    fill(tier, 101)
    for number in range(100):
        damage(path_of(folder, number), path_of(folder, 100), chance)
    assert not any(get(tier, number, LARGEST) for number in range(100))
    assert not any(path_of(folder, number).exists() for number in range(100))
    assert tier.info().bad == 100
    assert [record.getMessage().split(" from")[0] for record in caplog.records] == ["removed 1 bad block(s)"]
    fill(tier, 100)
    assert all(get(tier, number, LARGEST) for number in range(101))


def test_a_torn_file_of_the_right_length_is_a_miss(tier: DiskTier, folder: Path) -> None:
    """As after a power cut: the length is on the disk, and some of the pages are not."""
    block = os.urandom(MIB)
    for page in range(0, 257, 32):
        tier.put(key_of(page), block)
        tier.flush(PATIENCE)
        with path_of(folder, page).open("r+b") as file:
            file.seek(page * 4096)
            file.write(bytes(min(4096, HEADER.size + MIB - page * 4096)))
        into = memoryview(bytearray(MIB))
        assert not tier.get(key_of(page), into)


@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "folder"])
def test_something_else_in_the_place_of_a_block(tier: DiskTier, folder: Path, tmp_path: Path, kind: str) -> None:
    fill(tier, 3)
    path, outside = path_of(folder, 1), tmp_path / "outside"
    shutil.copy(path, outside)
    whole = outside.read_bytes()
    path.unlink()
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "new")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert not get(tier, 1, LARGEST)
    tier.put(key_of(1), block_of(1, LARGEST))
    tier.flush(PATIENCE)
    assert get(tier, 1, LARGEST) == (kind != "folder")
    assert tier.info().active
    assert outside.read_bytes() == whole
    assert not (tmp_path / "new").exists()
    assert get(tier, 0, LARGEST)


def test_links_in_the_place_of_directories_are_not_followed(tier: DiskTier, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    fill(tier, 10)
    shutil.copytree(path_of(folder, 1).parent, outside)
    before = sorted(outside.iterdir())
    shutil.rmtree(path_of(folder, 1).parent)
    path_of(folder, 1).parent.symlink_to(outside)
    shutil.rmtree(folder / "tmp")
    (folder / "tmp").symlink_to(outside)
    assert not get(tier, 1, LARGEST)  # found to be foreign, and removed
    path_of(folder, 2).unlink()
    shutil.rmtree(path_of(folder, 3).parent)
    path_of(folder, 3).parent.symlink_to(outside)
    for number in range(12):
        tier.put(key_of(number), block_of(number, LARGEST))
    tier.flush(PATIENCE)
    assert all(get(tier, number, LARGEST) for number in range(12))
    assert sorted(outside.iterdir()) == before
    assert not (folder / "tmp").is_symlink()


def test_an_account_that_is_a_link_is_not_written(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir(0o700)
    (folder / "ivcapfs.usage").symlink_to(tmp_path / "outside")
    tier = DiskTier(DiskSettings(folder, 64 * MIB))
    tier.put(key_of(1), b"x")
    tier.flush(PATIENCE)
    tier.close()
    assert len(caplog.records) == 1
    assert not (tmp_path / "outside").exists()


# -- what has to go --------------------------------------------------------------------------------------------------


def write(store: Store, number: int, size: int = 60 * KIB) -> Written:
    return store.write(digest_of(key_of(number)), bytes([number % 256]) * size)


def test_the_least_recently_used_go_first(folder: Path) -> None:
    store = Store(Folder(folder, create=True), 4 * MIB)
    fitting = 0
    while fitting < 1000 and (fitting < 2 or all(path_of(folder, n).exists() for n in range(fitting))):
        assert write(store, fitting) is Written.WRITTEN
        os.utime(path_of(folder, fitting), (1000 + fitting, 1000 + fitting))
        fitting += 1
    gone = next(n for n in range(fitting) if not path_of(folder, n).exists())
    assert gone == 0
    assert 40 < fitting < 60
    into = memoryview(bytearray(60 * KIB))
    for number in range(1, 11):  # used again: they stay
        assert store.folder.read(digest_of(key_of(number)), into).name == "HIT"
    for number in range(100, 110):
        assert write(store, number) is Written.WRITTEN
    left = [number for number in range(fitting) if path_of(folder, number).exists()]
    assert left == [*range(1, 11), *range(21, fitting)]
    assert du(folder) <= 4 * MIB


def test_a_read_is_noted_only_now_and_then(tier: DiskTier, folder: Path) -> None:
    fill(tier, 2)
    for number, age, noted in [(0, 3600, True), (1, 60, False)]:
        path = path_of(folder, number)
        before = path.stat().st_mtime - age
        os.utime(path, (before, before))
        assert get(tier, number, LARGEST)
        assert (path.stat().st_mtime > before) == noted


def test_three_times_the_limit_stays_within_it_before_every_write(folder: Path) -> None:
    limit = 4 * MIB
    store = Store(Folder(folder, create=True), limit)
    for number in range(1500):
        assert write(store, number, 9000) is Written.WRITTEN
        assert store.held[0] <= limit
        if number % 50 == 0:
            assert check_account(folder) <= limit
    assert write(store, 9999, limit) is Written.NO_ROOM
    assert check_account(folder) <= limit
    assert store.held[1] == info(folder).files > 100


def test_a_smaller_limit_shrinks_the_folder_step_by_step(folder: Path) -> None:
    large = Store(Folder(folder, create=True), 64 * MIB)
    for number in range(1000):
        write(large, number, 9000)
    small = Store(Folder(folder, create=False), 4 * MIB)
    for _ in range(4):
        small.upkeep()
    assert du(folder) <= 4 * MIB
    assert small.held[1] == info(folder).files > 100


# -- the account -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["boot", "garbage", "short", "long", "empty"])
def test_a_doubtful_account_is_made_anew_by_measuring(folder: Path, monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    store = Store(Folder(folder, create=True), 64 * MIB)
    for number in range(30):
        write(store, number)
    held = store.held
    usage = folder / "ivcapfs.usage"
    whole = usage.read_bytes()
    if harm == "boot":
        monkeypatch.setattr(diskledger, "_boot", lambda: b"another".ljust(40, b"\0"))
        usage.write_bytes(whole[:48] + bytes(len(whole) - 48))  # as an old state of it
    else:
        usage.write_bytes({"garbage": b"?" * len(whole), "short": whole[:-1], "long": whole + b"x", "empty": b""}[harm])
    other = Store(Folder(folder, create=False), 64 * MIB)
    other.upkeep()
    assert other.held[1] == 30
    assert du(folder) <= other.held[0] <= held[0]
    assert len(usage.read_bytes()) == len(whole)
    if harm != "boot":
        assert write(store, 30) is Written.WRITTEN  # and for those who had it open


def test_upkeep_corrects_what_others_changed(folder: Path) -> None:
    store = Store(Folder(folder, create=True), 64 * MIB)
    for number in range(30):
        write(store, number)
    for number in range(20):
        path_of(folder, number).unlink()
    for _ in range(256):
        store.upkeep()
    assert store.held[1] == 10
    assert store.held[0] == check_account(folder)


def test_a_leftover_goes_and_a_block_being_written_stays(folder: Path) -> None:
    store = Store(Folder(folder, create=True), 64 * MIB)
    write(store, 1)
    living = store.folder.stage(8 * MIB)
    (folder / "tmp" / "dead").write_bytes(b"x" * 100_000)
    (folder / "tmp" / "link").symlink_to("/")
    store.upkeep()
    assert sorted(leftovers(folder)) == sorted([living.name, "link"])
    assert store.held[0] > 8 * MIB  # counted in full, though not a byte of it is written yet
    living.discard()
    assert leftovers(folder) == ["link"]
    check_account(folder)


# -- for the user ----------------------------------------------------------------------------------------------------


def test_info_verify_and_clear_while_a_mount_uses_the_folder(tier: DiskTier, folder: Path) -> None:
    fill(tier, 50)
    foreign = path_of(folder, 1).parent / "notes.txt"
    foreign.write_text("mine")
    (folder / "tmp" / "dead").write_bytes(b"x")
    chance = random.Random(7)
    for number in range(10, 15):
        damage(path_of(folder, number), path_of(folder, 1), chance)
    assert info(folder).files == 50
    assert info(folder).bytes >= du(folder)
    report = verify(folder)
    assert (report.files, report.bad, report.foreign, report.leftovers) == (45, 5, 1, 1)
    assert report.bytes == sum(
        path_of(folder, number).stat().st_blocks * 512 for number in range(50) if number not in range(10, 15)
    )
    assert sum(get(tier, number, LARGEST) for number in range(50)) == 45
    assert tier.info().bad == 0
    assert clear(folder) == 45
    assert info(folder).files == 0
    assert foreign.read_text() == "mine"
    assert not any(get(tier, number, LARGEST) for number in range(50))
    fill(tier, 50)
    assert verify(folder).files == 50
    assert tier.info().bad == 0
    check_account(folder)


def test_the_commands_touch_no_other_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "00").mkdir()
    (tmp_path / "00" / ("0" * 56)).write_text("mine")
    for command in (info, verify, clear):
        with pytest.raises(ConfigError, match="holds other files"):
            command(tmp_path)
        with pytest.raises(ConfigError, match="cannot be used: No such file"):
            command(tmp_path / "missing")
    assert (tmp_path / "00" / ("0" * 56)).read_text() == "mine"
    (tmp_path / "new").mkdir(0o700)
    assert info(tmp_path / "new").files == 0
    assert (verify(tmp_path / "new").files, clear(tmp_path / "new")) == (0, 0)
    assert isinstance(info(tmp_path / "new"), FolderInfo)


def test_the_ledger_never_believes_less_than_nothing(folder: Path) -> None:
    ledger = Ledger(Folder(folder, create=True))
    with ledger.locked():
        for slot in range(STAGING_SLOT + 1):
            ledger.measure(slot)
        empty = ledger.total()
        ledger.book(3, -(10**9), -5)
        assert ledger.total() <= empty
        assert ledger.files() == 0
