"""The memory of all blocks: one budget that always holds, buffers used again, the least recently used dropped first."""

from __future__ import annotations

import mmap

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from ivcapfs.cache.block import Block
from ivcapfs.cache.memory import LONG, MAPPED, MOST_SPENT, SMALLEST, Memory, rounded
from ivcapfs.config import CacheSettings

UNIT = SMALLEST


def memory(units: int) -> tuple[Memory, list[Block]]:
    evicted: list[Block] = []
    return Memory(units * UNIT, evicted.append), evicted


def claim(memory: Memory, units: int = 1, *, ahead: bool = False) -> Block | None:
    buffer = memory.take(units * UNIT, ahead=ahead)
    return None if buffer is None else Block(0, units * UNIT, buffer, ahead=ahead)


def kept(memory: Memory, units: int = 1, *, ahead: bool = False) -> Block:
    block = claim(memory, units, ahead=ahead)
    assert block is not None
    memory.keep(block)
    return block


def test_sizes_are_powers_of_two() -> None:
    assert [rounded(size) for size in (0, 1, 64, 65, 128, 1000)] == [64, 64, 64, 128, 128, 1024]
    assert len(Memory(10**6, print).take(1000, ahead=False) or b"") == 1024


def test_big_buffers_are_mapped_and_count_the_same() -> None:
    made = Memory(4 * MAPPED, print)
    buffer = made.take(2 * MAPPED - 5, ahead=False)
    assert buffer is not None and len(buffer) == made.used == 2 * MAPPED and not buffer.readonly
    assert isinstance(buffer.obj, mmap.mmap)


def test_the_smallest_block_of_a_mount_is_mapped() -> None:
    """Else what was given back stays with malloc(3), in pieces that fit nothing: that doubled a mount's memory."""
    assert CacheSettings().block_size >= MAPPED


def test_the_least_recently_used_block_goes_first() -> None:
    made, evicted = memory(3)
    first, second, third = (kept(made) for _ in range(3))
    made.use(first)
    made.release(first)
    kept(made)
    kept(made)
    assert evicted == [second, third]
    assert made.used == made.budget


def test_an_evicted_blocks_buffer_is_used_again() -> None:
    made, _ = memory(2)
    first = kept(made)
    kept(made)
    assert kept(made).buffer is first.buffer


def test_a_buffer_in_use_is_neither_evicted_nor_used_again() -> None:
    made, evicted = memory(2)
    first, second = kept(made), kept(made)
    made.use(first)
    assert kept(made).buffer is second.buffer
    made.use(second := kept(made))
    assert claim(made) is None
    assert first not in evicted and made.used == made.in_use == 2 * UNIT
    made.release(first)
    again = claim(made)
    assert again is not None and again.buffer is first.buffer
    made.release(second)


def test_the_buffer_of_a_failed_block_is_used_again_once_nobody_waits_for_it() -> None:
    made, _ = memory(1)
    failed = claim(made)
    assert failed is not None
    made.use(failed)
    made.drop(failed)
    assert claim(made) is None and made.used == UNIT
    made.release(failed)
    again = claim(made)
    assert again is not None and again.buffer is failed.buffer


def test_what_was_fetched_ahead_takes_half_at_most_until_it_is_asked_for_evicted_or_given_up() -> None:
    made, evicted = memory(8)
    blocks = [kept(made, ahead=True) for _ in range(4)]
    assert claim(made, ahead=True) is None
    made.use(blocks[0])
    made.note_wanted(blocks[1])
    assert made.unread == 2 * UNIT
    for _ in range(7):
        kept(made)
    assert set(evicted) == set(blocks[1:]) and made.unread == 0


def test_one_long_block_evicts_no_more_than_it_needs() -> None:
    made, evicted = memory(64)
    for _ in range(64):
        kept(made)
    kept(made, 8)
    assert len(evicted) == 8 and made.used <= made.budget


def test_buffers_lying_ready_make_room_before_blocks_do() -> None:
    made, evicted = memory(8)
    block = claim(made, 4)
    assert block is not None
    keeper = kept(made, 2)
    made.drop(block)
    assert made.used == 6 * UNIT
    kept(made, 1), kept(made, 4)
    assert not evicted and keeper.is_filling is False and made.used <= made.budget


def test_no_memory_in_the_system_is_no_room(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def fail(size: int) -> memoryview:
        raise MemoryError

    made, _ = memory(8)
    monkeypatch.setattr("ivcapfs.cache.memory._fresh", fail)
    assert claim(made) is None and made.used == 0


class Operations(RuleBasedStateMachine):
    """Any operations in any order; each buffer is marked by its holder, who looks after it."""

    filling: Bundle[Block] = Bundle("filling")
    whole: Bundle[Block] = Bundle("whole")
    used: Bundle[Block] = Bundle("used")

    def __init__(self) -> None:
        super().__init__()
        self.gone: set[Block] = set()
        self.alive: set[Block] = set()
        self.memory = Memory(13 * UNIT, self.forget)
        self.number = 0

    def forget(self, block: Block) -> None:
        assert block.readers == 0 and not block.is_filling
        self.gone.add(block)

    @rule(target=filling, size=st.integers(1, 6 * UNIT), ahead=st.booleans())
    def take(self, size: int, ahead: bool) -> object:
        buffer = self.memory.take(size, ahead=ahead)
        if buffer is None:
            return multiple()
        assert len(buffer) == rounded(size)
        self.number += 1
        buffer[:] = self.number.to_bytes(4, "big") * (len(buffer) // 4)
        block = Block(self.number, size, buffer, ahead=ahead)
        self.alive.add(block)
        return block

    @rule(target=whole, block=consumes(filling))
    def keep(self, block: Block) -> Block:
        self.memory.keep(block)
        return block

    @rule(block=consumes(filling))
    def drop(self, block: Block) -> None:
        self.memory.drop(block)
        self.gone.add(block)

    @rule(target=used, block=st.one_of(filling, whole))
    def use(self, block: Block) -> object:
        if block in self.gone:
            return multiple()
        self.memory.use(block)
        return block

    @rule(block=consumes(used))
    def release(self, block: Block) -> None:
        self.memory.release(block)

    @rule(block=whole)
    def give_up(self, block: Block) -> None:
        self.memory.note_wanted(block)

    @invariant()
    def the_budget_holds_and_no_buffer_is_shared(self) -> None:
        made = self.memory
        held = {block for block in self.alive if block not in self.gone or block.readers}
        assert made.used <= made.budget
        assert made.filling == sum(len(block.buffer) for block in held if block.is_filling)
        assert made.in_use == sum(len(block.buffer) for block in held if block.readers and not block.is_filling)
        assert made.unread == sum(len(block.buffer) for block in held if block.ahead) <= made.most_unread
        for block in held:
            assert block.buffer == block.start.to_bytes(4, "big") * (len(block.buffer) // 4)
        self.alive = held


TestOperations = Operations.TestCase
TestOperations.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def pass_through(memory: Memory, start: int, size: int = LONG, *, is_read: bool = True) -> Block:
    """Have a block filled, and read, to its end or in part."""
    buffer = memory.take(size, ahead=False)
    assert buffer is not None
    block = Block(start, size, buffer, ahead=False)
    memory.use(block)
    memory.keep(block)
    block.is_spent = is_read
    memory.release(block)
    return block


def test_what_was_read_through_makes_room_for_what_comes_next() -> None:
    """A long file goes through few buffers, however large the budget is; what nobody finished reading stays."""
    gone: list[Block] = []
    memory = Memory(16 * MOST_SPENT, gone.append)
    looked_at = pass_through(memory, 0, is_read=False)
    for number in range(1, 3 * MOST_SPENT // LONG):
        pass_through(memory, number * LONG)
        assert memory.used <= MOST_SPENT + 2 * LONG
    assert gone and looked_at not in gone


def test_buffers_of_a_growing_window_are_not_kept_beside_those_of_the_grown_one() -> None:
    memory = Memory(64 * MOST_SPENT, lambda _: None)
    for size in (LONG, 2 * LONG, 4 * LONG, 8 * LONG):
        for number in range(2 * MOST_SPENT // size):
            pass_through(memory, number * size, size)
            assert memory.used <= 2 * MOST_SPENT + 2 * size, "read through, and free for others"


def test_the_last_quarter_is_for_the_least_that_a_read_can_do_with() -> None:
    made, _ = memory(8)
    assert [bool(made.take(2 * UNIT, ahead=False, least=False)) for _ in range(4)] == [True, True, True, False]
    assert made.take(UNIT, ahead=True) is None
    assert [bool(claim(made)) for _ in range(3)] == [True, True, False]
