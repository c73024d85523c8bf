"""How many transfers go side by side: many of slow connections, and no more than bring more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.cache.pace import ENOUGH, FEW, MANY, MOST_TRANSFERS, RESTING, TRANSFER_SECONDS, Pace
from ivcapfs.cache.readahead import LONGEST

BLOCK = 4096
LONG = LONGEST * BLOCK
SLOW = 1_000_000
"""Bytes per second of one connection."""


def read_on(pace: Pace, rounds: int, rate: Callable[[int], float], readers: int = 1) -> list[int]:
    """Have so many rounds of transfers end; return how many went side by side in each.

    Args:
        rate: of each one of so many.
    """
    counts = []
    for _ in range(rounds):
        together = pace.transfers(readers) * readers
        counts.append(together)
        for _ in range(max(together, pace.most)):
            pace.note(LONG, LONG / rate(together), together)
    return counts


@pytest.mark.parametrize(
    ("rate", "transfers"),
    [(SLOW, MOST_TRANSFERS), (ENOUGH / 100, MOST_TRANSFERS), (ENOUGH / 5, 5), (ENOUGH, 2), (1e12, 2)],
)
def test_slow_connections_get_many_transfers_and_fast_ones_two(rate: float, transfers: int) -> None:
    pace = Pace(BLOCK)
    assert read_on(pace, 8, lambda _: rate)[-1] == transfers
    assert pace.largest(10**9, 1) == transfers * pace.longest(1)
    assert pace.largest(BLOCK, 1) == BLOCK


@pytest.mark.parametrize(
    ("faster", "readers", "times"), [(0.1, 1, 1), (1, 1, 1), (2.5, 1, 2.5), (2.5, 2, 1.25), (50, 1, 4), (50, 100, 1)]
)
def test_transfers_of_fast_connections_are_longer(faster: float, readers: int, times: float) -> None:
    """Of connections that are so many times as fast as those that bring the usual length in the time for one."""
    pace = Pace(BLOCK, rate=faster * LONG / TRANSFER_SECONDS)
    assert pace.longest(readers) == pytest.approx(times * LONG)
    assert Pace(BLOCK).longest(readers) == LONG, "nothing is known"


def test_more_are_tried_step_by_step() -> None:
    assert read_on(Pace(BLOCK), 6, lambda _: SLOW) == [2, FEW, 2 * FEW, 4 * FEW, 16, 16]


@given(st.integers(1, 16), st.floats(1e5, ENOUGH))
def test_connections_that_share_what_there_is_stay_few(readers: int, link: float) -> None:
    counts = read_on(Pace(BLOCK), 40, lambda together: link / together, readers)
    assert max(counts) <= max(2 * FEW + readers / 2, 2 * readers), "more are tried once, and again after a while"
    assert sum(counts) <= len(counts) * max(FEW + 2, 2 * readers + 1)


def test_what_did_not_help_is_tried_again_after_a_while() -> None:
    pace = Pace(BLOCK)
    counts = read_on(pace, 8, lambda together: 50 * SLOW / together)
    assert counts[-1] == FEW
    assert read_on(pace, RESTING + 6, lambda _: SLOW)[-1] == MOST_TRANSFERS, "now the connections are what is slow"


def test_at_the_most_it_stays_though_no_more_can_be_tried() -> None:
    pace = Pace(BLOCK)
    counts = read_on(pace, 3 * RESTING, lambda _: SLOW, readers=2)
    assert set(counts[8:]) == {MANY}


def test_before_anything_is_known_two_transfers() -> None:
    assert Pace(BLOCK).transfers(1) == 2


def test_short_transfers_and_broken_clocks_tell_nothing() -> None:
    pace = Pace(BLOCK)
    pace.note(BLOCK, 1000.0, 1)
    pace.note(LONG, 0.0, 1)
    pace.note(LONG, -1.0, 1)
    assert pace.rate == 0


def test_few_that_were_enough_do_not_tell_that_more_are_too_many() -> None:
    pace = Pace(BLOCK)
    read_on(pace, 4, lambda _: SLOW)
    most = pace.most
    for _ in range(10 * most):
        pace.note(LONG, LONG / SLOW, 2)
    assert pace.most == most


def test_the_pace_follows_what_was_seen_lately() -> None:
    pace = Pace(BLOCK)
    read_on(pace, 30, lambda _: ENOUGH)
    assert pace.transfers(1) == 2
    assert read_on(pace, 30 + RESTING, lambda _: SLOW)[-1] == MOST_TRANSFERS


def test_readers_share_what_the_connections_carry() -> None:
    pace = Pace(BLOCK, rate=ENOUGH / 8, most=MANY)
    assert [pace.transfers(readers) for readers in (1, 2, 4, 100)] == [8, 4, 2, 2]
