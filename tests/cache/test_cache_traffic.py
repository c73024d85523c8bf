"""What is read and fetched is counted: every byte once, also by many at once, and failures too."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from ivcapfs.cache.reader import Reader
from ivcapfs.cache.traffic import CountedSource, Traffic
from ivcapfs.config import CacheSettings
from ivcapfs.errors import ConnectionBroken
from ivcapfs.waits import never
from tests.fakes import FakeSource, bytes_of, uuid_of

DATA = bytes(range(256)) * 40
SETTINGS = CacheSettings(block_size=1024, memory=1 << 20, read_ahead=0, workers=4)


def read_of(source: FakeSource, traffic: Traffic) -> Reader:
    """Return a reader whose requests are counted."""
    source.put(uuid_of(1), DATA)
    return Reader(CountedSource(source, traffic), SETTINGS, bound=20)


def test_bytes_and_requests_are_counted_and_what_was_there_is_a_hit() -> None:
    traffic = Traffic()
    reader = read_of(FakeSource(), traffic)
    handle = reader.open(reader.blob(uuid_of(1), len(DATA)))
    assert bytes_of(reader, handle, 0, 1024, never) == DATA[:1024]
    assert (reader.used, reader.claimed) == (1, 1)
    assert bytes_of(reader, handle, 100, 50, never) == DATA[100:150]
    assert (reader.used, reader.claimed) == (2, 1)
    counts = traffic.counts()
    assert (counts.requests, counts.bytes_fetched, counts.failures, counts.transfers) == (1, 1024, 0, 0)
    reader.shutdown()


def test_what_is_under_way_and_what_failed_is_told() -> None:
    traffic, source = Traffic(), FakeSource()
    source.gate.clear()
    source.failing = ConnectionBroken("broken")
    reader = read_of(source, traffic)
    handle = reader.open(reader.blob(uuid_of(1), len(DATA)))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(bytes_of, reader, handle, 0, 10, never)
        source.await_requests(1)
        assert traffic.counts().transfers == 1
        source.gate.set()
        with pytest.raises(ConnectionBroken):
            reading.result(20)
    counts = traffic.counts()
    assert (counts.requests, counts.failures, counts.transfers, counts.bytes_fetched) == (1, 1, 0, 0)
    reader.shutdown()


def test_a_program_that_has_its_bytes_finds_them_counted() -> None:
    traffic = Traffic()
    reader = read_of(FakeSource(), traffic)
    handle = reader.open(reader.blob(uuid_of(1), len(DATA)))
    seen = []
    sink = traffic.counted(lambda *_: seen.append(traffic.counts()[:2]))
    reader.read_into(handle, 0, 3000, sink, never)
    assert seen == [(1, 3000)]
    reader.shutdown()


def test_many_threads_lose_no_count() -> None:
    traffic, got = Traffic(), []
    sink = traffic.counted(lambda pieces, is_last: got.append((pieces, is_last)))

    def count() -> None:
        for number in range(2000):
            sink([memoryview(b"ab"), memoryview(b"c")], number % 2 == 1)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(count)
    assert len(got) == 16_000
    assert traffic.counts()[:2] == (8_000, 48_000)
