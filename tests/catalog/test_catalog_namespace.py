"""A namespace of hostile names: every artifact is listed once, every entry opens, and the rules say who owns what."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ivcapfs.catalog.names import Parts, id_in, id_path, plain_path
from ivcapfs.catalog.namespace import EPOCH, Folder, Namespace
from ivcapfs.models import ArtifactRecord
from tests.fakes import artifact, uuid_of
from tests.hostile import HEADS, HOSTILE, assert_fit, names


def entries(folder: Folder, base: Parts = ()) -> Iterator[tuple[Parts, ArtifactRecord]]:
    """Iterate all artifacts of a tree with their paths."""
    for name, child in folder.children.items():
        if isinstance(child, Folder):
            yield from entries(child, (*base, name))
        else:
            yield (*base, name), child


def folders(folder: Folder, base: Parts = ()) -> Iterator[tuple[Parts, Folder]]:
    """Iterate all folders of a tree below its root."""
    for name, child in folder.children.items():
        if isinstance(child, Folder):
            yield (*base, name), child
            yield from folders(child, (*base, name))


def assert_sound(namespace: Namespace, records: list[ArtifactRecord]) -> None:
    """Check what holds for any namespace."""
    listed = list(entries(namespace.root))
    assert Counter(record.uuid for _, record in listed) == Counter(record.uuid for record in records)
    for path, record in listed:
        for part in path:
            assert_fit(part)
        assert namespace.find(path) is record
        assert path in (plain_path(record), id_path(record), id_path(record, 36))
    for path, folder in folders(namespace.root):
        assert_fit(path[-1])
        assert folder.children and namespace.find(path) is folder
    short = Counter(id_path(record) for record in records)
    for record in records:
        assert namespace.find(id_path(record, 36)) is record
        assert namespace.find(id_path(record)) is (record if short[id_path(record)] == 1 else None)
        assert namespace.record(record.uuid) is record


@st.composite
def worlds(draw: st.DrawFn) -> list[ArtifactRecord]:
    """Make sets of artifacts whose names, uuids and times collide."""
    pool = draw(st.lists(st.one_of(names, st.none()), min_size=1, max_size=6))
    ages = st.sampled_from([0.0, 0.0, 1.0, 2.0])
    records = []
    for number in range(draw(st.integers(1, 14))):
        uuid = uuid_of(number, draw(st.sampled_from((*HEADS, f"{number:08x}"))))
        records.append(artifact(draw(st.sampled_from(pool)), uuid=uuid, age=draw(ages), mime_type="text/csv"))
    return records


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(worlds())
def test_any_set_of_artifacts_makes_a_sound_namespace(records: list[ArtifactRecord]) -> None:
    assert_sound(Namespace(records), records)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_insertion_does_not_matter(records: list[ArtifactRecord], chance: random.Random) -> None:
    shuffled = chance.sample(records, len(records))
    assert dict(entries(Namespace(records).root)) == dict(entries(Namespace(shuffled).root))
    assert list(Namespace(records)) == list(Namespace(shuffled))


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(worlds())
def test_the_newest_owns_the_plain_name_unless_a_folder_has_it(records: list[ArtifactRecord]) -> None:
    namespace = Namespace(records)
    for path in {plain_path(record) for record in records}:
        found = namespace.find(path)
        if not isinstance(found, Folder) and not id_in(path[-1]):
            namesakes = [record for record in records if plain_path(record) == path]
            assert found is max(namesakes, key=lambda record: (record.created_at, record.uuid))


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(worlds())
def test_a_folder_is_as_new_as_the_newest_artifact_in_it(records: list[ArtifactRecord]) -> None:
    root = Namespace(records).root
    for _, folder in [((), root), *folders(root)]:
        assert folder.newest == max(record.created_at for _, record in entries(folder))


def test_all_known_hostile_names_live_together() -> None:
    records = [artifact(name, uuid=uuid_of(number)) for number, name in enumerate(HOSTILE, 1)]
    assert_sound(Namespace(records), records)


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
    assert_sound(Namespace(records), records)


def test_an_older_namesake_is_listed_by_its_id() -> None:
    old = artifact("a.csv", uuid=uuid_of(1, "0a1b2c3d"), age=1)
    new = artifact("a.csv", uuid=uuid_of(2, "deadbeef"))
    namespace = Namespace([old, new])
    assert dict(entries(namespace.root)) == {("a.csv",): new, ("a@0a1b2c3d.csv",): old}
    assert namespace.find(("a@deadbeef.csv",)) is new


def test_namesakes_that_share_eight_digits_are_told_apart_by_the_whole_uuid() -> None:
    one, two, new = (artifact("a", uuid=uuid_of(n, "deadbeef"), age=10 - n) for n in (1, 2, 3))
    namespace = Namespace([one, two, new])
    assert set(dict(entries(namespace.root))) == {("a",), (f"a@{one.uuid}",), (f"a@{two.uuid}",)}
    assert namespace.find(("a@deadbeef",)) is None
    assert namespace.find((f"a@{new.uuid}",)) is new


def test_those_that_share_eight_digits_but_no_name_keep_the_short_form() -> None:
    a, b, other = (artifact(name, uuid=uuid_of(n, "deadbeef"), age=n) for n, name in enumerate("aba"))
    namespace = Namespace([a, b, other])
    assert namespace.find(("b@deadbeef",)) is b
    assert namespace.find(("a@deadbeef",)) is None


@pytest.mark.parametrize("digits", range(8, 37))
def test_any_number_of_digits_from_eight_on_opens(digits: int) -> None:
    record, other = artifact("a.csv"), artifact("a.csv")
    assert Namespace([record, other]).find((f"a@{record.uuid[:digits]}.csv",)) in (record, None)
    assert Namespace([record]).find((f"a@{record.uuid[:digits]}.csv",)) is record


def test_a_file_whose_name_is_also_a_folder_leaves_the_plain_name_to_the_folder() -> None:
    file, member = artifact("a", uuid=uuid_of(1, "deadbeef")), artifact("a/b")
    namespace = Namespace([file, member])
    assert dict(entries(namespace.root)) == {("a@deadbeef",): file, ("a", "b"): member}
    assert isinstance(namespace.find(("a",)), Folder)


def test_a_name_that_looks_like_the_id_form_of_another_does_not_take_it_over() -> None:
    owner = artifact("a.txt", uuid=uuid_of(1, "deadbeef"))
    pretender = artifact("a@deadbeef.txt", uuid=uuid_of(2))
    namespace = Namespace([owner, pretender])
    assert namespace.find(("a@deadbeef.txt",)) is owner
    assert namespace.find(("a%40deadbeef.txt",)) is pretender
    assert Namespace([pretender]).find(("a@deadbeef.txt",)) is pretender


def test_a_name_typed_as_it_is_registered_is_found_too() -> None:
    record = artifact("50%2Foff@12345678/x@deadbeef")
    assert Namespace([record]).find(("50%2Foff@12345678", "x@deadbeef")) is record


def test_an_id_with_another_stem_or_folder_is_not_found() -> None:
    namespace = Namespace([artifact("d/a.txt", uuid=uuid_of(1, "deadbeef"))])
    for path in (("a@deadbeef.txt",), ("d", "b@deadbeef.txt"), ("d", "a@deadbeef"), ("d", "a@deadbeef.txt", "x")):
        assert namespace.find(path) is None


def test_an_empty_namespace_has_a_root_and_nothing_else() -> None:
    namespace = Namespace([])
    assert namespace.find(()) is namespace.root and namespace.root.newest == EPOCH
    assert (len(namespace), list(namespace), namespace.find(("a",))) == (0, [], None)
