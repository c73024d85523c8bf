"""Times of artifacts that were set here: the platform keeps none, and `rsync -a`, `make` and `cp -u` go by them.

Used by `ivcapfs.fs`. They are in the catalog of this machine, and nowhere else; the last `MOST` are remembered. Every
stat(2) asks for one, and every new file gets one: they are in memory, too, in 36 to 72 bytes each.

Threading: any thread may call anything. `KeptTimes._lock` guards the table in memory while it is changed; it is read
without. The database is read and written outside.
"""

from __future__ import annotations

import sqlite3
import threading
from array import array

from ivcapfs.catalog.store import Store
from ivcapfs.models import uuid_bytes

MOST = 200_000
_FEWEST = 1024
_NONE = -(2**63)
"""A time that no file has: the place is free."""
_LAST = 2**63 - 1


class KeptTimes:
    """See the module. Read from the catalog with the first use."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._tables: tuple[_Table, _Table] | None = None  # the newer times, the older ones; guarded by _lock

    def get(self, uuid: bytes) -> int | None:
        """Return the time that was set for an artifact, in nanoseconds since the epoch; None: none was."""
        newer, older = self._tables or self._read()
        time_ns = newer.get(uuid)
        return older.get(uuid) if time_ns is None else time_ns

    def keep(self, uuid: str, time_ns: int) -> None:
        """Set the time of an artifact (utimensat(2)); one beyond 64 bits, of a year after 2262, becomes the last."""
        self._read()
        key, time_ns = uuid_bytes(uuid), max(_NONE + 1, min(time_ns, _LAST))
        with self._lock:
            assert self._tables is not None  # once read, they stay
            if len(self._tables[0]) >= MOST:
                self._tables = _Table(), self._tables[0]
            self._tables[0].put(key, time_ns)
        self._store.write(lambda write: write.keep_time(key, time_ns, MOST))

    def _read(self) -> tuple[_Table, _Table]:
        def run(conn: sqlite3.Connection) -> _Table:
            found = _Table()
            for uuid, time_ns in conn.execute("SELECT uuid, time FROM kept_time"):
                found.put(uuid, time_ns)
            return found

        if self._tables is not None:
            return self._tables
        found = self._store.read(run)
        with self._lock:
            if self._tables is None:
                self._tables = found, _Table()
            return self._tables


class _Table:
    """Times by uuid, open addressing. One thread at a time may put; any may get meanwhile."""

    def __init__(self, places: int = _FEWEST) -> None:
        self._used = 0
        halves = bytes(8 * places)
        self._places = array("Q", halves), array("Q", halves), array("q", [_NONE]) * places

    def __len__(self) -> int:
        return self._used

    def get(self, uuid: bytes) -> int | None:
        high, low, times = self._places  # of one moment, though the table may grow meanwhile
        place = self._place(high, low, times, uuid)
        time_ns = times[place]
        return None if time_ns == _NONE else time_ns

    def put(self, uuid: bytes, time_ns: int) -> None:
        if (self._used + 1) * 3 > len(self._places[2]) * 2:
            self._grow()
        high, low, times = self._places
        place = self._place(high, low, times, uuid)
        self._used += times[place] == _NONE
        high[place], low[place] = _halves(uuid)
        times[place] = time_ns  # last: only with it the place counts

    def _place(self, high: array[int], low: array[int], times: array[int], uuid: bytes) -> int:
        """Return where a uuid is, or else would be."""
        wanted = _halves(uuid)
        place = hash(uuid) % len(times)
        while times[place] != _NONE and (high[place], low[place]) != wanted:
            place = (place + 1) % len(times)
        return place

    def _grow(self) -> None:
        larger = _Table(2 * len(self._places[2]))
        for high, low, time_ns in zip(*self._places, strict=True):
            if time_ns != _NONE:
                larger.put(high.to_bytes(8) + low.to_bytes(8), time_ns)
        self._places = larger._places


def _halves(uuid: bytes) -> tuple[int, int]:
    return int.from_bytes(uuid[:8]), int.from_bytes(uuid[8:])
