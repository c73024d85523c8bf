"""The views through the kernel: collections of the SDK, times and searches as folders, and programs that probe."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ivcap_client.ivcap import IVCAP as SDK

from ivcapfs.server.clock import to_rfc3339
from ivcapfs.server.runner import Platform
from ivcapfs.server.synthetic import Synthetic
from tests.mount.conftest import TOKEN, Mount, Mounter, daemons, eventually, output, process, run, settled_counters

COLLECTION = "urn:ivcap:collection:3f2a9c1e-7b4d-4e0a-9c58-1d6f0a2b3c4d"
OLDER = "urn:ivcap:collection:0a1b2c3d-7b4d-4e0a-9c58-1d6f0a2b3c4d"


def upload(platform: Platform, name: str, content: bytes = b"content\n") -> str:
    """Put an artifact straight into the platform's store and return its URN."""
    return platform.store.add_artifact(name=name, content=content, mime_type="text/plain")


def moment(platform: Platform) -> str:
    """Return the platform's present; what comes later is later than that."""
    return to_rfc3339(platform.store.clock.tick())


def asked(platform: Platform) -> Counter[str]:
    """Return what was asked since this was asked last."""
    requests = settled_counters(platform)["requests"]
    platform.reset_counters()
    return Counter({name: count for name, count in requests.items() if count})


def fails(code: int, path: Path) -> None:
    with pytest.raises(OSError) as caught:
        os.stat(path)
    assert caught.value.errno == code


# -- collections -------------------------------------------------------------------------------------------------------


def test_a_collection_of_the_sdk_is_followed_as_members_come_and_go(
    platform: Platform, mount: Mount, sdk: SDK, tmp_path: Path
) -> None:
    file = tmp_path / "file.txt"
    file.write_bytes(b"by the SDK\n")
    one = sdk.upload_artifact(name="survey/one.txt", file_path=str(file), force_upload=True)
    two = sdk.upload_artifact(name="two.txt", file_path=str(file), force_upload=True)
    collection = sdk.create_collection(COLLECTION, "Tide gauges", description="of the south")
    collection.add_item(one.urn)
    folder = mount.path / "collections" / "Tide gauges"
    eventually(lambda: folder.exists() and os.listdir(folder) == ["survey"], "the first member is there", seconds=10)
    assert (folder / "survey" / "one.txt").read_bytes() == b"by the SDK\n"
    collection.add_item(two.urn)
    eventually(lambda: sorted(os.listdir(folder)) == ["survey", "two.txt"], "the second is there", seconds=10)
    assert os.getxattr(folder, "user.ivcap.description") == b"of the south"
    assert collection.remove_item(one.urn)
    eventually(lambda: os.listdir(folder) == ["two.txt"], "the first is gone", seconds=10)
    sdk.create_collection(COLLECTION, "Gauges / south")
    eventually(lambda: os.listdir(mount.path / "collections") == ["Gauges "], "it is renamed", seconds=10)
    assert os.listdir(mount.path / "collections" / "Gauges " / " south") == ["two.txt"]
    sdk.retract_collection(COLLECTION)
    eventually(lambda: os.listdir(mount.path / "collections") == [], "it is gone", seconds=10)


def test_the_older_form_and_the_sdks_live_together(platform: Platform, mount: Mount, sdk: SDK) -> None:
    members = [upload(platform, name) for name in ("a", "b")]
    form = {"collection": OLDER, "artifacts": members}
    platform.store.add_aspect(OLDER, "urn:ivcap:schema:artifact-collection.1", form)
    sdk.create_collection(COLLECTION, "new").add_item(members[0])
    root = mount.path / "collections"
    assert sorted(os.listdir(root)) == [OLDER.rpartition(":")[2], "new"]
    assert sorted(os.listdir(root / OLDER.rpartition(":")[2])) == ["a", "b"]
    assert os.listdir(root / "new") == ["a"]
    assert output("getfattr", "-n", "user.ivcap.id", "--only-values", root / "new") == COLLECTION


# -- everywhere --------------------------------------------------------------------------------------------------------


def test_the_same_artifact_has_the_same_inode_number_in_every_view(platform: Platform, mount: Mount, sdk: SDK) -> None:
    urn = upload(platform, "d/same.txt")
    platform.store.add_aspect(urn, "urn:x:note", {"text": "hello"})
    sdk.create_collection(COLLECTION, "c").add_item(urn)
    then = mount.path / "at" / moment(platform)
    paths = [base / "artifacts" / "d" / "same.txt" for base in (mount.path, then)]
    paths += [base / "by-id" / urn.rpartition(":")[2] / "same.txt" for base in (mount.path, then)]
    paths += [base / "collections" / "c" / "d" / "same.txt" for base in (mount.path, then)]
    paths += [mount.path / "search" / name / "d" / "same.txt" for name in ("name ~= 'd%2F%'", "aspect:urn:x:%")]
    for path in paths:
        assert path.read_bytes() == b"content\n"
        assert os.getxattr(path, "user.ivcap.aspect.urn:x:note") == b'{"text": "hello"}'
    assert len({os.stat(path).st_ino for path in paths}) == 1
    for path in paths:
        with os.scandir(path.parent) as entries:
            assert {entry.inode() for entry in entries if entry.name == "same.txt"} == {os.stat(path).st_ino}


def test_a_path_in_a_view_stays_what_was_opened_while_it_is_open(platform: Platform, mount: Mount) -> None:
    upload(platform, "data.bin", b"old bytes")
    path = mount.path / "search" / "name = 'data.bin'" / "data.bin"
    with path.open("rb", buffering=0) as file:
        assert file.read(3) == b"old"
        upload(platform, "data.bin", b"new bytes, and longer")
        eventually(lambda: len(os.listdir(path.parent)) == 2, "the newer is there")
        assert os.pread(file.fileno(), 100, 0) == path.read_bytes() == b"old bytes"
        assert path.stat().st_size == 9
    assert path.read_bytes() == b"new bytes, and longer"


# -- at/ ---------------------------------------------------------------------------------------------------------------


def test_a_time_shows_exactly_what_was_there(platform: Platform, mount: Mount, sdk: SDK) -> None:
    old = upload(platform, "a.csv", b"old")
    note = platform.store.add_aspect(old, "urn:x:note", {"text": "first"})
    collection = sdk.create_collection(COLLECTION, "c")
    collection.add_item(old)
    then = mount.path / "at" / moment(platform)
    new = upload(platform, "a.csv", b"new")
    later = upload(platform, "later.csv")
    platform.store.aspects.retract(note)
    platform.store.add_aspect(old, "urn:x:later", {"text": "second"})
    collection.remove_item(old)
    collection.add_item(later)
    assert output("ls", "-A", then).split() == ["artifacts", "by-id", "collections"]
    assert os.listdir(then / "artifacts") == ["a.csv"]
    assert (then / "artifacts" / "a.csv").read_bytes() == b"old"
    assert (mount.artifacts / "a.csv").read_bytes() == b"new"
    assert [name for name in os.listxattr(then / "artifacts" / "a.csv") if "aspect" in name] == [
        "user.ivcap.aspect.urn:x:note"
    ]
    assert os.listdir(then / "by-id" / old / "aspects") == ["urn:x:note.json"]
    fails(errno.ENOENT, then / "by-id" / new)
    assert os.listdir(then / "collections" / "c") == ["a.csv"]
    assert os.listdir(mount.path / "collections" / "c") == ["later.csv"]
    assert len(output("find", then, "-type", "f").splitlines()) == 5


def test_times_that_are_none_do_not_exist(platform: Platform, mount: Mount) -> None:
    made = datetime(2026, 5, 31, 23, 59, tzinfo=UTC)
    platform.store.add_artifact(name="old.txt", content=b"", created_at=made)
    upload(platform, "new.txt")
    for text in ("2026-06-01", "2026-06-01T00:00:00Z", "2026-06-01T10%3A00%3A00+10:00"):
        assert os.listdir(mount.path / "at" / text / "artifacts") == ["old.txt"]
    assert os.listdir(mount.path / "at") == []
    for text in ("nonsense", "2026-13-01", "2999-01-01", ".git"):
        fails(errno.ENOENT, mount.path / "at" / text)


# -- search/ -----------------------------------------------------------------------------------------------------------


def test_searches_list_exactly_what_matches(tmp_path: Path, mounter: Mounter) -> None:
    with Platform(tmp_path / "many", token=TOKEN, synthetic=Synthetic(4000, 100)) as platform:
        mount = mounter(platform.url)
        listed = output("ls", mount.path / "search" / "name~='artifact-00001%'").split()
        assert listed == [f"artifact-00001{number:02}.bin" for number in range(100)]
        listed = output("ls", mount.path / "search" / "aspect:urn:x:%").split()
        carrying = platform.store.artifacts
        assert len(listed) == 500 and carrying is not None
        for name in listed[::100]:
            assert os.getxattr(mount.artifacts / name, "user.ivcap.aspect.urn:x:synthetic:1")
        others = sorted(set(os.listdir(mount.artifacts)) - set(listed))
        assert len(others) == 3500
        for name in others[::1000]:
            assert not [each for each in os.listxattr(mount.artifacts / name) if "urn:x" in each]


def test_a_refused_filter_is_invalid_and_the_log_says_why(platform: Platform, mount: Mount) -> None:
    assert os.listdir(mount.path / "search") == []
    fails(errno.EINVAL, mount.path / "search" / "colour = 'red'")
    assert "EINVAL: listing artifacts: the server answered 400: Cannot understand the filter" in mount.logged()


def test_programs_that_probe_ask_next_to_nothing(platform: Platform, mounter: Mounter) -> None:
    mount = mounter(platform.url, refresh=600)
    upload(platform, "a.txt")
    where = [mount.path / "search" / "name = 'a.txt'", mount.path / "at" / moment(platform) / "artifacts"]
    where += [mount.path / "at", mount.path / "search", mount.path / "collections"]
    for folder in where:
        os.listdir(folder)
    asked(platform)
    for folder in where:
        for name in (".git", ".hidden", ".Trash", ".xdg-volume-info", "HEAD", "desktop.ini", "objects/pack", "refs"):
            run("stat", folder / name)
    counts = asked(platform)
    assert counts["artifact.list"] <= 5, "unknown names of a time that is just past"
    assert counts["aspect.list"] <= 5 and set(counts) <= {"artifact.list", "aspect.list"}
    if shutil.which("git"):
        run("git", "-C", where[0], "status")
        run("git", "-C", where[0], "log")
        assert sum(asked(platform).values()) == 0


def test_a_mount_ends_while_a_search_is_under_way(tmp_path: Path, mounter: Mounter) -> None:
    with Platform(tmp_path / "many", token=TOKEN, synthetic=Synthetic(100_000, 100), latency=0.05) as platform:
        mount = mounter(platform.url)
        with process("ls", mount.path / "search" / "name ~= '%'"), process("ls", mount.path / "search" / "aspect:%"):
            eventually(lambda: platform.counters()["requests"].get("aspect.list", 0) > 3, "they are under way")
            (daemon,) = daemons(mount.path)
            os.kill(daemon, signal.SIGTERM)
            eventually(lambda: not daemons(mount.path), "the process ends", seconds=20)


def test_a_waiting_search_can_be_interrupted(tmp_path: Path, mounter: Mounter) -> None:
    with Platform(tmp_path / "many", token=TOKEN, synthetic=Synthetic(100_000, 100), latency=0.05) as platform:
        mount = mounter(platform.url)
        with process("ls", mount.path / "search" / "name ~= '%'") as listing:
            eventually(lambda: platform.counters()["requests"].get("artifact.list", 0) > 3, "it is under way")
            listing.send_signal(signal.SIGINT)
            listing.wait(20)
