"""What a mount that writes allows and refuses, and what survives the end of it: names, modes, a full disk, umount."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ivcap_client.ivcap import IVCAP as SDK
from starlette.responses import PlainTextResponse

from ivcapfs.server.runner import Platform
from tests.mount.conftest import Faults, Mount, Mounter, daemons, eventually, is_mounted, ivcapfs, output, run
from tests.mount.writing import (
    MIB,
    arrived,
    hurry,
    journal,
    made,
    once,
    upload_state,
    uploads,
    writing_mount,
)

RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def mount(platform: Platform, mounter: Mounter) -> Iterator[Mount]:
    mount = writing_mount(platform, mounter)
    yield mount
    assert "Traceback" not in mount.logged()


@pytest.fixture
def artifact(platform: Platform, mount: Mount) -> Path:
    """The path of an artifact that is there."""
    platform.store.add_artifact(name="there.txt", content=b"as it was", mime_type="text/plain")
    path = mount.artifacts / "there.txt"
    assert path.read_bytes() == b"as it was"
    return path


def errno_of(work: Callable[..., object], *args: object, **more: object) -> str:
    """Return the name of the errno that a call gives, or an empty text."""
    try:
        work(*args, **more)
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]
    return ""


def opened(path: Path, flags: int, write: bytes = b"") -> None:
    """Open and close a file."""
    fd = os.open(path, flags, 0o644)
    try:
        if write:
            os.write(fd, write)
    finally:
        os.close(fd)


def renameat2(old: Path, new: Path, flags: int) -> None:
    """Rename with flags (renameat2(2))."""
    if LIBC.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def test_an_artifact_cannot_be_changed(mount: Mount, artifact: Path, sdk: SDK) -> None:
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_CREAT):
        assert errno_of(opened, artifact, flags) == "EPERM"
    assert errno_of(opened, artifact, os.O_WRONLY | os.O_CREAT | os.O_EXCL) == "EEXIST"
    assert errno_of(os.truncate, artifact, 3) == "EPERM"
    assert errno_of(os.unlink, artifact) == "EPERM"
    assert errno_of(os.rename, artifact, mount.artifacts / "other.txt") == "EPERM"
    assert errno_of(os.link, artifact, mount.artifacts / "other.txt") == "EPERM"
    assert errno_of(os.symlink, "there.txt", mount.artifacts / "link") == "EPERM"
    assert errno_of(os.mkfifo, mount.artifacts / "pipe") == "EPERM"
    assert artifact.read_bytes() == b"as it was"
    assert made(sdk) == {"there.txt": [b"as it was"]}
    assert uploads(mount)["files"] == []


def test_a_new_file_takes_the_name_of_an_artifact(mount: Mount, artifact: Path, sdk: SDK) -> None:
    uuid = os.getxattr(artifact, "user.ivcap.id").decode().rpartition(":")[2]
    artifact.write_bytes(b"new")
    assert artifact.read_bytes() == b"new"
    old = mount.artifacts / f"there@{uuid[:8]}.txt"
    assert old.read_bytes() == b"as it was", "while the new one settles"
    arrived(mount)
    assert (artifact.read_bytes(), old.read_bytes()) == (b"new", b"as it was")
    assert made(sdk) == {"there.txt": [b"new", b"as it was"]}
    assert sorted(os.listdir(mount.artifacts)) == sorted(["there.txt", old.name])


def test_the_name_of_an_artifact_that_is_read_is_busy(mount: Mount, artifact: Path, sdk: SDK) -> None:
    with artifact.open("rb") as reader:
        assert errno_of(opened, artifact, os.O_WRONLY | os.O_TRUNC) == "EBUSY"
        assert reader.read() == b"as it was"
    assert eventually(lambda: errno_of(opened, artifact, os.O_WRONLY | os.O_TRUNC, b"new") == "", "it is free")
    arrived(mount)
    assert made(sdk)["there.txt"] == [b"new", b"as it was"]


def test_a_file_renamed_onto_an_artifact_that_is_read(mount: Mount, artifact: Path, sdk: SDK) -> None:
    new = mount.artifacts / ".tmp"
    new.write_bytes(b"new")
    with artifact.open("rb") as reader:
        assert errno_of(os.replace, new, artifact) == "EBUSY"
        assert errno_of(os.unlink, artifact) == "EBUSY"
        assert reader.read() == b"as it was"
        assert new.read_bytes() == b"new"
    eventually(lambda: errno_of(os.replace, new, artifact) == "", "it is free")
    assert artifact.read_bytes() == b"new"
    arrived(mount)
    assert made(sdk) == {"there.txt": [b"new", b"as it was"]}


def test_renaming_new_files(mount: Mount, artifact: Path, sdk: SDK) -> None:
    folder = mount.artifacts
    one, two = folder / "one", folder / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    assert errno_of(renameat2, one, two, RENAME_NOREPLACE) == "EEXIST"
    assert errno_of(renameat2, one, artifact, RENAME_NOREPLACE) == "EEXIST"
    assert errno_of(renameat2, one, two, RENAME_EXCHANGE) == "EINVAL"
    assert errno_of(renameat2, one, folder / "three", RENAME_WHITEOUT) == "EINVAL"
    renameat2(one, folder / "three", RENAME_NOREPLACE)
    (folder / "deep").mkdir()
    os.rename(folder / "three", folder / "deep/four")
    os.rename(folder / "deep", folder / "deeper")
    assert (folder / "deeper/four").read_bytes() == b"1"
    assert errno_of(os.rename, folder / "deeper/four", folder / "nowhere/four") == "ENOENT"
    assert errno_of(os.rename, two, mount.path / "by-id/two") == "EROFS"
    assert errno_of(os.rename, two, mount.path / "collections/two") == "ENOENT"
    arrived(mount)
    assert made(sdk) == {"there.txt": [b"as it was"], "deeper/four": [b"1"], "two": [b"2"]}
    assert errno_of(os.rename, folder / "deeper", folder / "deepest") == "EPERM"
    assert errno_of(os.rmdir, folder / "deeper") == "ENOTEMPTY"
    (folder / "made/below").mkdir(parents=True)
    (folder / "made/below/five").write_bytes(b"5")
    arrived(mount)
    assert errno_of(os.rename, folder / "made", folder / "other") == "EPERM"
    assert (folder / "made/below/five").read_bytes() == b"5"


def test_removing_new_files_leaves_nothing(mount: Mount, sdk: SDK, mounter: Mounter) -> None:
    path = mount.artifacts / "gone.bin"
    path.write_bytes(bytes(2 * MIB))
    os.unlink(path)
    with path.open("w+b") as file:
        file.write(b"open")
        file.flush()
        os.unlink(path)
        assert not path.exists()
        assert os.listdir(mount.artifacts) == []
        os.ftruncate(file.fileno(), 2)
        os.fchmod(file.fileno(), 0o600)
        file.seek(0)
        assert file.read() == b"op"
        assert os.fstat(file.fileno()).st_size == 2
    (mount.artifacts / "a/b").mkdir(parents=True)
    assert errno_of(os.rmdir, mount.artifacts / "a") == "ENOTEMPTY"
    os.rmdir(mount.artifacts / "a/b")
    os.rmdir(mount.artifacts / "a")
    assert errno_of(os.rmdir, mount.artifacts) == "EPERM"
    arrived(mount)
    assert made(sdk) == {}
    eventually(lambda: journal(mounter) == {}, "nothing is left in the spool")


@pytest.mark.parametrize("folder", ["", "by-id", "at", "search", "collections"])
def test_new_files_are_in_artifacts_alone(mount: Mount, folder: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT
    expected = "ENOENT" if folder == "collections" else "EROFS"
    assert errno_of(opened, mount.path / folder / "new.txt", flags) == expected
    assert uploads(mount)["files"] == []


def test_modes_owners_and_times(mount: Mount, artifact: Path) -> None:
    new = mount.artifacts / "new.txt"
    new.write_bytes(b"x")
    for path in (new, artifact):
        told = path.stat()
        assert (oct(told.st_mode), told.st_uid, told.st_gid) == (oct(0o100644), os.getuid(), os.getgid())
        os.chmod(path, 0o644)
        os.chown(path, told.st_uid, -1)
        os.utime(path, ns=(1, 1_500_000_000_000_000_001))
        assert path.stat().st_mtime_ns == 1_500_000_000_000_000_001
    os.chmod(new, 0o755)
    os.chown(new, 1, 1)
    assert errno_of(os.chmod, artifact, 0o755) == "EPERM"
    assert errno_of(os.chown, artifact, 1, 1) == "EPERM"
    arrived(mount)
    assert new.stat().st_mtime_ns == 1_500_000_000_000_000_001
    before = time.time_ns() - 10**9
    os.utime(new)
    assert new.stat().st_mtime_ns >= before
    subprocess.run(["touch", "-d", "2020-01-01T00:00:00Z", new], check=True)
    assert new.stat().st_mtime == 1_577_836_800
    assert new.read_bytes() == b"x"


def test_times_that_were_set_survive_a_remount(platform: Platform, mounter: Mounter, mount: Mount) -> None:
    path = mount.artifacts / "new.txt"
    path.write_bytes(b"x")
    os.utime(path, ns=(0, 1_500_000_000_000_000_001))
    output(*ivcapfs("umount", mount.path))
    again = writing_mount(platform, mounter)
    assert (again.artifacts / "new.txt").stat().st_mtime_ns == 1_500_000_000_000_000_001


def test_hidden_names_stay_here_and_survive_a_remount(
    platform: Platform, mounter: Mounter, mount: Mount, sdk: SDK
) -> None:
    (mount.artifacts / ".settings").write_bytes(b"local")
    (mount.artifacts / ".git/objects").mkdir(parents=True)
    (mount.artifacts / ".git/objects/ab").write_bytes(b"object")
    assert upload_state(mount.artifacts / ".settings") == "local"
    assert uploads(mount)["local"] == 2
    output(*ivcapfs("umount", mount.path))
    assert made(sdk) == {}
    again = writing_mount(platform, mounter)
    assert sorted(os.listdir(again.artifacts)) == [".git", ".settings"]
    assert (again.artifacts / ".settings").read_bytes() == b"local"
    with (again.artifacts / ".settings").open("ab") as file:
        file.write(b" and more")
    os.rename(again.artifacts / ".settings", again.artifacts / "settings")
    os.unlink(again.artifacts / ".git/objects/ab")
    arrived(again)
    assert made(sdk) == {"settings": [b"local and more"]}


@contextlib.contextmanager
def small_disk(path: Path, size: int) -> Iterator[Path]:
    """Give a disk of its own (tmpfs(5)), or skip the test where none can be mounted."""
    path.mkdir()
    if run("mount", "-t", "tmpfs", "-o", f"mode=700,size={size}", "tmpfs", path).returncode:
        pytest.skip("may not mount a disk here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True, timeout=60)


def test_a_full_spool_is_the_business_of_who_writes_alone(
    platform: Platform, mounter: Mounter, sdk: SDK, tmp_path: Path
) -> None:
    platform.store.add_artifact(name="there.bin", content=bytes(MIB))
    with small_disk(tmp_path / "disk", 8 * MIB) as disk:
        mount = mounter(platform.url, "write", settle=0.25, spool_dir=disk / "spool")
        try:
            (mount.artifacts / "small").write_bytes(b"small")
            result = run("dd", "if=/dev/zero", f"of={mount.artifacts / 'large'}", "bs=1M", "count=20")
            assert result.returncode != 0
            assert "No space left on device" in result.stderr
            assert (mount.artifacts / "there.bin").read_bytes() == bytes(MIB)
            assert (mount.artifacts / "small").read_bytes() == b"small"
            assert errno_of((mount.artifacts / "another").write_bytes, b"x") in ("ENOSPC", "")
            os.unlink(mount.artifacts / "large")
            (mount.artifacts / "after").write_bytes(bytes(5 * MIB))
            arrived(mount)
            found = once(sdk)
            assert found["small"] == b"small"
            assert found["after"] == bytes(5 * MIB)
            assert "large" not in found
            assert "Traceback" not in mount.logged()
        finally:
            run(*ivcapfs("umount", "--now", mount.path))


@contextlib.contextmanager
def refused(faults: Faults, what: str, status: int = 503) -> Iterator[None]:
    """Requests whose "METHOD path" begins so are refused."""
    before = faults.rule
    answer = PlainTextResponse("no", status, headers={"Retry-After": "0"})
    faults.rule = lambda scope: answer if f"{scope['method']} {scope['path']}".startswith(what) else None
    try:
        yield
    finally:
        faults.rule = before


def test_our_umount_waits_for_what_is_pending(platform: Platform, mounter: Mounter, sdk: SDK) -> None:
    mount = writing_mount(platform, mounter, settle=100)
    for number in range(5):
        (mount.artifacts / f"{number}.txt").write_bytes(b"%d" % number)
    assert uploads(mount)["pending"] == 5
    output(*ivcapfs("umount", mount.path))
    assert not is_mounted(mount.path)
    assert once(sdk) == {f"{number}.txt": b"%d" % number for number in range(5)}
    assert journal(mounter) == {}


def test_umount_now_and_umount_8_complete_what_they_can(platform: Platform, mounter: Mounter, sdk: SDK) -> None:
    for name, command in {"ours": ivcapfs("umount", "--now"), "the system's": ["umount"]}.items():
        mount = writing_mount(platform, mounter, settle=100)
        (mount.artifacts / name).write_bytes(b"x")
        output(*command, mount.path)
        eventually(lambda mount=mount: not daemons(mount.path), "the process ends")
        assert name in once(sdk)
    assert journal(mounter) == {}


def test_the_server_is_away_when_the_mount_is_left(
    platform: Platform, mounter: Mounter, sdk: SDK, faults: Faults
) -> None:
    mount = writing_mount(platform, mounter, settle=100, timeout=2)
    (mount.artifacts / "late.txt").write_bytes(b"late")
    with refused(faults, "PATCH"):
        output(*ivcapfs("umount", "--now", mount.path))
        eventually(lambda: not daemons(mount.path), "the process ends")
    assert made(sdk) == {}
    assert journal(mounter)["artifacts/late.txt"]["state"] == "closed"
    again = writing_mount(platform, mounter)
    arrived(again)
    assert once(sdk) == {"late.txt": b"late"}


def test_sigterm_leaves_the_pending_to_the_next_mount(platform: Platform, mounter: Mounter, sdk: SDK) -> None:
    mount = writing_mount(platform, mounter, settle=100)
    (mount.artifacts / "closed.bin").write_bytes(bytes(MIB))
    with (mount.artifacts / "open.bin").open("wb") as file:
        file.write(b"unfinished")
        file.flush()
        (daemon,) = daemons(mount.path)
        os.kill(daemon, signal.SIGTERM)
        eventually(lambda: not daemons(mount.path), "the process ends")
        with contextlib.suppress(OSError):
            file.close()
    assert made(sdk) == {}
    again = writing_mount(platform, mounter)
    arrived(again)
    assert once(sdk) == {"closed.bin": bytes(MIB)}
    assert (again.artifacts / "open.bin").read_bytes() == b"unfinished"
    assert upload_state(again.artifacts / "open.bin").startswith("interrupted")
    os.setxattr(again.artifacts / "open.bin", "user.ivcap.upload", b"retry")
    arrived(again)
    assert once(sdk)["open.bin"] == b"unfinished"


def test_a_rename_that_is_refused_takes_nothing_away(
    platform: Platform, mounter: Mounter, sdk: SDK, faults: Faults
) -> None:
    """The file that was to be replaced is still there where its successor cannot be sent."""
    mount = writing_mount(platform, mounter, settle=100, timeout=1)
    (mount.artifacts / "data").write_bytes(b"old")
    (mount.artifacts / ".data.tmp").write_bytes(b"new")
    with refused(faults, "POST", 403):
        assert errno_of(os.rename, mount.artifacts / ".data.tmp", mount.artifacts / "data") == "EACCES"
    assert (mount.artifacts / "data").read_bytes() == b"old"
    assert (mount.artifacts / ".data.tmp").read_bytes() == b"new"
    hurry(mount)
    arrived(mount)
    assert once(sdk) == {"data": b"old"}
    os.rename(mount.artifacts / ".data.tmp", mount.artifacts / "data")
    arrived(mount)
    assert made(sdk) == {"data": [b"new", b"old"]}


def test_attributes_and_collections_of_a_new_file_come_with_it(mount: Mount, sdk: SDK) -> None:
    schema = "urn:test:schema:a.1"
    (mount.path / "collections/all").mkdir()
    path = mount.path / "collections/all/data.csv"
    with path.open("wb") as file:
        file.write(b"a,b\n")
        os.setxattr(path, f"user.ivcap.aspect.{schema}", json.dumps({"n": 1}).encode())
    arrived(mount)
    (artifact,) = sdk.list_artifacts()
    assert artifact.name == "data.csv"
    assert [each.content["n"] for each in artifact.metadata if each.schema == schema] == [1]
    eventually(lambda: os.listdir(mount.path / "collections/all") == ["data.csv"], "it is a member")
    assert sdk.get_artifact(artifact.id).mime_type == "text/csv"
