"""Many writers at once, files of no bytes and of too many, odd names, two mounts, and one that does not write."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from ivcap_client.ivcap import IVCAP as SDK

from ivcapfs.server.runner import Platform
from tests.mount.conftest import Faults, Mounter, eventually, run
from tests.mount.test_mount_writing_rules import errno_of, opened
from tests.mount.writing import arrived, made, once, uploads, writing_mount

WRITE_SOME = """
import sys
folder, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for number in range(first, first + count):
    with open(f"{folder}/{number:03}", "wb") as file:
        file.write(b"%d " % number * 3_000)
"""


def test_a_hundred_files_by_sixteen_processes(platform: Platform, mounter: Mounter, sdk: SDK) -> None:
    mount = writing_mount(platform, mounter)
    starts = [(100 * n // 16, 100 * (n + 1) // 16) for n in range(16)]
    words = [sys.executable, "-c", WRITE_SOME, str(mount.artifacts)]
    writers = [subprocess.Popen([*words, str(first), str(stop - first)]) for first, stop in starts]
    assert [writer.wait(100) for writer in writers] == [0] * 16
    arrived(mount)
    assert once(sdk) == {f"{number:03}": b"%d " % number * 3_000 for number in range(100)}
    assert sorted(os.listdir(mount.artifacts)) == sorted(f"{number:03}" for number in range(100))
    assert "Traceback" not in mount.logged()


def test_one_file_by_several_processes_at_once(platform: Platform, mounter: Mounter, sdk: SDK) -> None:
    mount = writing_mount(platform, mounter, settle=1000)  # it stays a new file whoever closes it
    script = "import os, sys; n = int(sys.argv[2]); fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT); "
    script += "[os.pwrite(fd, bytes([n]) * 1000, 1000 * (8 * k + n)) for k in range(100)]; os.close(fd)"
    path = mount.artifacts / "shared.bin"
    path.write_bytes(b"")
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path), str(n)]) for n in range(8)]
    assert [writer.wait(100) for writer in writers] == [0] * 8
    arrived(mount)
    assert once(sdk) == {"shared.bin": b"".join(bytes([n]) * 1000 for _ in range(100) for n in range(8))}


def test_no_bytes_and_too_many(platform: Platform, mounter: Mounter, sdk: SDK) -> None:
    mount = writing_mount(platform, mounter)
    folder = mount.artifacts
    colon = ["sh", "-c", ': > "$0"', folder / "colon"]
    for words in (["touch", folder / "touched"], colon, ["cp", "/dev/null", folder]):
        assert run(*words).returncode == 0
    with (folder / "large").open("wb", buffering=0) as file:
        assert errno_of(os.pwrite, file.fileno(), b"x", 5 << 30) == "EFBIG"
        assert errno_of(os.ftruncate, file.fileno(), (5 << 30) + 1) == "EFBIG"
        os.ftruncate(file.fileno(), 5 << 30)
        assert os.pwrite(file.fileno(), b"x", (5 << 30) - 1) == 1
        assert os.pwrite(file.fileno(), b"xx", (5 << 30) - 1) == 1, "as much as there is room for"
        assert os.fstat(file.fileno()).st_size == 5 << 30
        os.ftruncate(file.fileno(), 3)
    result = run("dd", "if=/dev/zero", f"of={folder / 'dd'}", "bs=1k", "count=1", "seek=5M", "conv=notrunc")
    assert "File too large" in result.stderr
    arrived(mount)
    found = once(sdk)
    assert found.pop("dd", b"") == b""
    assert found == {"touched": b"", "colon": b"", "null": b"", "large": bytes(3)}
    assert "Traceback" not in mount.logged()


def test_odd_names(platform: Platform, mounter: Mounter, sdk: SDK) -> None:
    mount = writing_mount(platform, mounter, settle=100)
    longest, folder = "ü" * 127 + "x", mount.artifacts
    good = [longest, "with space", "it's \"quoted\"", "100% sure", "a@b.org", "-rf", "üñí 🐚", "~", "x" * 255]
    for name in good:
        (folder / name).write_bytes(name.encode())
    flags = os.O_WRONLY | os.O_CREAT
    assert errno_of(opened, folder / ("x" * 256), flags) == "ENAMETOOLONG"
    assert errno_of(opened, folder / ("x" * 300), flags) == "ENAMETOOLONG"
    assert errno_of(os.mkdir, folder / ("x" * 300)) == "ENAMETOOLONG"
    assert errno_of(os.rename, folder / "with space", folder / ("x" * 300)) == "ENAMETOOLONG"
    bad = os.fsencode(folder) + b"/caf\xe9.txt"
    assert errno_of(os.open, bad, flags) == "EINVAL"
    assert errno_of(os.mkdir, bad) == "EINVAL"
    assert errno_of(os.rename, os.fsencode(folder / "with space"), bad) == "EINVAL"
    assert errno_of(opened, folder / "a%2Fb", flags) == "EINVAL", "it means another name"
    escaped = {"tab\there": "tab%09here", "new\nline": "new%0Aline", "notes@1a2b3c4d.txt": "notes%401a2b3c4d.txt"}
    for name in escaped:
        (folder / name).write_bytes(name.encode())
        assert (folder / name).read_bytes() == name.encode()
    deep = "/".join(["d" * 200] * 11)
    assert errno_of(os.makedirs, folder / deep) == "ENAMETOOLONG"
    arrived(mount)
    assert once(sdk) == {name: name.encode() for name in [*good, *escaped]}
    shown_files = [name for name in os.listdir(folder) if (folder / name).is_file()]
    assert sorted(shown_files) == sorted([*good, *escaped.values()])
    for name, shown in escaped.items():
        assert (folder / name).read_bytes() == (folder / shown).read_bytes() == name.encode()
    assert "Traceback" not in mount.logged()


def test_two_mounts_write_the_same_name(platform: Platform, mounter: Mounter, sdk: SDK) -> None:
    mounts = [writing_mount(platform, mounter) for _ in range(2)]
    one, two = (mount.artifacts / "same.txt" for mount in mounts)
    one.write_bytes(b"first")
    two.write_bytes(b"second")
    assert (one.read_bytes(), two.read_bytes()) == (b"first", b"second"), "each sees its own while it settles"
    for mount in mounts:
        arrived(mount)
    found = made(sdk)
    assert sorted(found["same.txt"]) == [b"first", b"second"]
    newest = found["same.txt"][0]
    for mount in mounts:
        eventually(lambda mount=mount: len(os.listdir(mount.artifacts)) == 2, "both are listed")
        eventually(lambda mount=mount: (mount.artifacts / "same.txt").read_bytes() == newest, "the newest has the name")
        contents = sorted((mount.artifacts / name).read_bytes() for name in os.listdir(mount.artifacts))
        assert contents == [b"first", b"second"]
    one.write_bytes(b"third")
    arrived(mounts[0])
    for mount in mounts:
        eventually(lambda mount=mount: (mount.artifacts / "same.txt").read_bytes() == b"third", "it is seen")


def test_a_mount_that_only_reads_refuses_all_and_asks_for_nothing(
    platform: Platform, mounter: Mounter, sdk: SDK, faults: Faults, tmp_path: Path
) -> None:
    platform.store.add_artifact(name="there.txt", content=b"as it was")
    mount = mounter(platform.url)
    there, new = mount.artifacts / "there.txt", mount.artifacts / "new.txt"
    assert there.read_bytes() == b"as it was"
    for path in (there, new):
        for flags in (os.O_WRONLY | os.O_CREAT, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
            assert errno_of(opened, path, flags) == "EROFS"
    calls: list[tuple[Any, ...]] = [
        (os.unlink, there), (os.rename, there, new), (os.truncate, there, 0), (os.mkdir, new), (os.chmod, there, 0o600),
        (os.rmdir, mount.artifacts), (os.link, there, new), (os.symlink, there, new), (os.chown, there, 1, 1),
        (os.utime, there), (os.setxattr, there, "user.x", b"1"), (os.mkfifo, new),
    ]  # fmt: skip
    assert {call[0].__name__: errno_of(*call) for call in calls} == {call[0].__name__: "EROFS" for call in calls}
    (tmp_path / "source").write_bytes(b"x")
    editor = ["vim", "-Nu", "NONE", "-i", "NONE", "-n", "-es", "-c", "normal ix", "-c", "wq!"]
    for command in (["touch", new], ["cp", tmp_path / "source", new], ["sed", "-i", "s/a/b/", there], [*editor, new]):
        assert run(*command).returncode != 0
    assert not [seen for seen in faults.seen if seen[0] not in ("GET", "HEAD")]
    assert made(sdk) == {"there.txt": [b"as it was"]}
    assert not mounter.spool.exists()


def test_a_reader_sees_what_is_written_meanwhile(platform: Platform, mounter: Mounter) -> None:
    """One who reads a new file sees all that was written before, from its first byte on and while it grows."""
    mount = writing_mount(platform, mounter)
    path = mount.artifacts / "growing.log"
    with path.open("wb", buffering=0) as writer, path.open("rb", buffering=0) as reader:
        for number in range(50):
            line = b"line %d\n" % number
            writer.write(line)
            assert reader.read() == line
            assert path.stat().st_size == reader.tell()


def test_files_are_read_and_listed_while_they_become_artifacts(platform: Platform, mounter: Mounter) -> None:
    """There is no moment in which a closed file is not there, or has other bytes."""
    mount = writing_mount(platform, mounter, settle=0.05)
    ended, wrong = threading.Event(), []

    def look(names: list[str]) -> None:
        while not ended.is_set():
            for name in list(names):
                try:
                    if (mount.artifacts / name).read_bytes() != name.encode() * 1000:
                        wrong.append(name)
                except OSError as exc:
                    wrong.append(f"{name}: {errno.errorcode[exc.errno or 0]}")
            before = set(names)
            missing = before - set(os.listdir(mount.artifacts))
            wrong.extend(f"{name} is not listed" for name in missing)

    names: list[str] = []
    looker = threading.Thread(target=look, args=(names,))
    looker.start()
    try:
        for number in range(40):
            name = f"file{number}"
            (mount.artifacts / name).write_bytes(name.encode() * 1000)
            names.append(name)
        arrived(mount)
    finally:
        ended.set()
        looker.join()
    assert wrong == []
    assert uploads(mount)["files"] == []
