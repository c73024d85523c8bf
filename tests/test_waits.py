"""Changes in turn: one at a time for a key, several at a time for several, and none that nobody waits for any more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ivcapfs.errors import Closing, DeadlineExceeded, Interrupted
from ivcapfs.waits import InTurn, never
from tests.fakes import PATIENCE, wait_until


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


class Gate:
    """Work that says when it has begun, and ends when it is let go."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.open.wait(PATIENCE)
        return "done"


def test_work_for_one_key_is_done_in_order_and_one_at_a_time(pool: ThreadPoolExecutor) -> None:
    turns, gate, done = InTurn[str](pool), Gate(), list[int]()
    first = turns.run("k", gate)
    assert gate.begun.wait(PATIENCE)
    others = [turns.run("k", lambda number=number: done.append(number)) for number in range(50)]  # type: ignore[misc]
    elsewhere = turns.run("other", lambda: "not held up")
    assert elsewhere.result(PATIENCE) == "not held up"
    assert done == []
    gate.open.set()
    assert first.result(PATIENCE) == "done"
    for future in others:
        future.result(PATIENCE)
    assert done == list(range(50))


def test_work_that_fails_holds_up_nobody(pool: ThreadPoolExecutor) -> None:
    turns = InTurn[str](pool)

    def fail() -> None:
        raise Interrupted("this one")

    failed = turns.run("k", fail)
    assert turns.wait("k", lambda: 5, never, PATIENCE, "the test") == 5
    with pytest.raises(Interrupted):
        failed.result(PATIENCE)


@pytest.mark.parametrize("another_comes", [True, False])
def test_work_whose_caller_gave_up_before_its_turn_is_not_done(another_comes: bool) -> None:
    pool = ThreadPoolExecutor(1)
    turns, gate, done = InTurn[str](pool), Gate(), list[str]()
    first = turns.run("k", gate)
    assert gate.begun.wait(PATIENCE)

    def interrupted() -> None:
        raise Interrupted("a signal")

    with pytest.raises(Interrupted):
        turns.wait("k", lambda: done.append("interrupted"), interrupted, PATIENCE, "the test")
    with pytest.raises(DeadlineExceeded):
        turns.wait("k", lambda: done.append("too late"), never, 0.0, "the test")
    if another_comes:
        turns.run("k", lambda: done.append("waited for"))
    gate.open.set()
    pool.shutdown()  # waits for its one thread
    assert (first.result(), done) == ("done", ["waited for"] if another_comes else [])


def test_what_has_begun_goes_on_when_its_caller_is_gone(pool: ThreadPoolExecutor) -> None:
    turns, gate, ended = InTurn[str](pool), Gate(), threading.Event()

    def work() -> None:
        gate()
        ended.set()

    def interrupted_then() -> None:
        if gate.begun.is_set():
            raise Interrupted("a signal")

    with pytest.raises(Interrupted):
        turns.wait("k", work, interrupted_then, PATIENCE, "the test")
    gate.open.set()
    wait_until(ended.is_set)


def test_a_pool_that_takes_no_more_ends_the_wait() -> None:
    pool = ThreadPoolExecutor(1)
    turns = InTurn[str](pool)
    pool.shutdown()
    for _ in range(2):
        with pytest.raises(Closing):
            turns.wait("k", lambda: 5, never, PATIENCE, "the test")
