"""What is told about one artifact at a time: its whole record, its aspects, its size where no record says it.

Used by `ivcapfs.catalog.listing`. Answers are kept for `keep` seconds, for at most `ENTRIES` artifacts.

Threading: any thread may call anything. Requests run on the pool only, never under the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from cachetools import LRUCache, TTLCache

from ivcapfs.client import Api, Blobs
from ivcapfs.errors import ContentChanged
from ivcapfs.models import ARTIFACT_URN, ArtifactRecord, AspectRecord
from ivcapfs.waits import Check, SingleFlight, wait_for

V = TypeVar("V")
ENTRIES = 10_000
COUNTERS = 4096
"""Of changes. Artifacts share them: that another one changed costs at most a question."""
_Key = tuple[str, int]
"""A uuid, and how many changes the question knows of: who asks after a change does not get an older answer."""


class Details:
    """Records, aspects and sizes, one artifact at a time, each asked for once while it is fresh.

    Args:
        keep: seconds that an answer is kept.
        bound: seconds that any one wait lasts at most.
    """

    def __init__(
        self, api: Api, blobs: Blobs, pool: Executor, *, keep: float, bound: float, clock: Callable[[], float]
    ) -> None:
        self._api = api
        self._blobs = blobs
        self._bound = bound
        self._record_asks: SingleFlight[_Key, ArtifactRecord] = SingleFlight(pool)
        self._aspect_asks: SingleFlight[_Key, tuple[AspectRecord, ...]] = SingleFlight(pool)
        self._size_asks: SingleFlight[str, int] = SingleFlight(pool)
        self._lock = threading.Lock()
        self._records: TTLCache[str, ArtifactRecord] = TTLCache(ENTRIES, keep, clock)  # guarded by _lock
        self._aspects: TTLCache[str, tuple[AspectRecord, ...]] = TTLCache(ENTRIES, keep, clock)  # guarded by _lock
        self._sizes: LRUCache[str, int] = LRUCache(ENTRIES)  # guarded by _lock
        self._changes = [0] * COUNTERS  # by the uuid's hash; guarded by _lock

    def record(self, uuid: str, check: Check) -> ArtifactRecord:
        """Return the whole record (``GET /1/artifacts/{id}``)."""
        return self._asked(self._records, self._record_asks, uuid, self._api.read_artifact)(check)

    def aspects(self, uuid: str, check: Check) -> tuple[AspectRecord, ...]:
        """Return the aspects that stand, newest first, over all pages (``GET /1/aspects?entity=``)."""
        return self._asked(self._aspects, self._aspect_asks, uuid, self._read_aspects)(check)

    def both(self, uuid: str, check: Check) -> tuple[ArtifactRecord, tuple[AspectRecord, ...]]:
        """Return whole record and aspects. They are asked for at the same time: far away, that takes half as long."""
        aspects = self._asked(self._aspects, self._aspect_asks, uuid, self._read_aspects)
        return self.record(uuid, check), aspects(check)

    def forget(self, uuid: str) -> None:
        """Ask anew for record and aspects: they were changed just now. What is on its way does not count any more."""
        with self._lock:
            self._changes[hash(uuid) % COUNTERS] += 1
            self._records.pop(uuid, None)
            self._aspects.pop(uuid, None)

    def known(self, uuid: str) -> tuple[ArtifactRecord, tuple[AspectRecord, ...]] | None:
        """Return whole record and aspects where both are here already."""
        with self._lock:
            record, aspects = self._records.get(uuid), self._aspects.get(uuid)
        return None if record is None or aspects is None else (record, aspects)

    def size(self, uuid: str, check: Check) -> int:
        """Return the content's bytes: from the whole record, else by HEAD of the blob.

        Raises:
            ContentChanged: the server told another size before.
        """
        with self._lock:
            size = self._sizes.get(uuid)
        if size is not None:
            return size
        size = self.record(uuid, check).size
        if size is None:
            asked = self._size_asks.run(uuid, lambda: self._blobs.head(uuid).size)
            size = wait_for(asked, check, self._bound, f"artifact {uuid}")
        with self._lock:
            if self._sizes.setdefault(uuid, size) != size:
                raise ContentChanged(f"artifact {uuid}: its size was {self._sizes[uuid]} bytes, and is now {size}")
        return size

    def _read_aspects(self, uuid: str) -> tuple[AspectRecord, ...]:
        standing = self._api.iter_aspects(entity=ARTIFACT_URN + uuid, include_content=True)
        return tuple(sorted(standing, key=lambda aspect: aspect.valid_from, reverse=True))

    def _asked(
        self, kept: TTLCache[str, V], asks: SingleFlight[_Key, V], uuid: str, work: Callable[[str], V]
    ) -> Callable[[Check], V]:
        """Ask unless an answer is kept; return what waits for the answer, and keeps it unless there was a change."""
        counter = hash(uuid) % COUNTERS
        with self._lock:
            value, change = kept.get(uuid), self._changes[counter]
        if value is not None:
            return lambda check: value
        future = asks.run((uuid, change), lambda: work(uuid))

        def answer(check: Check) -> V:
            value = wait_for(future, check, self._bound, f"artifact {uuid}")
            with self._lock:
                if self._changes[counter] == change:
                    kept[uuid] = value
            return value

        return answer
