"""Times of artifacts that were set here: the platform keeps none, and `rsync -a`, `make` and `cp -u` go by them.

Used by `ivcapfs.fs`. They are in the catalog of this machine, and nowhere else; the last `MOST` are remembered.

Threading: any thread may call anything. `KeptTimes._lock` guards the table in memory; the database is written outside.
"""

from __future__ import annotations

import sqlite3
import threading

from ivcapfs.catalog.store import Store
from ivcapfs.models import uuid_bytes

MOST = 200_000


class KeptTimes:
    """See the module. Read from the catalog with the first use."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._times: dict[bytes, int] | None = None  # guarded by _lock

    def get(self, uuid: bytes) -> int | None:
        """Return the time that was set for an artifact, in nanoseconds since the epoch; None: none was."""
        times = self._times
        return (self._read() if times is None else times).get(uuid)

    def keep(self, uuid: str, time_ns: int) -> None:
        """Set the time of an artifact (utimensat(2))."""
        times, key = self._read(), uuid_bytes(uuid)
        with self._lock:
            times.pop(key, None)
            times[key] = time_ns
            while len(times) > MOST:
                del times[next(iter(times))]

        self._store.write(lambda write: write.keep_time(key, time_ns, MOST))

    def _read(self) -> dict[bytes, int]:
        def run(conn: sqlite3.Connection) -> dict[bytes, int]:
            return dict(conn.execute("SELECT uuid, time FROM kept_time ORDER BY id").fetchall())

        found = self._store.read(run)
        with self._lock:
            if self._times is None:
                self._times = found
            return self._times
