"""MIME types, times that are kept, and folders in which new files lie over what the platform has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ivcapfs.catalog.kepttimes import MOST, KeptTimes, _Table
from ivcapfs.catalog.store import Store
from ivcapfs.errors import FileSystemError, NoSuchEntry
from ivcapfs.fs.draftattributes import DescribedDraft
from ivcapfs.fs.nodes import DraftNode, FolderNode
from ivcapfs.fs.overlay import OverlaidTree
from ivcapfs.fs.reading import Fixed, Reading
from ivcapfs.fs.xattrs import MIME_TYPE, ExtendedAttributes
from ivcapfs.models import uuid_bytes
from ivcapfs.spool.describe import UPLOAD
from ivcapfs.spool.draft import Draft
from ivcapfs.spool.drafts import Drafts
from ivcapfs.spool.entry import Entry
from ivcapfs.spool.mime import UNKNOWN, mime_type
from ivcapfs.waits import Check, never
from tests.fakes import MemoryCatalog, uuid_of
from tests.spool.spool_world import Spooled

# -- MIME types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("a/b.csv", b"", "text/csv"),
        ("x.nc", b"whatever", "application/x-netcdf"),
        ("UPPER.H5", b"", "application/x-hdf5"),
        ("a.tar.gz", b"", "application/gzip"),
        ("model", b"\x89HDF\r\n\x1a\n" + bytes(100), "application/x-hdf5"),
        ("base", b"SQLite format 3\0" + bytes(100), "application/vnd.sqlite3"),
        ("README", b"text\n", "text/plain"),
        ("noise", b"\0\1\2\3" * 10, UNKNOWN),
        (".json", b"", UNKNOWN),
        ("folder.csv/plain", b"", UNKNOWN),
        ("cut", "ü".encode() * (32 << 10), "text/plain"),
        ("cut", b"x" + "ü".encode() * (32 << 10), "text/plain"),
    ],
)
def test_the_type_of_a_file(name: str, head: bytes, expected: str) -> None:
    assert mime_type(name, head[: 64 << 10]) == expected


@given(st.text(max_size=30), st.binary(max_size=300))
def test_the_type_of_anything_can_go_into_a_header(name: str, head: bytes) -> None:
    found = mime_type(name, head)
    assert found.isascii()
    assert found.isprintable()
    assert "/" in found


# -- kept times -------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "catalog", "deployment")
    yield store
    store.close()


def test_times_are_kept_beyond_the_life_of_the_mount(store: Store) -> None:
    times = KeptTimes(store)
    one, two = uuid_of(1), uuid_of(2)
    assert times.get(uuid_bytes(one)) is None
    for time_ns in (2**80, 5, -(2**80), -7, 2**60):
        times.keep(one, time_ns)
    times.keep(two, 9)
    for each in (times, KeptTimes(store)):
        assert (each.get(uuid_bytes(one)), each.get(uuid_bytes(two))) == (2**60, 9)


def test_only_the_last_times_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST > 100_000
    monkeypatch.setattr("ivcapfs.catalog.kepttimes.MOST", 3)
    times = KeptTimes(store)
    for number in (1, 2, 3, 1, 4):
        times.keep(uuid_of(number), number)
    assert kept_of(KeptTimes(store)) == [1, 3, 4], "those set last"
    assert {1, 3, 4} <= set(kept_of(times))
    for number in range(5, 100):
        times.keep(uuid_of(number), number)
        assert {number - 2, number - 1, number} <= set(kept_of(times))
        assert len(kept_of(times)) <= 6, "memory has a bound, too"


def kept_of(times: KeptTimes) -> list[int]:
    """Return the numbers of the artifacts that have a time."""
    return [number for number in range(100) if times.get(uuid_bytes(uuid_of(number))) is not None]


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(-(2**63) + 1, 2**63 - 1)), max_size=2000))
@settings(max_examples=30)
def test_the_table_in_memory_is_a_dict(changes: list[tuple[int, int]]) -> None:
    table, model = _Table(), dict[bytes, int]()
    for number, time_ns in changes:
        uuid = hashlib.md5(b"%d" % number, usedforsecurity=False).digest() if number % 3 else number.to_bytes(16)
        table.put(uuid, time_ns)
        model[uuid] = time_ns
    assert len(table) == len(model)
    assert all(table.get(uuid) == time_ns for uuid, time_ns in model.items())
    assert table.get(b"\xff" * 16) is None


# -- folders with new files in them -----------------------------------------------------------------------------------


class Platform:
    """The tree below: one folder `artifacts` with some folders and files."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def node(self, parts: tuple[str, ...], check: Check) -> Any:
        """See `Nodes.node`."""
        if len(parts) == 1 or (parts[1] in self._names and len(parts) == 2):
            return FolderNode(1, 1)
        raise NoSuchEntry("nothing")

    def reading(self, parts: tuple[str, ...], check: Check) -> Reading:
        """See `Nodes.reading`."""
        if len(parts) > 1:
            raise NoSuchEntry("nothing")
        return Fixed([(name, FolderNode(1, 1)) for name in self._names])


def draft_at(*parts: str) -> Draft:
    """Return a new file that has no bytes, and no place for them."""
    nowhere: Any = None
    return Draft(nowhere, Entry(parts))


NAMES = st.lists(st.sampled_from("abcdefgh"), unique=True)


@given(below=NAMES, files=NAMES, made=NAMES, within=NAMES, size=st.integers(1, 5))
def test_a_folder_is_listed_once_and_whole_however_it_is_read(
    below: list[str], files: list[str], made: list[str], within: list[str], size: int
) -> None:
    """A reading goes on behind the cookie of the last entry that was taken, on the same handle, as readdir(3) does."""
    drafts = Drafts()
    used: set[str] = set()
    for name in files:
        drafts.put(draft_at("artifacts", name))
        used.add(name)
    for name in made:
        if name not in used and name not in below:
            drafts.make_folder(("artifacts", name))
            used.add(name)
    for name in within:
        if name not in used:
            drafts.put(draft_at("artifacts", name, "x"))
    drafts.put(draft_at("artifacts", ".fuse_hidden001"))
    tree = OverlaidTree(Platform(below), drafts, lambda draft: DraftNode(draft, DescribedDraft(draft)))
    expected = sorted({*below, *used, *within})
    reading = tree.reading(("artifacts",), never)
    assert sorted(name for name, _, _ in reading.entries(0)) == expected
    reading = tree.reading(("artifacts",), never)
    told: list[str] = []
    after = 0
    while True:
        step = []
        for name, _, cookie in reading.entries(after):
            step.append((name, cookie))
            if len(step) == size:
                break
        if not step:
            break
        told += [name for name, _ in step]
        after = step[-1][1]
    assert sorted(told) == expected
    assert len(told) == len(set(told))
    for name in files:
        assert isinstance(tree.node(("artifacts", name), never), DraftNode)
    for name in within:
        if name not in used:
            assert isinstance(tree.node(("artifacts", name), never), FolderNode)


def test_of_the_attributes_only_the_mime_type_reads_the_content(spooled: Spooled) -> None:
    draft = spooled.draft(b"%PDF-1.7 ", "report")
    node, attributes = DraftNode(draft, DescribedDraft(draft)), ExtendedAttributes(MemoryCatalog())
    assert attributes.value(node, MIME_TYPE, never) == b"application/pdf"
    assert attributes.names(node, 0, never)[0] == MIME_TYPE
    draft.release()
    spooled.folder.remove(draft.entry)
    assert attributes.value(node, UPLOAD, never) == b"writing"
    assert attributes.value(node, "user.ivcap.size", never) == b"9"
    for ask in (lambda: attributes.value(node, MIME_TYPE, never), lambda: attributes.names(node, 0, never)):
        with pytest.raises(FileSystemError):
            ask()
