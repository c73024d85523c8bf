"""The first synchronization: all pages of the list as it was at one moment, each asked for once.

Used by `ivcapfs.catalog.sync`. One thread fetches: it asks for the next page as soon as the one before it is parsed and
kept (`inbox`), so that the server never waits for the database. The caller's thread stores what has come, in batches.
Each batch is stored together with the cursor behind it.

Threading: `run` is called by one thread at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from typing import Any

from ivcapfs.catalog.chain import Chain, is_refusal
from ivcapfs.catalog.inbox import Inbox, Walk
from ivcapfs.catalog.schema import microseconds
from ivcapfs.catalog.store import Store, Transaction
from ivcapfs.client import wire
from ivcapfs.config import MIB
from ivcapfs.errors import ApiError, CatalogError
from ivcapfs.models import ArtifactRecord, PageText

log = logging.getLogger(__name__)

BATCH_PAGES = 400
"""Pages that are worth a transaction: 20,000 rows, which meet in the pages of the indexes."""
MOST_PAGES = 2 * BATCH_PAGES
"""Pages that wait to be stored, at most."""
BATCH_BYTES = 16 * MIB
"""Of fewer pages that are worth a transaction, too; twice as many wait at most."""
BATCH_SECONDS = 2.0
"""So long after the last batch fewer pages are worth one, too."""

Put = Callable[[Transaction, Iterable[ArtifactRecord], int], Any]


class FirstSynchronization:
    """Walks all pages.

    Args:
        put: stores records in a transaction, as they are at a moment of the server's.
        wall: seconds since the epoch.
        check: called between two batches; raises where the walk is to end.
    """

    def __init__(
        self, chain: Chain, store: Store, put: Put, *, wall: Callable[[], float], check: Callable[[], None]
    ) -> None:
        self._chain = chain
        self._store = store
        self._put = put
        self._wall = wall
        self._check = check

    def run(self) -> bool:
        """Walk to the end; return whether that was all from the beginning, and not what an earlier mount had left.

        Raises:
            ApiError, TransportError, ProtocolError: the server did not say all of it.
            CatalogError: what was stored got lost.
        """
        inbox = Inbox(self._store.path)
        walk = self._resumed(inbox)
        if walk is None:
            self._walk(Walk(), inbox)
            return True
        if walk.cursor is not None:
            log.info("the first synchronization goes on after %d pages", walk.pages)
            try:
                self._walk(walk, inbox)
            except ApiError as exc:
                if not is_refusal(exc):
                    raise
                log.info(
                    "the first synchronization begins again, for the server does not go on where it ended: %s", exc
                )
                self._walk(Walk(), inbox)
        return False

    def _resumed(self, inbox: Inbox) -> Walk | None:
        """Return the walk that an earlier mount began, with the pages stored that it had taken; None: there is none."""
        meta = self._store.meta()
        walk = None
        if "cursor" in meta:
            walk = Walk(meta.get("at", 0), meta.get("begun", 0.0), meta.get("pages", 0), meta["cursor"])
            walk.token = meta.get("walk", walk.token)
        kept = inbox.kept(walk)
        if kept is None:
            return walk
        walk, pages = kept
        self._store_batch(walk, pages)
        return walk

    def _walk(self, walk: Walk, inbox: Inbox) -> None:
        if walk.cursor is None:
            walk.begun = self._wall()
        batches = Batches(self._chain.texts(walk.cursor), inbox, walk)
        try:
            while pages := batches.take():
                self._store_batch(walk, pages)
                self._check()
        finally:
            batches.stop()
        inbox.clear()

    def _store_batch(self, walk: Walk, pages: list[PageText]) -> None:
        records = [record for page in pages for record in wire.artifacts_in(page)]
        self._store.write(partial(self._write, walk=walk, pages=pages, records=records))
        walk.pages, walk.cursor = walk.pages + len(pages), pages[-1].cursor

    def _write(self, write: Transaction, *, walk: Walk, pages: list[PageText], records: list[ArtifactRecord]) -> None:
        meta = write.meta()
        if walk.pages and ("cursor" not in meta or meta.get("walk", walk.token) != walk.token):
            raise CatalogError("the catalog was lost during its first synchronization, which begins again")
        self._put(write, records, walk.at)
        cursor = pages[-1].cursor
        write.note(cursor=cursor, at=walk.at, pages=walk.pages + len(pages), begun=walk.begun, walk=walk.token)
        if cursor is None:
            write.note(complete=1, until=walk.at, deep=walk.at, synced=walk.begun, reconciled=walk.begun, walk=None)
            log.info("the first synchronization is complete")


class Batches:
    """Pages, fetched while those before them are stored.

    Args:
        pages: used on the fetching thread alone, as is `inbox`.
        walk: gets its moment from the first page, before that is handed out.
    """

    def __init__(self, pages: Iterator[PageText], inbox: Inbox, walk: Walk) -> None:
        self._pages = pages
        self._inbox = inbox
        self._walk = walk
        self._changed = threading.Condition()
        self._batch: list[PageText] = []  # that may be taken; guarded by _changed
        self._is_idle = False  # whether somebody waits for a batch; guarded by _changed
        self._ended = False  # guarded by _changed
        self._failure: Exception | None = None  # guarded by _changed
        self._thread = threading.Thread(target=self._run, name="catalog-fetch", daemon=True)
        self._thread.start()

    def take(self) -> list[PageText]:
        """Return the next pages, once the last ones are stored; none at the end.

        Raises:
            IvcapfsError: what the fetching raised, once all pages before it were taken.
        """
        with self._changed:
            self._is_idle = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._batch or self._ended)
            self._is_idle = False
            pages, self._batch = self._batch, []
            if not pages and self._failure is not None:
                raise self._failure
            return pages

    def stop(self) -> None:
        """No more pages are wanted; one may still be on its way."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _run(self) -> None:
        waiting: list[PageText] = []
        size = 0
        is_first, last = True, time.monotonic()
        try:
            for page in self._pages:
                if self._ended:
                    return
                if is_first:
                    self._begin(page)
                    is_first = False
                self._inbox.append(page)
                waiting.append(page)
                size += len(page.body)
                is_full = len(waiting) >= MOST_PAGES or size >= 2 * BATCH_BYTES
                is_late = time.monotonic() - last >= BATCH_SECONDS
                is_worth = is_full or is_late or len(waiting) >= BATCH_PAGES or size >= BATCH_BYTES
                if is_worth and self._hand_over(waiting, patient=is_full):
                    self._inbox.turn()
                    waiting, size, last = [], 0, time.monotonic()
        except Exception as exc:  # noqa: BLE001 - handed on to whoever takes
            self._failure = exc
        finally:
            self._inbox.close()
            if waiting:
                self._hand_over(waiting, patient=True)
            self.stop()

    def _begin(self, page: PageText) -> None:
        if self._walk.cursor is None:
            self._walk.at = moment_of(page.at_time, wire.artifacts_in(page))
        self._inbox.begin(self._walk)

    def _hand_over(self, pages: list[PageText], *, patient: bool) -> bool:
        """Let pages be taken, if somebody waits for them; return whether that was so."""
        with self._changed:
            if patient:
                self._changed.wait_for(lambda: self._ended or (self._is_idle and not self._batch))
            if self._ended or not self._is_idle or self._batch:
                return False
            self._batch = pages
            self._changed.notify_all()
            return True


def moment_of(at_time: datetime | None, records: Iterable[ArtifactRecord]) -> int:
    """Return the time that a page is of, in microseconds: the server's word, or the newest artifact's."""
    if at_time is not None:
        return microseconds(at_time)
    return max((microseconds(record.created_at) for record in records), default=0)
