"""Small files are read before they are opened, where a program goes through a folder, and nowhere else."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ivcapfs.cache.reader import Reader
from ivcapfs.catalog.interface import Order
from ivcapfs.catalog.store import Store
from ivcapfs.config import CacheSettings
from ivcapfs.errors import ConnectionBroken
from ivcapfs.fs.neighbours import FIRST, MOST, NEAR, Neighbours
from ivcapfs.models import ArtifactRecord
from tests.fakes import FakeSource, artifact

FILES = 300
SIZE = 100
LARGEST = 1000


class World:
    """A folder of files in a real store and a real cache, above a source that counts."""

    def __init__(self, sizes: Callable[[int], int | None] = lambda _: SIZE) -> None:
        self.source = FakeSource()
        self.store = Store(None, "neighbours")
        self.records: list[ArtifactRecord] = []
        for number in range(FILES):
            size = sizes(number)
            record = artifact(f"folder/{(number * 7) % FILES:04}.dat", size=size, age=FILES - number)
            self.source.put(record.uuid, bytes(size or 0))
            self.records.append(record)
        self.store.write(lambda write: write.put(self.records))
        self.names = {record.uuid: (record.name or "").partition("/")[2] for record in self.records}
        self.by_name = sorted(self.names.values())
        self.listed = [entry[0] for entry in self.store.folder_batch(2, 0, self.store.last_row())]
        self.reader = Reader(self.source, CacheSettings(block_size=LARGEST, memory=1 << 22, workers=4), bound=5)
        self.neighbours = Neighbours(self.store.neighbours, self.reader, LARGEST, lambda: False)

    def open(self, *names: str) -> None:
        """Open files one after the other, as slowly as whoever reads them."""
        for name in names:
            self.neighbours.opened(("folder", name), SIZE)
            self.settle()

    def settle(self) -> None:
        """Wait until everything that was handed over is done."""
        pool = self.neighbours._pool
        for _ in range(3):  # a question's answer hands over reads
            barrier = threading.Barrier(pool._max_workers + 1)
            for _ in range(pool._max_workers):
                pool.submit(barrier.wait, 20)
            barrier.wait(20)

    def read(self) -> set[str]:
        """Return the names of the files that were read."""
        return {self.names[uuid] for uuid, *_ in self.source.requests}

    def close(self) -> None:
        self.neighbours.close()
        self.reader.shutdown()
        self.store.close()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.mark.parametrize("order", ["by_name", "listed"])
def test_who_goes_through_a_folder_finds_the_next_files_there(world: World, order: str) -> None:
    names = getattr(world, order)
    world.open(names[5])
    assert not world.read()
    world.open(names[6])
    assert world.read() == set(names[7 : 7 + FIRST])
    for at in range(7, 200):
        assert names[at] in world.read()
        world.open(names[at])
        assert set(names[7:at]) < world.read() <= set(names[7 : at + 1 + MOST + MOST // 2])
    assert len(world.read()) > 200 + MOST // 2 - 7
    assert len(world.source.requests) == len(world.read())


def test_some_files_may_be_left_out(world: World) -> None:
    world.open(*world.by_name[:20:NEAR])
    assert world.by_name[20] in world.read()


def test_a_jump_ends_the_walk(world: World) -> None:
    world.open(*world.by_name[:10])
    before = world.read()
    world.open(world.by_name[200], world.by_name[100])
    assert world.read() == before
    world.open(world.by_name[101])
    assert world.read() == before | set(world.by_name[102 : 102 + FIRST])


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_what_is_opened_here_and_there_is_not_read_ahead(dice: random.Random) -> None:
    world = World()
    try:
        chosen = dice.sample(range(0, FILES, NEAR + 1), 12)
        dice.shuffle(chosen)
        names = [world.by_name[at] for at in chosen]
        at = [world.listed.index(name) for name in names]
        world.open(*names)
        near = any(0 < there - here <= NEAR for here, there in itertools.pairwise(at))
        assert near or not world.read()
    finally:
        world.close()


def test_large_and_empty_files_are_passed_by() -> None:
    world = World(lambda number: (SIZE, 0, LARGEST + 1, None)[number % 4])
    try:
        world.open(*world.listed[:20:4])
        assert len(world.read()) > 3
        assert {len(world.source.contents[uuid][0]) for uuid, *_ in world.source.requests} == {SIZE}
        before = world.read()
        world.neighbours.opened(("folder", world.listed[20]), LARGEST + 1)
        world.settle()
        assert world.read() == before
    finally:
        world.close()


def test_a_failure_is_nobodys_business(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.source.failing = ConnectionBroken("gone")
    world.open(*world.by_name[:10])
    world.open("not-there.dat", "nor-this.dat")
    assert not caplog.records
    world.source.failing = None
    world.open(*world.by_name[20:30])
    assert world.by_name[30] in world.read()


def test_after_the_end_nothing_is_begun(world: World) -> None:
    world.open(*world.by_name[:3])
    world.neighbours.close()
    before = world.read()
    for name in world.by_name[3:50]:
        world.neighbours.opened(("folder", name), SIZE)
    world.neighbours._pool.shutdown(wait=True)
    assert world.read() == before


@pytest.mark.parametrize("order", list(Order))
def test_the_last_file_is_followed_by_none(world: World, order: Order) -> None:
    names = world.by_name if order is Order.NAME else world.listed
    assert [each.name for each in world.store.neighbours(("folder",), names[-3], order, 10)] == names[-2:]
    assert world.store.neighbours(("folder",), names[-1], order, 10) == []
    assert world.store.neighbours(("nowhere",), names[0], order, 10) == []
