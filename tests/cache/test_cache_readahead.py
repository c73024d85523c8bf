"""Read-ahead: nothing for who reads once or here and there, a growing window for who goes forward."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.cache.readahead import AHEAD_BLOCKS, BEHIND_BLOCKS, ReadAhead

BLOCK = 1024
LARGEST = 16 * BLOCK
reads = st.tuples(st.integers(0, 200 * BLOCK), st.integers(1, 6 * BLOCK))


@given(*[reads])
def test_a_first_read_is_never_followed_by_read_ahead(read: tuple[int, int]) -> None:
    assert ReadAhead(BLOCK, LARGEST).window(*read) == 0


@given(st.lists(reads), st.integers(0, 40 * BLOCK))
def test_read_ahead_is_never_negative_and_never_beyond_the_largest_window(
    sequence: list[tuple[int, int]], largest: int
) -> None:
    ahead, front = ReadAhead(BLOCK, largest), 0
    for offset, size in sequence:
        window = ahead.window(offset, size)
        near = front - BEHIND_BLOCKS * BLOCK <= offset <= front + AHEAD_BLOCKS * BLOCK
        front = max(front, offset + size) if near else offset + size
        assert window >= 0
        assert offset + size + window <= front + largest


@given(st.lists(reads))
def test_read_ahead_can_be_switched_off(sequence: list[tuple[int, int]]) -> None:
    ahead = ReadAhead(BLOCK, 0)
    assert [ahead.window(*read) for read in sequence] == [0] * len(sequence)


@given(st.lists(st.integers(0, 50), min_size=1, unique=True))
def test_reads_here_and_there_are_never_followed_by_read_ahead(places: list[int]) -> None:
    ahead = ReadAhead(BLOCK, LARGEST)
    apart = (BEHIND_BLOCKS + AHEAD_BLOCKS + 4) * BLOCK
    assert [ahead.window(place * apart, 100) for place in places] == [0] * len(places)


@pytest.mark.parametrize("size", [BLOCK // 8, BLOCK // 2, BLOCK, 4 * BLOCK])
def test_who_reads_on_gets_a_window_that_grows_to_the_largest(size: int) -> None:
    ahead = ReadAhead(BLOCK, LARGEST)
    windows = [ahead.window(offset, size) for offset in range(0, 100 * BLOCK, size)]
    opened = [window for window in windows if window]
    assert opened == sorted(opened)
    assert opened[0] == BLOCK and opened[-1] == LARGEST


@pytest.mark.parametrize("size", [BLOCK // 8, BLOCK])
def test_what_was_fetched_ahead_never_leaves_the_reader_without(size: int) -> None:
    """From the first window on, every later block was asked for before its reader came to it."""
    ahead = ReadAhead(BLOCK, LARGEST)
    fetched = 0
    for offset in range(0, 100 * BLOCK, size):
        if fetched:
            assert offset + size <= fetched
        window = ahead.window(offset, size)
        if window:
            fetched = offset + size + window


@pytest.mark.parametrize("size", [BLOCK // 8, BLOCK])
def test_requests_out_of_order_count_as_reading_on(size: int) -> None:
    ahead = ReadAhead(BLOCK, LARGEST)
    windows = []
    for offset in range(0, 100 * BLOCK, 2 * size):
        windows.append(ahead.window(offset + size, size))
        windows.append(ahead.window(offset, size))
    assert max(windows) >= LARGEST
    assert ahead.size == LARGEST


def test_a_small_skip_counts_as_reading_on() -> None:
    ahead = ReadAhead(BLOCK, LARGEST)
    windows = [ahead.window(offset, BLOCK // 2) for offset in range(0, 40 * BLOCK, BLOCK)]
    assert max(windows) == LARGEST


def test_one_read_elsewhere_closes_the_window() -> None:
    ahead = ReadAhead(BLOCK, LARGEST)
    for offset in range(0, 40 * BLOCK, BLOCK):
        ahead.window(offset, BLOCK)
    assert ahead.window(500 * BLOCK, BLOCK) == 0
    assert ahead.window(501 * BLOCK, BLOCK) == BLOCK


def test_reading_the_same_place_again_opens_no_window() -> None:
    ahead = ReadAhead(BLOCK, LARGEST)
    assert [ahead.window(0, BLOCK) for _ in range(10)] == [0] * 10
