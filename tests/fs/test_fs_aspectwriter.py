"""Aspects changed by attributes: what stands afterwards, in which order it came about, and that twice is once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from ivcapfs.errors import (
    AlreadyThere,
    AttributesUnsupported,
    Closing,
    ConfigError,
    ConnectFailed,
    ConnectionBroken,
    Interrupted,
    Invalid,
    IvcapfsError,
    NoSuchAttribute,
    NotAllowed,
    ServerFault,
    Unavailable,
)
from ivcapfs.fs.aspectchange import parse, parse_removal
from ivcapfs.fs.aspectwriter import AspectWriter
from ivcapfs.fs.described import label_of, labels
from ivcapfs.fs.xattrs import ASPECT_PREFIX
from ivcapfs.models import ARTIFACT_COLLECTION_SCHEMA, COLLECTION_ITEM_SCHEMA, COLLECTION_SCHEMA, AspectRecord
from ivcapfs.waits import never
from tests.fakes import PATIENCE, START, Background, FakeApi, artifact, aspect, wait_until

SCHEMA, OTHER, LONG = "urn:x:note", "urn:x:other", "urn:x:" + "n" * 300
NAME = ASPECT_PREFIX + SCHEMA
CREATE, REPLACE = os.XATTR_CREATE, os.XATTR_REPLACE


class World:
    """An entity, and who changes its aspects."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.api = FakeApi()
        self.changed: list[tuple[str, str]] = []
        self.writer = AspectWriter(
            self.api, pool, PATIENCE, lambda urn, schema: self.changed.append((urn, schema))  # type: ignore[arg-type]
        )
        self.record = artifact("a")
        self.urn = self.record.urn

    def have(self, schema: str, n: int, age: float = 0.0) -> AspectRecord:
        standing = aspect(self.record, schema, {"$schema": schema, "$entity": self.urn, "n": n}, age=age)
        self.api.aspects.setdefault(self.urn, []).append(standing)
        return standing

    def set(self, name: str = NAME, flags: int = 0, /, **content: Any) -> None:
        self.writer.set(self.urn, name, json.dumps(content).encode(), flags, never)

    def standing(self) -> dict[str, int]:
        """Return what each label shows, and see that contents name what they belong to."""
        newest = sorted(self.api.aspects.get(self.urn, []), key=lambda each: each.valid_from, reverse=True)
        for each in newest:
            assert (each.content["$schema"], each.content["$entity"]) == (each.schema, self.urn)
        return {label: each.content["n"] for label, each in labels(newest).items()}

    def writes(self) -> list[str]:
        return [method for method, _ in self.api.calls if method != "aspects"]


@pytest.fixture
def world() -> Iterator[World]:
    with ThreadPoolExecutor(4) as pool:
        world = World(pool)
        yield world
        world.api.gate.set()


def test_the_first_is_added_and_the_next_replaces_it(world: World) -> None:
    world.have(OTHER, 9)
    world.set(n=1)
    assert (world.standing(), world.writes()) == ({SCHEMA: 1, OTHER: 9}, ["add"])
    world.set(n=2)
    assert (world.standing(), world.writes()) == ({SCHEMA: 2, OTHER: 9}, ["add", "replace"])
    assert world.changed == [(world.urn, SCHEMA)] * 2


def test_what_stands_already_is_left(world: World) -> None:
    world.have(SCHEMA, 1)
    world.set(n=1)
    world.set(n=1, **{"$schema": SCHEMA, "$entity": "urn:somebody:else"})
    assert (world.standing(), world.writes()) == ({SCHEMA: 1}, [])
    world.have(SCHEMA, 0, age=9)
    world.set(NAME + "~2", n=0)
    assert (world.standing(), world.writes()) == ({SCHEMA: 1, SCHEMA + "~2": 0}, [])
    world.set(n=True)
    assert world.writes() == ["add", "retract"], "true is not 1"


def test_of_several_the_one_of_the_label_is_replaced_and_the_new_one_is_added_first(world: World) -> None:
    for n in (1, 2, 3):
        world.have(SCHEMA, n, age=n)
    world.set(n=5)
    assert (world.standing(), world.writes()) == ({SCHEMA: 5, SCHEMA + "~2": 2, SCHEMA + "~3": 3}, ["add", "retract"])
    world.set(NAME + "~3", n=6)
    assert world.standing() == {SCHEMA: 6, SCHEMA + "~2": 5, SCHEMA + "~3": 2}
    assert world.writes() == ["add", "retract"] * 2


def test_a_further_one_is_added_by_its_number(world: World) -> None:
    world.set(n=1)
    world.set(NAME + "~2", n=2)
    assert sorted(world.standing().values()) == [1, 2]
    world.set(NAME + "~2", n=2)
    assert world.writes() == ["add", "add"], "it is there, by another label"


def test_a_schema_that_ends_in_a_number_is_told_from_a_second_aspect(world: World) -> None:
    world.set(n=1)
    world.set(NAME + "~2", n=2, **{"$schema": SCHEMA + "~2"})
    assert world.standing() == {SCHEMA: 1, SCHEMA + "~2": 2}
    world.set(NAME + "~2", n=3)
    assert world.standing() == {SCHEMA: 1, SCHEMA + "~2": 3}
    assert [each.schema for each in world.api.aspects[world.urn]] == [SCHEMA, SCHEMA + "~2"]
    world.writer.remove(world.urn, NAME + "~2", never)
    world.have(SCHEMA, 0, age=9)
    world.set(NAME + "~2", n=3, **{"$schema": SCHEMA + "~2"})
    assert world.standing() == {SCHEMA: 1, SCHEMA + "~2": 3, SCHEMA + "~3": 0}, "the second has another name by now"
    world.writer.remove(world.urn, NAME + "~3", never)
    world.set(NAME + "~3", n=4)
    world.set(NAME + "~3", n=5)
    assert sorted(world.standing().values()) == [3, 4, 5]


def test_one_is_added_beside_those_that_stand(world: World) -> None:
    world.have(SCHEMA, 1)
    for _ in range(2):
        world.set("user.ivcap.aspect", n=2, **{"$schema": SCHEMA})
        world.set("user.ivcap.aspect", n=3, **{"$schema": OTHER})
    assert world.standing() == {SCHEMA: 2, SCHEMA + "~2": 1, OTHER: 3}
    assert world.writes() == ["add", "add"], "the same again is not added"


def test_a_schema_too_long_for_a_label_is_set_where_it_is_known(world: World) -> None:
    name = ASPECT_PREFIX + label_of(LONG)
    with pytest.raises(Invalid):
        world.set(name, n=1)
    assert world.writes() == []
    for n in (1, 2):
        world.set(name, n=n, **{"$schema": LONG})
    assert world.standing() == {label_of(LONG): 2}
    for _ in range(2):
        world.writer.apply(parse_removal(name), world.urn)
    assert world.standing() == {}
    with pytest.raises(NoSuchAttribute):
        world.writer.remove(world.urn, name, never)


def test_a_schema_that_would_stand_for_others_is_not_replaced_in_one_step(world: World) -> None:
    world.have("urn:x:a", 1)
    world.set(ASPECT_PREFIX + "urn:x:%", n=2)
    world.set(ASPECT_PREFIX + "urn:x:%", n=3)
    assert world.standing() == {"urn:x:a": 1, "urn:x:%": 3}
    assert "replace" not in world.writes()


def test_flags_say_whether_one_may_or_must_stand(world: World) -> None:
    with pytest.raises(NoSuchAttribute):
        world.set(NAME, REPLACE, n=1)
    world.set(NAME, CREATE, n=1)
    with pytest.raises(AlreadyThere):
        world.set(NAME, CREATE, n=1)
    world.set(NAME, REPLACE, n=2)
    with pytest.raises(NoSuchAttribute):
        world.set("user.ivcap.aspect", REPLACE, n=1, **{"$schema": SCHEMA})
    world.set("user.ivcap.aspect", CREATE, n=3, **{"$schema": SCHEMA})
    assert world.standing() == {SCHEMA: 3, SCHEMA + "~2": 2}


def test_removing_retracts_exactly_the_one_of_the_label(world: World) -> None:
    for n in (1, 2):
        world.have(SCHEMA, n, age=n)
    world.have(OTHER, 9)
    world.writer.remove(world.urn, NAME + "~2", never)
    assert world.standing() == {SCHEMA: 1, OTHER: 9}
    world.writer.remove(world.urn, NAME, never)
    assert world.standing() == {OTHER: 9}
    for name in (NAME, NAME + "~2", "user.ivcap.aspect", "user.other"):
        with pytest.raises(NoSuchAttribute):
            world.writer.remove(world.urn, name, never)
    assert world.changed == [(world.urn, SCHEMA)] * 2


def test_a_change_that_is_made_again_changes_nothing(world: World) -> None:
    for n in (1, 2):
        world.have(SCHEMA, n, age=n)
    changes = [
        parse(NAME, b'{"n": 5}'), parse(NAME + "~2", b'{"n": 6}'), parse("user.ivcap.aspect", b'{"$schema":"urn:x:b"}'),
    ]  # fmt: skip
    for change in changes:
        for _ in range(3):
            world.writer.apply(change, world.urn)
    assert world.writes() == ["add", "retract", "add", "retract", "add"]
    for _ in range(2):
        world.writer.apply(parse_removal(ASPECT_PREFIX + "urn:x:b"), world.urn)
    assert world.standing() == {SCHEMA: 6, SCHEMA + "~2": 5}


@pytest.mark.parametrize("exc", [ConnectionBroken("x"), Unavailable("x", status=502), ServerFault("x", status=500)])
def test_a_lost_answer_is_looked_for(world: World, exc: Exception) -> None:
    world.api.lost_answers = [exc]
    world.set(n=1)
    assert (world.standing(), world.writes()) == ({SCHEMA: 1}, ["add"])


def test_what_was_not_done_fails_and_is_told_so(world: World) -> None:
    for exc in (ConnectionBroken("x"), ConnectFailed("x"), ServerFault("x", status=500)):
        world.api.failing_calls["add"] = exc
        with pytest.raises(type(exc)):
            world.set(n=1)
    assert world.changed == [(world.urn, SCHEMA)] * 3, "nobody knows what the server has now"
    world.api.failing_calls.clear()
    world.set(n=1)
    assert world.standing() == {SCHEMA: 1}


def test_a_failure_between_adding_and_retracting_leaves_both(world: World) -> None:
    for n in (1, 2):
        world.have(SCHEMA, n, age=n)
    world.api.failing_calls["retract"] = ServerFault("x", status=500)
    with pytest.raises(ServerFault):
        world.set(n=5)
    assert world.standing() == {SCHEMA: 5, SCHEMA + "~2": 1, SCHEMA + "~3": 2}


def test_one_that_comes_between_looking_and_replacing_is_not_lost(world: World) -> None:
    world.have(SCHEMA, 1)
    replace = world.api.replace_aspect

    def late(entity: str, schema: str, content: Any) -> str:
        world.have(SCHEMA, 2, age=-9)
        return replace(entity, schema, content)

    world.api.replace_aspect = late  # type: ignore[method-assign]
    world.set(n=5)
    assert world.standing() == {SCHEMA: 5, SCHEMA + "~2": 2}


def test_one_that_is_gone_when_it_is_to_be_retracted_is_what_was_wanted(world: World) -> None:
    world.have(SCHEMA, 1)
    retract = world.api.retract_aspect

    def late(id: str) -> None:
        world.api.aspects[world.urn] = []
        retract(id)

    world.api.retract_aspect = late  # type: ignore[method-assign]
    world.writer.remove(world.urn, NAME, never)
    assert world.standing() == {}


def test_several_at_once_are_made_in_turn(world: World) -> None:
    world.api.gate.clear()
    callers = [Background(lambda n=n: world.set(n=n)) for n in range(8)]
    wait_until(lambda: len(world.api.calls) == 1)
    world.api.gate.set()
    for caller in callers:
        caller.result()
    assert list(world.standing()) == [SCHEMA], "none is added beside another"
    assert world.writes() == ["add"] + ["replace"] * 7


def test_a_caller_that_gets_a_signal_does_not_wait(world: World) -> None:
    world.api.gate.clear()

    def signal() -> None:
        raise Interrupted("a signal")

    with pytest.raises(Interrupted):
        world.writer.set(world.urn, NAME, b"{}", 0, signal)
    world.api.gate.set()


@pytest.mark.parametrize("schema", [COLLECTION_SCHEMA, COLLECTION_ITEM_SCHEMA, ARTIFACT_COLLECTION_SCHEMA])
def test_collections_are_not_made_renamed_or_taken_away_by_attributes(world: World, schema: str) -> None:
    urn = "urn:ivcap:collection:x"
    world.api.aspects[urn] = [
        AspectRecord(f"urn:a:{name}", urn, schema, {"name": name}, None, START - timedelta(seconds=age))
        for age, name in enumerate("cb")
    ]
    for entity in (world.urn, urn):
        for name, content in (
            (ASPECT_PREFIX + schema, {"name": "new"}), ("user.ivcap.aspect", {"$schema": schema, "name": "c"}),
            (ASPECT_PREFIX + schema, {}), (ASPECT_PREFIX + schema + "~2", {"name": "b", "n": 1}),
        ):  # fmt: skip
            with pytest.raises(AttributesUnsupported):
                world.writer.set(entity, name, json.dumps(content).encode(), 0, never)
    with pytest.raises(NotAllowed):
        world.writer.remove(urn, ASPECT_PREFIX + schema, never)
    assert world.writes() == []


def test_a_collections_description_can_be_set(world: World) -> None:
    world.urn = "urn:ivcap:collection:x"
    described = {"$schema": COLLECTION_SCHEMA, "$entity": world.urn, "name": "c", "n": 1}
    world.api.aspects[world.urn] = [
        AspectRecord("urn:a:1", world.urn, COLLECTION_SCHEMA, described, None, world.record.created_at)
    ]
    world.set(ASPECT_PREFIX + COLLECTION_SCHEMA, name="c", n=2, description="all of them")
    assert world.standing() == {COLLECTION_SCHEMA: 2}


def test_a_closed_pool_ends_it() -> None:
    pool = ThreadPoolExecutor(1)
    world = World(pool)
    pool.shutdown()
    with pytest.raises(Closing):
        world.set(n=1)


def test_what_the_client_refuses_is_passed_on(world: World) -> None:
    world.api.failing = ConfigError("no such value")
    with pytest.raises(IvcapfsError):
        world.set(n=1)


def test_the_log_says_what_is_wrong_with_a_value(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Invalid):
        world.writer.set(world.urn, NAME, b'{"a": NaN}', 0, never)
    assert f"nothing is set on {world.urn}: the value of '{NAME}' is not JSON: NaN is not JSON" in caplog.text
