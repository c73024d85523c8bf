"""The catalog: what is known, kept within `refresh` seconds of the server, and the server itself for what is not known.

Implements `ivcapfs.catalog.interface.Catalog`. The rows are in `store`, and `sync` brings them up to date: one piece of
work on a pool, begun by whoever looks when it is time. Callers wait for it with patience, then go on with the last
known state. As long as no synchronization was ever finished there is no such state: listings wait for it, while single
paths are asked of the server.

Threading: any thread may call anything. Requests run on the pool only, never under the lock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from cachetools import TTLCache

from ivcapfs.catalog.asking import Asking, is_plausible
from ivcapfs.catalog.details import Details
from ivcapfs.catalog.interface import CatalogStatus, Folder, Totals
from ivcapfs.catalog.listing import StoredListing
from ivcapfs.catalog.names import Parts
from ivcapfs.catalog.reconcile import Reconciler
from ivcapfs.catalog.store import Store
from ivcapfs.catalog.sync import Synchronizer
from ivcapfs.client import Api, Blobs
from ivcapfs.errors import (
    ApiError,
    CatalogError,
    Closing,
    DeadlineExceeded,
    IvcapfsError,
    NoSuchEntry,
    NotAFolder,
    ProtocolError,
    TransportError,
)
from ivcapfs.models import ArtifactRecord, AspectRecord
from ivcapfs.waits import Check, now, settle, submit, wait_for, wait_until

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 10.0
"""How long an access that has a last known state waits for a newer one."""
SHORT_PATIENCE_SECONDS = 1.0
"""The same, while the server is known to be in trouble."""
FIRST_PATIENCE_SECONDS = 0.5
"""How long a single path waits for the first synchronization before the server is asked for it directly."""
RETRY_SECONDS = 5.0
"""How long after a failed refresh the last known state is served without asking again."""
ABSENT_SECONDS = 2.0
"""How long the server's word that a name does not exist is remembered."""
LOSSES = 3
"""How often a listing begins again, when the catalog is lost under it."""


@dataclass(slots=True)
class _State:
    """How fresh the store is. Guarded by `Index._lock`.

    Attributes:
        listed_at: as of when the store is up to date; None before this process has looked.
        refresh: the refresh under way.
        began_at: when it began.
        failed_at: when the last refresh failed, and `failure` how; None after one that did not.
        reconciling: whether a reconcile is under way.
    """

    listed_at: float | None = None
    refresh: Future[None] | None = None
    began_at: float = 0.0
    failed_at: float | None = None
    failure: IvcapfsError | None = None
    reconciling: bool = False


class Index:
    """See `ivcapfs.catalog.interface.Catalog`.

    Args:
        store: what is known; closed with the index.
        refresh: seconds after which the server is asked what is new.
        reconcile: seconds after which everything is walked again, in the background; 0: never.
        bound: seconds that any one wait lasts at most; for the first synchronization, without a page coming.
        pool: runs the requests.
        clock: seconds, only ever forward.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        api: Api,
        blobs: Blobs,
        pool: Executor,
        store: Store,
        *,
        refresh: float = 30.0,
        reconcile: float = 86_400.0,
        bound: float = 60.0,
        clock: Callable[[], float] = now,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._pool = pool
        self._store = store
        self._refresh = refresh
        self._bound = bound
        self._clock = clock
        self._sync = Synchronizer(api, store, refresh=refresh, wall=wall)
        self._reconciler = Reconciler(api, store, self._sync.counters, period=reconcile, wall=wall)
        self._asking = Asking(api, store, pool, bound)
        self.is_complete = self._sync.is_complete
        self._lock = threading.Lock()
        self._state = _State()  # guarded by _lock
        self._absent: TTLCache[Parts, bool] = TTLCache(4096, ABSENT_SECONDS, clock)  # guarded by _lock
        self.details = Details(api, blobs, pool, keep=refresh, bound=bound, clock=clock)

    def close(self) -> None:
        """End what runs in the background, and let go of the store. May be called again."""
        self._sync.stop()
        self._reconciler.stop()
        self._store.close()

    # -- what is known -------------------------------------------------------------------------------------------

    def root(self, check: Check) -> Folder:
        """See `Catalog.root`."""
        if not self._sync.has_begun():
            refresh, patience = self._refresh_if_old(PATIENCE_SECONDS)
            wait_until(lambda: refresh is None or refresh.done() or self._sync.has_begun(), check, patience)
        return self._store.root()

    def totals(self) -> Totals:
        """See `Catalog.totals`."""
        return self._store.totals()

    def listing(self, parts: Parts, check: Check) -> StoredListing:
        """See `Catalog.listing`."""
        return self.whole(lambda: self._listing(parts), check)

    def everything(self, check: Check) -> StoredListing:
        """See `Catalog.everything`."""
        return self.whole(lambda: StoredListing(self._store, None), check)

    def _listing(self, parts: Parts) -> StoredListing | NoSuchEntry | NotAFolder:
        found = self._store.find(parts)
        if found is None:
            return NoSuchEntry(f"no folder artifacts/{'/'.join(parts)}")
        if not isinstance(found, Folder):
            return NotAFolder(f"artifacts/{'/'.join(parts)} is a file")
        return StoredListing(self._store, found.id)

    def whole(self, begin: Callable[[], StoredListing | NoSuchEntry | NotAFolder], check: Check) -> StoredListing:
        """Begin a listing once everything is known, also if that was lost just now and had to be asked for again."""
        for _ in range(LOSSES):
            self.bring_up_to_date(check)
            begun = begin()
            if not self._sync.is_complete():
                continue
            if isinstance(begun, Exception):
                raise begun
            return begun
        raise CatalogError("the catalog is lost again and again")

    def record(self, uuid: str, check: Check) -> ArtifactRecord:
        """See `Catalog.record`."""
        record = self._store.record(uuid)
        return record if record is not None and record.is_ready else self.details.record(uuid, check)

    def whole_record(self, uuid: str, check: Check) -> ArtifactRecord:
        """See `Catalog.whole_record`."""
        return self.details.record(uuid, check)

    def aspects(self, uuid: str, check: Check) -> tuple[AspectRecord, ...]:
        """See `Catalog.aspects`."""
        return self.details.aspects(uuid, check)

    def record_and_aspects(self, uuid: str, check: Check) -> tuple[ArtifactRecord, tuple[AspectRecord, ...]]:
        """See `Catalog.record_and_aspects`."""
        return self.details.both(uuid, check)

    def details_known(self, uuid: str) -> tuple[ArtifactRecord, tuple[AspectRecord, ...]] | None:
        """See `Catalog.details_known`."""
        return self.details.known(uuid)

    def size(self, record: ArtifactRecord, check: Check) -> int:
        """See `Catalog.size`."""
        return record.size if record.size is not None else self.details.size(record.uuid, check)

    def status(self) -> CatalogStatus:
        """Return how the catalog does; no request, no wait."""
        meta = self._store.meta()
        complete, counters = bool(meta.get("complete")), self._sync.counters
        with self._lock:
            state, time = self._state, self._clock()
            busy, failure = state.refresh is not None, state.failure
            age = None if state.listed_at is None or not complete else time - state.listed_at
        if complete:
            name = "stale" if failure else "refreshing" if busy else "current"
        else:
            name = "synchronizing" if busy else "interrupted" if "cursor" in meta or failure else "empty"
        return CatalogStatus(
            state=name,
            artifacts=meta["files"],
            pages=counters.pages,
            synchronized_pages=meta.get("pages", 0),
            rate=counters.rate,
            age=age,
            failure=str(failure) if failure else None,
            path=self._store.path,
        )

    # -- one path ------------------------------------------------------------------------------------------------

    def find(self, parts: Parts, check: Check) -> Folder | ArtifactRecord:
        """See `Catalog.find`."""
        refresh, patience = self._refresh_if_old(FIRST_PATIENCE_SECONDS)
        if refresh is not None:
            self._await_refresh(refresh, patience, check, may_miss=True)
        complete = self._sync.is_complete()
        found = self._store.find(parts)
        if isinstance(found, Folder) or (complete and found is not None):
            return found
        if is_plausible(parts):
            found = self._ask(parts, found, check, complete=complete)
        if found is None:
            raise NoSuchEntry(f"no artifact is called {'/'.join(parts)!r}")
        return found

    def _ask(
        self, parts: Parts, known: ArtifactRecord | None, check: Check, *, complete: bool
    ) -> Folder | ArtifactRecord | None:
        """Ask the server for a path that is not known, or that an unfinished synchronization may know wrongly."""
        with self._lock:
            if parts in self._absent:
                return known
            trouble = self._state.failure if self._in_trouble(self._clock()) else None
        try:
            if trouble is not None and complete:
                raise trouble.with_traceback(None)
            found = self._asking.ask(parts, check, with_folders=not complete)
        except (ApiError, TransportError, ProtocolError):
            if known is None:
                raise
            return known
        if found is None:
            with self._lock:
                self._absent[parts] = True
        return found or known

    # -- freshness -----------------------------------------------------------------------------------------------

    def bring_up_to_date(self, check: Check) -> None:
        """Wait, with patience, until the store is at most `refresh` seconds old; the first time, until it is whole."""
        refresh, patience = self._refresh_if_old()
        if refresh is not None:
            self._await_refresh(refresh, patience, check, may_miss=self._sync.is_complete())

    def _refresh_if_old(self, first_patience: float | None = None) -> tuple[Future[None] | None, float]:
        """Return (the refresh to wait for or None, how many seconds to wait for it), starting one if it is time.

        Args:
            first_patience: seconds for the first synchronization, from its beginning on; None: all that it takes.
        """
        complete = self._sync.is_complete()
        with self._lock:
            state, time = self._state, self._clock()
            if complete and (self._is_fresh(time) or self._in_trouble(time)):
                return None, 0.0
            starting = state.refresh is None
            refresh = state.refresh = state.refresh or Future()
            if starting:
                state.began_at = time
            patience = SHORT_PATIENCE_SECONDS if state.failed_at is not None else min(PATIENCE_SECONDS, self._bound)
            if not complete:
                patience = first_patience if first_patience is not None else self._bound + time - state.began_at
            left = state.began_at + patience - time
        if starting:
            submit(self._pool, self._bring, refresh, time)
        return (refresh, left) if left > 0 else (None, 0.0)

    def _is_fresh(self, time: float) -> bool:
        """Return whether what is known is young enough. The lock is held."""
        return self._state.listed_at is not None and time - self._state.listed_at < self._refresh

    def _in_trouble(self, time: float) -> bool:
        """Return whether the server failed so recently that it is not asked again. The lock is held."""
        return self._state.failed_at is not None and time - self._state.failed_at < RETRY_SECONDS

    def _await_refresh(self, refresh: Future[None], patience: float, check: Check, *, may_miss: bool) -> None:
        """Wait for a refresh; with `may_miss` there is something to go on with when it does not come, or fails."""
        while True:
            before = self._sync.counters.progress
            try:
                wait_for(refresh, check, patience, "the list of artifacts")
            except DeadlineExceeded as exc:
                if may_miss:
                    return
                if refresh.done() or self._sync.counters.progress == before:
                    raise
                log.debug("the first synchronization goes on: %s", exc)
            except (ApiError, TransportError, ProtocolError, CatalogError) as exc:
                if not may_miss:
                    raise
                log.debug("showing what was known: %s", exc)
                return
            else:
                return

    def _bring(self, refresh: Future[None], began: float) -> None:
        """Bring the store up to date; runs on the pool."""
        try:
            age = self._sync.bring_up_to_date()
            self._store.look_again()
        except Exception as exc:  # noqa: BLE001 - handed on to whoever waits
            settle(refresh, self._note_failure(exc))
            return
        with self._lock:
            state = self._state
            state.listed_at, state.refresh = began - age, None
            state.failed_at = state.failure = None
        settle(refresh, None)
        self._reconcile_if_due()

    def _note_failure(self, exc: Exception) -> IvcapfsError:
        """Remember that a refresh failed; return what whoever waits for it is told."""
        failure = exc if isinstance(exc, IvcapfsError) else ProtocolError(f"unexpected: {exc!r}")
        with self._lock:
            first = self._state.failed_at is None
            self._state.failed_at, self._state.failure, self._state.refresh = self._clock(), failure, None
        if first and not isinstance(failure, Closing):
            trace = None if failure is exc else exc
            log.warning("the list of artifacts cannot be refreshed: %s", failure, exc_info=trace)
        return failure

    def _reconcile_if_due(self) -> None:
        with self._lock:
            if self._state.reconciling:
                return
            self._state.reconciling = True
        try:
            if self._reconciler.is_due():
                self._reconciler.run()  # the pool's thread that did the refresh has nothing else to do
        finally:
            with self._lock:
                self._state.reconciling = False
