"""A spool looked after from outside: what is shown of it, ids, and what is done with files that no mount has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ivcapfs.errors import AlreadyThere, ConfigError, FileSystemError, NoSuchEntry
from ivcapfs.spool import admin
from ivcapfs.spool.describe import UPLOAD
from ivcapfs.spool.entry import Begun, State
from ivcapfs.spool.folder import Owner, folders, take_over, this_host
from ivcapfs.spool.looking import is_held, owner_of
from ivcapfs.spool.spool import Spool
from tests.fakes import FakeClock
from tests.spool.leftovers import URL, SpoolWorld, of_another_host


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SpoolWorld]:
    world = SpoolWorld(tmp_path / "spool")
    yield world
    world.leave()


def test_there_is_nothing_in_a_spool_that_is_not_there(tmp_path: Path) -> None:
    assert admin.spooled(tmp_path / "none") == []
    assert not (tmp_path / "none").exists(), "looking makes nothing"


def test_files_of_a_mount_that_runs(world: SpoolWorld) -> None:
    world.new("a.txt", b"12345")
    world.new("b.txt", b"1", State.FAILED, reason="the server answered 403")
    world.new("c.txt", b"12", State.WRITING)
    world.new(".d.txt", b"")
    world.new(".fuse_hidden0001")
    files = world.files()
    assert {name: each.state for name, each in files.items()} == {
        "a.txt": "pending",
        "b.txt": "failed: the server answered 403",
        "c.txt": "writing",
        ".d.txt": "local",
    }
    assert {name: each.size for name, each in files.items()} == {"a.txt": 5, "b.txt": 1, "c.txt": 2, ".d.txt": 0}
    assert files["a.txt"].path == Path("/mnt/x/artifacts/a.txt")
    assert [name for name, each in files.items() if each.can_be_retried] == ["b.txt"]


def test_files_that_no_mount_has(world: SpoolWorld) -> None:
    world.new("closed.txt", b"12345")
    world.new("open.txt", b"12", State.WRITING)
    world.new(".local")
    world.leave()
    files = world.files()
    assert files["closed.txt"].state == "pending"
    assert files["open.txt"].state == "interrupted: the mount ended before it was closed"
    assert {each.mountpoint for each in files.values()} == {None}
    assert {name for name, each in files.items() if each.can_be_retried} == {"closed.txt", "open.txt"}
    with pytest.raises(FileSystemError, match="in no mount"):
        _ = files["closed.txt"].path


def test_a_file_that_lost_bytes_is_shown_as_failed(world: SpoolWorld) -> None:
    entry = world.new("cut.txt", b"12345")
    assert world.folder is not None
    os.truncate(world.folder.path / f"{entry.id}.data", 3)
    world.leave()
    assert world.files()["cut.txt"].state == "failed: of its 5 bytes the disk has 3"


def test_bytes_that_the_server_may_have_need_not_be_here(world: SpoolWorld) -> None:
    entry = world.new("cut.txt", b"12345", begun=Begun("3f2a9c1e-7b4d-4e0a-9c58-1d6f0a2b3c4d", "http://h/1", None))
    assert world.folder is not None
    os.truncate(world.folder.path / f"{entry.id}.data", 3)
    world.leave()
    file = world.files()["cut.txt"]
    assert file.state == "pending"
    assert admin.wanted(file.entry, file.size) == entry


def test_the_oldest_comes_first(world: SpoolWorld) -> None:
    for name, created in (("b", 20.0), ("c", 30.0), ("a", 10.0)):
        world.new(name, created=created)
    assert [each.entry.name for each in admin.spooled(world.root)] == ["a", "b", "c"]


def test_ids_are_as_short_as_they_can_be(world: SpoolWorld) -> None:
    for id in ("1" * 32, "12345678" + "a" * 24, "12345678" + "a" * 10 + "b" * 14):
        world.new(id, id=id)
    files = admin.spooled(world.root)
    short = admin.short_ids(files)
    assert sorted(short.values()) == ["1" * 8, "12345678" + "a" * 10 + "a", "12345678" + "a" * 10 + "b"]
    for id, shortened in short.items():
        assert admin.find(files, shortened).entry.id == id
    assert admin.find(files, "11").entry.id == "1" * 32
    with pytest.raises(ConfigError, match="several"):
        admin.find(files, "1234")
    for nothing in ("2", ""):
        with pytest.raises(ConfigError, match="no new file has the id"):
            admin.find(files, nothing)


def test_what_no_mount_has_is_discarded(world: SpoolWorld) -> None:
    world.new("a", b"1")
    world.new("b", b"2")
    world.leave()
    files = world.files()
    admin.discard(files["a"])
    assert list(world.files()) == ["b"]
    with pytest.raises(NoSuchEntry):
        admin.discard(files["a"])
    admin.discard(files["b"])
    assert list(folders(world.root)) == [], "an empty folder goes"


def test_a_folder_that_was_taken_meanwhile_is_left_alone(world: SpoolWorld) -> None:
    world.new("a", b"1")
    world.leave()
    file = world.files()["a"]
    holder = take_over(file.folder)
    assert holder is not None
    with pytest.raises(FileSystemError, match="in use"):
        admin.discard(file)
    holder.close()
    assert list(world.files()) == ["a"]


def test_what_another_machine_wrote_is_shown_and_copied_and_nothing_else(world: SpoolWorld, tmp_path: Path) -> None:
    world.new("a", b"123")
    world.leave()
    file = world.files()["a"]
    assert file.owner is not None
    of_another_host(file.folder, file.owner)
    file = world.files()["a"]
    assert file.is_elsewhere
    with pytest.raises(FileSystemError, match="another machine"):
        admin.discard(file)
    assert admin.export(file, tmp_path / "copy").read_bytes() == b"123"


@pytest.mark.parametrize("held", [True, False])
def test_bytes_are_copied_out(world: SpoolWorld, tmp_path: Path, held: bool) -> None:
    content = os.urandom(3 * 1024 * 1024 + 17)
    world.new("folder/a.bin", content, mtime_ns=1_700_000_000_123_456_789)
    if not held:
        world.leave()
    told: list[int] = []
    (tmp_path / "out").mkdir()
    copy = admin.export(world.files()["folder/a.bin"], tmp_path / "out", tell=told.append)
    assert copy == tmp_path / "out" / "a.bin"
    assert copy.read_bytes() == content
    assert copy.stat().st_mtime_ns == 1_700_000_000_123_456_789
    assert told[-1] == len(content)
    assert list(world.files()) == ["folder/a.bin"], "it stays in the spool"


def test_a_copy_replaces_nothing_unless_forced(world: SpoolWorld, tmp_path: Path) -> None:
    world.new("a", b"new")
    target = tmp_path / "copy"
    target.write_bytes(b"old")
    with pytest.raises(AlreadyThere, match="--force"):
        admin.export(world.files()["a"], target)
    assert target.read_bytes() == b"old"
    admin.export(world.files()["a"], target, force=True)
    assert target.read_bytes() == b"new"
    with pytest.raises(FileSystemError, match="cannot be written"):
        admin.export(world.files()["a"], tmp_path / "none" / "copy")


def test_a_mount_that_takes_a_folder_over_says_so(world: SpoolWorld) -> None:
    world.new("a", b"1")
    world.leave()
    owner = Owner(this_host(), 2, "/mnt/new", URL)
    spool = Spool(world.root, "deployment", owner)
    try:
        (draft,) = spool.recover()
        assert draft.entry.name == "a"
        file = world.files()["a"]
        assert (file.is_held, file.owner) == (True, owner)
        assert file.path == Path("/mnt/new/artifacts/a")
        assert take_over(file.folder) is None, "the lock went with the new file"
    finally:
        spool.close()
    assert not world.files()["a"].is_held


def test_looking_does_not_disturb(world: SpoolWorld) -> None:
    world.new("a", b"1")
    assert world.folder is not None
    path = world.folder.path
    assert is_held(path)
    world.leave()
    assert not is_held(path)
    holder = take_over(path)
    assert holder is not None
    holder.close()
    (path / "owner").write_text("{")
    assert owner_of(path) is None
    assert world.files()["a"].mountpoint is None


def test_a_path_that_is_another_file_now_is_not_touched(world: SpoolWorld, tmp_path: Path) -> None:
    world.new("a", b"1")
    (tmp_path / "artifacts").mkdir()
    other = tmp_path / "artifacts" / "a"
    other.write_bytes(b"another one")
    file = world.files()["a"]
    assert file.owner is not None
    here = replace(file, owner=replace(file.owner, mountpoint=str(tmp_path)))
    for act in (admin.discard, admin.ask_retry):
        with pytest.raises(NoSuchEntry, match="another file now"):
            act(here)
    assert other.exists()
    nowhere = replace(file, owner=replace(file.owner, mountpoint=str(tmp_path / "none")))
    with pytest.raises(FileSystemError, match="refuses"):
        admin.discard(nowhere)
    with pytest.raises(FileSystemError, match="does not tell"):
        admin.await_outcome(nowhere, print)


def test_a_file_that_gets_no_further_is_not_waited_for(world: SpoolWorld, tmp_path: Path) -> None:
    world.new("a", b"1")
    (tmp_path / "artifacts").mkdir()
    path = tmp_path / "artifacts" / "a"
    path.touch()
    file = world.files()["a"]
    assert file.owner is not None
    here = replace(file, owner=replace(file.owner, mountpoint=str(tmp_path)))
    clock, told = FakeClock(), []

    def pause(seconds: float) -> None:
        clock.advance(100.0)
        if len(told) < 10:  # it gets on for a long time
            os.setxattr(path, UPLOAD, f"uploading {len(told)}%".encode())

    os.setxattr(path, UPLOAD, b"pending")
    with pytest.raises(FileSystemError, match=r"gets no further \(uploading 9%\)"):
        admin.await_outcome(here, told.append, pause=pause, clock=clock)
    assert told[:3] == ["pending", "uploading 1%", "uploading 2%"]
    assert told.count("uploading 9%") == 4


def test_the_outcome_of_a_file_that_a_mount_sends(world: SpoolWorld, tmp_path: Path) -> None:
    world.new("a", b"1")
    (tmp_path / "artifacts").mkdir()
    path = tmp_path / "artifacts" / "a"
    path.touch()
    file = world.files()["a"]
    assert file.owner is not None
    here = replace(file, owner=replace(file.owner, mountpoint=str(tmp_path)))

    def becomes_an_artifact(seconds: float) -> None:
        os.removexattr(path, UPLOAD)
        os.setxattr(path, admin.URN, b"urn:ivcap:artifact:1")

    os.setxattr(path, UPLOAD, b"pending")
    assert admin.await_outcome(here, print, pause=becomes_an_artifact) == "urn:ivcap:artifact:1"
    for state in (b"failed: why", b"interrupted: why"):
        os.setxattr(path, UPLOAD, state)
        with pytest.raises(FileSystemError, match=r"was not sent: .*: why"):
            admin.await_outcome(here, print)
