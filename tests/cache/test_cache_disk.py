"""The persistent tier: what comes out is what went in; the folder is safe; a failing disk is no reader's concern."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ivcapfs.cache import disk
from ivcapfs.cache.disk import DiskSettings, DiskTier
from ivcapfs.cache.diskledger import Ledger
from ivcapfs.cache.diskstore import Folder, Staged, digest_of
from ivcapfs.config import MIB
from ivcapfs.errors import Closing, ConfigError
from ivcapfs.models import BlockKey
from tests.cache.disk_world import block_of, get, key_of, path_of
from tests.fakes import PATIENCE, wait_until

TEXT = st.text(st.characters(), max_size=12)  # lone surrogates and NUL are among them
KEYS = st.builds(BlockKey, TEXT, TEXT, TEXT, TEXT, st.integers(0, 2**70))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "cache"


@pytest.fixture
def tier(folder: Path) -> Iterator[DiskTier]:
    tier = DiskTier(DiskSettings(folder, 64 * MIB))
    yield tier
    tier.close()


def fill(tier: DiskTier, count: int) -> None:
    for number in range(count):
        tier.put(key_of(number), block_of(number))
    tier.flush(PATIENCE)


def read(tier: DiskTier, key: BlockKey, length: int) -> bytes | None:
    into = bytearray(length)
    return bytes(into) if tier.get(key, memoryview(into)) else None


# -- bytes -----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(KEYS, st.binary(max_size=9000), max_size=8), KEYS)
def test_what_comes_out_is_what_went_in_also_in_the_next_mount(blocks: dict[BlockKey, bytes], other: BlockKey) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for attempt in range(2):
            tier = DiskTier(DiskSettings(Path(folder), 16 * MIB))
            for key, block in blocks.items() if attempt == 0 else ():
                tier.put(key, memoryview(block))
                assert read(tier, key, len(block)) == block  # from the queue, or from the disk
            tier.flush(PATIENCE)
            assert {key: read(tier, key, len(block)) for key, block in blocks.items()} == blocks
            assert other in blocks or read(tier, other, 5) is None
            tier.close()


def test_a_block_of_a_mebibyte_and_the_count_of_everything(tier: DiskTier) -> None:
    block = os.urandom(MIB)
    assert read(tier, key_of(1), MIB) is None
    tier.put(key_of(1), block)
    tier.flush(PATIENCE)
    assert read(tier, key_of(1), MIB) == block
    info = tier.info()
    assert (info.hits, info.misses, info.bad, info.written, info.dropped, info.files) == (1, 1, 0, 1, 0, 1)
    assert info.active
    assert info.bytes > MIB


@given(KEYS, KEYS)
def test_other_keys_have_other_names(one: BlockKey, other: BlockKey) -> None:
    assert (digest_of(one) == digest_of(other)) == (one == other)


def test_the_parts_of_a_key_do_not_run_into_each_other() -> None:
    keys = [BlockKey("a", "bc", "", "1:", 1), BlockKey("ab", "c", "", "1:", 1), BlockKey("a", "bc", "1:", "", 1)]
    keys += [BlockKey("a", "b", "c", "", 11), BlockKey("a", "b", "c", "1", 1)]
    assert len({digest_of(key) for key in keys}) == len(keys)


def test_a_block_of_another_length_is_not_taken_for_it(tier: DiskTier) -> None:
    tier.put(key_of(1), b"x" * 100)
    tier.flush(PATIENCE)
    assert read(tier, key_of(1), 99) is None
    assert read(tier, key_of(1), 100) is None  # it cannot have been right: it is gone


def test_many_threads_at_once(tier: DiskTier) -> None:
    wrong: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for step in range(60):
                number = (seed * 17 + step * 3) % 40
                if not get(tier, number):
                    tier.put(key_of(number), block_of(number))
        except BaseException as exc:  # noqa: BLE001 - told by the test
            wrong.append(exc)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert wrong == []
    tier.flush(PATIENCE)
    assert all(get(tier, number) for number in range(40))


# -- the queue -------------------------------------------------------------------------------------------------------


def test_a_stuck_disk_holds_up_nobody(tier: DiskTier, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tier, 1)
    monkeypatch.setattr(disk, "QUEUE_BYTES", MIB)
    gate, real = threading.Event(), Staged.fill

    def stuck(self: Staged, digest: bytes, block: bytes) -> None:
        assert gate.wait(PATIENCE)
        real(self, digest, block)

    monkeypatch.setattr(Staged, "fill", stuck)
    for number in range(1, 40):
        tier.put(key_of(number), block_of(number))
    dropped = tier.info().dropped
    assert 0 < dropped < 39
    assert sum(get(tier, number) for number in range(40)) == 40 - dropped  # those that wait can be read already
    tier.flush(0.01)
    gate.set()
    tier.flush(PATIENCE)
    assert tier.info().written == 40 - dropped
    assert sum(get(tier, number) for number in range(40)) == 40 - dropped


def test_a_lock_that_another_process_keeps_costs_blocks_and_no_more(
    tier: DiskTier, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tier, 2)
    ledger = Ledger(Folder(folder, create=False))
    with ledger.locked():
        tier.put(key_of(2), block_of(2))
        assert get(tier, 0)
        wait_until(lambda: tier.info().dropped == 1)
        assert tier.info().active
    tier.put(key_of(2), block_of(2))
    tier.flush(PATIENCE)
    assert get(tier, 2)


def test_after_closing_everything_is_a_miss(tier: DiskTier) -> None:
    fill(tier, 3)
    tier.close()
    tier.close()
    tier.put(key_of(9), b"x")
    tier.flush(PATIENCE)
    assert not get(tier, 1)
    assert not tier.info().active


def test_who_flushes_after_the_end_waits_for_nothing(tier: DiskTier, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount shuts down twice: when the kernel says goodbye, and when its loop has ended."""
    fill(tier, 1)
    begun = threading.Event()

    def broken_off(item: object) -> None:
        begun.set()
        wait_until(tier._is_closed)
        raise Closing("the mount is being taken down")

    monkeypatch.setattr(tier, "_work", broken_off)
    tier.put(key_of(1), block_of(1))
    assert begun.wait(PATIENCE)
    tier.close()
    assert tier._writing is None  # what flush waits for
    assert tier.info().dropped == 1


def test_a_tier_that_nobody_used_has_no_thread(folder: Path) -> None:
    before = threading.active_count()
    tier = DiskTier(DiskSettings(folder, 64 * MIB))
    assert threading.active_count() == before
    tier.flush(PATIENCE)
    tier.close()


# -- the folder ------------------------------------------------------------------------------------------------------


def test_everything_made_is_for_the_owner_alone(tier: DiskTier, folder: Path) -> None:
    fill(tier, 3)
    modes = {path.lstat().st_mode & 0o777 for path in [folder, *folder.rglob("*")] if path.is_dir()}
    assert modes == {0o700}
    assert {path.lstat().st_mode & 0o777 for path in folder.rglob("*") if not path.is_dir()} == {0o600}


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o702, 0o500])
def test_a_folder_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(ConfigError, match=f"has mode {mode:04o}: chmod 700"):
        DiskTier(DiskSettings(tmp_path, 64 * MIB))
    tmp_path.chmod(0o700)


def test_what_is_no_folder_of_ours_is_refused(tmp_path: Path) -> None:
    def refusal(path: Path, size: int = 64 * MIB) -> str:
        with pytest.raises(ConfigError) as caught:
            DiskTier(DiskSettings(path, size))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    (tmp_path / "file").write_text("x")
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "documents").mkdir(0o700)
    (tmp_path / "documents" / "thesis").write_text("x")
    assert "no directory" in refusal(tmp_path / "file")
    assert "cannot be used" in refusal(tmp_path / "file" / "below")
    assert "a symbolic link: name the folder itself" in refusal(tmp_path / "link")
    assert "holds other files" in refusal(tmp_path / "documents")
    assert "at least 4M" in refusal(tmp_path / "new", 1000)
    assert sorted(os.listdir(tmp_path)) == ["documents", "file", "link", "real"]
    assert os.listdir(tmp_path / "real") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o700)
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(ConfigError, match=r"belongs to another user \(uid 12345\)"):
        DiskTier(DiskSettings(tmp_path, 64 * MIB))


# -- a failing disk --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_disk_that_refuses_once_is_asked_again(tier: DiskTier, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    fill(tier, 20)
    real, refusals = Staged.fill, [OSError(number, os.strerror(number))]

    def refuse_once(self: Staged, digest: bytes, block: bytes) -> None:
        if refusals:
            raise refusals.pop()
        real(self, digest, block)

    monkeypatch.setattr(Staged, "fill", refuse_once)
    tier.put(key_of(20), block_of(20))
    tier.flush(PATIENCE)
    assert get(tier, 20)
    assert tier.info().active
    assert sum(get(tier, number) for number in range(20)) < 20  # some went, to make room


def test_a_disk_that_keeps_refusing_is_left_alone_and_said_once(
    tier: DiskTier, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fill(tier, 20)

    def refuse(self: Staged, digest: bytes, block: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(Staged, "fill", refuse)
        tier.put(key_of(20), block_of(20))
        tier.flush(PATIENCE)
        assert not tier.info().active
        tier.put(key_of(21), block_of(21))  # not even queued
        assert tier.info().dropped == 2
        assert sum(get(tier, number) for number in range(20)) > 0  # reads go on
        broken.setattr(disk, "OFF_SECONDS", 0.0)
        tier._off_until = 0.0
        for number in range(22, 30):
            tier.put(key_of(number), block_of(number))
            tier.flush(PATIENCE)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Input/output error" in caplog.text
    assert os.listdir(folder / "tmp") == []
    tier.put(key_of(30), block_of(30))
    tier.flush(PATIENCE)
    assert get(tier, 30)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_folder_that_is_removed_while_in_use_is_made_again(
    tier: DiskTier, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tier, 5)
    shutil.rmtree(folder)
    assert not get(tier, 1)
    tier.put(key_of(6), block_of(6))
    tier.flush(PATIENCE)
    assert not tier.info().active
    assert "was removed" in caplog.text
    assert not folder.exists()
    monkeypatch.setattr(disk, "OFF_SECONDS", 0.0)
    tier._off_until = 0.0
    tier.put(key_of(7), block_of(7))
    tier.flush(PATIENCE)
    assert get(tier, 7)
    assert path_of(folder, 7).exists()


def test_a_folder_that_others_were_let_into_meanwhile_is_not_taken_up_again(
    tier: DiskTier, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tier, 1)
    shutil.rmtree(folder)
    folder.mkdir(0o755)
    folder.chmod(0o755)
    monkeypatch.setattr(disk, "OFF_SECONDS", 0.0)
    for number in range(3):
        tier.put(key_of(number), block_of(number))
        tier.flush(PATIENCE)
    assert os.listdir(folder) == []
    assert not any(get(tier, number) for number in range(3))
