"""The catalog: fresh within `refresh` seconds, and never wrong because a server is slow, new or gone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ivcapfs.catalog import index as module
from ivcapfs.catalog.index import Index, StoredListing
from ivcapfs.catalog.interface import Folder
from ivcapfs.catalog.names import encode
from ivcapfs.catalog.schema import nanoseconds
from ivcapfs.catalog.store import Store
from ivcapfs.errors import ConnectFailed, DeadlineExceeded, Interrupted, NoSuchEntry, NotFound, Unavailable
from ivcapfs.models import ArtifactStatus, PageText
from ivcapfs.waits import never
from tests.fakes import PATIENCE, Background, FakeApi, FakeClock, FakeSource, artifact, wait_until
from tests.hostile import HOSTILE

REFRESH = 30.0


class World:
    """A catalog in memory with everything around it."""

    def __init__(self, pool: ThreadPoolExecutor, bound: float = PATIENCE) -> None:
        self.api, self.blobs, self.clock = FakeApi(), FakeSource(), FakeClock()
        self.store = Store(None, "")
        self.index = Index(
            self.api, self.blobs, pool, self.store,  # type: ignore[arg-type]
            refresh=REFRESH, bound=bound, clock=self.clock, wall=self.clock,
        )  # fmt: skip

    def names(self) -> list[str | None]:
        return sorted(names_in(self.index.everything(never), self.store))

    def break_down(self) -> None:
        self.api.failing = ConnectFailed("no route to host")


def names_in(listing: StoredListing, store: Store) -> Iterator[str]:
    """Iterate the names of the artifacts in a listing of all of them."""
    for uuid, _, _ in listing.entries(0):
        record = store.record(uuid)
        assert record is not None
        yield record.name or ""


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def world(pool: ThreadPoolExecutor) -> Iterator[World]:
    world = World(pool)
    yield world
    world.api.gate.set()
    world.index.close()


def test_the_first_access_lists_everything_that_is_ready(world: World) -> None:
    world.api.add(*(artifact(f"n{number}") for number in range(120)))
    world.api.add(artifact("pending", status=ArtifactStatus.PENDING), artifact("failed", status=ArtifactStatus.ERROR))
    assert world.names() == sorted(f"n{number}" for number in range(120))
    assert world.api.count("page") == 3


def test_known_makes_no_request(world: World) -> None:
    assert world.index.totals() == (0, 0)
    assert world.api.calls == []


def test_the_top_folder_is_as_new_before_all_is_known_as_afterwards(world: World) -> None:
    world.api.add(*(artifact(f"n{number}") for number in range(120)))
    ask, first = world.api.list_artifacts_text, iter([True])

    def ask_and_close(**query: Any) -> PageText:
        page = ask(**query)
        if next(first, False):
            world.api.gate.clear()
        return page

    world.api.list_artifacts_text = ask_and_close  # type: ignore[method-assign]
    before = world.index.root(never)
    assert 0 < world.index.totals().files < 120
    world.api.gate.set()
    assert len(world.names()) == 120
    assert world.index.root(never) == before
    assert before.time_ns == max(nanoseconds(record.created_at) for record in world.api.records.values())


def test_a_listing_is_kept_for_refresh_seconds_and_not_longer(world: World) -> None:
    world.api.add(artifact("a"))
    assert world.names() == ["a"]
    world.api.add(artifact("b"))
    world.clock.advance(REFRESH - 0.001)
    assert world.names() == ["a"]
    world.clock.advance(0.001)
    assert world.names() == ["a", "b"]
    assert world.api.count("walk") == 2


def test_an_artifact_that_became_ready_is_shown_by_the_next_listing(world: World) -> None:
    record = artifact("a", status=ArtifactStatus.PENDING)
    world.api.add(record)
    assert world.names() == []
    world.api.add(artifact("a", uuid=record.uuid))
    world.clock.advance(REFRESH)
    assert world.names() == ["a"]


def test_the_age_of_a_listing_counts_from_the_beginning_of_its_walk(world: World) -> None:
    world.api.add(artifact("a"))
    world.api.gate.clear()
    first = Background(world.names)
    await_call(world, "page")
    world.clock.advance(REFRESH - 1)
    world.api.gate.set()
    assert first.result() == ["a"]
    world.api.add(artifact("b"))
    world.clock.advance(1)
    assert world.names() == ["a", "b"]


def test_the_first_failure_is_raised(world: World) -> None:
    world.break_down()
    with pytest.raises(ConnectFailed):
        world.names()
    with pytest.raises(ConnectFailed):
        world.index.find(("a",), never)


def test_a_first_failure_is_followed_by_a_new_try_at_once(world: World) -> None:
    world.break_down()
    with pytest.raises(ConnectFailed):
        world.names()
    world.api.failing = None
    world.api.add(artifact("a"))
    assert world.names() == ["a"]


def test_a_server_that_fails_leaves_the_last_known_state(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.api.add(artifact("a"))
    assert world.names() == ["a"]
    world.break_down()
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            world.clock.advance(REFRESH)
            assert world.names() == ["a"]
    assert [record.message for record in caplog.records] == [
        "the list of artifacts cannot be refreshed: no route to host"
    ]


def test_a_server_that_fails_is_not_asked_at_every_access(world: World) -> None:
    world.api.add(artifact("a"))
    world.names()
    world.break_down()
    world.clock.advance(REFRESH)
    for _ in range(10):
        world.names()
    assert world.api.count("walk") == 2
    world.clock.advance(module.RETRY_SECONDS)
    world.names()
    assert world.api.count("walk") == 3


def test_a_server_that_is_back_is_shown_after_the_retry_time(world: World) -> None:
    world.api.add(artifact("a"))
    world.names()
    world.break_down()
    world.clock.advance(REFRESH)
    world.names()
    world.api.failing = None
    world.api.add(artifact("b"))
    assert world.names() == ["a"]
    world.clock.advance(module.RETRY_SECONDS)
    assert world.names() == ["a", "b"]
    world.clock.advance(REFRESH - 1)
    assert world.api.count("walk") == 3


def test_a_bug_in_the_client_leaves_the_last_known_state_and_its_traceback_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.api.add(artifact("a"))
    world.names()
    world.api.failing = KeyError("a bug")
    world.clock.advance(REFRESH)
    assert world.names() == ["a"]
    assert caplog.records[0].exc_info is not None and isinstance(caplog.records[0].exc_info[1], KeyError)


def test_a_slow_refresh_holds_nobody_longer_than_patience(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.1)
    world.api.add(artifact("a"))
    world.names()
    world.api.add(artifact("b"))
    world.clock.advance(REFRESH)
    world.api.gate.clear()
    assert world.names() == ["a"]
    world.clock.advance(0.2)
    assert world.names() == ["a"]  # the patience is with the refresh, not with each access
    assert world.api.count("walk") == 2
    world.api.gate.set()
    await_refreshed(world)
    assert world.names() == ["a", "b"]


def test_no_refresh_is_waited_for_longer_than_any_operation_may_last(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 10 * PATIENCE)
    world = World(pool, bound=0.5)
    world.api.add(artifact("a"))
    world.names()
    world.clock.advance(REFRESH)
    world.api.gate.clear()
    try:
        assert Background(world.names).result() == ["a"]
    finally:
        world.api.gate.set()


def test_a_first_listing_that_does_not_come_ends_at_the_bound(pool: ThreadPoolExecutor) -> None:
    world = World(pool, bound=0.1)
    world.api.gate.clear()
    with pytest.raises(DeadlineExceeded):
        world.names()
    world.api.gate.set()
    world.index.close()


def test_a_waiting_access_can_be_interrupted(world: World) -> None:
    world.api.gate.clear()

    def check() -> None:
        raise Interrupted("a signal")

    with pytest.raises(Interrupted):
        world.index.listing((), check)
    assert not world.api.gate.is_set()


def test_many_accesses_make_one_walk(world: World) -> None:
    world.api.add(artifact("a"))
    world.api.gate.clear()
    callers = [Background(world.names) for _ in range(8)]
    await_call(world, "page")
    world.api.gate.set()
    assert [caller.result() for caller in callers] == [["a"]] * 8
    assert world.api.count("walk") == 1


def test_a_walk_that_fails_tells_all_who_wait(world: World) -> None:
    world.api.gate.clear()
    callers = [Background(world.names) for _ in range(4)]
    await_call(world, "page")
    world.break_down()
    world.api.gate.set()
    assert {type(caller.exception()) for caller in callers} == {ConnectFailed}


# -- one name ----------------------------------------------------------------------------------------------------


def test_a_name_that_no_listing_has_is_asked_for(world: World) -> None:
    world.api.add(artifact("a"))
    world.names()
    record = artifact("d/b.csv")
    world.api.add(record)
    found = world.index.find(("d", "b.csv"), never)
    assert found.uuid == record.uuid  # type: ignore[union-attr]
    assert world.names() == ["a", "d/b.csv"]
    assert isinstance(world.index.find(("d",), never), Folder)
    assert world.api.count("walk") == 1


def test_the_newest_of_several_new_namesakes_is_found(world: World) -> None:
    world.names()
    world.api.add(artifact("a", age=2), artifact("a", uuid=(newest := artifact("a")).uuid), artifact("a", age=1))
    found = world.index.find(("a",), never)
    assert found.uuid == newest.uuid  # type: ignore[union-attr]


def test_what_was_found_by_name_is_kept_until_a_listing_has_it(world: World) -> None:
    world.names()
    record = artifact("a")
    world.api.late = {record.uuid}
    world.api.add(record)
    world.index.find(("a",), never)
    world.clock.advance(REFRESH)
    assert world.names() == ["a"]
    world.api.late = set()
    world.clock.advance(REFRESH)
    assert world.names() == ["a"]


@pytest.mark.parametrize(
    "name", [name for name in HOSTILE if len(name) < 100 and not any(part[:1] == "." for part in encode(name))]
)
def test_a_new_artifact_is_found_whatever_its_name(world: World, name: str) -> None:
    parts = encode(name)
    world.names()
    record = artifact(name)
    world.api.add(record, artifact("Xt's 100% \\ done_"), artifact("x"))
    assert world.index.find(parts, never).uuid == record.uuid  # type: ignore[union-attr]


def test_a_name_that_merely_resembles_is_not_taken_for_the_one_asked_for(world: World) -> None:
    world.names()
    world.api.add(artifact("aXb"))
    with pytest.raises(NoSuchEntry):
        world.index.find(("a'b",), never)


def test_a_pending_artifact_is_not_found_by_name(world: World) -> None:
    world.api.add(artifact("a", status=ArtifactStatus.PENDING))
    with pytest.raises(NoSuchEntry):
        world.index.find(("a",), never)


def test_that_a_name_does_not_exist_is_remembered_for_a_moment(world: World) -> None:
    for _ in range(5):
        with pytest.raises(NoSuchEntry):
            world.index.find(("a",), never)
    assert world.api.count("named") == 1
    world.clock.advance(module.ABSENT_SECONDS)
    world.api.add(artifact("a"))
    assert world.index.find(("a",), never)
    assert world.api.count("named") == 2


@pytest.mark.parametrize("path", [(".git",), ("a", ".hidden"), (".Trash", "x"), ("x" * 256,)])
def test_names_that_no_one_makes_are_never_asked_for(world: World, path: tuple[str, ...]) -> None:
    with pytest.raises(NoSuchEntry):
        world.index.find(path, never)
    assert world.api.count("named") == 0


def test_a_hidden_name_that_is_listed_is_found(world: World) -> None:
    world.api.add(artifact(".bashrc"))
    assert world.index.find((".bashrc",), never)


def test_a_server_that_fails_is_no_false_enoent(world: World) -> None:
    world.api.add(artifact("a"))
    world.names()
    world.break_down()
    with pytest.raises(ConnectFailed):
        world.index.find(("b",), never)
    world.clock.advance(REFRESH)
    with pytest.raises(ConnectFailed):
        world.index.find(("b",), never)
    asked = len(world.api.calls)
    with pytest.raises(ConnectFailed):
        world.index.find(("b",), never)
    assert len(world.api.calls) == asked  # the server is in trouble: not asked again
    assert world.index.find(("a",), never)


def test_one_question_by_name_serves_all_who_ask(world: World) -> None:
    world.names()
    world.api.add(artifact("a"))
    world.api.gate.clear()
    callers = [Background(world.index.find, ("a",), never) for _ in range(6)]
    await_call(world, "named")
    world.api.gate.set()
    assert {caller.result().name for caller in callers} == {"a"}
    assert world.api.count("named") <= 2  # one more, if a caller came only when the first was answered


# -- one artifact ------------------------------------------------------------------------------------------------


def test_a_record_comes_from_the_listing_or_else_from_the_server(world: World) -> None:
    listed, pending = artifact("a"), artifact("b", status=ArtifactStatus.PENDING)
    world.api.add(listed, pending)
    world.names()
    assert world.index.record(listed.uuid, never).name == "a"
    assert world.api.count("record") == 0
    assert world.index.record(pending.uuid, never).status is ArtifactStatus.PENDING
    assert world.api.calls[-1] == ("record", pending.uuid)


def test_an_unknown_uuid_is_asked_for_before_the_first_listing(world: World) -> None:
    record = artifact("a")
    world.api.add(record)
    assert world.index.record(record.uuid, never).uuid == record.uuid
    with pytest.raises(NotFound):
        world.index.record(artifact("b").uuid, never)
    assert world.api.count("walk") == 0


def test_a_size_that_the_record_tells_is_not_asked_for(world: World) -> None:
    assert world.index.size(artifact("a", size=5), never) == 5
    assert world.api.calls == []


def test_an_unavailable_server_passes_through(world: World) -> None:
    world.api.failing = Unavailable("503", status=503)
    with pytest.raises(Unavailable):
        world.index.record(artifact("a").uuid, never)


def await_call(world: World, method: str) -> None:
    """Wait until a request of a kind has been made."""
    wait_until(lambda: world.api.count(method) > 0)


def await_refreshed(world: World) -> None:
    """Wait until the refresh under way is done."""
    wait_until(lambda: world.index.status().state == "current")

