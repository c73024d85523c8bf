"""What the mount asks of the platform: no byte and no request more than a program needs."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse

from ivcapfs.fs.directreplies import COPIED
from ivcapfs.server.runner import Platform
from tests.mount.conftest import TOKEN, Faults, Mount, Mounter, daemons, output, process, run, settled_counters

MIB = 1024 * 1024
MAP_LOCKED = 0x2000
"""Of mmap(2), on x86 and ARM; not among Python's names."""
FOREVER = 100_000
"""A refresh time that no test lives to see."""
MANY = 1000
PAGES = 20
"""List pages of MANY artifacts."""


@pytest.fixture(autouse=True)
def _nothing_large_left(tmp_path: Path) -> Iterator[None]:
    """Delete what the platform kept, after it was closed: pytest would keep it for three sessions."""
    yield
    shutil.rmtree(tmp_path / "data")


@contextlib.contextmanager
def asked(platform: Platform) -> Iterator[Callable[[], tuple[dict[str, int], int]]]:
    """Within, return (requests by kind, bytes of content sent) since the beginning, once they stand still."""
    before = settled_counters(platform)

    def since() -> tuple[dict[str, int], int]:
        now = settled_counters(platform)
        requests = Counter(now["requests"])
        requests.subtract(before["requests"])
        sent = now["blob_bytes_sent"] - before["blob_bytes_sent"]
        return {kind: count for kind, count in requests.items() if count}, sent

    yield since


def add(platform: Platform, name: str, content: bytes) -> str:
    """Put an artifact in place and return its URN."""
    return platform.store.add_artifact(name=name, content=content, mime_type="application/octet-stream")


@functools.cache
def noise(size: int) -> bytes:
    """Return bytes in which no block is like another."""
    return random.Random(size).randbytes(size)


@pytest.fixture
def many(platform: Platform) -> Platform:
    """A platform with MANY artifacts, half of them in a folder."""
    with platform.store.batch():
        for number in range(MANY):
            folder = "folder/" if number % 2 else ""
            add(platform, f"{folder}file-{number:04}", b"content of a file\n"[: number % 17 + 1])
    return platform


# -- bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "start", "stop"),
    [
        (("tail", "-c", "1000"), -1000, None),
        (("tail", "-c", "100000"), -100_000, None),
        (("head", "-c", "100"), 0, 100),
        (("head", "-c", "100000"), 0, 100_000),
    ],
    ids=["tail", "longer tail", "head", "longer head"],
)
def test_an_end_of_a_large_file_costs_two_megabytes_at_most(
    platform: Platform, mount: Mount, command: tuple[str, ...], start: int, stop: int | None
) -> None:
    content = noise(64 * MIB + 12_345)
    add(platform, "large.bin", content)
    with asked(platform) as since:
        result = subprocess.run([*command, mount.artifacts / "large.bin"], capture_output=True, timeout=60, check=True)
        assert result.stdout == content[start:stop]
        requests, sent = since()
    assert len(result.stdout) <= sent <= 2 * MIB
    assert 1 <= requests["blob.get"] <= 8


def test_file_fetches_what_it_looks_at_and_a_window(platform: Platform, mount: Mount) -> None:
    add(platform, "large.pdf", b"%PDF-1.7\n" + noise(64 * MIB))
    with asked(platform) as since:
        assert "PDF document" in output("file", "-b", mount.artifacts / "large.pdf")
        _, sent = since()
    looked = json.loads((mount.path / ".ivcapfs" / "status.json").read_bytes())["reads"]["bytes_read"]
    assert 7 * MIB <= looked <= 18 * MIB, "the first 7 MiB, since file 5.46 also the last, and the kernel's read-ahead"
    assert sent <= looked + 16 * MIB, "the window doubles when half of it is used up"


def test_reading_it_all_once_fetches_each_byte_once(platform: Platform, mount: Mount) -> None:
    content = noise(64 * MIB + 1)
    add(platform, "large.bin", content)
    with asked(platform) as since:
        assert output("sha256sum", mount.artifacts / "large.bin").split()[0] == hashlib.sha256(content).hexdigest()
        requests, sent = since()
    assert sent == len(content)
    assert requests["artifact.read"] == 1
    assert requests["blob.get"] <= 65


def test_long_answers_go_to_the_kernel_without_a_copy_on_this_machine(platform: Platform, mount: Mount) -> None:
    content = noise(4 * MIB)
    add(platform, "long.bin", content)
    assert (mount.artifacts / "long.bin").read_bytes() == content
    assert COPIED not in mount.logged()


def test_eight_readers_of_one_cold_file_fetch_it_once(platform: Platform, mount: Mount) -> None:
    content = noise(64 * MIB)
    add(platform, "large.bin", content)
    script = 'read -r _ && exec sha256sum "$0"'
    with contextlib.ExitStack() as stack, asked(platform) as since:
        readers = [
            stack.enter_context(process("sh", "-c", script, mount.artifacts / "large.bin", stdin=subprocess.PIPE))
            for _ in range(8)
        ]
        for reader in readers:
            assert reader.stdin is not None
            reader.stdin.write(b"go\n")
            reader.stdin.flush()
        said = {reader.communicate(timeout=60)[0].split()[0].decode() for reader in readers}
        assert said == {hashlib.sha256(content).hexdigest()}
        _, sent = since()
    assert len(content) <= sent <= 1.1 * len(content)


def test_eight_readers_at_places_of_their_own_fetch_each_block_once(platform: Platform, mount: Mount) -> None:
    content = noise(64 * MIB)
    add(platform, "large.bin", content)
    script = 'read -r _ && exec dd if="$0" bs=128K iflag=skip_bytes,count_bytes status=none skip="$1" count=8M'
    with contextlib.ExitStack() as stack, asked(platform) as since:
        readers = {
            start: stack.enter_context(
                process("sh", "-c", script, mount.artifacts / "large.bin", start, stdin=subprocess.PIPE)
            )
            for start in range(0, len(content), 8 * MIB)
        }
        for reader in readers.values():
            assert reader.stdin is not None
            reader.stdin.write(b"go\n")
            reader.stdin.flush()
        for start, reader in readers.items():
            assert reader.communicate(timeout=60)[0] == content[start : start + 8 * MIB]
        _, sent = since()
    assert sent == len(content)


# -- read again ------------------------------------------------------------------------------------------------------


def test_the_second_read_comes_from_the_page_cache_alone(platform: Platform, mounter: Mounter) -> None:
    mount = mounter(platform.url, refresh=FOREVER)
    content = noise(4 * MIB + 1)
    add(platform, "twice.bin", content)
    path = mount.artifacts / "twice.bin"
    assert path.read_bytes() == content
    (daemon,) = daemons(mount.path)
    script = (
        "import os, sys; fd = os.open(sys.argv[1], os.O_RDONLY); print(flush=True); sys.stdin.readline(); "
        "size = 4 << 20; pieces = [os.pread(fd, 1 << 20, at) for at in range(0, size, 1 << 20)]; "
        "os.write(1, b''.join(pieces) + os.pread(fd, 1, size))"
    )  # nothing beyond the end: there the kernel asks for the size anew, where it knows it for long enough
    with asked(platform) as since, held_in_memory(path):
        with process("/usr/bin/env", "python3", "-c", script, path, stdin=subprocess.PIPE) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == b"\n"
            assert cached_pages(path) > len(content), "the open dropped them"
            os.kill(daemon, signal.SIGSTOP)
            try:  # from here on the daemon answers nobody
                again = reader.communicate(b"go\n", timeout=20)[0]
            finally:
                os.kill(daemon, signal.SIGCONT)
        assert again == content
        assert since() == ({}, 0)


@contextlib.contextmanager
def held_in_memory(path: Path) -> Iterator[None]:
    """Lock a file's pages (mlock(2)), within: a machine that is short of memory may not drop them, who opens it may."""
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED | MAP_LOCKED, prot=mmap.PROT_READ)
    with pages:
        yield


def test_after_the_kernel_dropped_its_pages_the_cached_blocks_serve(platform: Platform, mounter: Mounter) -> None:
    mount = mounter(platform.url, refresh=FOREVER)
    content = noise(16 * MIB + 1)
    add(platform, "twice.bin", content)
    path = mount.artifacts / "twice.bin"
    assert path.read_bytes() == content
    assert cached_pages(path) > 0
    with asked(platform) as since:
        drop_pages(path)
        assert cached_pages(path) == 0
        assert path.read_bytes() == content
        assert since() == ({}, 0)


def cached_pages(path: Path) -> int:
    """Return how many bytes of a file the kernel has in its page cache (fincore(1))."""
    return int(output("fincore", "--bytes", "--noheadings", "--output", "RES", path))


def drop_pages(path: Path) -> None:
    """Make the kernel drop a file's pages."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# -- listings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("ls", "-l"),
        ("ls", "-lR"),
        ("ls", "-laZ"),
        ("ls", "-lU", "--color=always"),
        ("find", "-type", "f", "-size", "-2"),
        ("find", "-printf", "%s %m %t %u %p\\n"),
        ("du", "-ab"),
        ("rsync", "-rn", "--list-only", "./"),
    ],
    ids=" ".join,
)
def test_a_walk_on_a_cold_mount_asks_for_the_list_and_nothing_else(
    many: Platform, faults: Faults, mounter: Mounter, command: tuple[str, ...]
) -> None:
    mount = mounter(many.url, refresh=FOREVER)
    faults.seen.clear()
    result = run("sh", "-c", 'cd "$0" && exec "$@"', mount.artifacts, *command)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("file-") == (MANY // 2 if command[0] == "ls" and "-lR" not in command else MANY)
    assert faults.asked("GET /1/artifacts") == len(faults.seen) == PAGES
    assert run("sh", "-c", 'cd "$0" && exec "$@"', mount.artifacts, *command).stdout == result.stdout
    assert len(faults.seen) == PAGES, "within the refresh time a second walk asks nothing"


def test_a_walk_over_by_id_reads_no_artifact(many: Platform, mounter: Mounter) -> None:
    mount = mounter(many.url, refresh=FOREVER)
    with asked(many) as since:
        assert output("ls", "-l", mount.path / "by-id").count("\n") == MANY + 1
        assert since() == ({"artifact.list": PAGES}, 0)


def test_what_is_new_is_asked_for_after_the_refresh_time_and_only_then(many: Platform, mounter: Mounter) -> None:
    mount = mounter(many.url, refresh=2)
    with asked(many) as since:
        assert len(os.listdir(mount.artifacts)) == MANY // 2 + 1
        assert since() == ({"artifact.list": PAGES}, 0)
    for number in range(10):
        add(many, f"new-{number}", b"new\n")
    with asked(many) as since:
        output("sleep", "2.1")
        assert len(os.listdir(mount.artifacts)) == MANY // 2 + 11
        requests, sent = since()
    assert (set(requests), sent) == ({"artifact.list"}, 0)
    assert requests["artifact.list"] <= 3


def test_a_second_mount_has_everything_for_one_request_or_two(many: Platform, mounter: Mounter) -> None:
    assert len(os.listdir(mounter(many.url, refresh=FOREVER).artifacts)) == MANY // 2 + 1
    with asked(many) as since:
        again = mounter(many.url, refresh=0)
        assert (again.artifacts / "folder" / "file-0007").stat().st_size == 8
        assert len(os.listdir(again.path / "by-id")) == MANY
        requests, sent = since()
    assert (set(requests), sent) == ({"artifact.list"}, 0)
    assert requests["artifact.list"] < PAGES


def test_a_killed_mount_goes_on_where_it_was(
    many: Platform, faults: Faults, mounter: Mounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_from_page_11(scope: dict[str, Any]) -> Any:
        pages = faults.asked("GET /1/artifacts")
        return JSONResponse({"message": "down"}, 500) if scope["path"] == "/1/artifacts" and pages > 11 else None

    mount = mounter(many.url, refresh=FOREVER)
    faults.seen.clear()
    faults.rule = fail_from_page_11
    with pytest.raises(OSError) as caught:
        os.listdir(mount.artifacts)
    assert caught.value.errno == errno.EIO, "a part is never shown"
    (daemon,) = daemons(mount.path)
    os.kill(daemon, signal.SIGKILL)
    faults.rule = lambda scope: None
    again = mounter(many.url, refresh=FOREVER)
    faults.seen.clear()
    assert len(os.listdir(again.artifacts)) == MANY // 2 + 1
    assert faults.asked("GET /1/artifacts") <= PAGES - 11 + 3, "the rest, and what is new since"


# -- attributes ------------------------------------------------------------------------------------------------------


@pytest.fixture
def described(platform: Platform, mounter: Mounter) -> Iterator[tuple[Mount, str]]:
    """A mount that has listed its artifacts, one with aspects among them; and that one's URN."""
    urn = add(platform, "described.bin", b"described\n")
    for number in range(3):
        platform.store.add_aspect(urn, f"urn:test:schema:{number}", {"number": number})
    add(platform, "folder/other.bin", b"other\n")
    mount = mounter(platform.url, refresh=FOREVER)
    assert output("ls", "-lR", mount.artifacts).count("described.bin") == 1
    yield mount, urn


def test_getfattr_asks_twice_and_then_no_more(platform: Platform, described: tuple[Mount, str]) -> None:
    mount, urn = described
    with asked(platform) as since:
        said = output("getfattr", "-d", mount.artifacts / "described.bin")
        assert said.count("user.ivcap.aspect.") == 3
        requests, sent = since()
        assert requests == {"artifact.read": 1, "aspect.list": 1}
        assert sent == 0
        again = output("getfattr", "-d", mount.artifacts / "described.bin")
        assert again == said
        assert output("getfattr", "-d", mount.by_id(urn)).splitlines()[1:] == said.splitlines()[1:]
        assert since() == (requests, 0)


def test_the_short_list_of_a_prober_and_the_listed_values_cost_nothing(
    platform: Platform, described: tuple[Mount, str]
) -> None:
    mount, urn = described
    path = mount.artifacts / "described.bin"
    libc = ctypes.CDLL(None, use_errno=True)
    room = ctypes.create_string_buffer(152)  # as `ls -l` of coreutils 9.6 does
    with asked(platform) as since:
        size = libc.llistxattr(os.fsencode(path), room, len(room))
        assert size > 0
        assert b"user.mime_type" in room.raw[:size].split(b"\0")
        assert os.getxattr(path, "user.ivcap.id").decode() == urn
        assert os.getxattr(path, "user.mime_type") == b"application/octet-stream"
        assert os.getxattr(path, "user.ivcap.size") == b"10"
        assert since() == ({}, 0)


PROBES = ["security.capability", "security.selinux", "security.ima", "system.posix_acl_access", "system.nfs4_acl"]
HIDDEN = [".git", ".hidden", ".Trash-1000", ".xdg-volume-info", ".DS_Store", "._described.bin"]


def probe(path: Path) -> None:
    """Ask a path for what file managers and coreutils ask every file."""
    for name in PROBES:
        with pytest.raises(OSError) as caught:
            os.getxattr(path, name, follow_symlinks=False)
        assert caught.value.errno in (errno.EOPNOTSUPP, errno.ENODATA)


def test_probes_for_labels_and_hidden_names_cost_nothing(platform: Platform, described: tuple[Mount, str]) -> None:
    mount, urn = described
    folders = [
        mount.path, mount.artifacts, mount.artifacts / "folder", mount.path / "by-id", mount.by_id(urn),
        mount.by_id(urn) / "aspects",
    ]  # fmt: skip
    with asked(platform) as since:
        for folder in folders:
            probe(folder)
            for name in HIDDEN:
                with pytest.raises(FileNotFoundError):
                    (folder / name).lstat()
                with pytest.raises(FileNotFoundError):
                    (folder / name / "HEAD").open()
        probe(mount.artifacts / "described.bin")
        probe(mount.by_id(urn) / "content")
        output("ls", "-laR", mount.artifacts)
        output("ls", "-la", mount.path, mount.path / "by-id")
        assert since() == ({}, 0)


def test_cp_asks_for_the_content_the_record_and_the_aspects(
    platform: Platform, described: tuple[Mount, str], tmp_path: Path
) -> None:
    mount, _ = described
    with asked(platform) as since:
        output("cp", "-a", mount.artifacts / "described.bin", tmp_path / "copy")
        requests, sent = since()
    assert sent == (tmp_path / "copy").stat().st_size == 10
    allowed: dict[str, Any] = {"blob.get": 1, "artifact.read": 2, "aspect.list": 1}
    assert all(count <= allowed.get(kind, 0) for kind, count in requests.items()), requests


def test_a_name_that_does_not_exist_is_asked_for_once(platform: Platform, described: tuple[Mount, str]) -> None:
    mount, _ = described
    with asked(platform) as since:
        for _ in range(3):
            assert not (mount.artifacts / "nothing.bin").exists()
        assert since() == ({"artifact.list": 1}, 0)


# -- small files -----------------------------------------------------------------------------------------------------


class Flying:
    """ASGI middleware that counts the requests for contents that are under way at the same time."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def wrap(self, app: Any) -> Any:
        async def counted(scope: dict[str, Any], receive: Any, send: Any) -> None:
            counts = scope["type"] == "http" and scope["path"].endswith("/blob")
            self.now += counts
            self.most = max(self.most, self.now)
            try:
                await app(scope, receive, send)
            finally:
                self.now -= counts

        return counted


def test_small_files_of_a_folder_come_side_by_side(tmp_path: Path, mounter: Mounter) -> None:
    """Far away, a thousand small files cost some round trips, and not a thousand, however they are gone through."""
    flying = Flying()
    with Platform(tmp_path / "data", token=TOKEN, wrap=flying.wrap, latency=0.05) as platform:
        with platform.store.batch():
            for number in range(100):
                add(platform, f"one/{number:03}.txt", b"%03d\n" % number)
        folder = mounter(platform.url, refresh=FOREVER).artifacts / "one"
        with asked(platform) as since:
            assert output("sh", "-c", f"cat {folder}/*") == "".join(f"{number:03}\n" for number in range(100))
            assert since()[1] == 400
        assert flying.most >= 8
