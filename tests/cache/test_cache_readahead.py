"""Read-ahead: nothing for who reads once or here and there, a growing window for who goes forward."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.cache.block import Block
from ivcapfs.cache.readahead import (
    FIRST_WINDOW,
    MOST_MOVING,
    MOST_STILL,
    NEAR_AHEAD,
    NEAR_BEHIND,
    STILL_SECONDS,
    ReadAhead,
    Slots,
)

BLOCK = 1024
LARGEST = 16 * BLOCK
reads = st.tuples(st.integers(0, 200 * BLOCK), st.integers(1, 6 * BLOCK))


@given(*[reads])
def test_a_first_read_is_never_followed_by_read_ahead(read: tuple[int, int]) -> None:
    ahead = ReadAhead(BLOCK)
    assert ahead.window(*read, LARGEST) == 0 and ahead.transfer(LARGEST) == BLOCK


@given(st.lists(st.tuples(reads, st.integers(0, 40 * BLOCK))))
def test_read_ahead_is_never_negative_and_never_beyond_the_largest_window(
    sequence: list[tuple[tuple[int, int], int]],
) -> None:
    ahead = ReadAhead(BLOCK)
    for (offset, size), largest in sequence:
        window = ahead.window(offset, size, largest)
        assert 0 <= window <= largest + 6 * BLOCK or ahead.ahead == offset + size + window
        assert ahead.size <= largest or not window
        assert window == 0 or offset + size + window <= max(ahead.front + largest, ahead.ahead)
        for longest in (BLOCK, 3 * BLOCK, LARGEST, 100 * LARGEST):
            length = ahead.transfer(longest)
            assert length.bit_count() == 1 and BLOCK <= length <= max(BLOCK, min(longest, ahead.size // 2))


@given(st.lists(reads))
def test_read_ahead_can_be_switched_off(sequence: list[tuple[int, int]]) -> None:
    ahead = ReadAhead(BLOCK)
    assert [ahead.window(*read, 0) for read in sequence] == [0] * len(sequence)


@given(st.lists(st.integers(0, 50), min_size=1, unique=True))
def test_reads_here_and_there_are_never_followed_by_read_ahead(places: list[int]) -> None:
    ahead = ReadAhead(BLOCK)
    apart = (NEAR_BEHIND + NEAR_AHEAD + 4) * BLOCK
    assert [ahead.window(place * apart, 100, LARGEST) for place in places] == [0] * len(places)
    assert ahead.transfer(LARGEST) == BLOCK


@pytest.mark.parametrize("size", [BLOCK // 8, BLOCK // 2, BLOCK, 4 * BLOCK])
def test_who_reads_on_gets_a_window_that_doubles_up_to_the_largest(size: int) -> None:
    ahead, sizes = ReadAhead(BLOCK), [0]
    for offset in range(0, 100 * BLOCK, size):
        ahead.window(offset, size, LARGEST)
        if ahead.size != sizes[-1]:
            sizes.append(ahead.size)
    assert sizes == [0, FIRST_WINDOW * BLOCK, 2 * FIRST_WINDOW * BLOCK, LARGEST]


@pytest.mark.parametrize("size", [BLOCK // 8, BLOCK])
def test_what_was_fetched_ahead_never_leaves_the_reader_without(size: int) -> None:
    """From the first window on, every later block was asked for before its reader came to it."""
    ahead = ReadAhead(BLOCK)
    fetched = 0
    for offset in range(0, 100 * BLOCK, size):
        if fetched:
            assert offset + size <= fetched
        window = ahead.window(offset, size, LARGEST)
        if window:
            fetched = offset + size + window


@pytest.mark.parametrize("size", [BLOCK // 8, BLOCK])
def test_requests_out_of_order_count_as_reading_on(size: int) -> None:
    ahead = ReadAhead(BLOCK)
    windows = []
    for offset in range(0, 100 * BLOCK, 2 * size):
        windows.append(ahead.window(offset + size, size, LARGEST))
        windows.append(ahead.window(offset, size, LARGEST))
    assert max(windows) >= LARGEST
    assert ahead.size == LARGEST


def test_a_small_skip_counts_as_reading_on() -> None:
    ahead = ReadAhead(BLOCK)
    windows = [ahead.window(offset, BLOCK // 2, LARGEST) for offset in range(0, 40 * BLOCK, BLOCK)]
    assert max(windows) == LARGEST


def test_one_read_elsewhere_closes_the_window() -> None:
    ahead = ReadAhead(BLOCK)
    for offset in range(0, 40 * BLOCK, BLOCK):
        ahead.window(offset, BLOCK, LARGEST)
    assert ahead.window(500 * BLOCK, BLOCK, LARGEST) == 0 and ahead.transfer(LARGEST) == BLOCK
    assert ahead.window(501 * BLOCK, BLOCK, LARGEST) == FIRST_WINDOW * BLOCK


def test_reading_the_same_place_again_opens_no_window() -> None:
    ahead = ReadAhead(BLOCK)
    assert [ahead.window(0, BLOCK, LARGEST) for _ in range(10)] == [0] * 10


def test_a_window_that_found_no_room_shrinks_and_grows_again() -> None:
    ahead = ReadAhead(BLOCK)
    for offset in range(0, 40 * BLOCK, BLOCK):
        ahead.window(offset, BLOCK, LARGEST)
    ahead.fall_back(42 * BLOCK)
    assert (ahead.ahead, ahead.size) == (42 * BLOCK, 2 * BLOCK)
    assert [ahead.window(at * BLOCK, BLOCK, LARGEST) for at in (40, 41, 42)] == [4 * BLOCK, 0, 8 * BLOCK]
    ahead.fall_back(0)
    assert (ahead.ahead, ahead.size) == (43 * BLOCK, 0)


def test_a_window_shrinks_with_its_share() -> None:
    ahead = ReadAhead(BLOCK)
    for offset in range(0, 40 * BLOCK, BLOCK):
        ahead.window(offset, BLOCK, LARGEST)
    ahead.window(40 * BLOCK, BLOCK, 2 * BLOCK)
    assert ahead.size == 2 * BLOCK and ahead.transfer(LARGEST) == BLOCK


# -- slots -------------------------------------------------------------------------------------------------------


def test_transfers_that_stand_still_take_nobodys_slot_for_long() -> None:
    slots, room = Slots(), memoryview(bytearray(8))
    still = [Block(0, 8, room, ahead=True) for _ in range(MOST_MOVING)]
    for block in still:
        assert slots.is_free(0.0)
        slots.add(block, 0.0)
    assert not slots.is_free(STILL_SECONDS / 2)
    still[0].advance(1)
    assert not slots.is_free(STILL_SECONDS - 0.1)
    assert slots.is_free(STILL_SECONDS)
    moving = [Block(0, 8, room, ahead=True) for _ in range(MOST_MOVING - 1)]
    for block in moving:
        assert slots.is_free(STILL_SECONDS)
        slots.add(block, STILL_SECONDS)
    assert not slots.is_free(STILL_SECONDS)
    slots.discard(moving[0])
    assert slots.is_free(STILL_SECONDS)


def test_even_those_that_stand_still_are_bounded() -> None:
    slots = Slots()
    for number in range(MOST_MOVING + MOST_STILL):
        assert slots.is_free(number * STILL_SECONDS)
        slots.add(Block(0, 8, memoryview(b""), ahead=True), number * STILL_SECONDS)
    assert not slots.is_free(10**9)
