"""The catalog in memory: one walk over all list pages, repeated when it is older than `refresh` seconds.

Implements `ivcapfs.catalog.interface.Catalog` for deployments of up to some ten thousand artifacts; a persistent index
can take its place. A refresh is one piece of work on a pool; callers wait for it with patience, then go on with the
last known state.

Threading: any thread may call anything. Requests run on the pool only, never under the lock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

from cachetools import TTLCache

from ivcapfs.catalog.details import Details
from ivcapfs.catalog.names import Parts, decode
from ivcapfs.catalog.namespace import Folder, Namespace
from ivcapfs.client import Api, Blobs
from ivcapfs.errors import ApiError, IvcapfsError, NoSuchEntry, ProtocolError, TransportError
from ivcapfs.models import ArtifactRecord, AspectRecord
from ivcapfs.waits import Check, SingleFlight, now, settle, submit, wait_for

log = logging.getLogger(__name__)

PAGE = 50
PATIENCE_SECONDS = 10.0
"""How long a listing that has a last known state waits for a newer one."""
SHORT_PATIENCE_SECONDS = 1.0
"""The same, while the server is known to be in trouble."""
RETRY_SECONDS = 5.0
"""How long after a failed refresh the last known state is served without asking again."""
ABSENT_SECONDS = 2.0
"""How long the server's word that a name does not exist is remembered."""


@dataclass
class _State:
    """What the listing knows. Guarded by `Listing._lock`.

    Attributes:
        listed_at: when the walk that made `namespace` began; None before the first.
        began_at: when the refresh under way began.
        failed_at: when the last refresh failed, and `failure` how; None after one that did not.
        found: artifacts asked for by name that no listing has shown yet.
    """

    namespace: Namespace = field(default_factory=lambda: Namespace(()))
    listed_at: float | None = None
    refresh: Future[None] | None = None
    began_at: float = 0.0
    failed_at: float | None = None
    failure: IvcapfsError | None = None
    found: dict[str, ArtifactRecord] = field(default_factory=dict)


class Listing:
    """See `ivcapfs.catalog.interface.Catalog`.

    Args:
        refresh: seconds after which the list is walked again.
        bound: seconds that any one wait lasts at most.
        pool: runs the requests.
        clock: seconds, only ever forward.
    """

    def __init__(
        self,
        api: Api,
        blobs: Blobs,
        pool: Executor,
        *,
        refresh: float = 30.0,
        bound: float = 60.0,
        clock: Callable[[], float] = now,
    ) -> None:
        self._api = api
        self._pool = pool
        self._refresh = refresh
        self._bound = bound
        self._clock = clock
        self._asks: SingleFlight[str, ArtifactRecord | None] = SingleFlight(pool)
        self._lock = threading.Lock()
        self._state = _State()  # guarded by _lock
        self._absent: TTLCache[Parts, bool] = TTLCache(4096, ABSENT_SECONDS, clock)  # guarded by _lock
        self.details = Details(api, blobs, pool, keep=refresh, bound=bound, clock=clock)

    def known(self) -> Namespace:
        """See `Catalog.known`."""
        with self._lock:
            return self._state.namespace

    def namespace(self, check: Check) -> Namespace:
        """See `Catalog.namespace`."""
        refresh, patience = self._refresh_if_old()
        if refresh is not None:
            self._await_refresh(refresh, patience, check)
        return self.known()

    def find(self, parts: Parts, check: Check) -> Folder | ArtifactRecord:
        """See `Catalog.find`."""
        found = self.namespace(check).find(parts)
        if found is None and _is_plausible(parts):
            found = self._ask_by_name(parts, check)
        if found is None:
            raise NoSuchEntry(f"no artifact is called {'/'.join(parts)!r}")
        return found

    def record(self, uuid: str, check: Check) -> ArtifactRecord:
        """See `Catalog.record`."""
        return self.known().record(uuid) or self.details.record(uuid, check)

    def whole_record(self, uuid: str, check: Check) -> ArtifactRecord:
        """See `Catalog.whole_record`."""
        return self.details.record(uuid, check)

    def aspects(self, uuid: str, check: Check) -> tuple[AspectRecord, ...]:
        """See `Catalog.aspects`."""
        return self.details.aspects(uuid, check)

    def details_known(self, uuid: str) -> tuple[ArtifactRecord, tuple[AspectRecord, ...]] | None:
        """See `Catalog.details_known`."""
        return self.details.known(uuid)

    def size(self, record: ArtifactRecord, check: Check) -> int:
        """See `Catalog.size`."""
        return record.size if record.size is not None else self.details.size(record.uuid, check)

    # -- the list ------------------------------------------------------------------------------------------------

    def _refresh_if_old(self) -> tuple[Future[None] | None, float]:
        """Return (the refresh to wait for or None, how many seconds to wait for it), starting one if it is time."""
        with self._lock:
            state, time = self._state, self._clock()
            if state.listed_at is not None and (time - state.listed_at < self._refresh or self._in_trouble(time)):
                return None, 0.0
            starting = state.refresh is None
            refresh = state.refresh = state.refresh or Future()
            if starting:
                state.began_at = time
            patience = SHORT_PATIENCE_SECONDS if state.failed_at is not None else PATIENCE_SECONDS
            left = state.began_at + patience - time if state.listed_at is not None else self._bound
        if starting:
            submit(self._pool, self._walk, refresh, time)
        return (refresh, left) if left > 0 else (None, 0.0)

    def _in_trouble(self, time: float) -> bool:
        """Return whether the server failed so recently that it is not asked again. The lock is held."""
        return self._state.failed_at is not None and time - self._state.failed_at < RETRY_SECONDS

    def _await_refresh(self, refresh: Future[None], patience: float, check: Check) -> None:
        try:
            wait_for(refresh, check, patience, "the list of artifacts")
        except (ApiError, TransportError, ProtocolError) as exc:
            if self._never_listed():
                raise
            log.debug("showing what was known: %s", exc)

    def _never_listed(self) -> bool:
        with self._lock:
            return self._state.listed_at is None

    def _walk(self, refresh: Future[None], began: float) -> None:
        """Walk all pages and put the new state in place; runs on the pool."""
        try:
            records = {record.uuid: record for record in self._api.iter_artifacts(limit=PAGE) if record.is_ready}
            namespace = Namespace(records.values())
        except Exception as exc:  # noqa: BLE001 - handed on to whoever waits
            settle(refresh, self._note_failure(exc))
            return
        with self._lock:
            state = self._state
            late = {uuid: record for uuid, record in state.found.items() if uuid not in records}
            state.namespace = Namespace([*records.values(), *late.values()]) if late else namespace
            state.found, state.listed_at, state.refresh = late, began, None
            state.failed_at = state.failure = None
        log.debug("listed %d artifacts", len(records))
        settle(refresh, None)

    def _note_failure(self, exc: Exception) -> IvcapfsError:
        """Remember that a refresh failed; return what whoever waits for it is told."""
        failure = exc if isinstance(exc, IvcapfsError) else ProtocolError(f"unexpected: {exc!r}")
        with self._lock:
            first = self._state.failed_at is None
            self._state.failed_at, self._state.failure, self._state.refresh = self._clock(), failure, None
        if first:
            trace = None if failure is exc else exc
            log.warning("the list of artifacts cannot be refreshed: %s", failure, exc_info=trace)
        return failure

    # -- one name ------------------------------------------------------------------------------------------------

    def _ask_by_name(self, parts: Parts, check: Check) -> Folder | ArtifactRecord | None:
        """Ask the server for a name that the listing lacks; it may have been made a moment ago."""
        with self._lock:
            if parts in self._absent:
                return None
            if self._state.failure is not None and self._in_trouble(self._clock()):
                raise self._state.failure.with_traceback(None)
        name = decode(parts)
        record = wait_for(
            self._asks.run(name, lambda: self._newest_named(name)), check, self._bound, f"the artifact named {name!r}"
        )
        with self._lock:
            if record is None:
                self._absent[parts] = True
                return None
            self._add(record)
            return self._state.namespace.find(parts)

    def _newest_named(self, name: str) -> ArtifactRecord | None:
        """Ask for the newest ready artifact of a name; runs on the pool.

        How the filter's strings are quoted is not documented, so every character with a meaning there is sent as
        LIKE's one-character wildcard, and the answers are compared here.
        """
        pattern = "".join("_" if char in "'\"%\\" or not char.isprintable() else char for char in name)
        answers = self._api.list_artifacts_page(filter=f"name ~= '{pattern}'", limit=PAGE).items
        fitting = [record for record in answers if record.name == name and record.is_ready]
        return max(fitting, key=lambda record: (record.created_at, record.uuid), default=None)

    def _add(self, record: ArtifactRecord) -> None:
        """Add an artifact that was found by name. The lock is held."""
        state = self._state
        if state.namespace.record(record.uuid) is None:
            state.found[record.uuid] = record
            state.namespace = Namespace([*state.namespace, record])


def _is_plausible(parts: Parts) -> bool:
    """Return whether a name is worth a question: programs probe for hidden files that no one ever made."""
    return bool(parts) and not any(part.startswith(".") or len(part.encode()) > 255 for part in parts)


