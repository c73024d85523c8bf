"""Details of one artifact: asked for once while fresh, never mixed up, never remembered when they failed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ivcapfs.catalog.details import Details
from ivcapfs.errors import ConnectionBroken, Interrupted, NotFound
from ivcapfs.models import AspectRecord
from ivcapfs.waits import never
from tests.fakes import PATIENCE, Background, FakeApi, FakeClock, FakeSource, artifact, aspect, wait_until

KEEP = 30.0


class World:
    """Details with everything around them, and one artifact."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.api, self.blobs, self.clock = FakeApi(), FakeSource(), FakeClock()
        self.details = Details(
            self.api, self.blobs, pool, keep=KEEP, bound=PATIENCE, clock=self.clock  # type: ignore[arg-type]
        )
        self.record = artifact("a", size=3, etag="e1")
        self.uuid = self.record.uuid
        self.api.add(self.record)


@pytest.fixture
def world() -> Iterator[World]:
    with ThreadPoolExecutor(4) as pool:
        world = World(pool)
        yield world
        world.api.gate.set()


def test_a_record_is_kept_for_as_long_as_it_is_fresh(world: World) -> None:
    assert world.details.record(world.uuid, never).etag == "e1"
    world.api.add(artifact("a", uuid=world.uuid, etag="e2"))
    world.clock.advance(KEEP - 0.001)
    assert world.details.record(world.uuid, never).etag == "e1"
    world.clock.advance(0.001)
    assert world.details.record(world.uuid, never).etag == "e2"
    assert world.api.count("record") == 2


def test_record_and_aspects_are_asked_for_at_the_same_time_and_both_are_kept(world: World) -> None:
    described = aspect(world.record, "urn:s", 1)
    world.api.aspects[world.record.urn] = [described]
    world.api.gate.clear()
    asking = Background(world.details.both, world.uuid, never)
    wait_until(lambda: world.api.count("record") == world.api.count("aspects") == 1)
    world.api.gate.set()
    record, aspects = asking.result()
    assert (record.etag, aspects) == ("e1", (described,))
    assert world.details.known(world.uuid) == world.details.both(world.uuid, never) == (record, aspects)
    assert world.api.count("record") == world.api.count("aspects") == 1


def test_aspects_are_kept_for_as_long_as_they_are_fresh_and_come_newest_first(world: World) -> None:
    old, new = aspect(world.record, "urn:s", 1, age=9), aspect(world.record, "urn:s", 2)
    world.api.aspects[world.record.urn] = [old, new]
    assert world.details.aspects(world.uuid, never) == (new, old)
    world.api.aspects[world.record.urn] = []
    assert world.details.aspects(world.uuid, never) == (new, old)
    world.clock.advance(KEEP)
    assert world.details.aspects(world.uuid, never) == ()


def test_known_tells_only_what_is_here_whole(world: World) -> None:
    assert world.details.known(world.uuid) is None
    world.details.record(world.uuid, never)
    assert world.details.known(world.uuid) is None
    world.details.aspects(world.uuid, never)
    asked = len(world.api.calls)
    known = world.details.known(world.uuid)
    assert known is not None and known[0].whole and known[1] == ()
    world.clock.advance(KEEP)
    assert world.details.known(world.uuid) is None
    assert len(world.api.calls) == asked


def test_a_failure_is_not_kept(world: World) -> None:
    world.api.failing = ConnectionBroken("gone")
    for ask in (world.details.record, world.details.aspects, world.details.size):
        with pytest.raises(ConnectionBroken):
            ask(world.uuid, never)
    world.api.failing = None
    assert world.details.record(world.uuid, never).uuid == world.uuid
    assert world.details.aspects(world.uuid, never) == ()
    assert world.details.size(world.uuid, never) == 3


def test_what_does_not_exist_may_exist_a_moment_later(world: World) -> None:
    record = artifact("b")
    with pytest.raises(NotFound):
        world.details.record(record.uuid, never)
    world.api.add(record)
    assert world.details.record(record.uuid, never).name == "b"


def test_a_size_comes_from_the_record_before_the_blob(world: World) -> None:
    assert world.details.size(world.uuid, never) == 3
    assert world.blobs.heads == []


def test_a_size_that_no_record_tells_comes_from_the_blob_and_is_kept(world: World) -> None:
    record = artifact("b", size=None)
    world.api.add(record)
    world.blobs.put(record.uuid, b"12345")
    assert world.details.size(record.uuid, never) == 5
    world.clock.advance(10 * KEEP)
    assert world.details.size(record.uuid, never) == 5
    assert world.blobs.heads == [record.uuid]


def test_many_who_ask_make_one_request(world: World) -> None:
    world.api.gate.clear()
    callers = [Background(world.details.record, world.uuid, never) for _ in range(8)]
    world.api.gate.set()
    assert len({id(caller.result()) for caller in callers}) == world.api.count("record")


def test_an_interrupted_question_does_not_hurt_the_next(world: World) -> None:
    world.api.gate.clear()

    def check() -> None:
        raise Interrupted("a signal")

    with pytest.raises(Interrupted):
        world.details.record(world.uuid, check)
    world.api.gate.set()
    assert world.details.record(world.uuid, never).uuid == world.uuid


def test_what_was_forgotten_is_asked_for_anew(world: World) -> None:
    assert world.details.aspects(world.uuid, never) == ()
    assert world.details.record(world.uuid, never).etag == "e1"
    new = aspect(world.record, "urn:s", 1)
    world.api.aspects[world.record.urn] = [new]
    world.api.add(artifact("a", uuid=world.uuid, etag="e2"))
    world.details.forget(world.uuid)
    assert world.details.known(world.uuid) is None
    assert world.details.aspects(world.uuid, never) == (new,)
    assert world.details.record(world.uuid, never).etag == "e2"
    assert (world.api.count("aspects"), world.api.count("record")) == (2, 2)


def test_an_answer_that_was_on_its_way_during_a_change_is_neither_joined_nor_kept(world: World) -> None:
    old, new = aspect(world.record, "urn:s", "old"), aspect(world.record, "urn:s", "new")
    answers = iter([(threading.Event(), old), (threading.Event(), new)])
    asked: list[threading.Event] = []

    def slowly(**_: object) -> list[AspectRecord]:
        gate, answer = next(answers)
        asked.append(gate)
        assert gate.wait(PATIENCE)
        return [answer]

    world.api.iter_aspects = slowly  # type: ignore[method-assign]
    before = Background(world.details.aspects, world.uuid, never)
    wait_until(lambda: len(asked) == 1)
    world.details.forget(world.uuid)
    after = Background(world.details.aspects, world.uuid, never)
    wait_until(lambda: len(asked) == 2)
    asked[1].set()
    assert after.result() == (new,)
    asked[0].set()
    assert before.result() == (old,)
    assert world.details.aspects(world.uuid, never) == (new,)
