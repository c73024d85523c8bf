"""URNs -> records: from the catalog, and one by one from the server for what no list has shown.

Used by `collections` and `search`, on their pool. A member that is no artifact, that is not ready, or that this account
may not read, has no record here: it cannot be shown. Whatever else fails is raised, so that no set is ever cut short.

Threading: any thread may call anything. Requests run on a pool of their own: who waits here is on one already.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from functools import partial

from cachetools import LRUCache, TTLCache

from ivcapfs.catalog.kept import Progress
from ivcapfs.catalog.schema import RECORD, record_of
from ivcapfs.catalog.store import Store
from ivcapfs.client import Api
from ivcapfs.errors import CatalogError, NotFound, NotPermitted
from ivcapfs.models import ARTIFACT_URN, ArtifactRecord, artifact_uuid, uuid_bytes
from ivcapfs.waits import Check, SingleFlight, wait_for

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
        check: ends waits when the mount does.
        bound: seconds that one request is waited for at most.
        clock: seconds, only ever forward.
    """

    def __init__(
        self, api: Api, store: Store, pool: Executor, check: Check, *, bound: float, clock: Callable[[], float]
    ) -> None:
        self._api = api
        self._store = store
        self._check = check
        self._bound = bound
        self._asks: SingleFlight[str, ArtifactRecord | None] = SingleFlight(pool)
        self._lock = threading.Lock()
        self._asked: LRUCache[str, ArtifactRecord] = LRUCache(ASKED)  # guarded by _lock
        self._absent: TTLCache[str, bool] = TTLCache(ABSENT, ABSENT_SECONDS, clock)  # guarded by _lock

    def records(self, urns: Iterable[str], step: Progress) -> Iterator[ArtifactRecord]:
        """Iterate the records of the artifacts among some URNs, each once, some at a time.

        Args:
            step: called whenever something came.

        Raises:
            ApiError, TransportError, ProtocolError: the server did not say.
            Unsynchronized: see there.
        """
        uuids = dict.fromkeys(uuid for urn in urns if urn.startswith(ARTIFACT_URN) and (uuid := artifact_uuid(urn)))
        wanted, asked = list(uuids), 0
        for at in range(0, len(wanted), CHUNK):
            some = wanted[at : at + CHUNK]
            found = self._known(some)
            yield from found.values()
            unknown = self._unknown(some, found)
            asked += len(unknown)
            if asked > MOST_WITHOUT_LIST and not self._store.meta().get("complete"):
                raise Unsynchronized("too many artifacts are not known before the first synchronization is complete")
            yield from self._ask_all(unknown, step)

    def look_again(self, uuid: str) -> None:
        """Forget that an artifact could not be read: it was put somewhere just now."""
        with self._lock:
            self._absent.pop(uuid, None)

    def _known(self, uuids: list[str]) -> dict[str, ArtifactRecord]:
        """Return what the catalog knows, and what was asked for before."""
        statement = f"SELECT {RECORD} FROM artifact WHERE uuid IN ({','.join('?' * len(uuids))})"
        values = [uuid_bytes(uuid) for uuid in uuids]
        rows = self._store.read(lambda conn: conn.execute(statement, values).fetchall())
        found = {record.uuid: record for record in map(record_of, rows)}
        with self._lock:
            found.update({uuid: self._asked[uuid] for uuid in uuids if uuid not in found and uuid in self._asked})
        return found

    def _unknown(self, uuids: list[str], found: dict[str, ArtifactRecord]) -> list[str]:
        with self._lock:
            return [uuid for uuid in uuids if uuid not in found and uuid not in self._absent]

    def _ask_all(self, uuids: list[str], step: Progress) -> Iterator[ArtifactRecord]:
        """Ask for some artifacts, several at a time."""
        flights = [(uuid, self._asks.run(uuid, partial(self._ask, uuid))) for uuid in uuids]
        for uuid, flight in flights:
            record = wait_for(flight, self._check, self._bound, f"artifact {uuid}")
            step()
            if record is not None:
                yield record

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
