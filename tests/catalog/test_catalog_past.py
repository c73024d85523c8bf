"""The tree as it was: at any moment, what the plain rules make of the artifacts that there were then."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.catalog import past as past_module
from ivcapfs.catalog.interface import FileEntry, Folder
from ivcapfs.catalog.names import Parts, id_path
from ivcapfs.catalog.past import Past
from ivcapfs.catalog.schema import microseconds
from ivcapfs.catalog.store import Store
from ivcapfs.models import ArtifactRecord, ArtifactStatus, uuid_text
from tests.catalog.test_catalog_store import BIG, plain_entries, plain_folders, store_of, worlds
from tests.fakes import START, artifact, uuid_of
from tests.hostile import HEADS, HOSTILE
from tests.plain_namespace import Namespace


def past_of(store: Store, age: float) -> Past:
    """Return the past of `age` seconds before `START`."""
    return Past(store, microseconds(START - timedelta(seconds=age)))


def walk(past: Past, base: Parts = ()) -> Iterator[tuple[Parts, Folder | FileEntry]]:
    """Iterate every entry of a tree with its path."""
    folder = past.find(base)
    assert isinstance(folder, Folder)
    for name, child, _ in past.listing(folder.id).entries(0):
        yield (*base, name), child
        if isinstance(child, Folder):
            yield from walk(past, (*base, name))


def assert_was(store: Store, records: list[ArtifactRecord], age: float) -> None:
    """Check that the past is what the plain rules make of those created until then."""
    past = past_of(store, age)
    there = [record for record in records if record.is_ready and microseconds(record.created_at) <= past.until]
    plain = Namespace(there)
    files, folders = {}, {(): past.root()}
    for path, child in walk(past):
        if isinstance(child, Folder):
            folders[path] = child
            assert past.find(path) == child
        else:
            files[path] = uuid_text(child.uuid)
            found = past.find(path)
            assert isinstance(found, ArtifactRecord) and found.uuid == files[path]
            assert child == (child.uuid, found.size, microseconds(found.created_at) * 1000)
    assert files == {path: record.uuid for path, record in plain_entries(plain.root)}
    assert {path: folder.time_ns // 1000 for path, folder in folders.items()} == {
        path: max(0, microseconds(folder.newest)) for path, folder in plain_folders(plain.root)
    }
    for record in records:
        paths = [id_path(record), id_path(record, 36)]
        if record.name and record.name.isprintable() and "/" not in record.name:
            paths.append((record.name,))  # a real `@`, which is escaped in listings
        for path in paths:
            expected, found = plain.find(path), past.find(path)
            assert (found if isinstance(found, ArtifactRecord) else None) == (
                expected if isinstance(expected, ArtifactRecord) else None
            )
    assert {name for name, _, _ in past.listing(None).entries(0)} == {record.uuid for record in there}


@BIG
@given(worlds(), st.randoms(use_true_random=False))
def test_any_set_of_artifacts_was_what_it_was(records: list[ArtifactRecord], chance: random.Random) -> None:
    store = store_of()
    for record in chance.sample(records, len(records)):
        store.write(lambda write, record=record: write.put([record]))  # type: ignore[misc]
    for age in (3.0, 2.0, 1.5, 1.0, 0.0, -1.0):
        assert_was(store, records, age)


def test_many_artifacts_in_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past_module, "BATCH", 7)
    chance = random.Random(4)
    pool = [name for name in HOSTILE if name.count("/") < 100]
    records = []
    for number in range(600):
        name = "/".join(chance.choices(pool, k=chance.choice([1, 1, 2]))) + str(number % 60)
        head = chance.choice(HEADS) if number % 10 == 0 else None
        status = ArtifactStatus.PENDING if number % 17 == 0 else ArtifactStatus.READY
        records.append(artifact(name, uuid=uuid_of(number, head), age=chance.randrange(100), status=status))
    store = store_of(records)
    for age in (101, 99, 90, 50, 3, 0):
        assert_was(store, records, age)


def test_a_name_belonged_to_whoever_was_the_newest_then() -> None:
    old, middle, new = (artifact("a.csv", age=age) for age in (30, 20, 10))
    store = store_of([old, middle, new])
    assert [past_of(store, age).find(("a.csv",)) for age in (31, 30, 21, 20, 10, 0)] == [
        None, old, old, middle, new, new,
    ]  # fmt: skip


def test_a_file_gave_its_name_to_a_folder_only_when_that_came() -> None:
    file, member = artifact("a", age=30), artifact("a/b", age=10)
    store = store_of([file, member])
    assert past_of(store, 20).find(("a",)) == file
    assert past_of(store, 20).find(("a", "b")) is None
    assert isinstance(past_of(store, 10).find(("a",)), Folder)


def test_a_whole_uuid_was_needed_only_once_there_was_a_rival() -> None:
    one, two, three = (artifact("a", uuid=uuid_of(n, "deadbeef"), age=-n) for n in (1, 2, 3))
    store = store_of([one, two, three])
    assert {path for path, _ in walk(past_of(store, -1))} == {("a",)}
    assert past_of(store, -1).find(("a@deadbeef",)) == one
    assert {path for path, _ in walk(past_of(store, -2))} == {("a",), (f"a@{one.uuid}",)}
    assert past_of(store, -2).find(("a@deadbeef",)) is None


def test_what_came_after_a_listing_began_is_not_in_it_even_if_it_is_old() -> None:
    store = store_of([artifact("a", age=5)])
    listing = past_of(store, 0).listing(1)
    store.write(lambda write: write.put([artifact("b", age=5)]))
    assert [name for name, _, _ in listing.entries(0)] == ["a"]
