"""URNs -> records: from the catalog, and one by one from the server for what no list has shown.

Used by `collections` and `search`, on their pool. A member that is no artifact, that is not ready, or that this account
may not read, has no record here: it cannot be shown. Whatever else fails is raised, so that no set is ever cut short.

Threading: any thread may call anything. Requests run on a pool of their own: who waits here is on one already.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from cachetools import LRUCache, TTLCache

from ivcapfs.catalog.kept import Progress
from ivcapfs.catalog.schema import RECORD, record_of
from ivcapfs.catalog.store import Store
from ivcapfs.client import Api
from ivcapfs.errors import CatalogError, NotFound, NotPermitted
from ivcapfs.models import ARTIFACT_URN, ArtifactRecord, artifact_uuid, uuid_bytes
from ivcapfs.waits import SingleFlight, never, wait_for

CHUNK = 250
ASKED = 10_000
"""Records that are kept because no list has them."""
ABSENT = 100_000
ABSENT_SECONDS = 600.0
"""How long an artifact that could not be read is not asked for again by its id; the lists may still show it."""
MOST_WITHOUT_LIST = 100
"""So many unknown members are asked for one by one while the first synchronization runs; for more it is awaited."""


class Unsynchronized(CatalogError):
    """Too much is asked for that the unfinished catalog does not know: wait for it, and try again."""


class Members:
    """Looks up artifacts by their URNs.

    Args:
        bound: seconds that one request is waited for at most.
        clock: seconds, only ever forward.
    """

    def __init__(
        self, api: Api, store: Store, pool: Executor, *, bound: float, clock: Callable[[], float]
    ) -> None:
        self._api = api
        self._store = store
        self._bound = bound
        self._asks: SingleFlight[str, ArtifactRecord | None] = SingleFlight(pool)
        self._lock = threading.Lock()
        self._asked: LRUCache[str, ArtifactRecord] = LRUCache(ASKED)  # guarded by _lock
        self._absent: TTLCache[str, bool] = TTLCache(ABSENT, ABSENT_SECONDS, clock)  # guarded by _lock

    def records(self, urns: Iterable[str], step: Progress) -> list[ArtifactRecord]:
        """Return the records of the artifacts among some URNs, each once.

        Args:
            step: called whenever something came.

        Raises:
            ApiError, TransportError, ProtocolError: the server did not say.
            Unsynchronized: see there.
        """
        uuids = dict.fromkeys(uuid for urn in urns if urn.startswith(ARTIFACT_URN) and (uuid := artifact_uuid(urn)))
        found = self._listed(list(uuids))
        with self._lock:
            found.update({uuid: self._asked[uuid] for uuid in uuids if uuid not in found and uuid in self._asked})
            unknown = [uuid for uuid in uuids if uuid not in found and uuid not in self._absent]
        if len(unknown) > MOST_WITHOUT_LIST and not self._store.meta().get("complete"):
            raise Unsynchronized(f"{len(unknown)} artifacts are not known before the first synchronization is complete")
        for at in range(0, len(unknown), CHUNK):
            flights = [(uuid, self._asks.run(uuid, lambda uuid=uuid: self._ask(uuid)))  # type: ignore[misc]
                       for uuid in unknown[at : at + CHUNK]]  # fmt: skip
            for uuid, flight in flights:
                record = wait_for(flight, never, self._bound, f"artifact {uuid}")
                step()
                if record is not None:
                    found[uuid] = record
        return [record for record in found.values() if record.is_ready]

    def _listed(self, uuids: list[str]) -> dict[str, ArtifactRecord]:
        """Return what the catalog knows."""
        found: dict[str, ArtifactRecord] = {}
        for at in range(0, len(uuids), CHUNK):
            some = [uuid_bytes(uuid) for uuid in uuids[at : at + CHUNK]]
            statement = f"SELECT {RECORD} FROM artifact WHERE uuid IN ({','.join('?' * len(some))})"
            rows = self._store.read(lambda conn, sql=statement, some=some: conn.execute(sql, some).fetchall())  # type: ignore[misc]
            found.update((record.uuid, record) for record in map(record_of, rows))
        return found

    def _ask(self, uuid: str) -> ArtifactRecord | None:
        """Ask for one artifact, and remember it; runs on the pool."""
        try:
            record = self._api.read_artifact(uuid)
        except (NotFound, NotPermitted):
            record = None
        with self._lock:
            if record is not None and record.is_ready:
                self._asked[uuid] = record
            else:
                self._absent[uuid] = True
        return record
