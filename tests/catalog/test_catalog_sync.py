"""The synchronization: everything once, then only what is new, and never a part that passes for the whole."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from ivcapfs.catalog import chain, sync
from ivcapfs.errors import BadRequest, ConnectFailed, ProtocolError, Unavailable
from ivcapfs.models import ArtifactRecord, ArtifactStatus, Page
from ivcapfs.waits import never
from tests.catalog.catalog_world import DAY, REFRESH, World
from tests.fakes import START, Background, artifact, wait_until

PAGES = 10
MANY = PAGES * chain.PAGE


def pages(world: World) -> int:
    return world.api.count("page")


# -- the first time ----------------------------------------------------------------------------------------------


def test_the_first_synchronization_takes_each_page_once_newest_first(world: World) -> None:
    world.add(MANY)
    mounted = world.mount()
    assert len(mounted.names()) == MANY
    assert pages(world) == PAGES
    with_order = [state for state in world.api.cursors.values() if state[1]]
    assert len(with_order) == PAGES - 1, "all pages go on from an ordered first one, at its time"


def test_it_is_of_one_moment_the_one_that_the_first_page_tells(world: World) -> None:
    world.add(MANY)
    world.api.now = START - timedelta(seconds=3600 + 60 * 100)
    assert len(world.mount().names()) == MANY - 100
    assert {state[2] for state in world.api.cursors.values()} == {world.api.now}


def test_a_later_mount_has_everything_at_once_and_asks_for_one_page(world: World) -> None:
    world.add(MANY)
    world.mount().names()
    world.advance(10 * DAY)
    world.api.calls.clear()
    again = world.mount()
    assert again.index.find(("n3",), never)
    assert len(again.names()) == MANY
    assert pages(world) == 1


def test_a_mount_within_the_refresh_time_of_another_asks_for_nothing(world: World) -> None:
    world.add(MANY)
    world.mount().names()
    world.api.calls.clear()
    world.clock.advance(REFRESH - 1)
    again = world.mount()
    assert len(again.names()) == MANY and again.index.find(("n3",), never)
    assert world.api.calls == []
    world.clock.advance(1)
    again.names()
    assert pages(world) == 1


@pytest.mark.parametrize("failing", range(1, PAGES + 1))
def test_it_goes_on_where_it_was_interrupted(world: World, failing: int) -> None:
    world.add(MANY)
    world.api.failing_pages = {failing: ConnectFailed("gone")}
    first = world.mount()
    with pytest.raises(ConnectFailed):
        first.names()
    first.index.close()
    again = world.mount()
    assert len(again.names()) == MANY
    extra = 0 if failing == 1 else 1  # the page that failed; and what is new since the first half
    assert pages(world) == PAGES + 1 + extra
    walks = [state for state in world.api.calls if state == ("walk", "")]
    assert len(walks) == 2


def test_what_arrived_while_it_was_interrupted_is_there_afterwards(world: World) -> None:
    world.add(MANY)
    world.api.failing_pages = {5: ConnectFailed("gone")}
    first = world.mount()
    with pytest.raises(ConnectFailed):
        first.names()
    first.index.close()
    world.advance(10 * DAY)
    world.add(120, prefix="new", age=-9 * DAY)
    assert len(world.mount().names()) == MANY + 120


def test_a_cursor_that_the_server_has_forgotten_begins_a_new_walk(world: World) -> None:
    world.add(MANY)
    world.api.failing_pages = {5: ConnectFailed("gone"), 6: BadRequest("no such page", status=410)}
    first = world.mount()
    with pytest.raises(ConnectFailed):
        first.names()
    first.index.close()
    assert len(world.mount().names()) == MANY


@pytest.mark.parametrize(
    "failure", [Unavailable("503", status=503), ProtocolError("not JSON"), BadRequest("400", status=400)]
)
def test_a_page_that_fails_for_good_fails_every_listing_and_no_part_is_ever_shown(
    world: World, failure: Exception
) -> None:
    world.add(MANY)
    world.api.failing_pages = dict.fromkeys(range(4, 1000), failure)
    mounted = world.mount()
    for _ in range(3):
        with pytest.raises(type(failure)):
            mounted.names()
        with pytest.raises(type(failure)):
            mounted.index.listing((), never)
    assert mounted.index.status().state == "interrupted"
    assert mounted.index.find(("n499",), never), "single paths are asked for"
    world.api.failing_pages.clear()
    assert len(mounted.names()) == MANY


def test_pages_that_do_not_end_are_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    record = artifact("a", age=1)
    monkeypatch.setattr(world.api, "list_artifacts_page", lambda **_: Page((record,), "again", START))
    with pytest.raises(ProtocolError, match="do not come to an end"):
        world.mount().names()


def test_while_it_runs_single_paths_are_asked_for_in_two_requests_at_most(world: World) -> None:
    records = world.add(MANY)
    world.add(1, prefix="folder/deep/x", age=10**6)
    held = hold_pages(world)
    mounted = world.mount()
    listing = Background(mounted.names)
    wait_until(lambda: pages(world) >= 2)
    asked = len(world.api.calls)

    def cost() -> int:
        nonlocal asked
        before, asked = asked, len(world.api.calls)
        return asked - before

    assert mounted.index.record(records[-1].uuid, never).name == "n499"
    assert cost() == 1
    assert mounted.index.find(("n499",), never).uuid == records[-1].uuid  # type: ignore[union-attr]
    assert cost() == 1
    assert mounted.index.find((f"n498@{records[-2].uuid}",), never).uuid == records[-2].uuid  # type: ignore[union-attr]
    assert cost() == 2
    assert mounted.index.find((f"n497@{records[-3].uuid[:8]}",), never).uuid == records[-3].uuid  # type: ignore[union-attr]
    assert cost() == 2
    assert mounted.index.find(("folder",), never) and cost() == 2
    assert mounted.index.find(("folder", "deep"), never) and cost() == 0
    assert not listing.future.done()
    held.set()
    assert len(listing.result()) == MANY + 1


def hold_pages(world: World) -> threading.Event:
    """Let the list stand still after its first page; everything else is answered."""
    held = threading.Event()
    answer = world.api.list_artifacts_page

    def slow(**query: object) -> Page[ArtifactRecord]:
        page = answer(**query)  # type: ignore[arg-type]
        if query.get("cursor"):
            assert held.wait(20)
        return page

    world.api.list_artifacts_page = slow  # type: ignore[method-assign,assignment]
    return held


# -- what is new -------------------------------------------------------------------------------------------------


def test_ten_new_artifacts_cost_one_request_more_than_none(world: World) -> None:
    world.add(MANY)
    mounted = world.mount()
    mounted.names()
    for count, cost in ((0, 1), (10, 2), (10, 2)):
        world.api.calls.clear()
        world.advance(1000)
        world.add(count, prefix=f"new{world.clock()}-", age=-(world.clock() - 1000 - 500), apart=1)
        assert f"new{world.clock()}-0" in mounted.names() or not count
        assert pages(world) <= cost
    assert len(mounted.names()) == MANY + 20


def test_many_artifacts_within_the_overlap_cost_three_requests_at_most(world: World) -> None:
    world.add(MANY, age=1, apart=0.1)
    mounted = world.mount()
    mounted.names()
    world.api.calls.clear()
    world.advance()
    world.add(10, prefix="new", age=-20, apart=1)
    assert len(mounted.names()) == MANY + 10
    assert pages(world) == 3


def test_more_new_ones_than_a_page_holds_are_all_found(world: World) -> None:
    world.add(MANY)
    mounted = world.mount()
    mounted.names()
    world.advance(1000)
    world.add(333, prefix="new", age=-900, apart=0.1)
    assert len(mounted.names()) == MANY + 333


def test_a_pass_that_was_cut_leaves_no_gap(world: World) -> None:
    world.add(MANY)
    mounted = world.mount()
    mounted.names()
    world.advance()
    world.add(300, prefix="new", age=-20, apart=0.01)
    world.api.failing_pages = {pages(world) + 4: ConnectFailed("gone")}
    mounted.names()
    world.advance()
    assert len(mounted.names()) == MANY + 300


def test_what_the_server_shows_late_is_found_within_ten_minutes(world: World) -> None:
    records = world.add(MANY, age=1, apart=1)
    world.api.late = {records[400].uuid}
    mounted = world.mount()
    assert len(mounted.names()) == MANY - 1
    world.api.late = set()
    for _ in range(20):
        world.advance()
        mounted.names()
    assert len(mounted.names()) == MANY


def test_a_short_list_forgets_what_is_gone_with_the_next_refresh(world: World) -> None:
    records = world.add(20)
    mounted = world.mount()
    mounted.names()
    del world.api.records[records[7].uuid]
    world.advance()
    assert "n7" not in mounted.names() and len(mounted.names()) == 19


# -- unready artifacts -------------------------------------------------------------------------------------------


def test_an_old_unready_artifact_is_asked_about_ever_less_often_and_shown_once_it_is_ready(world: World) -> None:
    world.add(MANY)
    pending = artifact("late", age=7200, status=ArtifactStatus.PENDING)
    world.api.add(pending)
    mounted = world.mount()
    assert "late" not in mounted.names()
    asked = []
    for _ in range(100):
        world.advance()
        before = world.api.count("record")
        mounted.names()
        asked.append(world.api.count("record") - before)
    assert set(asked) == {0, 1} and sum(asked) == 3, "after 720, 790 and 870 s"
    world.api.add(replace(pending, status=ArtifactStatus.READY))
    world.advance(1000)
    assert "late" in mounted.names()
    before = world.api.count("record")
    world.advance(10_000)
    mounted.names()
    assert world.api.count("record") == before


def test_an_abandoned_artifact_is_asked_about_for_a_day_and_no_more(world: World) -> None:
    world.add(MANY)
    world.api.add(
        artifact("abandoned", age=7200, status=ArtifactStatus.PENDING),
        artifact("long ago", age=2 * DAY, status=ArtifactStatus.PENDING),
        artifact("failed", age=7200, status=ArtifactStatus.ERROR),
    )
    mounted = world.mount()
    mounted.names()
    for _ in range(60):
        world.advance(1800)
        mounted.names()
    asked = world.api.count("record")
    assert 10 < asked < 40
    world.advance(10 * DAY)
    mounted.names()
    assert world.api.count("record") == asked


def test_an_unready_artifact_that_is_gone_is_forgotten(world: World) -> None:
    world.add(MANY)
    pending = artifact("late", age=7200, status=ArtifactStatus.PENDING)
    world.api.add(pending)
    mounted = world.mount()
    mounted.names()
    del world.api.records[pending.uuid]
    world.advance(1000)
    mounted.names()
    assert mounted.store.record(pending.uuid) is None


# -- the reconcile -----------------------------------------------------------------------------------------------


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ivcapfs.catalog.reconcile.REST", 0.0)


def test_a_reconcile_finds_what_vanished_and_what_was_missed(world: World, hurried: None) -> None:
    records = world.add(MANY)
    world.api.late = {records[300].uuid}
    mounted = world.mount(reconcile=DAY)
    mounted.names()
    world.api.late = set()
    del world.api.records[records[200].uuid]
    world.advance(DAY - 1)
    assert "n200" in mounted.names() and "n300" not in mounted.names()
    world.advance(REFRESH)
    mounted.names()
    wait_until(lambda: "n200" not in mounted.names())
    assert "n300" in mounted.names() and len(mounted.names()) == MANY - 1
    walks = world.api.count("walk")
    world.advance()
    mounted.names()
    assert world.api.count("walk") == walks + 1, "once a day"


def test_a_reconcile_that_fails_removes_nothing_and_is_tried_again(world: World, hurried: None) -> None:
    world.add(MANY)
    mounted = world.mount(reconcile=DAY)
    mounted.names()
    world.advance(DAY)
    world.api.failing_pages = {number: ConnectFailed("gone") for number in range(pages(world) + 4, pages(world) + 5)}
    mounted.names()
    wait_until(lambda: pages(world) >= PAGES + 4)
    assert len(mounted.names()) == MANY
    before = pages(world)
    world.advance(7200)
    mounted.names()
    wait_until(lambda: pages(world) >= before + 1 + PAGES)
    assert len(mounted.names()) == MANY


# -- servers that do not do everything ---------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [400, 422, 501])
def test_a_server_that_refuses_an_order_is_walked_whole_each_time_and_that_is_said_once(
    world: World, refusal: int, caplog: pytest.LogCaptureFixture
) -> None:
    records = world.add(MANY)
    world.api.refuses, world.api.refusal = {"order"}, refusal
    mounted = world.mount()
    assert len(mounted.names()) == MANY
    del world.api.records[records[5].uuid]
    for _ in range(3):
        world.advance()
        mounted.names()
    assert len(mounted.names()) == MANY - 1
    assert sum("does not list artifacts by time" in record.message for record in caplog.records) == 1


def test_a_server_that_ignores_the_order_is_noticed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.add(MANY)
    world.api.records = dict(reversed(world.api.records.items()))
    world.api.keeps_order = False
    mounted = world.mount()
    assert len(mounted.names()) == MANY
    world.advance()
    world.api.add(artifact("hidden in the middle", age=-1))
    assert "hidden in the middle" in mounted.names()
    assert sum("does not list artifacts by time" in record.message for record in caplog.records) == 1


def test_a_server_that_tells_no_times_at_all_is_walked_whole(world: World) -> None:
    epoch = START.timestamp()
    world.add(MANY, age=epoch, apart=0)
    world.api.now = None
    mounted = world.mount()
    assert len(mounted.names()) == MANY
    world.api.add(artifact("new", uuid="00000000-0000-4000-8000-000000000000", age=epoch))
    world.advance()
    assert "new" in mounted.names()


def test_a_server_that_refuses_a_time_is_reconciled_without(
    world: World, hurried: None, caplog: pytest.LogCaptureFixture
) -> None:
    records = world.add(MANY)
    world.api.refuses = {"time"}
    mounted = world.mount(reconcile=DAY)
    mounted.names()
    del world.api.records[records[200].uuid]
    world.advance(DAY)
    mounted.names()
    wait_until(lambda: "n200" not in mounted.names())
    assert sum("as of a time" in record.message for record in caplog.records) == 1


def test_a_server_that_is_down_leaves_the_last_known_state_to_a_later_mount_too(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.add(MANY)
    world.mount().names()
    world.advance(DAY)
    world.api.failing = ConnectFailed("no route to host")
    again = world.mount()
    with caplog.at_level(logging.WARNING):
        assert len(again.names()) == MANY
        assert again.index.find(("n3",), never)
        with pytest.raises(ConnectFailed):
            again.index.find(("nothing",), never)
    assert again.index.status().state == "stale" and "no route" in (again.index.status().failure or "")
    assert len(caplog.records) == 1


# -- several processes -------------------------------------------------------------------------------------------


def test_two_that_begin_at_once_walk_once(world: World) -> None:
    world.add(MANY)
    held = hold_pages(world)
    one, two = world.mount(), world.mount()
    callers = [Background(one.names), Background(two.names)]
    wait_until(lambda: pages(world) >= 2)
    held.set()
    assert [len(caller.result()) for caller in callers] == [MANY, MANY]
    assert pages(world) == PAGES


def test_what_one_finds_the_other_has(world: World) -> None:
    world.add(MANY)
    one, two = world.mount(), world.mount()
    one.names()
    assert len(two.names()) == MANY
    for number in range(5):
        world.advance()
        world.add(3, prefix=f"x{number}/", age=-world.clock() + 1001, apart=0.001)
        reader, other = (one, two) if number % 2 else (two, one)
        assert f"x{number}/0" in reader.names()
        before = pages(world)
        assert other.names() == reader.names()
        assert pages(world) == before
    assert sync.OVERLAP == 600 * 10**6
