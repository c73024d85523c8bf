"""The reader: the right bytes, each fetched once, whatever the source, other readers and signals do."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ivcapfs.cache.block import Block
from ivcapfs.cache.pace import MOST_TRANSFERS, Pace
from ivcapfs.cache.readahead import FIRST_WINDOW, LONGEST, LONGEST_FAST, Handle
from ivcapfs.cache.reader import Reader
from ivcapfs.cache.transfer import Blob
from ivcapfs.config import CacheSettings
from ivcapfs.errors import (
    BadHandle,
    Closing,
    ConnectionBroken,
    ContentChanged,
    DeadlineExceeded,
    Interrupted,
    NotReady,
    ProtocolError,
)
from ivcapfs.waits import never
from tests.fakes import PATIENCE, Background, FakeSource, bytes_of, uuid_of, wait_until

BLOCK = 64
UUID = uuid_of(1)
DATA = random.Random(1).randbytes(40 * BLOCK + 17)
BLOCKS = 41


@contextlib.contextmanager
def reading(source: FakeSource, *, bound: float = PATIENCE, **changes: int) -> Iterator[Reader]:
    """Give a reader with small blocks, and end it."""
    sizes = {
        "block_size": BLOCK, "memory": 400 * BLOCK, "read_ahead": 8 * BLOCK, "workers": 8,
    }  # fmt: skip
    stop = threading.Event()
    reader = Reader(source, CacheSettings(**{**sizes, **changes}), bound=bound, stopped=stop.is_set)
    try:
        yield reader
    finally:
        stop.set()
        source.gate.set()
        source.flow.set()
        reader.shutdown()


@pytest.fixture
def source() -> FakeSource:
    source = FakeSource()
    source.put(UUID, DATA)
    return source


@pytest.fixture
def reader(source: FakeSource) -> Iterator[Reader]:
    with reading(source) as reader:
        yield reader


def read(reader: Reader, offset: int = 0, size: int = len(DATA), uuid: str = UUID, length: int = len(DATA)) -> bytes:
    """Read through a handle of its own."""
    handle = reader.open(reader.blob(uuid, length))
    try:
        return bytes_of(reader, handle, offset, size, never)
    finally:
        reader.close(handle)


def fetched(source: FakeSource, uuid: str = UUID) -> Counter[int]:
    """Return how often each block was asked for."""
    return Counter(
        number
        for asked, start, stop in source.requests
        if asked == uuid
        for number in range(start // BLOCK, -(-stop // BLOCK))
    )


# -- the right bytes ---------------------------------------------------------------------------------------------

ranges = st.tuples(st.integers(0, 11 * BLOCK), st.integers(0, 6 * BLOCK))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10 * BLOCK), st.lists(ranges, max_size=12), st.integers(0, 12), st.integers(1, 3 * BLOCK))
def test_any_reads_give_what_the_bytes_say(
    length: int, reads: list[tuple[int, int]], blocks_kept: int, chunk: int
) -> None:
    source = FakeSource(chunk=chunk)
    source.put(UUID, DATA[:length])
    with reading(source, memory=blocks_kept * BLOCK) as reader:
        handle = reader.open(reader.blob(UUID, length))
        for offset, size in reads:
            assert bytes_of(reader, handle, offset, size, never) == DATA[:length][offset : offset + size]
            assert reader.memory_used <= max(blocks_kept, 1) * BLOCK


@pytest.mark.parametrize("length", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 5])
def test_reads_around_block_boundaries(length: int) -> None:
    source, data = FakeSource(), DATA[:length]
    source.put(UUID, data)
    with reading(source) as reader:
        handle = reader.open(reader.blob(UUID, length))
        places = sorted({0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, length - 1, length, length + 1, 5 * BLOCK})
        for begin in places:
            for end in places:
                assert bytes_of(reader, handle, begin, max(0, end - begin), never) == data[begin : max(begin, end)]
    assert all(stop <= length for _, _, stop in source.requests)


def test_an_empty_file_needs_no_request(source: FakeSource, reader: Reader) -> None:
    assert read(reader, 0, 100, length=0) == b""
    assert source.requests == []


def test_reading_nothing_or_behind_the_end_needs_no_request(source: FakeSource, reader: Reader) -> None:
    assert read(reader, 5, 0) == read(reader, len(DATA), 10) == read(reader, 10 * len(DATA), 10) == b""
    assert source.requests == []


@pytest.mark.parametrize("memory", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK])
def test_a_cache_too_small_for_the_file_still_gives_the_right_bytes(source: FakeSource, memory: int) -> None:
    with reading(source, memory=memory) as reader:
        handle = reader.open(reader.blob(UUID, len(DATA)))
        for step in (1000, 50, BLOCK, 333):
            parts = [bytes_of(reader, handle, at, step, never) for at in range(0, len(DATA), step)]
            assert b"".join(parts) == DATA
            assert reader.memory_used <= max(memory, BLOCK)


def test_what_is_cached_is_not_fetched_again(source: FakeSource, reader: Reader) -> None:
    assert read(reader) == DATA
    asked = len(source.requests)
    assert read(reader) == DATA
    assert read(reader, 100, 1000) == DATA[100:1100]
    assert len(source.requests) == asked
    assert set(fetched(source).values()) == {1}


def test_one_transfer_is_never_longer_than_the_longest() -> None:
    source, data = FakeSource(chunk=1000), bytes(600 * BLOCK)
    source.put(UUID, data)
    with reading(source) as reader:
        assert read(reader, 0, len(data), length=len(data)) == data
    assert max(stop - start for _, start, stop in source.requests) == LONGEST_FAST * BLOCK


def test_artifacts_do_not_mix(source: FakeSource, reader: Reader) -> None:
    others = {uuid_of(number): random.Random(number).randbytes(5 * BLOCK) for number in range(2, 6)}
    for uuid, data in others.items():
        source.put(uuid, data)
    callers = {uuid: Background(read, reader, 0, 5 * BLOCK, uuid, 5 * BLOCK) for uuid in others}
    assert {uuid: caller.result() for uuid, caller in callers.items()} == others


# -- each byte once ----------------------------------------------------------------------------------------------


def test_many_readers_of_one_cold_file_fetch_each_byte_once(source: FakeSource, reader: Reader) -> None:
    source.gate.clear()
    callers = [Background(read, reader) for _ in range(8)]
    source.await_requests(1)
    source.gate.set()
    assert [caller.result() for caller in callers] == [DATA] * 8
    assert fetched(source) == Counter(range(BLOCKS))


def test_many_readers_going_through_one_file_fetch_each_byte_once(source: FakeSource, reader: Reader) -> None:
    def go_through(step: int) -> bytes:
        handle = reader.open(reader.blob(UUID, len(DATA)))
        return b"".join(bytes_of(reader, handle, at, step, never) for at in range(0, len(DATA), step))

    callers = [Background(go_through, step) for step in (10, 64, 100, 128, 500, 31, 64, 1000)]
    assert [caller.result() == DATA for caller in callers] == [True] * 8
    assert fetched(source) == Counter(range(BLOCKS))


def test_a_reader_joins_what_was_begun_ahead_for_another(source: FakeSource, reader: Reader) -> None:
    handle = reader.open(reader.blob(UUID, len(DATA)))
    bytes_of(reader, handle, 0, BLOCK, never)
    bytes_of(reader, handle, BLOCK, BLOCK, never)
    source.await_idle()
    asked = source.requests[:]
    assert max(fetched(source)) > 1
    assert read(reader, 2 * BLOCK, BLOCK) == DATA[2 * BLOCK : 3 * BLOCK]
    assert source.requests == asked


# -- while a block fills -----------------------------------------------------------------------------------------


def test_a_reader_gets_the_bytes_of_a_block_that_is_still_filling(source: FakeSource, reader: Reader) -> None:
    source.chunk = 2 * BLOCK
    source.flow.clear()
    blob = reader.blob(UUID, len(DATA))
    whole = Background(read, reader)
    source.await_requests(1)
    parts = [bytes_of(reader, reader.open(blob), at, BLOCK // 2, never) for at in (0, BLOCK, BLOCK + BLOCK // 2)]
    assert parts == [DATA[at : at + BLOCK // 2] for at in (0, BLOCK, BLOCK + BLOCK // 2)]
    assert not whole.future.done()
    source.flow.set()
    assert whole.result() == DATA
    assert fetched(source) == Counter(range(BLOCKS))


def test_bytes_that_came_before_a_failure_were_read_and_the_rest_is_not(source: FakeSource, reader: Reader) -> None:
    source.chunk, source.extra = 2 * BLOCK, -1
    source.flow.clear()
    whole = Background(read, reader)
    source.await_requests(1)
    assert read(reader, 0, BLOCK) == DATA[:BLOCK]
    source.flow.set()
    assert isinstance(whole.exception(), ProtocolError)
    source.extra = 0
    assert read(reader) == DATA


# -- memory ------------------------------------------------------------------------------------------------------


def quiet(reader: Reader) -> bool:
    """Return whether nothing is being filled, or copied out of."""
    memory = reader._memory
    return memory.filling == memory.in_use == 0


def test_a_buffer_is_not_used_again_while_somebody_copies_out_of_it(source: FakeSource) -> None:
    other = uuid_of(2)
    source.put(other, bytes(reversed(DATA)))
    inside, go_on = threading.Event(), threading.Event()
    seen: list[tuple[bytes, bytes]] = []

    def sink(pieces: Sequence[memoryview], is_last: bool) -> None:
        before = b"".join(pieces)
        inside.set()
        assert go_on.wait(PATIENCE)
        seen.append((before, b"".join(pieces)))

    with reading(source, memory=4 * BLOCK) as reader:
        copying = Background(
            reader.read_into, reader.open(reader.blob(UUID, len(DATA))), BLOCK // 2, BLOCK, sink, never
        )
        assert inside.wait(PATIENCE)
        handle = reader.open(reader.blob(other, len(DATA)))
        for _ in range(2):  # all memory that there is gets other bytes several times
            for at in range(0, len(DATA), BLOCK):
                assert bytes_of(reader, handle, at, BLOCK, never) == bytes(reversed(DATA))[at : at + BLOCK]
                assert reader.memory_used <= 4 * BLOCK
        go_on.set()
        copying.result()
        right = DATA[BLOCK // 2 : BLOCK], DATA[BLOCK : BLOCK + BLOCK // 2]
        assert b"".join(before for before, _ in seen) == b"".join(after for _, after in seen) == b"".join(right)


def test_claiming_the_second_half_of_a_read_does_not_evict_the_first(source: FakeSource) -> None:
    with reading(source, memory=2 * BLOCK, read_ahead=0) as reader:
        handle = reader.open(reader.blob(UUID, len(DATA)))
        for at in (0, 5, 9, 20, 30):
            bytes_of(reader, handle, at * BLOCK, BLOCK, never)
            bytes_of(reader, handle, (at + 3) * BLOCK, BLOCK, never)
            # What is cached and used least recently is needed, and what comes behind it is not there.
            got = bytes_of(reader, handle, at * BLOCK, 3 * BLOCK, never)
            assert got == DATA[at * BLOCK : (at + 3) * BLOCK]


def test_with_all_memory_filling_a_read_waits_for_room(source: FakeSource) -> None:
    with reading(source, memory=2 * BLOCK, read_ahead=0) as reader:
        source.gate.clear()
        filling = [Background(read, reader, at * BLOCK, BLOCK) for at in (0, 2)]
        source.await_requests(2)
        waiting = [Background(read, reader, at * BLOCK, 2 * BLOCK) for at in (10, 14, 20)]
        wait_until(lambda: len(reader._waiting) == 3)
        assert read(reader, 0, 0) == b"" and len(source.requests) == 2
        source.gate.set()
        assert [each.result() for each in filling] == [DATA[at * BLOCK :][:BLOCK] for at in (0, 2)]
        assert [each.result() for each in waiting] == [DATA[at * BLOCK :][: 2 * BLOCK] for at in (10, 14, 20)]
        wait_until(lambda: quiet(reader))
        assert not reader._waiting


@pytest.mark.parametrize("is_stuck", [False, True])
def test_a_read_waits_for_room_for_all_of_it_unless_nothing_moves(
    source: FakeSource, monkeypatch: pytest.MonkeyPatch, is_stuck: bool
) -> None:
    monkeypatch.setattr("ivcapfs.cache.reader.TIGHT_SECONDS", 0.1 if is_stuck else 3600.0)
    with reading(source, memory=16 * BLOCK, read_ahead=0) as reader:
        source.gate.clear()
        filling = [Background(read, reader, at * BLOCK, 4 * BLOCK) for at in (0, 4, 8)]
        source.await_requests(3)
        late = Background(read, reader, 12 * BLOCK, 4 * BLOCK)
        if is_stuck:
            source.await_requests(4)
        else:
            wait_until(lambda: len(reader._waiting) == 1)
        source.gate.set()
        for at, each in zip((0, 4, 8, 12), (*filling, late), strict=True):
            assert each.result() == DATA[at * BLOCK :][: 4 * BLOCK]
        assert len(source.requests) > 4 if is_stuck else len(source.requests) == 4


def test_a_read_that_waits_for_room_ends_when_interrupted_and_at_the_bound(source: FakeSource) -> None:
    def check() -> None:
        raise Interrupted("a signal")

    with reading(source, memory=BLOCK, bound=0.2) as reader:
        source.gate.clear()
        blob = reader.blob(UUID, len(DATA))
        with pytest.raises(Interrupted):
            bytes_of(reader, reader.open(blob), 0, BLOCK, check)
        with pytest.raises(Interrupted):
            bytes_of(reader, reader.open(blob), 2 * BLOCK, BLOCK, check)
        with pytest.raises(DeadlineExceeded, match="memory"):
            bytes_of(reader, reader.open(blob), 2 * BLOCK, BLOCK, never)
        assert not reader._waiting
        source.gate.set()
        assert bytes_of(reader, reader.open(blob), 2 * BLOCK, BLOCK, never) == DATA[2 * BLOCK : 3 * BLOCK]


def test_what_was_claimed_is_fetched_even_if_the_plan_fails(source: FakeSource) -> None:
    """The change of the content may be noticed between two claims of one plan."""
    with reading(source, read_ahead=0) as reader:
        blob = reader.blob(UUID, len(DATA))
        read(reader, BLOCK, BLOCK)
        claim = reader._claim

        def claim_and_change(*args: Any, **more: Any) -> Any:
            try:
                return claim(*args, **more)
            finally:
                blob.mark_changed(ContentChanged("now"))

        reader._claim = claim_and_change  # type: ignore[method-assign]
        with pytest.raises(ContentChanged):
            read(reader, 0, 3 * BLOCK)
        wait_until(lambda: quiet(reader))
        assert bytes_of(reader, reader.open(blob), 0, 2 * BLOCK, never) == DATA[: 2 * BLOCK]


def test_what_waits_for_a_thread_fails_at_the_end_of_the_mount(source: FakeSource) -> None:
    with reading(source, workers=1) as reader:
        source.gate.clear()
        begun = Background(read, reader, 0, BLOCK)
        source.await_requests(1)
        queued = Background(read, reader, 10 * BLOCK, BLOCK)
        wait_until(lambda: reader._memory.filling == 2 * BLOCK)
        reader.shutdown()
        source.gate.set()
        assert begun.result() == DATA[:BLOCK]
        assert isinstance(queued.exception(), Closing)
        wait_until(lambda: quiet(reader))


@pytest.mark.parametrize("memory", [1, 7, 64])
def test_many_threads_with_failures_keep_the_budget_and_leave_nothing_behind(source: FakeSource, memory: int) -> None:
    uuids = [uuid_of(number) for number in range(1, 5)]
    contents = {uuid: random.Random(uuid).randbytes(len(DATA)) for uuid in uuids}
    for uuid, data in contents.items():
        source.put(uuid, data)
    with reading(source, memory=memory * BLOCK, workers=16) as reader:

        def work(seed: int) -> int:
            dice, wrong, handles = random.Random(seed), 0, {uuid: open_one(uuid) for uuid in uuids}
            for _ in range(60):
                uuid, at, size = dice.choice(uuids), dice.randrange(len(DATA)), dice.randrange(1, 12 * BLOCK)
                if dice.random() < 0.1:
                    source.failures = [ConnectionBroken("gone")]
                with contextlib.suppress(ConnectionBroken):
                    wrong += bytes_of(reader, handles[uuid], at, size, never) != contents[uuid][at : at + size]
                wrong += reader.memory_used > memory * BLOCK
            for handle in handles.values():
                reader.close(handle)
            return wrong

        def open_one(uuid: str) -> Handle:
            return reader.open(reader.blob(uuid, len(DATA)))

        callers = [Background(work, seed) for seed in range(12)]
        assert [caller.result() for caller in callers] == [0] * 12
        wait_until(lambda: quiet(reader))
        assert not reader._waiting and not reader._streams and not reader._ahead.noted
        assert reader._memory.unread <= reader._memory.most_unread
        assert len(reader._owners) == len({block for uuid in uuids for block in held(reader, uuid)})


def held(reader: Reader, uuid: str) -> set[Block]:
    return set(reader.blob(uuid, len(DATA)).blocks.values())


# -- many files --------------------------------------------------------------------------------------------------


def test_a_thousand_open_files_read_in_turn(source: FakeSource) -> None:
    files, length, step, memory = 1000, 8 * BLOCK, BLOCK, 256 * BLOCK
    uuids = [uuid_of(number) for number in range(files)]
    for number, uuid in enumerate(uuids):
        source.put(uuid, DATA[number : number + length])
    source.chunk = length
    with reading(source, memory=memory) as reader:
        handles = [reader.open(reader.blob(uuid, length)) for uuid in uuids]
        for at in range(0, length, step):
            for number, handle in enumerate(handles):
                assert bytes_of(reader, handle, at, step, never) == DATA[number + at : number + at + step]
                assert reader.memory_used <= memory
    assert sum(stop - start for _, start, stop in source.requests) <= 2 * files * length


@pytest.mark.parametrize(("memory", "length"), [(1, 24), (16, 100), (256, 150)])
def test_many_readers_going_through_files_of_their_own_all_come_to_the_end(
    source: FakeSource, memory: int, length: int
) -> None:
    count, data = 32, random.Random(5).randbytes(length * BLOCK)
    source.chunk = 10 * BLOCK
    for number in range(count):
        source.put(uuid_of(number), data)
    with reading(source, memory=memory * BLOCK, workers=64, read_ahead=100 * BLOCK) as reader:

        def go_through(number: int) -> bool:
            handle, right = reader.open(reader.blob(uuid_of(number), len(data))), True
            for at in range(0, len(data), 2 * BLOCK):
                right &= bytes_of(reader, handle, at, 2 * BLOCK, never) == data[at : at + 2 * BLOCK]
                right &= reader.memory_used <= memory * BLOCK
            return right

        callers = [Background(go_through, number) for number in range(count)]
        assert [caller.result() for caller in callers] == [True] * count
        wait_until(lambda: quiet(reader))


# -- read-ahead --------------------------------------------------------------------------------------------------


def test_a_single_read_fetches_its_own_blocks_and_no_more(source: FakeSource, reader: Reader) -> None:
    read(reader, 10, 2 * BLOCK)
    assert fetched(source) == Counter({0: 1, 1: 1, 2: 1})


def test_with_read_ahead_off_only_what_is_read_is_fetched(source: FakeSource) -> None:
    with reading(source, read_ahead=0) as reader:
        handle = reader.open(reader.blob(UUID, len(DATA)))
        for number in range(10):
            bytes_of(reader, handle, number * BLOCK, BLOCK, never)
            source.await_idle()
            assert fetched(source) == Counter(range(number + 1))


@pytest.mark.parametrize(("offset", "size", "blocks"), [(0, 4, 1), (BLOCK - 5, 4, 1), (700, 4, 1), (BLOCK - 2, 4, 2)])
def test_a_random_read_fetches_one_smallest_block_or_two(offset: int, size: int, blocks: int) -> None:
    source, data = FakeSource(), random.Random(2).randbytes(1000 * BLOCK)
    source.put(UUID, data)
    with reading(source) as reader:
        handle = reader.open(reader.blob(UUID, len(data)))
        for place in (0, 500, 100, 900, 300, 700):
            at = place * BLOCK + offset
            assert bytes_of(reader, handle, at, size, never) == data[at : at + size]
        source.await_idle()
    assert sum(stop - start for _, start, stop in source.requests) == 6 * blocks * BLOCK


@pytest.mark.parametrize("step", [BLOCK // 4, BLOCK, 3 * BLOCK, 8 * BLOCK, 50])
def test_reading_through_a_file_fetches_every_byte_once(step: int) -> None:
    source, data = FakeSource(chunk=10 * BLOCK), random.Random(2).randbytes(700 * BLOCK + 9)
    source.put(UUID, data)
    with reading(source, read_ahead=300 * BLOCK) as reader:
        handle = reader.open(reader.blob(UUID, len(data)))
        for at in range(0, len(data), step):
            assert bytes_of(reader, handle, at, step, never) == data[at : at + step]
        source.await_idle()
    assert fetched(source) == Counter(range(701))


@pytest.mark.parametrize("step", [BLOCK, 8 * BLOCK])
def test_reading_an_eighth_of_a_file_fetches_little_more(step: int) -> None:
    source, data = FakeSource(chunk=10 * BLOCK), bytes(1600 * BLOCK)
    source.put(UUID, data)
    with reading(source, memory=4000 * BLOCK, read_ahead=2000 * BLOCK) as reader:
        handle = reader.open(reader.blob(UUID, len(data)))
        for at in range(0, len(data) // 8, step):
            bytes_of(reader, handle, at, step, never)
        source.await_idle()
    assert sum(stop - start for _, start, stop in source.requests) <= 3 * len(data) // 8 + FIRST_WINDOW * BLOCK


class AlwaysSlow(Pace):
    """What a source of a byte per second would leave behind."""

    def transfers(self, readers: int) -> int:
        return MOST_TRANSFERS

    def longest(self, readers: int) -> int:
        return LONGEST * self.block


def test_a_slow_source_is_asked_for_many_ranges_at_a_time_and_never_twice() -> None:
    length, step = 5000 * BLOCK, 10 * BLOCK
    source, data = FakeSource(chunk=20 * BLOCK), random.Random(2).randbytes(length)
    source.put(UUID, data)
    with reading(source, memory=8000 * BLOCK, read_ahead=4000 * BLOCK, workers=32) as reader:
        reader._pace = AlwaysSlow(BLOCK)
        handle = reader.open(reader.blob(UUID, length))
        blocks = handle.blob.blocks
        most = 0
        for at in range(0, length, step):
            if at == length // 2:
                source.await_idle()
                wait_until(lambda: quiet(reader))
                source.gate.clear()  # from here on, what is asked for does not come
            last = blocks.get((at + step) // BLOCK - 1)
            if not source.gate.is_set() and (last is None or not last.is_whole):
                most = sum(block.is_filling for block in set(blocks.values()))
                source.gate.set()
            assert bytes_of(reader, handle, at, step, never) == data[at : at + step]
    assert 8 <= most <= 32
    assert fetched(source) == Counter(range(5000))


def test_read_ahead_never_takes_more_than_its_half(source: FakeSource) -> None:
    source.gate.clear()
    uuids = [uuid_of(number) for number in range(3)]

    def check() -> None:
        raise Interrupted("a signal")  # the reader goes on, and its transfers stay under way

    with reading(source, memory=32 * BLOCK, read_ahead=100 * BLOCK, workers=64) as reader:
        memory = reader._memory
        for blob in [reader.blob(uuid, len(DATA)) for uuid in uuids]:
            handle = reader.open(blob)
            for at in range(5):
                with pytest.raises(Interrupted):
                    bytes_of(reader, handle, at * BLOCK, BLOCK, check)
                assert memory.unread <= memory.most_unread == 16 * BLOCK
        assert memory.filling <= 32 * BLOCK


def test_who_left_does_not_keep_others_from_reading_ahead(source: FakeSource) -> None:
    """Neither who closed the file nor who went elsewhere in it."""
    with reading(source, memory=16 * BLOCK, read_ahead=8 * BLOCK) as reader:
        for number in range(20):
            handle = reader.open(reader.blob(UUID, len(DATA)))
            for at in range(3):
                bytes_of(reader, handle, at * BLOCK, BLOCK, never)
            if number % 2:
                reader.close(handle)
            else:
                bytes_of(reader, handle, 39 * BLOCK, 1, never)
            assert reader._memory.unread == 0 and not reader._streams


def test_many_readers_going_through_many_files_get_the_right_bytes(source: FakeSource) -> None:
    uuids = [uuid_of(number) for number in range(8)]
    for uuid in uuids:
        source.put(uuid, DATA)
    with reading(source, memory=20 * BLOCK) as reader:

        def go_through(uuid: str) -> bytes:
            handle = reader.open(reader.blob(uuid, len(DATA)))
            return b"".join(bytes_of(reader, handle, at, BLOCK, never) for at in range(0, len(DATA), BLOCK))

        callers = [Background(go_through, uuid) for uuid in uuids]
        assert all(caller.result() == DATA for caller in callers)


def test_read_ahead_that_hangs_stops_no_reader(source: FakeSource) -> None:
    other = uuid_of(2)
    source.put(other, DATA)
    with reading(source, memory=16 * BLOCK, read_ahead=100 * BLOCK, workers=32) as reader:
        handle = reader.open(reader.blob(UUID, len(DATA)))
        bytes_of(reader, handle, 0, BLOCK, never)
        source.gate.clear()
        waiting = Background(bytes_of, reader, handle, BLOCK, BLOCK, never)
        source.await_requests(4)
        asked = len(source.requests)
        blocks = [Background(read, reader, at * BLOCK, BLOCK, other) for at in range(4)]
        source.await_requests(asked + 4)
        assert fetched(source, other) == Counter(range(4))
        source.gate.set()
        assert waiting.result() == DATA[BLOCK : 2 * BLOCK]
        assert [block.result() for block in blocks] == [DATA[at * BLOCK : (at + 1) * BLOCK] for at in range(4)]


def test_failed_read_ahead_gives_its_memory_back(source: FakeSource) -> None:
    other = uuid_of(2)
    source.put(other, DATA)
    with reading(source, memory=16 * BLOCK) as reader:
        source.failing = ConnectionBroken("gone")
        for _ in range(20):
            handle = reader.open(reader.blob(UUID, len(DATA)))
            for at in range(20, 24):
                with pytest.raises(ConnectionBroken):
                    bytes_of(reader, handle, at * BLOCK, BLOCK, never)
            reader.close(handle)
        wait_until(lambda: quiet(reader))
        assert reader._memory.unread == 0 and not reader._owners and not reader._ahead.noted
        source.failing = None
        handle = reader.open(reader.blob(other, len(DATA)))
        for at in range(3):
            assert bytes_of(reader, handle, at * BLOCK, BLOCK, never) == DATA[at * BLOCK : (at + 1) * BLOCK]
        wait_until(lambda: len(fetched(source, other)) > 4)


def test_a_failed_read_ahead_disturbs_nobody(source: FakeSource, reader: Reader) -> None:
    handle = reader.open(reader.blob(UUID, len(DATA)))
    bytes_of(reader, handle, 0, BLOCK, never)
    bytes_of(reader, handle, BLOCK // 2, BLOCK // 2, never)
    source.await_idle()
    for at in range(1, 40):
        source.await_idle()
        wanted = DATA[at * BLOCK : (at + 1) * BLOCK]
        with contextlib.suppress(ConnectionBroken):
            source.failures = [] if at % 3 else [ConnectionBroken("gone")]
            assert bytes_of(reader, handle, at * BLOCK, BLOCK, never) == wanted
        source.await_idle()
        source.failures = []
        assert bytes_of(reader, handle, at * BLOCK, BLOCK, never) == wanted


# -- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [ConnectionBroken("gone"), NotReady("pending"), ZeroDivisionError("a bug")])
def test_a_failure_is_raised_and_not_kept(source: FakeSource, reader: Reader, failure: Exception) -> None:
    source.failures = [failure]
    with pytest.raises(type(failure)):
        read(reader, 0, BLOCK)
    assert read(reader, 0, BLOCK) == DATA[:BLOCK]
    assert fetched(source) == Counter({0: 2})


def test_all_who_wait_for_a_failing_block_are_told(source: FakeSource, reader: Reader) -> None:
    source.gate.clear()
    source.failing = ConnectionBroken("gone")
    callers = [Background(read, reader, 0, BLOCK) for _ in range(5)]
    source.await_requests(1)
    source.gate.set()
    assert {type(caller.exception()) for caller in callers} == {ConnectionBroken}


def test_missing_bytes_are_an_error_and_never_a_short_read(source: FakeSource, reader: Reader) -> None:
    source.extra = -1
    with pytest.raises(ProtocolError):
        read(reader, 0, 3 * BLOCK)
    source.extra = 0
    assert read(reader, 0, 3 * BLOCK) == DATA[: 3 * BLOCK]
    assert fetched(source) == Counter({0: 2, 1: 2, 2: 2})


def test_bytes_too_many_do_not_get_into_the_file(source: FakeSource, reader: Reader) -> None:
    source.extra = 2 * BLOCK + 3
    with contextlib.suppress(ProtocolError):
        assert read(reader, 0, 3 * BLOCK) == DATA[: 3 * BLOCK]
    source.extra = 0
    assert read(reader) == DATA


def test_a_wait_that_lasts_too_long_ends_at_the_bound(source: FakeSource) -> None:
    with reading(source, bound=0.1) as reader:
        source.gate.clear()
        with pytest.raises(DeadlineExceeded):
            read(reader, 0, BLOCK)


def test_a_closed_handle_cannot_be_read(reader: Reader) -> None:
    handle = reader.open(reader.blob(UUID, len(DATA)))
    reader.close(handle)
    with pytest.raises(BadHandle):
        bytes_of(reader, handle, 0, 1, never)


# -- changed content ---------------------------------------------------------------------------------------------

NEW = bytes(reversed(DATA))


@pytest.mark.parametrize("heeds", [True, False], ids=["the source compares", "we compare"])
@pytest.mark.parametrize("new", [NEW, NEW[:-1], NEW + b"!"], ids=["as long", "shorter", "longer"])
def test_an_open_file_never_shows_a_mixture(source: FakeSource, reader: Reader, heeds: bool, new: bytes) -> None:
    source.heeds = heeds
    handle = reader.open(reader.blob(UUID, len(DATA)))
    assert bytes_of(reader, handle, 0, 4 * BLOCK, never) == DATA[: 4 * BLOCK]
    source.put(UUID, new, '"2"')
    with pytest.raises(ContentChanged):
        bytes_of(reader, handle, 2 * BLOCK, 4 * BLOCK, never)
    source.await_idle()
    wait_until(lambda: quiet(reader))
    asked = len(source.requests)
    with pytest.raises(ContentChanged):
        bytes_of(reader, handle, 2 * BLOCK, 4 * BLOCK, never)
    assert bytes_of(reader, handle, 0, 4 * BLOCK, never) == DATA[: 4 * BLOCK]
    assert len(source.requests) == asked  # once it is known, nobody is asked again


def test_who_opens_afterwards_gets_the_new_content_while_the_old_handle_stays_stale(
    source: FakeSource, reader: Reader
) -> None:
    old_blob = reader.blob(UUID, len(DATA))
    old = reader.open(old_blob)
    bytes_of(reader, old, 0, BLOCK, never)
    source.put(UUID, NEW, '"2"')
    with pytest.raises(ContentChanged):
        bytes_of(reader, old, BLOCK, BLOCK, never)
    assert reader.blob(UUID, len(NEW)) is not old_blob
    assert read(reader) == NEW
    with pytest.raises(ContentChanged):
        bytes_of(reader, old, BLOCK, BLOCK, never)
    assert bytes_of(reader, old, 0, BLOCK, never) == DATA[:BLOCK]


def test_a_record_with_another_size_has_other_content(source: FakeSource, reader: Reader) -> None:
    blob = reader.blob(UUID, len(DATA))
    assert reader.blob(UUID, len(DATA)) is blob
    assert reader.blob(UUID, len(DATA) + 1) is not blob


def test_a_content_of_another_size_than_the_record_says_is_refused(source: FakeSource, reader: Reader) -> None:
    for length in (len(DATA) - 1, len(DATA) + 1):
        with pytest.raises(ContentChanged):
            read(reader, 0, 10, length=length)
    assert read(reader, 0, 10) == DATA[:10]


def test_content_that_changes_during_a_read_gives_all_of_one_or_an_error(source: FakeSource) -> None:
    chance = random.Random(3)
    with reading(source, memory=2 * BLOCK) as reader:
        stop = threading.Event()

        def change() -> None:
            for number in range(10_000):
                source.put(UUID, (DATA, NEW)[number % 2], f'"{number % 2}"')
                if stop.wait(0.0005):
                    return

        changing = Background(change)
        seen = Counter[str]()
        for _ in range(400):
            offset, size = chance.randrange(len(DATA)), chance.randrange(1, 30 * BLOCK)
            try:
                data = read(reader, offset, size)
            except ContentChanged:
                seen["stale"] += 1
            else:
                assert data in (DATA[offset : offset + size], NEW[offset : offset + size])
                seen["right"] += 1
        stop.set()
        changing.result()
    assert seen["right"]


# -- endings -----------------------------------------------------------------------------------------------------


def test_a_read_that_waits_ends_when_its_caller_is_interrupted_and_the_bytes_come_all_the_same(
    source: FakeSource, reader: Reader
) -> None:
    source.gate.clear()
    signal = threading.Event()

    def check() -> None:
        if signal.is_set():
            raise Interrupted("a signal")

    handle = reader.open(reader.blob(UUID, len(DATA)))
    waiting = Background(bytes_of, reader, handle, 0, BLOCK, check)
    source.await_requests(1)
    signal.set()
    assert isinstance(waiting.exception(), Interrupted)
    assert not source.gate.is_set()
    source.gate.set()
    assert bytes_of(reader, handle, 0, BLOCK, never) == DATA[:BLOCK]
    assert len(source.requests) == 1


def test_one_reader_interrupted_does_not_end_the_others(source: FakeSource, reader: Reader) -> None:
    source.gate.clear()
    others = [Background(read, reader, 0, BLOCK) for _ in range(3)]
    source.await_requests(1)

    def check() -> None:
        raise Interrupted("a signal")

    with pytest.raises(Interrupted):
        bytes_of(reader, reader.open(reader.blob(UUID, len(DATA))), 0, BLOCK, check)
    source.gate.set()
    assert [other.result() for other in others] == [DATA[:BLOCK]] * 3


def test_the_end_of_the_mount_ends_what_waits_and_what_is_under_way(source: FakeSource) -> None:
    closing = threading.Event()

    def check() -> None:
        if closing.is_set():
            raise Closing("the mount is being taken down")

    settings = CacheSettings(block_size=BLOCK, memory=10 * BLOCK, workers=1)
    reader = Reader(source, settings, bound=PATIENCE, stopped=closing.is_set)
    blob = reader.blob(UUID, len(DATA))
    bytes_of(reader, reader.open(blob), 0, BLOCK, never)
    source.gate.clear()
    waiting = [Background(bytes_of, reader, reader.open(blob), at * BLOCK, BLOCK, check) for at in (2, 4, 6)]
    source.await_requests(2)
    closing.set()
    reader.shutdown()
    assert {type(caller.exception()) for caller in waiting} == {Closing}
    source.await_idle()
    assert not source.gate.is_set()


def test_after_the_end_what_is_cached_can_be_read_and_the_rest_says_closing(source: FakeSource, reader: Reader) -> None:
    assert read(reader, 0, BLOCK) == DATA[:BLOCK]
    reader.shutdown()
    assert read(reader, 0, BLOCK) == DATA[:BLOCK]
    for _ in range(2):
        with pytest.raises(Closing):
            read(reader, 0, 2 * BLOCK)


SMALL = DATA[: BLOCK - 10]


def small_blob(reader: Reader, source: FakeSource) -> Blob:
    """Return a blob of less than a block."""
    source.put(UUID, SMALL)
    return reader.blob(UUID, len(SMALL))


def test_what_was_fetched_is_read_without_a_request(reader: Reader, source: FakeSource) -> None:
    reader.fetch(small_blob(reader, source), PATIENCE)
    assert len(source.requests) == 1
    assert read(reader, length=len(SMALL)) == SMALL
    reader.fetch(reader.blob(UUID, len(SMALL)), PATIENCE)
    assert len(source.requests) == 1 and quiet(reader)


def test_what_is_fetched_too_slowly_is_left_to_the_pool_which_goes_on_where_it_is(
    reader: Reader, source: FakeSource
) -> None:
    blob = small_blob(reader, source)
    source.flow.clear()
    reader.fetch(blob, 0.05)
    waiting = Background(read, reader, 0, BLOCK, UUID, len(SMALL))
    source.await_requests(2)
    assert source.requests == [(UUID, 0, len(SMALL)), (UUID, source.chunk, len(SMALL))]
    source.flow.set()
    assert waiting.result() == SMALL
    wait_until(lambda: quiet(reader))


def test_a_fetch_that_fails_is_told_to_who_waits_and_to_nobody_else(reader: Reader, source: FakeSource) -> None:
    blob = small_blob(reader, source)
    source.gate.clear()
    source.failures.append(ConnectionBroken("gone"))
    fetching = Background(reader.fetch, blob, PATIENCE)
    source.await_requests(1)
    waiting = Background(read, reader, 0, BLOCK, UUID, len(SMALL))
    wait_until(lambda: any(block.readers for block in blob.blocks.values()))
    source.gate.set()
    fetching.result()
    with pytest.raises(ConnectionBroken):
        waiting.result()
    assert read(reader, length=len(SMALL)) == SMALL and quiet(reader)


def test_nothing_is_fetched_where_there_is_no_room_or_after_the_end(source: FakeSource) -> None:
    with reading(source, memory=4 * BLOCK, read_ahead=0) as reader:
        other = uuid_of(2)
        source.put(other, DATA)
        source.gate.clear()
        waiting = Background(read, reader, 0, 4 * BLOCK, other)
        source.await_requests(1)
        asked = len(source.requests)
        reader.fetch(small_blob(reader, source), PATIENCE)
        assert len(source.requests) == asked
        source.gate.set()
        waiting.result()
        reader.shutdown()
        reader.fetch(small_blob(reader, source), PATIENCE)
        assert {uuid for uuid, *_ in source.requests} == {other}
