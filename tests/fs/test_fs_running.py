"""The files of running mounts: who lives is found, what was left goes, and nothing foreign there is believed."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ivcapfs.fs import overview, running
from ivcapfs.fs.mountpoint import Mount
from ivcapfs.fs.running import Announcement, Running
from ivcapfs.places import runtime_folder, state_folder

MINE = Running(os.getpid(), "/mnt/ivcap", "0:77", "production", "https://api.example.org", 1.7e9, "journal")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this user's mounts."""
    path = tmp_path / "runtime" / "ivcapfs"
    path.parent.mkdir()
    monkeypatch.setattr(running, "_folders", lambda: iter([(path, os.geteuid())]))
    return path


ELSEWHERE = """
import sys; from pathlib import Path
from ivcapfs.fs.running import Announcement, Running
announcement = Announcement(Path(sys.argv[1]))
announcement.publish(Running(4711, "/mnt/ivcap", "0:77", "production", "https://api.example.org", 1.7e9, "journal"))
print("there", flush=True)
if sys.stdin.readline() == "withdraw\\n":
    announcement.withdraw()
    print("withdrawn", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def other(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process whose mount is announced."""
    command = [sys.executable, "-c", ELSEWHERE, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "there\n"
        try:
            yield process
        finally:
            process.kill()


def listed() -> list[Running]:
    with running.all_found() as found:
        return [each.running for each in found]


def test_a_mount_is_found_as_long_as_its_process_lives(folder: Path, other: subprocess.Popen[str]) -> None:
    (path,) = folder.iterdir()
    assert listed() == [Running(4711, *list(asdict(MINE).values())[1:])]
    assert (stat.S_IMODE(folder.stat().st_mode), stat.S_IMODE(path.stat().st_mode)) == (0o700, 0o600)
    other.kill()
    other.wait()
    assert listed() == []
    assert list(folder.iterdir()) == []


def test_of_two_on_one_device_the_younger_has_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may outlive its mount, whose number another one gets then."""
    gone, there = replace(MINE, mountpoint="/mnt/gone", started=1.6e9), MINE
    for each in (there, gone):
        Announcement(folder).publish(each)
    with running.found("0:77") as found:
        assert found is not None and found.running == there
    mount = Mount(1, there.mountpoint, overview.KIND, "source", "0:77")
    monkeypatch.setattr(overview, "mounts", lambda: [mount])
    rows = [(row.mountpoint, row.state) for row in overview.overview()]
    assert rows == [(there.mountpoint, overview.SERVING), (gone.mountpoint, overview.ELSEWHERE)]


def test_whoever_waits_goes_on_when_the_process_ends_not_when_it_withdraws(
    folder: Path, other: subprocess.Popen[str]
) -> None:
    with running.found("0:77") as found:
        assert found is not None
        assert other.stdin is not None and other.stdout is not None
        other.stdin.write("withdraw\n")
        other.stdin.flush()
        assert other.stdout.readline() == "withdrawn\n"
        assert list(folder.iterdir()) == []
        assert not found.await_end(0.1)
        other.kill()
        assert found.await_end(30)
    with running.found("0:77") as found:
        assert found is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "[" * 100_000,
        json.dumps(asdict(MINE) | {"pid": "1"}),
        json.dumps(asdict(MINE) | {"log": None}),
        b"\xff\xfe".decode("latin-1"),
    ],
    ids=range(8),
)
def test_a_file_that_makes_no_sense_is_passed_over(folder: Path, other: subprocess.Popen[str], text: str) -> None:
    (folder / "1-00000000.json").write_text(text)
    assert [each.pid for each in listed()] == [4711]


def test_links_and_pipes_are_passed_over(folder: Path, other: subprocess.Popen[str], tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("x")
    (folder / "1-0.json").symlink_to(precious)
    os.mkfifo(folder / "2-0.json")
    assert [each.pid for each in listed()] == [4711]
    assert precious.read_text() == "x"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
def test_a_folder_of_somebody_else_is_not_used(folder: Path) -> None:
    folder.mkdir()
    os.chown(folder, 1234, 1234)
    announcement = Announcement(folder)
    announcement.publish(MINE)
    announcement.withdraw()
    assert list(folder.iterdir()) == []
    assert listed() == []


def test_a_folder_that_is_open_to_others_is_not_used(folder: Path) -> None:
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    announcement = Announcement(folder)
    announcement.publish(MINE)
    announcement.withdraw()
    assert list(folder.iterdir()) == []


def test_where_they_are() -> None:
    assert runtime_folder({"XDG_RUNTIME_DIR": "/run/user/0"}, uid=0) == Path("/run/ivcapfs")
    assert runtime_folder({"XDG_RUNTIME_DIR": "/run/user/7"}, uid=7) == Path("/run/user/7/ivcapfs")
    assert runtime_folder({"XDG_RUNTIME_DIR": "relative"}, uid=7) == Path("/tmp/ivcapfs-7")
    assert runtime_folder({}, uid=7) == Path("/tmp/ivcapfs-7")
    assert state_folder({"XDG_STATE_HOME": "/s"}) == Path("/s/ivcapfs")
