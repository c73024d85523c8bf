"""The shelf: what blocks of one mount left on disk is found by blocks of another, wherever those begin and end."""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.cache.reader import Reader
from ivcapfs.cache.shelf import LONG, Shelf
from ivcapfs.config import CacheSettings
from ivcapfs.errors import ContentChanged
from ivcapfs.models import BlockKey, Content
from ivcapfs.waits import never
from tests.fakes import FakeSource, bytes_of, uuid_of, wait_until

UNIT = 16
SIZE = 5 * LONG * UNIT + 7
DATA = random.Random(3).randbytes(SIZE)
CONTENT = Content('"1"', SIZE, strong=True)
UUID = uuid_of(1)


class FakeTier:
    """A tier in memory."""

    def __init__(self) -> None:
        self.blocks: dict[BlockKey, bytes] = {}
        self.closed = False

    def get(self, key: BlockKey, into: memoryview) -> bool:
        block = self.blocks.get(key)
        if block is None:
            into[:] = b"?" * len(into)
            return False
        assert len(block) == len(into), "the same key always has the same length"
        into[:] = block
        return True

    def put(self, key: BlockKey, block: memoryview | bytes, patience: float = 0.0) -> None:
        assert self.blocks.setdefault(key, bytes(block)) == bytes(block)

    def forget(self, key: BlockKey) -> None:
        self.blocks.pop(key, None)

    def flush(self, seconds: float) -> None:
        """Nothing is queued."""

    def close(self) -> None:
        self.closed = True


def shelf(tier: FakeTier) -> Shelf:
    return Shelf(tier, UNIT, "origin", "identity")


def places(count: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Blocks as the engine makes them: from a multiple of the unit to another one, or to the end."""
    last = -(-SIZE // UNIT)
    pair = st.tuples(st.integers(0, last - 1), st.integers(1, last)).map(
        lambda pair: (pair[0] * UNIT, min(SIZE, (pair[0] + pair[1]) * UNIT))
    )
    return st.lists(pair, min_size=1, max_size=count)


@given(kept=places(6), wanted=places(6))
def test_what_is_restored_is_right_and_what_was_kept_whole_is_found(
    kept: list[tuple[int, int]], wanted: list[tuple[int, int]]
) -> None:
    tier = FakeTier()
    for start, end in kept:
        shelf(tier).keep(UUID, CONTENT, start, memoryview(DATA)[start:end])
    for start, end in [*wanted, *kept]:
        room = memoryview(bytearray(end - start))
        got = sum(shelf(tier).restore(UUID, CONTENT, start, room))
        assert room[:got] == DATA[start : start + got]
        if (start, end) in kept:
            assert got == end - start


def test_another_content_or_account_finds_nothing() -> None:
    tier = FakeTier()
    shelf(tier).keep(UUID, CONTENT, 0, memoryview(DATA))
    shelf(tier).note(UUID, CONTENT)
    room = memoryview(bytearray(UNIT))
    assert sum(shelf(tier).restore(UUID, CONTENT, 0, room)) == UNIT
    assert sum(shelf(tier).restore(UUID, Content('"2"', SIZE), 0, room)) == 0
    assert sum(Shelf(tier, UNIT, "origin", "other").restore(UUID, CONTENT, 0, room)) == 0
    assert Shelf(tier, UNIT, "other", "identity").content(UUID) is None


def test_the_content_is_noted_unless_its_validator_is_too_long() -> None:
    tier = FakeTier()
    assert shelf(tier).content(UUID) is None
    shelf(tier).note(UUID, Content("x" * 1000, SIZE))
    assert shelf(tier).content(UUID) is None
    shelf(tier).note(UUID, CONTENT)
    assert shelf(tier).content(UUID) == CONTENT


def read_all(source: FakeSource, tier: FakeTier, size: int = SIZE) -> bytes:
    """Read the artifact by a mount of its own."""
    stop = threading.Event()
    settings = CacheSettings(block_size=UNIT, memory=64 * UNIT, read_ahead=16 * UNIT, workers=4)
    reader = Reader(source, settings, shelf=shelf(tier), bound=20.0, stopped=stop.is_set)
    try:
        handle = reader.open(reader.blob(UUID, size))
        data = b"".join(bytes_of(reader, handle, start, 40, never) for start in range(0, size, 40))
        wait_until(lambda: all(not block.is_filling for block in handle.blob.blocks.values()))
        return data
    finally:
        stop.set()
        reader.shutdown()


def test_a_second_mount_reads_without_any_request() -> None:
    source, tier = FakeSource(), FakeTier()
    source.put(UUID, DATA)
    assert read_all(source, tier) == DATA
    assert tier.closed
    asked = len(source.requests)
    assert asked > 0
    assert read_all(source, tier) == DATA
    assert len(source.requests) == asked


def test_only_what_is_missing_is_fetched_again() -> None:
    source, tier = FakeSource(), FakeTier()
    source.put(UUID, DATA)
    read_all(source, tier)
    lost = random.Random(1).sample([key for key in tier.blocks if key.validator != "content"], 3)
    for key in lost:
        del tier.blocks[key]
    source.requests.clear()
    assert read_all(source, tier) == DATA
    assert 0 < sum(stop - start for _, start, stop in source.requests) < SIZE


def test_a_content_that_changed_is_stale_once_and_then_read_anew_also_by_later_mounts() -> None:
    source, tier = FakeSource(), FakeTier()
    source.put(UUID, DATA)
    read_all(source, tier)
    for key in [key for key in tier.blocks if key.number == 0 and key.validator != "content"]:
        del tier.blocks[key]
    other = random.Random(4).randbytes(SIZE)
    source.put(UUID, other, '"2"')
    reader = Reader(
        source, CacheSettings(block_size=UNIT, memory=64 * UNIT, read_ahead=0, workers=4), shelf=shelf(tier), bound=20.0
    )
    with pytest.raises(ContentChanged):
        bytes_of(reader, reader.open(reader.blob(UUID, SIZE)), 0, SIZE, never)
    assert bytes_of(reader, reader.open(reader.blob(UUID, SIZE)), 0, SIZE, never) == other
    reader.shutdown()
    assert shelf(tier).content(UUID) == Content('"2"', SIZE)
    assert read_all(source, tier) == other


def test_an_old_note_that_is_read_while_the_server_answers_is_not_taken_for_a_change() -> None:
    """One transfer reads the note while another one, which did not find it, hears from the server."""
    source, tier = FakeSource(), FakeTier()
    source.put(UUID, DATA, '"2"')
    shelf(tier).note(UUID, CONTENT)

    class Meanwhile(Shelf):
        def content(self, uuid: str) -> Content | None:
            noted = super().content(uuid)
            blob.admit(Content('"2"', SIZE))
            return noted

    settings = CacheSettings(block_size=UNIT, memory=64 * UNIT, read_ahead=0, workers=4)
    reader = Reader(source, settings, shelf=Meanwhile(tier, UNIT, "origin", "identity"), bound=20.0)
    blob = reader.blob(UUID, SIZE)
    assert bytes_of(reader, reader.open(blob), 0, SIZE, never) == DATA
    assert blob.changed is None
    reader.shutdown()
