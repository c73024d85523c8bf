"""Artifacts with hostile names in the catalog's tables: each is listed once, every entry opens, and the rules say who
owns what; however they came and went, the tables say the same as the plain rules do for all of them at once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ivcapfs.catalog import placement
from ivcapfs.catalog.interface import FileEntry, Folder
from ivcapfs.catalog.names import Parts, id_in, id_path, plain_path
from ivcapfs.catalog.store import Store
from ivcapfs.models import BEFORE_READY, ArtifactRecord, ArtifactStatus, uuid_text
from tests.catalog.catalog_world import MADE
from tests.fakes import artifact, uuid_of
from tests.hostile import HEADS, HOSTILE, assert_fit, names
from tests.plain_namespace import Folder as PlainFolder
from tests.plain_namespace import Namespace

BIG = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)


def store_of(records: Iterable[ArtifactRecord] = ()) -> Store:
    """Return a store in memory with some artifacts in it, which is closed at the end of the test."""
    store = Store(None, "")
    MADE.append(store)
    store.write(lambda write: write.put(records))
    return store


def batches(store: Store, folder: int) -> Iterator[tuple[str, Folder | FileEntry]]:
    """Iterate a folder's entries, batch after batch."""
    last, after = store.last_row(), 0
    while batch := store.folder_batch(folder, after, last):
        cookies = [cookie for _, _, cookie in batch]
        assert cookies == sorted(set(cookies)) and cookies[0] > after
        yield from ((name, child) for name, child, _ in batch)
        after = cookies[-1]


def entries(store: Store, base: Parts = ()) -> Iterator[tuple[Parts, ArtifactRecord]]:
    """Iterate all artifacts of a tree with their paths."""
    folder = store.find(base)
    assert isinstance(folder, Folder)
    for name, child in batches(store, folder.id):
        if isinstance(child, Folder):
            yield from entries(store, (*base, name))
        else:
            record = store.record(uuid_text(child.uuid))
            assert record is not None
            assert (child.size, child.time_ns) == (record.size, time_ns(record))
            yield (*base, name), record


def folders(store: Store, base: Parts = ()) -> Iterator[tuple[Parts, Folder]]:
    """Iterate all folders of a tree below its root."""
    folder = store.find(base)
    assert isinstance(folder, Folder)
    for name, child in batches(store, folder.id):
        if isinstance(child, Folder):
            yield (*base, name), child
            yield from folders(store, (*base, name))


def plain_entries(folder: PlainFolder, base: Parts = ()) -> Iterator[tuple[Parts, ArtifactRecord]]:
    """Iterate all artifacts of a plain namespace with their paths."""
    for name, child in folder.children.items():
        if isinstance(child, PlainFolder):
            yield from plain_entries(child, (*base, name))
        else:
            yield (*base, name), child


def plain_folders(folder: PlainFolder, base: Parts = ()) -> Iterator[tuple[Parts, PlainFolder]]:
    """Iterate all folders of a plain namespace."""
    yield base, folder
    for name, child in folder.children.items():
        if isinstance(child, PlainFolder):
            yield from plain_folders(child, (*base, name))


def time_ns(record: ArtifactRecord) -> int:
    return int(record.created_at.timestamp()) * 10**9 + record.created_at.microsecond * 1000


def assert_sound(store: Store, records: list[ArtifactRecord]) -> None:
    """Check what holds for any set of ready artifacts."""
    listed = list(entries(store))
    assert Counter(record.uuid for _, record in listed) == Counter(record.uuid for record in records)
    assert len({path for path, _ in listed}) == len(listed)
    for path, record in listed:
        for part in path:
            assert_fit(part)
        assert store.find(path) == record
        assert path in (plain_path(record), id_path(record), id_path(record, 36))
    for path, folder in folders(store):
        assert_fit(path[-1])
        assert store.find(path) == folder
    short = Counter(id_path(record) for record in records)
    for record in records:
        assert store.find(id_path(record, 36)) == record
        assert store.find(id_path(record)) == (record if short[id_path(record)] == 1 else None)
        assert store.record(record.uuid) == record
    assert store.totals() == (len(records), sum(-(-(record.size or 0) // 4096) for record in records))


def assert_same(store: Store, records: list[ArtifactRecord]) -> None:
    """Check that the store says what the plain rules say."""
    plain = Namespace(record for record in records if record.is_ready)
    assert dict(entries(store)) == dict(plain_entries(plain.root))
    times = {path: max(0, int(folder.newest.timestamp() * 10**6)) for path, folder in plain_folders(plain.root)}
    assert {(): store.root().time_ns // 1000} | {
        path: folder.time_ns // 1000 for path, folder in folders(store)
    } == times


@st.composite
def worlds(draw: st.DrawFn) -> list[ArtifactRecord]:
    """Make sets of artifacts whose names, uuids and times collide."""
    pool = draw(st.lists(st.one_of(names, st.none()), min_size=1, max_size=6))
    pool += [f"{name}/x" for name in pool[: draw(st.integers(0, 2))] if name]  # a file and a folder of one name
    ages = st.sampled_from([0.0, 0.0, 1.0, 2.0])
    records = []
    for number in range(draw(st.integers(1, 14))):
        uuid = uuid_of(number, draw(st.sampled_from((*HEADS, f"{number:08x}"))))
        records.append(artifact(draw(st.sampled_from(pool)), uuid=uuid, age=draw(ages), mime_type="text/csv"))
    return records


@BIG
@given(worlds())
def test_any_set_of_artifacts_makes_a_sound_tree(records: list[ArtifactRecord]) -> None:
    store = store_of(records)
    assert_sound(store, records)
    assert_same(store, records)


@BIG
@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_and_the_portions_they_come_in_do_not_matter(
    records: list[ArtifactRecord], chance: random.Random
) -> None:
    store = store_of()
    for record in chance.sample(records, len(records)):
        store.write(lambda write, record=record: write.put([record]))  # type: ignore[misc]
    assert_same(store, records)


@BIG
@given(worlds(), worlds(), st.randoms(use_true_random=False))
def test_what_came_and_went_and_changed_leaves_no_trace(
    records: list[ArtifactRecord], others: list[ArtifactRecord], chance: random.Random
) -> None:
    now: dict[str, ArtifactRecord] = {}
    store = store_of()
    for _ in range(chance.randrange(2, 6)):
        portion = chance.sample([*records, *others], chance.randrange(1, len(records) + len(others) + 1))
        portion = [
            replace(record, status=chance.choice([ArtifactStatus.READY, ArtifactStatus.PENDING, ArtifactStatus.ERROR]))
            for record in portion
        ]
        stored = store.write(lambda write, portion=portion: write.put(portion))  # type: ignore[misc]
        latest = {record.uuid: record for record in portion}
        stays = {uuid for uuid, each in now.items() if each.is_ready and latest.get(uuid, each).status in BEFORE_READY}
        now.update({uuid: each for uuid, each in latest.items() if uuid not in stays})
        rows = {uuid: stored[uuid][0] for uuid in chance.sample(sorted(stored), chance.randrange(len(stored) + 1))}
        assert store.write(lambda write, rows=rows: write.remove(rows.values())) == len(rows)  # type: ignore[misc]
        now = {uuid: record for uuid, record in now.items() if uuid not in rows}
        assert_same(store, list(now.values()))
    assert_sound(store, [record for record in now.values() if record.is_ready])


@BIG
@given(worlds())
def test_the_newest_owns_the_plain_name_unless_a_folder_has_it(records: list[ArtifactRecord]) -> None:
    store = store_of(records)
    for path in {plain_path(record) for record in records}:
        found = store.find(path)
        if not isinstance(found, Folder) and not id_in(path[-1]):
            namesakes = [record for record in records if plain_path(record) == path]
            assert found == max(namesakes, key=lambda record: (record.created_at, record.uuid))


@pytest.mark.parametrize("many", [1, 2, 64])
def test_uuids_that_all_begin_alike_are_told_apart(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "MANY_RIVALS", many)
    chance = random.Random(many)
    pool = ["a", "b.txt", "d/a", "a@b", "a@deadbeef", "n" * 300]
    records = [
        artifact(chance.choice(pool), uuid=uuid_of(number, "deadbeef"), age=chance.randrange(5)) for number in range(80)
    ]
    store = store_of(records)
    assert_same(store, records)
    ids = store.rows(0, None, 1000)
    store.write(lambda write: write.remove(ids[10:75]))
    assert_same(store, [record for record in records if store.record(record.uuid)])


def test_all_known_hostile_names_live_together() -> None:
    records = [artifact(name, uuid=uuid_of(number)) for number, name in enumerate(HOSTILE, 1)]
    assert_sound(store_of(records), records)


def test_ten_thousand_hostile_names_at_once() -> None:
    chance = random.Random(20260601)
    pool = [name for name in HOSTILE if name.count("/") < 100]
    records = []
    for number in range(10_000):
        name = "/".join(chance.choices(pool, k=chance.choice([1, 1, 1, 2]))) if number % 50 else None
        if name is not None and chance.random() < 0.5:
            name += str(number % 700)
        head = chance.choice(HEADS) if number % 150 == 0 else None
        records.append(artifact(name, uuid=uuid_of(number, head), age=chance.randrange(5000)))
    store = store_of(records)
    assert_sound(store, records)
    assert_same(store, records)


def test_the_id_form_of_an_artifact_never_changes() -> None:
    first = artifact("a.csv", uuid=uuid_of(1, "0a1b2c3d"), age=9)
    store = store_of([first])
    for other in (artifact("a.csv"), artifact("a.csv/x"), artifact("a@0a1b2c3d.csv"), artifact("a.csv", age=99)):
        store.write(lambda write, other=other: write.put([other]))  # type: ignore[misc]
        assert store.find(("a@0a1b2c3d.csv",)) == first
        assert store.find((f"a@{first.uuid}.csv",)) == first


def test_an_older_namesake_is_listed_by_its_id() -> None:
    old = artifact("a.csv", uuid=uuid_of(1, "0a1b2c3d"), age=1)
    new = artifact("a.csv", uuid=uuid_of(2, "deadbeef"))
    namespace = store_of([old, new])
    assert dict(entries(namespace)) == {("a.csv",): new, ("a@0a1b2c3d.csv",): old}
    assert namespace.find(("a@deadbeef.csv",)) == new


def test_namesakes_that_share_eight_digits_are_told_apart_by_the_whole_uuid() -> None:
    one, two, new = (artifact("a", uuid=uuid_of(n, "deadbeef"), age=10 - n) for n in (1, 2, 3))
    namespace = store_of([one, two, new])
    assert set(dict(entries(namespace))) == {("a",), (f"a@{one.uuid}",), (f"a@{two.uuid}",)}
    assert namespace.find(("a@deadbeef",)) is None
    assert namespace.find((f"a@{new.uuid}",)) == new


def test_those_that_share_eight_digits_but_no_name_keep_the_short_form() -> None:
    a, b, other = (artifact(name, uuid=uuid_of(n, "deadbeef"), age=n) for n, name in enumerate("aba"))
    namespace = store_of([a, b, other])
    assert namespace.find(("b@deadbeef",)) == b
    assert namespace.find(("a@deadbeef",)) is None


@pytest.mark.parametrize("digits", range(8, 37))
def test_any_number_of_digits_from_eight_on_opens(digits: int) -> None:
    record, other = artifact("a.csv"), artifact("a.csv")
    assert store_of([record, other]).find((f"a@{record.uuid[:digits]}.csv",)) in (record, None)
    assert store_of([record]).find((f"a@{record.uuid[:digits]}.csv",)) == record


def test_a_file_whose_name_is_also_a_folder_leaves_the_plain_name_to_the_folder() -> None:
    file, member = artifact("a", uuid=uuid_of(1, "deadbeef")), artifact("a/b")
    namespace = store_of([file, member])
    assert dict(entries(namespace)) == {("a@deadbeef",): file, ("a", "b"): member}
    assert isinstance(namespace.find(("a",)), Folder)


def test_names_that_are_cut_in_their_id_form_alone_are_told_apart() -> None:
    old, new = (artifact("n" * 250, uuid=uuid_of(n, "deadbeef"), age=-n) for n in (1, 2))
    others = [artifact("n" * 251, uuid=uuid_of(3, "deadbeef")), artifact("other")]
    single, together = store_of([old]), store_of([old])
    for store in (single, together):
        store.write(lambda write: write.put([replace(new, uuid=uuid_of(2, "12345678"))]))
    single.write(lambda write: write.put(others[:1]))
    together.write(lambda write: write.put(others))
    records = [old, replace(new, uuid=uuid_of(2, "12345678")), others[0]]
    assert_same(single, records)
    assert_same(together, [*records, others[1]])


def test_paths_that_lost_their_folders_are_told_apart() -> None:
    deep = "/".join(["folder"] * 400)
    records = [artifact(f"{deep}{n}/x.csv", uuid=uuid_of(n, "deadbeef")) for n in (1, 2)]
    store = store_of([records[0], artifact("other")])
    store.write(lambda write: write.put(records[1:]))
    assert_same(store, [*records, *[record for _, record in entries(store) if record.name == "other"]])


def test_a_folder_takes_a_plain_name_when_it_comes_and_leaves_it_when_it_goes() -> None:
    old, file, member = artifact("d/a", age=9), artifact("d/a", uuid=uuid_of(1, "deadbeef")), artifact("d/a/b/c")
    store = store_of([old])
    store.write(lambda write: write.put([file]))
    assert store.find(("d", "a")) == file
    row = store.write(lambda write: write.put([member]))[member.uuid][0]
    assert isinstance(store.find(("d", "a")), Folder)
    assert_same(store, [old, file, member])
    store.write(lambda write: write.remove([row]))
    assert store.find(("d", "a")) == file
    assert_same(store, [old, file])


def test_a_name_that_looks_like_the_id_form_of_another_does_not_take_it_over() -> None:
    owner = artifact("a.txt", uuid=uuid_of(1, "deadbeef"))
    pretender = artifact("a@deadbeef.txt", uuid=uuid_of(2))
    namespace = store_of([owner, pretender])
    assert namespace.find(("a@deadbeef.txt",)) == owner
    assert namespace.find(("a%40deadbeef.txt",)) == pretender
    assert store_of([pretender]).find(("a@deadbeef.txt",)) == pretender


def test_a_name_typed_as_it_is_registered_is_found_too() -> None:
    record = artifact("50%2Foff@12345678/x@deadbeef")
    assert store_of([record]).find(("50%2Foff@12345678", "x@deadbeef"))== record


def test_an_id_with_another_stem_or_folder_is_not_found() -> None:
    namespace = store_of([artifact("d/a.txt", uuid=uuid_of(1, "deadbeef"))])
    for path in (("a@deadbeef.txt",), ("d", "b@deadbeef.txt"), ("d", "a@deadbeef"), ("d", "a@deadbeef.txt", "x")):
        assert namespace.find(path) is None


def test_an_empty_store_has_a_root_and_nothing_else() -> None:
    store = store_of()
    assert store.find(()) == store.root() == Folder(1, 0)
    assert (store.totals(), list(entries(store))) == ((0, 0), [])
    assert store.find(("a",)) is store.find(("a@deadbeef",)) is None


def test_an_artifact_that_is_not_ready_is_known_and_has_no_path() -> None:
    record = artifact("a\ud800", status=ArtifactStatus.PENDING, mime_type="text/\ud800x", size=None)
    store = store_of([record])
    assert (store.totals(), list(entries(store)), store.find(("a",))) == ((0, 0), [], None)
    found = store.record(record.uuid)
    assert found is not None and (found.name, found.status) == ("a\ud800", ArtifactStatus.PENDING)


def test_a_listing_goes_on_in_batches_over_folders_and_artifacts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ivcapfs.catalog.store.BATCH", 7)
    records = [artifact(f"d{number}/x") for number in range(20)] + [artifact(f"f{number}") for number in range(20)]
    store = store_of(records)
    assert [name for name, _ in batches(store, 1)] == [f"d{n}" for n in range(20)] + [f"f{n}" for n in range(20)]
    everything: list[str] = []
    after = 0
    while batch := store.all_batch(after, store.last_row()):
        everything += [name for name, _, _ in batch]
        after = batch[-1][2]
    assert everything == [record.uuid for record in records]


def test_what_came_after_a_listing_began_is_no_part_of_it() -> None:
    store = store_of([artifact("d/a"), artifact("b")])
    last = store.last_row()
    store.write(lambda write: write.put([artifact("e/a"), artifact("c")]))
    assert [name for name, _, _ in store.folder_batch(1, 0, last)] == ["d", "b"]


def test_what_another_process_wrote_is_found_once_it_is_looked_for_again(tmp_path: Path) -> None:
    ours, theirs = Store(tmp_path / "catalog", "same"), Store(tmp_path / "catalog", "same")
    old, new = artifact("name", age=10), artifact("name", age=5)
    try:
        ours.write(lambda write: write.put([old]))
        assert ours.find(("name",)) == old
        theirs.write(lambda write: write.put([new]))
        ours.look_again()
        assert ours.find(("name",)) == new
    finally:
        ours.close()
        theirs.close()


def test_an_artifact_that_got_its_place_a_moment_ago_gives_it_up_again() -> None:
    """In one go: a folder goes, its namesake gets the plain name, and is renamed, so that a third one gets it."""
    store = Store(None, "moved")
    heads = ("12345678", "0a1b2c3d", "0a1b2c3e")
    first, second, third = (artifact(uuid=uuid_of(number, head), age=number) for number, head in enumerate(heads, 1))
    names_before, names_after = ("/a", "/a/x", "/"), ("/", "/", "/a")
    trio = (first, second, third)
    store.write(lambda w: w.put([replace(each, name=name) for each, name in zip(trio, names_before, strict=True)]))
    changed = [replace(trio[at], name=names_after[at]) for at in (1, 0, 2)]
    store.write(lambda w: w.put(changed))
    fresh = Store(None, "fresh")
    fresh.write(lambda w: w.put(changed))
    shown, expected = ({entry[0] for entry in each.folder_batch(1, 0, each.last_row())} for each in (store, fresh))
    assert shown == expected
    store.close()
    fresh.close()


def test_a_list_from_before_it_was_ready_does_not_take_an_artifact_away() -> None:
    ready = artifact(name="data.bin")
    store = store_of([ready])
    for status in BEFORE_READY:
        store.write(lambda write, status=status: write.put([replace(ready, status=status)]))  # type: ignore[misc]
        assert store.find(("data.bin",)) == ready
    store.write(lambda write: write.put([replace(ready, status=ArtifactStatus.ERROR)]))
    assert store.find(("data.bin",)) is None
