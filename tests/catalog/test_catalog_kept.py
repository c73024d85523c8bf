"""Answers that are kept: each asked for once at a time, old ones better than none, refusals and failures remembered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ivcapfs.catalog.kept import FAILED_SECONDS, REFUSED_SECONDS, Kept, Progress
from ivcapfs.errors import (
    BadRequest,
    Closing,
    ConnectFailed,
    DeadlineExceeded,
    Interrupted,
    NotAuthenticated,
    NotFound,
    ProtocolError,
    ServerFault,
)
from ivcapfs.waits import never
from tests.fakes import Background, FakeClock, wait_until

KEEP = 30.0


class World:
    """A server that answers with how often it was asked."""

    def __init__(self, most: int = 10) -> None:
        self.clock, self.asked = FakeClock(), list[str]()
        self.failing: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.pool = ThreadPoolExecutor(4)
        self.on_ask: Callable[[Progress], None] = never
        self.kept: Kept[str, str] = Kept(
            "the test", self._ask, self.pool, keep=KEEP, bound=0.5, most=most, weigh=len, clock=self.clock
        )

    def _ask(self, key: str, step: Progress) -> str:
        self.asked.append(key)
        self.on_ask(step)
        assert self.gate.wait(20)
        if self.failing is not None:
            raise self.failing
        return f"{key}{len(self.asked)}"

    def get(self, key: str = "k", younger: float | None = None) -> str:
        return self.kept.get(key, never, younger=younger)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.gate.set()
    world.pool.shutdown()


def test_an_answer_is_kept_for_so_long(world: World) -> None:
    assert not world.kept.is_fresh("k")
    assert [world.get(), world.get()] == ["k1", "k1"]
    world.clock.advance(KEEP - 0.1)
    assert world.get() == "k1" and world.kept.is_fresh("k")
    world.clock.advance(0.2)
    assert not world.kept.is_fresh("k")
    assert world.get() == "k2"


def test_many_ask_at_once_and_the_server_is_asked_once(world: World) -> None:
    world.gate.clear()
    others = [Background(world.get) for _ in range(8)]
    wait_until(lambda: bool(world.asked))
    world.gate.set()
    assert {other.result() for other in others} == {"k1"}
    assert world.asked == ["k"]


def ask_for(world: World, seconds: float) -> str:
    """Ask, and let the answer take so many seconds."""
    world.gate.clear()
    count = len(world.asked)
    waiting = Background(world.get)
    wait_until(lambda: len(world.asked) > count)
    world.clock.advance(seconds)
    world.gate.set()
    result: str = waiting.result()
    return result


def test_an_answer_is_as_old_as_its_question(world: World) -> None:
    assert ask_for(world, 5) == "k1"
    world.clock.advance(KEEP - 5.1)
    assert world.get() == "k1"
    world.clock.advance(0.2)
    assert world.get() == "k2"


def test_an_answer_that_took_long_is_good_for_longer(world: World) -> None:
    assert ask_for(world, 100) == "k1"
    world.clock.advance(299.9)
    assert world.get() == "k1"
    world.clock.advance(0.2)
    assert world.get() == "k2"


@pytest.mark.parametrize("failure", [ConnectFailed("x"), ServerFault("x"), ProtocolError("x"), NotAuthenticated("x")])
def test_the_last_answer_is_better_than_none(world: World, failure: Exception) -> None:
    assert world.get() == "k1"
    world.failing = failure
    world.clock.advance(KEEP + 1)
    assert [world.get(), world.get()] == ["k1", "k1"]
    assert len(world.asked) == 2, "and the failure is remembered"
    world.clock.advance(FAILED_SECONDS + 0.1)
    world.failing = None
    assert world.get() == "k3"


@pytest.mark.parametrize("failure", [ConnectFailed("x"), ServerFault("x"), ProtocolError("x")])
def test_an_answer_that_must_be_young_is_not_replaced_by_an_old_one(world: World, failure: Exception) -> None:
    assert world.get() == "k1"
    world.clock.advance(1)
    assert world.get(younger=2.0) == "k1"
    world.clock.advance(2)
    world.failing = failure
    for _ in range(2):
        with pytest.raises(type(failure)):
            world.get(younger=2.0)
    assert world.get() == "k1"


def test_a_server_that_cannot_be_reached_is_not_asked_for_something_else_either(world: World) -> None:
    world.failing = ConnectFailed("x")
    for key in ("a", "b", "c"):
        with pytest.raises(ConnectFailed):
            world.get(key)
    assert world.asked == ["a"]
    world.clock.advance(FAILED_SECONDS + 0.1)
    world.failing = None
    assert world.get("c") == "c2"
    assert world.get("a") == "a3", "once it answers, everything is asked again"


def test_another_failure_concerns_one_question_alone(world: World) -> None:
    world.failing = ServerFault("x")
    with pytest.raises(ServerFault):
        world.get("a")
    world.failing = None
    assert world.get("b") == "b2"
    with pytest.raises(ServerFault):
        world.get("a")
    assert world.asked == ["a", "b"]


@pytest.mark.parametrize("refusal", [BadRequest("x"), NotFound("x")])
def test_a_refusal_is_remembered_and_no_old_answer_hides_it(world: World, refusal: Exception) -> None:
    assert world.get() == "k1"
    world.failing = refusal
    world.clock.advance(KEEP + 1)
    for _ in range(3):
        with pytest.raises(type(refusal)):
            world.get()
    assert len(world.asked) == 2
    world.failing = None
    world.clock.advance(REFUSED_SECONDS + 0.1)
    assert world.get() == "k3"


def test_a_wait_lasts_as_long_as_something_comes(world: World) -> None:
    world.gate.clear()
    stop = threading.Event()

    def drip(step: Progress) -> None:
        for _ in range(12):
            step()
            assert not stop.wait(0.1)
        world.gate.set()

    world.on_ask = drip
    assert world.get() == "k1"


def test_a_wait_in_which_nothing_comes_ends_and_the_answer_may_still_come(world: World) -> None:
    world.gate.clear()
    with pytest.raises(DeadlineExceeded):
        world.get()
    world.gate.set()
    wait_until(lambda: world.kept.is_fresh("k"))
    assert world.get() == "k1"


def test_who_only_wants_to_know_whether_there_is_an_answer_waits_for_its_beginning(world: World) -> None:
    world.gate.clear()
    world.on_ask = lambda step: step()
    assert world.kept.peek("k", never) is None
    world.gate.set()
    assert world.get() == "k1"
    assert world.kept.peek("k", never) == "k1"
    world.clock.advance(KEEP + 1)
    assert world.kept.peek("k", never) == "k1", "an old one says it, too"
    world.on_ask = never
    assert world.kept.peek("empty", never) is None, "the end is a beginning, too"
    world.failing = BadRequest("x")
    for _ in range(2):
        with pytest.raises(BadRequest):
            world.kept.peek("refused", never)


def test_a_wait_can_be_interrupted(world: World) -> None:
    world.gate.clear()

    def check() -> None:
        raise Interrupted("a signal")

    with pytest.raises(Interrupted):
        world.kept.get("k", check)


def test_what_is_kept_has_a_bound_and_what_was_used_last_stays() -> None:
    world = World(most=6)
    try:
        assert [world.get("a"), world.get("b"), world.get("c"), world.get("a")] == ["a1", "b2", "c3", "a1"]
        assert world.get("d") == "d4"
        assert [world.kept.is_fresh(key) for key in "abcd"] == [True, False, True, True]
    finally:
        world.pool.shutdown()


def test_an_unexpected_error_is_told_and_asked_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.failing = KeyError("a bug")
    with pytest.raises(ProtocolError):
        world.get()
    assert "unexpected error" in caplog.text and "Traceback" in caplog.text
    world.failing = None
    assert world.get() == "k2"


def test_the_log_says_once_that_old_answers_are_shown(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.get()
    world.failing = ConnectFailed("no connection")
    for _ in range(4):
        world.clock.advance(KEEP + 1)
        world.get()
    assert caplog.text.count("the test cannot be refreshed: no connection") == 1


def test_after_the_end_nothing_waits(world: World) -> None:
    world.pool.shutdown()
    for _ in range(2):
        with pytest.raises(Closing):
            world.get()


def test_an_amended_answer_is_shown_without_a_question_for_as_long_as_it_was_good(world: World) -> None:
    world.kept.amend("k".__eq__, lambda value: value + "!")
    assert world.asked == []
    assert world.get() == "k1"
    world.clock.advance(KEEP - 1)
    world.kept.amend("k".__eq__, lambda value: value + "!")
    assert world.get() == "k1!"
    world.clock.advance(1)
    assert world.get() == "k2"


def test_an_amended_answer_may_become_heavier(world: World) -> None:
    assert (world.get("a"), world.get("b")) == ("a1", "b2")
    world.kept.amend("a".__eq__, lambda value: value + "1234567")
    assert world.get("a") == "a11234567"
    assert world.get("b") == "b3", "there was no room for both"


def test_what_was_outdated_is_asked_for_anew_and_shown_as_it_was_if_that_fails(world: World) -> None:
    assert (world.get("a"), world.get("b")) == ("a1", "b2")
    world.kept.outdate(lambda key: key == "a")
    world.failing = ServerFault("down", status=500)
    assert (world.get("a"), world.get("b")) == ("a1", "b2")
    assert world.asked == ["a", "b", "a"]
    world.failing = None
    world.clock.advance(FAILED_SECONDS)
    assert world.get("a") == "a4"


@pytest.mark.parametrize("how", ["amend", "outdate"])
def test_an_answer_on_its_way_when_something_was_done_is_neither_joined_nor_kept(world: World, how: str) -> None:
    world.gate.clear()
    before = Background(world.get)
    wait_until(lambda: world.asked == ["k"])
    if how == "amend":
        world.kept.amend("k".__eq__, lambda value: value)
    else:
        world.kept.outdate(lambda key: True)
    after = Background(world.get)
    wait_until(lambda: world.asked == ["k", "k"])
    world.gate.set()
    assert {before.result(), after.result()} == {"k2"}
    world.clock.advance(1)
    assert world.get() == "k2"
    assert world.asked == ["k", "k"]


@pytest.mark.parametrize("fails", [True, False])
def test_a_question_that_does_not_count_any_more_ends_after_the_one_that_does(world: World, fails: bool) -> None:
    gates = [threading.Event(), threading.Event()]
    begun: list[int] = []

    def wait(step: Progress) -> None:
        number = len(begun)
        begun.append(number)
        assert gates[number].wait(20)
        if fails and number == 0:
            raise NotFound("the older one", status=404)

    world.on_ask = wait
    before = Background(world.get)
    wait_until(lambda: len(begun) == 1)
    world.kept.outdate(lambda key: True)
    after = Background(world.get)
    wait_until(lambda: len(begun) == 2)
    gates[1].set()
    assert after.result() == "k2"
    world.kept.amend("k".__eq__, lambda value: "amended")
    gates[0].set()
    if fails:
        assert isinstance(before.exception(), NotFound)
    else:
        before.result()
    assert world.get() == "amended"
    world.kept.outdate(lambda key: True)
    gates.append(gates[1])
    assert world.get() == "k3", "what the older question was told is no refusal of the newer"
