"""A block: whoever waits for its bytes gets them as soon as they are there, or learns why they will not come."""

from __future__ import annotations

import pytest

from ivcapfs.cache.block import Block
from ivcapfs.errors import ConnectionBroken, DeadlineExceeded, Interrupted
from ivcapfs.waits import never
from tests.fakes import PATIENCE, Background, wait_until


def block(size: int = 100, start: int = 1000) -> Block:
    return Block(start, size, memoryview(bytearray(128)), ahead=False)


@pytest.fixture
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits does not look by itself before the test gives it up."""
    monkeypatch.setattr("ivcapfs.cache.block.POLL_SECONDS", 2 * PATIENCE)


def waiting(block: Block, offset: int, seconds: float = PATIENCE) -> Background:
    caller = Background(block.wait, offset, never, seconds, "it")
    wait_until(lambda: any(needed == offset - block.start for needed, _ in block._waiters) or caller.future.done())
    return caller


def test_what_is_there_is_not_waited_for() -> None:
    made = block()
    made.advance(60)
    assert not made.is_whole and made.end == 1100
    assert made.wait(1060, never, PATIENCE, "it") is False
    made.advance(40)
    assert made.is_whole and made.wait(1100, never, PATIENCE, "it") is False


@pytest.mark.usefixtures("no_polling")
def test_each_waiter_goes_on_when_its_own_bytes_are_there() -> None:
    made = block()
    callers = {offset: waiting(made, offset) for offset in (1010, 1050, 1100)}
    made.advance(9)
    assert not any(caller.future.done() for caller in callers.values())
    made.advance(1)
    assert callers[1010].result() is True
    made.advance(89)
    assert callers[1050].result() is True
    assert not callers[1100].future.done()
    made.advance(1)
    assert callers[1100].result() is True
    assert not made._waiters


@pytest.mark.usefixtures("no_polling")
def test_a_failure_reaches_who_waits_for_more_and_not_who_has_enough() -> None:
    made = block()
    made.advance(50)
    caller = waiting(made, 1051)
    made.fail(ConnectionBroken("gone"))
    assert isinstance(caller.exception(), ConnectionBroken)
    assert made.wait(1050, never, PATIENCE, "it") is False
    with pytest.raises(ConnectionBroken):
        made.wait(1100, never, PATIENCE, "it")


def test_a_waiter_can_be_interrupted_and_leaves_nothing_behind() -> None:
    def check() -> None:
        raise Interrupted("a signal")

    made = block()
    with pytest.raises(Interrupted):
        made.wait(1001, check, PATIENCE, "it")
    assert not made._waiters


def test_the_bound_counts_from_the_last_progress() -> None:
    """Whoever brings a byte at each look is waited for, though all of it takes longer than the bound."""
    made = block(5)
    looks = []

    def check() -> None:
        looks.append(made.filled)
        if made.filled < 4:
            made.advance(1)

    with pytest.raises(DeadlineExceeded):
        made.wait(1005, check, 0.0, "it")
    assert made.filled == 4 and looks[:5] == [0, 1, 2, 3, 4]


def test_many_waiters_and_many_small_steps() -> None:
    made = block(100)
    callers = [waiting(made, 1000 + needed) for needed in range(1, 101, 3)]
    for _ in range(100):
        made.advance(1)
    assert all(caller.result() is not None for caller in callers)
