"""The filesystem without a kernel: what a user sees in the tree, in stat(2), in reads and in errors."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ivcapfs.cache.reader import Reader
from ivcapfs.config import CacheSettings, ViewSettings
from ivcapfs.errors import ConnectFailed, ConnectionBroken, Interrupted
from ivcapfs.fs.bindings import Bindings
from ivcapfs.fs.neighbours import Neighbours
from ivcapfs.fs.nodes import Attributes
from ivcapfs.fs.operations import Operations
from ivcapfs.fs.tree import Nodes
from ivcapfs.fs.writing import WritingOperations
from ivcapfs.models import ArtifactRecord, ArtifactStatus
from tests.fakes import START, AtOnce, Background, FakeSource, FixedListing, MemoryCatalog, artifact, aspect, uuid_of
from tests.fs.views_world import cat
from tests.hostile import HOSTILE

START_NS = int(START.timestamp()) * 10**9
Y2000 = (START.replace(year=2000) - START).total_seconds()


class World:
    """The operations over a catalog in memory and a source of bytes."""

    def __init__(self, view: ViewSettings | None = None) -> None:
        self.catalog, self.source = MemoryCatalog(), FakeSource()
        self.forgotten: list[str] = []
        self.interrupting = threading.Event()
        self.reader = Reader(
            self.source, CacheSettings(block_size=1024, memory=1 << 20, workers=4), bound=20
        )
        bindings = Bindings(self.forgotten.append, AtOnce())
        neighbours = Neighbours(lambda *_: [], self.reader, 0, lambda: False)
        self.fs = Operations(self.catalog, self.reader, bindings, neighbours, view or ViewSettings(), self._check)

    def _check(self) -> None:
        if self.interrupting.is_set():
            raise Interrupted("a signal")

    def add(self, name: str | None, data: bytes = b"", **more: Any) -> ArtifactRecord:
        record = artifact(name, **{"size": len(data), **more})
        self.catalog.add(record)
        self.source.put(record.uuid, data)
        return record

    def ls(self, path: str) -> dict[str, Attributes | None]:
        handle = self.fs.opendir(path)
        try:
            return {name: found for name, found, _ in self.fs.readdir(handle, 0)}
        finally:
            self.fs.releasedir(handle)

    def names(self, path: str) -> set[str]:
        return set(self.ls(path)) - {".", ".."}

    def cat(self, path: str) -> bytes:
        return cat(self.fs, path)

    def walk(self, path: str = "/") -> Iterator[tuple[str, Attributes]]:
        """Iterate every path with what stat(2) says."""
        for name, listed in self.ls(path).items():
            if name not in (".", ".."):
                below = path.rstrip("/") + "/" + name
                found = self.fs.getattr(below)
                assert listed in (None, found), below
                yield below, found
                if stat.S_ISDIR(found.mode):
                    yield from self.walk(below)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.source.gate.set()
    world.reader.shutdown()


def fails(code: int, call: Callable[..., object], *args: object) -> None:
    """Check that a call raises OSError with an errno."""
    with pytest.raises(OSError) as caught:
        call(*args)
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[code]


# -- the tree ----------------------------------------------------------------------------------------------------


def test_the_tree_has_the_shape_that_the_documentation_shows(world: World) -> None:
    record = world.add("scans/a.csv", b"1,2\n", uuid=uuid_of(1))
    world.catalog.describe(aspect(record, "urn:s:x.1", {"k": 1}))
    base = f"/by-id/{record.uuid}"
    assert {path for path, _ in world.walk()} == {
        "/artifacts", "/artifacts/scans", "/artifacts/scans/a.csv",
        "/by-id", base, f"{base}/a.csv", f"{base}/content", f"{base}/artifact.json",
        f"{base}/aspects", f"{base}/aspects/urn:s:x.1.json",
    }  # fmt: skip


def test_an_empty_deployment_has_empty_folders(world: World) -> None:
    assert [path for path, _ in world.walk()] == ["/artifacts", "/by-id"]


def test_a_tree_of_hostile_names_lists_opens_and_reads(world: World) -> None:
    wanted = {}
    for number, name in enumerate([*HOSTILE, *HOSTILE[:10], None], 1):
        data = f"content {number}".encode()
        wanted[world.add(name, data, uuid=uuid_of(number), age=number).uuid] = data
    inodes = {world.fs.getattr(f"/by-id/{uuid}/content").inode for uuid in wanted}
    assert len(inodes) == len(wanted)
    seen = []
    for path, found in world.walk("/artifacts"):
        if stat.S_ISREG(found.mode):
            seen.append(world.cat(path))
    assert sorted(seen) == sorted(wanted.values())
    for uuid, data in wanted.items():
        target = world.fs.readlink(f"/by-id/{uuid}/content")
        assert world.cat(f"/by-id/{uuid}/{target}") == data
    assert len(world.forgotten) <= len(wanted) // 20, "only paths whose place in the table another one took"


def test_what_readdir_tells_equals_what_stat_tells(world: World) -> None:
    record = world.add("d/a.csv", b"12345", age=77.25)
    world.add("d/a.csv", b"1")
    world.add("unknown-size", b"123", size=None)
    world.catalog.sizes = {record.uuid: 3 for record in world.catalog.records.values()}
    world.catalog.describe(aspect(record, "urn:s", [1]))
    assert len(list(world.walk())) > 10  # `walk` compares


def test_to_open_the_folder_of_all_takes_no_wait_for_its_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.catalog, "root", lambda check: pytest.fail("asked"))
    world.fs.releasedir(world.fs.opendir("/artifacts"))
    fails(errno.ENOENT, world.fs.opendir, "/nothing")


def test_readdir_goes_on_where_it_was_left(world: World) -> None:
    for number in range(10):
        world.add(f"n{number}")
    handle = world.fs.opendir("/artifacts")
    first = [next(entries) for entries in [world.fs.readdir(handle, 0)] for _ in range(5)]
    world.add("new")
    rest = list(world.fs.readdir(handle, first[-1][2]))
    cookies = [entry[2] for entry in [*first, *rest]]
    assert cookies == sorted(set(cookies)) and cookies[0] > 0
    assert len({entry[0] for entry in [*first, *rest]}) == 12
    assert "new" in {name for name, _, _ in world.fs.readdir(handle, 0)}


def test_a_pending_artifact_is_only_by_id_and_has_no_content(world: World) -> None:
    record = world.add("a.csv", b"", status=ArtifactStatus.PENDING, size=None)
    base = f"/by-id/{record.uuid}"
    assert world.names("/artifacts") == world.names("/by-id") == set()
    assert world.names(base) == {"artifact.json", "aspects"}
    for name in ("a.csv", "content"):
        fails(errno.ENOENT, world.fs.getattr, f"{base}/{name}")
    assert json.loads(world.cat(f"{base}/artifact.json"))["status"] == "pending"


@pytest.mark.parametrize("spelling", ["{}", "urn:ivcap:artifact:{}"])
@pytest.mark.parametrize("upper", [False, True])
def test_an_artifact_is_by_id_under_its_uuid_in_either_case_and_its_urn(
    world: World, spelling: str, upper: bool
) -> None:
    record = world.add("a.csv", b"data", uuid=uuid_of(0xABCDEF))
    base = "/by-id/" + spelling.format(record.uuid.upper() if upper else record.uuid)
    assert world.fs.getattr(base).inode == world.fs.getattr(f"/by-id/{record.uuid}").inode
    assert world.cat(f"{base}/a.csv") == b"data"
    assert world.fs.readlink(f"{base}/content") == "a.csv"


def test_an_artifact_that_no_list_shows_is_by_id_all_the_same(world: World) -> None:
    record = world.add("a", b"data")
    world.catalog.everything = lambda check: FixedListing([])  # type: ignore[method-assign]
    assert world.names("/by-id") == set()
    assert world.cat(f"/by-id/{record.uuid}/a") == b"data"


@pytest.mark.parametrize("name", ["content", "artifact.json", "aspects", "x/content"])
def test_artifacts_called_like_what_is_beside_them(world: World, name: str) -> None:
    record = world.add(name, b"data", uuid=uuid_of(1, "deadbeef"))
    base = f"/by-id/{record.uuid}"
    target = world.fs.readlink(f"{base}/content")
    assert "@deadbeef" in target
    assert world.names(base) == {"content", "artifact.json", "aspects", target}
    assert world.cat(f"{base}/{target}") == world.cat(f"/artifacts/{name}") == b"data"


def test_artifact_json_is_the_record_and_stat_has_its_exact_size(world: World) -> None:
    record = world.add("grün \ud800.csv", b"12", mime_type="text/csv", age=0.5)
    world.catalog.whole[record.uuid] = replace(
        record, etag="e", policy="urn:p", account="urn:a", last_modified_at=START, data_href="https://signed?secret"
    )
    text = world.cat(f"/by-id/{record.uuid}/artifact.json")  # `cat` compares the size
    assert json.loads(text) == {
        "id": record.urn, "name": "grün \ud800.csv", "status": "ready", "mime-type": "text/csv", "size": 2,
        "created-at": "2026-06-01T09:59:59.500000Z", "last-modified-at": "2026-06-01T10:00:00Z",
        "etag": "e", "policy": "urn:p", "account": "urn:a",
    }  # fmt: skip
    assert b"secret" not in text and text.endswith(b"\n")


def test_aspects_are_files_with_their_content(world: World) -> None:
    record = world.add("a")
    contents = {"urn:s:1": {"k": "é"}, "urn:s/../2": [1], ".hidden": None, "": "x", "a\ud800b": 1.5}
    world.catalog.describe(*(aspect(record, schema, content) for schema, content in contents.items()))
    world.catalog.describe(aspect(record, "urn:s:1", "older", age=5), aspect(record, "urn:s:1", "oldest", age=6))
    base = f"/by-id/{record.uuid}/aspects"
    found = {name: json.loads(world.cat(f"{base}/{name}")) for name in world.names(base)}
    assert found == {
        "urn:s:1.json": {"k": "é"}, "urn:s:1~2.json": "older", "urn:s:1~3.json": "oldest",
        "urn:s%2F..%2F2.json": [1], "%2Ehidden.json": None, "none.json": "x", "a%ED%A0%80b.json": 1.5,
    }  # fmt: skip
    assert world.fs.getattr(f"{base}/urn:s:1~2.json").time_ns == START_NS - 5 * 10**9


def test_a_big_aspect_and_a_long_schema_are_whole_in_their_files(world: World) -> None:
    record = world.add("a")
    big = "x" * 300_000
    world.catalog.describe(aspect(record, "urn:" + "s" * 300, big), aspect(record, "urn:" + "s" * 301, 1))
    base = f"/by-id/{record.uuid}/aspects"
    names = world.names(base)
    assert len(names) == 2 and max(map(len, names)) <= 255
    assert big in {json.loads(world.cat(f"{base}/{name}")) for name in names}


# -- stat --------------------------------------------------------------------------------------------------------


def test_stat_of_an_artifact(world: World) -> None:
    record = world.add("a.csv", b"x" * 1025, age=0.25)
    found = world.fs.getattr("/artifacts/a.csv")
    assert (found.size, found.sectors, found.links) == (1025, 3, 1)
    assert found.time_ns == START_NS - 250_000_000
    assert found.mode == stat.S_IFREG | 0o444
    assert (found.uid, found.gid) == (os.getuid(), os.getgid())
    assert world.fs.getattr(f"/by-id/{record.uuid}/a.csv") == found


@pytest.mark.parametrize(
    ("age", "time_ns"),
    [(-0.000001, START_NS + 1000), (START.timestamp(), 0), (START.timestamp() + 0.5, -500_000_000)],
)
def test_times_are_exact_also_before_the_epoch(world: World, age: float, time_ns: int) -> None:
    world.add("a", age=age)
    assert world.fs.getattr("/artifacts/a").time_ns == time_ns


def test_an_artifact_has_one_inode_in_every_view_and_things_beside_it_have_others(world: World) -> None:
    record = world.add("d/a", b"x", uuid=uuid_of(1, "deadbeef"))
    base = f"/by-id/{record.uuid}"
    paths = ("/artifacts/d/a", "/artifacts/d/a@deadbeef", f"/artifacts/d/a@{record.uuid}", f"{base}/a")
    assert len({world.fs.getattr(path).inode for path in paths}) == 1
    others = ("/", "/artifacts", "/artifacts/d", "/by-id", base, f"{base}/content", f"{base}/artifact.json")
    assert len({world.fs.getattr(path).inode for path in (*others, f"{base}/aspects", paths[0])}) == len(others) + 2


def test_inodes_are_the_same_in_another_mount(world: World) -> None:
    other = World()
    record = world.add("d/a", b"x")
    other.catalog.add(record, artifact("d/b"))
    for path in ("/artifacts/d", "/artifacts/d/a", f"/by-id/{record.uuid}", f"/by-id/{record.uuid}/artifact.json"):
        assert world.fs.getattr(path).inode == other.fs.getattr(path).inode


def test_owner_and_umask_are_as_asked_for() -> None:
    world = World(ViewSettings(uid=12, gid=34, umask=0o027))
    record = world.add("d/a", b"x")
    for path, found in world.walk():
        assert (found.uid, found.gid) == (12, 34), path
    assert world.fs.getattr("/artifacts/d/a").mode == stat.S_IFREG | 0o440
    assert world.fs.getattr(f"/by-id/{record.uuid}/artifact.json").mode == stat.S_IFREG | 0o440
    assert world.fs.getattr("/artifacts/d").mode == stat.S_IFDIR | 0o550
    assert world.fs.getattr(f"/by-id/{record.uuid}/content").mode == stat.S_IFLNK | 0o777


def test_a_folder_is_as_new_as_its_newest_file(world: World) -> None:
    world.add("d/e/old", age=100)
    world.add("d/new", age=10)
    assert world.fs.getattr("/artifacts/d").time_ns == START_NS - 10 * 10**9
    assert world.fs.getattr("/artifacts/d/e").time_ns == START_NS - 100 * 10**9


def test_a_size_that_no_record_tells_is_asked_for_by_stat_and_not_by_readdir(world: World) -> None:
    record = world.add("a", b"12345", size=None)
    world.catalog.sizes[record.uuid] = 5
    assert world.ls("/artifacts")["a"] is None and world.ls(f"/by-id/{record.uuid}")["a"] is None
    assert world.catalog.requests == []
    assert world.fs.getattr("/artifacts/a").size == 5
    assert world.cat("/artifacts/a") == b"12345"


def test_statfs_needs_no_server(world: World) -> None:
    world.add("a", b"x" * 5000)
    world.add("b", b"", size=None)
    world.catalog.failing = ConnectFailed("down")
    found = world.fs.statfs("/")
    assert (found["f_blocks"] * found["f_frsize"], found["f_files"], found["f_namemax"]) == (8192, 2, 255)
    assert found.get("f_bfree", 0) == found.get("f_bavail", 0) == 0


# -- reading and errors ------------------------------------------------------------------------------------------


def test_reading_gives_the_bytes_of_any_range(world: World) -> None:
    data = os.urandom(10_000)
    world.add("a", data)
    handle = world.fs.open("/artifacts/a", os.O_RDONLY).handle
    for offset, size in ((0, 10), (1020, 10), (0, 10_000), (9_999, 100), (10_000, 1), (20_000, 1), (5, 0)):
        assert world.fs.read(handle, size, offset) == data[offset : offset + size]
    world.fs.release(handle)


@pytest.mark.parametrize(
    "flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_CREAT]
)
def test_opening_for_writing_is_refused(world: World, flags: int) -> None:
    record = world.add("a")
    fails(errno.EROFS, world.fs.open, "/artifacts/a", flags)
    fails(errno.EROFS, world.fs.open, f"/by-id/{record.uuid}/artifact.json", flags)


@pytest.mark.parametrize(
    ("call", "path", "code"),
    [
        ("getattr", "/artifacts/none", errno.ENOENT),
        ("getattr", "/none", errno.ENOENT),
        ("getattr", "/artifacts/d/a/below", errno.ENOENT),
        ("getattr", "/artifacts/\udcff", errno.ENOENT),
        ("getattr", f"/by-id/{uuid_of(99)}", errno.ENOENT),
        ("getattr", "/by-id/not-a-uuid", errno.ENOENT),
        ("getattr", f"/by-id/urn:ivcap:aspect:{uuid_of(1)}", errno.ENOENT),
        ("getattr", f"/by-id/{uuid_of(1)}/b", errno.ENOENT),
        ("getattr", f"/by-id/{uuid_of(1)}/a/b", errno.ENOENT),
        ("getattr", f"/by-id/{uuid_of(1)}/aspects/none.json", errno.ENOENT),
        ("getattr", f"/by-id/{uuid_of(1)}/aspects/none", errno.ENOENT),
        ("opendir", "/artifacts/none", errno.ENOENT),
        ("opendir", "/artifacts/d/a", errno.ENOTDIR),
        ("opendir", f"/by-id/{uuid_of(1)}/artifact.json", errno.ENOTDIR),
        ("opendir", f"/by-id/{uuid_of(1)}/content", errno.ENOTDIR),
        ("readlink", "/artifacts/d/a", errno.EINVAL),
        ("readlink", "/artifacts", errno.EINVAL),
        ("readlink", "/none", errno.ENOENT),
    ],
)
def test_paths_that_are_not_what_is_asked_for(world: World, call: str, path: str, code: int) -> None:
    world.add("d/a", uuid=uuid_of(1))
    fails(code, getattr(world.fs, call), path)


def test_opening_what_is_no_file(world: World) -> None:
    world.add("d/a")
    for path in ("/", "/artifacts", "/artifacts/d", "/by-id"):
        fails(errno.EISDIR, world.fs.open, path, os.O_RDONLY)
    fails(errno.ENOENT, world.fs.open, "/artifacts/none", os.O_RDONLY)


def test_a_handle_that_is_not_open_is_refused(world: World) -> None:
    world.add("a", b"x")
    handle = world.fs.open("/artifacts/a", os.O_RDONLY).handle
    folder = world.fs.opendir("/artifacts")
    fails(errno.EBADF, world.fs.read, folder, 1, 0)
    fails(errno.EBADF, world.fs.readdir, handle, 0)
    world.fs.release(handle)
    world.fs.releasedir(folder)
    for call in (world.fs.read, world.fs.readdir, world.fs.release, world.fs.releasedir):
        fails(errno.EBADF, call, *((handle, 1, 0) if call == world.fs.read else (handle,)),
              *((0,) if call == world.fs.readdir else ()))  # fmt: skip
    fails(errno.EBADF, world.fs.getattr, "/artifacts/a", handle)


def test_a_server_that_is_gone_is_an_error_and_no_absence(world: World) -> None:
    record = world.add("a")
    world.catalog.failing = ConnectFailed("down")
    for call in (world.fs.getattr, world.ls):
        fails(errno.EIO, call, "/artifacts/none")
    fails(errno.EIO, world.fs.getattr, f"/by-id/{record.uuid}")


def test_a_failed_read_is_an_error_and_the_next_one_is_right(world: World) -> None:
    world.add("a", b"data")
    handle = world.fs.open("/artifacts/a", os.O_RDONLY).handle
    world.source.failures = [ConnectionBroken("gone")]
    fails(errno.EIO, world.fs.read, handle, 4, 0)
    assert world.fs.read(handle, 4, 0) == b"data"


def test_changed_content_is_estale_until_it_is_opened_again(world: World) -> None:
    data = os.urandom(4000)
    record = world.add("a", data)
    handle = world.fs.open("/artifacts/a", os.O_RDONLY).handle
    assert world.fs.read(handle, 1000, 0) == data[:1000]
    world.source.put(record.uuid, data[::-1], '"2"')
    fails(errno.ESTALE, world.fs.read, handle, 1000, 3000)
    world.fs.release(handle)
    opened = world.fs.open("/artifacts/a", os.O_RDONLY)
    assert not opened.keep_cache
    assert world.fs.read(opened.handle, 4000, 0) == data[::-1]


def test_an_error_that_nobody_expected_is_eio_with_its_traceback_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.catalog.failing = ZeroDivisionError("a bug")
    fails(errno.EIO, world.fs.getattr, "/artifacts/a")
    assert caplog.records[-1].exc_info is not None


def test_a_waiting_read_ends_when_its_caller_is_interrupted(world: World) -> None:
    world.add("a", b"data")
    handle = world.fs.open("/artifacts/a", os.O_RDONLY).handle
    world.source.gate.clear()
    waiting = Background(world.fs.read, handle, 4, 0)
    world.source.await_requests(1)
    world.interrupting.set()
    exc = waiting.exception()
    assert isinstance(exc, OSError) and exc.errno == errno.EINTR
    world.interrupting.clear()
    world.source.gate.set()
    assert world.fs.read(handle, 4, 0) == b"data"
    assert len(world.source.requests) == 1


# -- open files and rebinding ------------------------------------------------------------------------------------


def test_an_open_path_keeps_its_artifact_and_is_rebound_afterwards(world: World) -> None:
    world.add("a", b"old", age=10)
    assert world.fs.getattr("/artifacts/a").size == 3
    first = world.fs.open("/artifacts/a", os.O_RDONLY).handle
    newer = world.add("a", b"newer")
    before = world.fs.getattr("/artifacts/a")
    assert before.size == world.ls("/artifacts")["a"].size == 3  # type: ignore[union-attr]
    second = world.fs.open("/artifacts/a", os.O_RDONLY).handle
    assert world.fs.getattr("/artifacts/a", second) == before
    assert world.fs.read(first, 9, 0) == world.fs.read(second, 9, 0) == b"old"
    assert world.cat(f"/by-id/{newer.uuid}/a") == b"newer"
    world.fs.release(first)
    assert world.fs.getattr("/artifacts/a").size == 3
    world.fs.release(second)
    assert world.forgotten == []
    opened = world.fs.open("/artifacts/a", os.O_RDONLY)
    assert world.forgotten == ["/artifacts/a"] and not opened.keep_cache
    assert world.fs.getattr("/artifacts/a").size == 5
    assert world.fs.read(opened.handle, 9, 0) == b"newer"


def test_an_artifact_that_is_gone_keeps_its_path_while_it_is_open(world: World) -> None:
    record = world.add("a", b"data")
    world.fs.open("/artifacts/a", os.O_RDONLY)
    world.catalog.remove(record)
    assert world.fs.getattr("/artifacts/a").size == 4


def test_an_artifact_that_is_gone_can_be_read_by_who_has_it_open(world: World) -> None:
    record = world.add("a", b"data")
    handle = world.fs.open("/artifacts/a", os.O_RDONLY).handle
    world.catalog.remove(record)
    assert world.fs.read(handle, 4, 0) == b"data"
    assert world.fs.getattr("/artifacts/a", handle).size == 4
    world.fs.release(handle)
    fails(errno.ENOENT, world.fs.getattr, "/artifacts/a")


def test_pages_are_kept_when_the_same_content_is_opened_again(world: World) -> None:
    world.add("a", b"data")
    world.fs.getattr("/artifacts/a")
    first = world.fs.open("/artifacts/a", os.O_RDONLY)
    world.fs.read(first.handle, 4, 0)
    world.fs.release(first.handle)
    second = world.fs.open("/artifacts/a", os.O_RDONLY)
    assert (first.keep_cache, second.keep_cache, world.forgotten) == (False, True, [])


def test_what_a_listing_told_counts_as_told(world: World) -> None:
    world.add("a", b"old", age=10)
    world.ls("/artifacts")
    world.fs.release(world.fs.open("/artifacts/a", os.O_RDONLY).handle)
    assert world.forgotten == []
    world.add("a", b"newer")
    world.fs.release(world.fs.open("/artifacts/a", os.O_RDONLY).handle)
    assert world.forgotten == ["/artifacts/a"]
    world.ls("/artifacts")
    world.fs.release(world.fs.open("/artifacts/a", os.O_RDONLY).handle)
    assert world.forgotten == ["/artifacts/a"]


def test_an_entry_that_did_not_fit_into_the_answer_was_not_told(world: World) -> None:
    world.add("a", b"old", age=10)
    world.fs.getattr("/artifacts/a")
    world.add("a", b"newer")
    handle = world.fs.opendir("/artifacts")
    for name, _, _ in world.fs.readdir(handle, 0):
        if name == "a":
            break  # as the binding does when the kernel's buffer is full
    world.fs.open("/artifacts/a", os.O_RDONLY)
    assert world.forgotten == ["/artifacts/a"]


def test_a_record_that_changes_while_it_is_open_is_read_as_it_was(world: World) -> None:
    record = world.add("a", b"data")
    path = f"/by-id/{record.uuid}/artifact.json"
    handle = world.fs.open(path, os.O_RDONLY).handle
    before = world.fs.read(handle, 10_000, 0)
    world.catalog.whole[record.uuid] = replace(record, etag="much longer than before")
    assert world.fs.read(handle, 10_000, 0) == before
    assert world.fs.getattr(path).size == len(before)
    world.fs.release(handle)
    assert b"much longer" in world.cat(path)


def test_an_aspect_that_is_nested_deeper_than_it_can_be_written_is_an_honest_error(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    content: list[Any] = []
    for _ in range(200_000):
        content = [content]
    record = world.add("deep.csv")
    world.catalog.describe(aspect(record, "urn:s:x.1", content))
    fails(errno.EIO, world.fs.getattr, f"/by-id/{record.uuid}/aspects/urn:s:x.1.json")
    fails(errno.EIO, world.fs.getxattr, f"/by-id/{record.uuid}", "user.ivcap.aspect.urn:s:x.1")
    assert "unexpected" not in caplog.text
    while content:  # a value so deep is taken apart by hand
        content = content.pop()


def test_a_mount_that_writes_looks_a_path_up_once_for_an_open(world: World) -> None:
    world.add("a.txt", b"1234")
    looked_up: list[str] = []

    def counted(tree: Nodes) -> SimpleNamespace:
        def node(parts: tuple[str, ...], check: Callable[[], None]) -> object:
            looked_up.append("/".join(parts))
            return tree.node(parts, check)

        return SimpleNamespace(node=node)

    times = SimpleNamespace(get=lambda _: None)
    writable: Any = SimpleNamespace(times=times, tree=counted, rules=lambda *_: (None, None), uploader=None)
    bindings = Bindings(world.forgotten.append, AtOnce())
    neighbours = Neighbours(lambda *_: [], world.reader, 0, lambda: False)
    parts = world.catalog, world.reader, bindings, neighbours, ViewSettings(), lambda: None
    fs = WritingOperations(*parts, writable=writable, mountpoint=Path("/mnt"), most=4)
    handle = fs.open("/artifacts/a.txt", os.O_RDONLY).handle
    assert looked_up == ["artifacts/a.txt"]
    assert fs.read(handle, 10, 0) == b"1234"
    fs.release(handle)
