"""The block cache: what it holds is right, within its budget, and the least recently used goes first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.cache.blocks import BlockCache
from ivcapfs.models import BlockKey


def key(number: int, validator: str = '"1"', identity: str = "me") -> BlockKey:
    return BlockKey("https://host", identity, "uuid", validator, number)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 70))), st.integers(0, 200))
def test_the_budget_is_kept_and_whatever_is_held_is_right(puts: list[tuple[int, int]], budget: int) -> None:
    cache = BlockCache(budget)
    latest: dict[int, bytes] = {}
    for number, size in puts:
        latest[number] = bytes([number]) * size
        cache.put(key(number), latest[number])
        assert cache.used <= budget
    for number, block in latest.items():
        found = cache.get(key(number))
        assert found is None or len(block) > budget or found == block


def test_the_least_recently_used_block_goes_first() -> None:
    cache = BlockCache(30)
    for number in range(3):
        cache.put(key(number), b"x" * 10)
    assert cache.get(key(0))
    cache.put(key(3), b"x" * 10)
    assert [number for number in range(4) if cache.get(key(number))] == [0, 2, 3]


def test_a_block_over_the_budget_is_not_kept_and_drops_nothing() -> None:
    cache = BlockCache(10)
    cache.put(key(0), b"x" * 10)
    cache.put(key(1), b"x" * 11)
    assert (cache.get(key(0)), cache.get(key(1)), cache.used) == (b"x" * 10, None, 10)


def test_other_content_and_other_identities_have_blocks_of_their_own() -> None:
    cache = BlockCache(100)
    cache.put(key(0), b"mine")
    assert cache.get(key(0, validator='"2"')) is None
    assert cache.get(key(0, identity="you")) is None
