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
from ivcapfs.catalog.placement import Listed
from ivcapfs.catalog.schema import microseconds
from ivcapfs.catalog.store import Store, Transaction
from ivcapfs.client import wire
from ivcapfs.config import MIB
from ivcapfs.errors import ApiError, CatalogError
from ivcapfs.models import PageText

log = logging.getLogger(__name__)

BATCH_PAGES = 400
"""Pages that are worth a transaction: 20,000 rows, which meet in the pages of the indexes."""
BATCH_BYTES = 8 * MIB
"""Of fewer pages that are worth a transaction, too."""
BATCH_SECONDS = 2.0
"""After which so few as have come are worth one."""
MOST_PAGES = BATCH_PAGES
"""Pages that wait to be read, at most; as many bytes as twice a batch."""

Put = Callable[[Transaction, Iterable[Listed], int], Any]


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
        batch = Batch()
        for page in pages:
            batch.add(page)
        self._store_batch(walk, batch)
        return walk

    def _walk(self, walk: Walk, inbox: Inbox) -> None:
        if walk.cursor is None:
            walk.begun = self._wall()
        fetching = Fetching(self._chain.texts(walk.cursor), inbox, walk)
        batch = Batch()
        try:
            while pages := fetching.take():
                for page in pages:
                    batch.add(page)
                if batch.is_worth_storing() or not walk.pages:  # the first page at once: it has the newest
                    self._store_batch(walk, batch)
                    batch = Batch()
                self._check()
        finally:
            fetching.stop()
        if batch.pages:
            self._store_batch(walk, batch)
        if fetching.failure is not None:
            raise fetching.failure
        inbox.clear()

    def _store_batch(self, walk: Walk, batch: Batch) -> None:
        self._store.write(partial(self._write, walk=walk, batch=batch))
        walk.pages, walk.cursor = walk.pages + batch.pages, batch.cursor

    def _write(self, write: Transaction, *, walk: Walk, batch: Batch) -> None:
        meta = write.meta()
        if walk.pages and ("cursor" not in meta or meta.get("walk", walk.token) != walk.token):
            raise CatalogError("the catalog was lost during its first synchronization, which begins again")
        self._put(write, batch.records, walk.at)
        pages = walk.pages + batch.pages
        write.note(cursor=batch.cursor, at=walk.at, pages=pages, begun=walk.begun, walk=walk.token)
        if batch.cursor is None:
            write.note(complete=1, until=walk.at, deep=walk.at, synced=walk.begun, reconciled=walk.begun, walk=None)
            log.info("the first synchronization is complete")


class Batch:
    """Pages that go into the database together. One thread."""

    def __init__(self) -> None:
        self.records: list[Listed] = []
        self.pages = 0
        self.cursor: str | None = None
        self._bytes = 0
        self._began = time.monotonic()

    def add(self, page: PageText) -> None:
        """Read the next page."""
        self.records += wire.artifacts_in(page)
        self.pages += 1
        self.cursor = page.cursor
        self._bytes += len(page.body)

    def is_worth_storing(self) -> bool:
        """Return whether it is large, or old, enough."""
        is_large = self.pages >= BATCH_PAGES or self._bytes >= BATCH_BYTES
        return is_large or time.monotonic() - self._began >= BATCH_SECONDS


class Fetching:
    """Pages, fetched while those before them are read and stored.

    Args:
        pages: used on the fetching thread alone, as is `inbox`.
        walk: gets its moment from the first page, before that is handed out.

    Attributes:
        failure: what ended it, once `take` has returned nothing; None: the list's end.
    """

    def __init__(self, pages: Iterator[PageText], inbox: Inbox, walk: Walk) -> None:
        self._pages = pages
        self._inbox = inbox
        self._walk = walk
        self._changed = threading.Condition()
        self._waiting: list[PageText] = []  # guarded by _changed
        self._bytes = 0  # of what waits; guarded by _changed
        self._ended = False  # guarded by _changed
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="catalog-fetch", daemon=True)
        self._thread.start()

    def take(self) -> list[PageText]:
        """Return all pages that have come, at least one; none at the end, or after a failure."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            pages, self._waiting, self._bytes = self._waiting, [], 0
            self._changed.notify_all()
            return pages

    def stop(self) -> None:
        """No more pages are wanted; one may still be on its way."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _run(self) -> None:
        number = 0
        try:
            for number, page in enumerate(self._pages):
                if self._ended:
                    return
                if number == 0:
                    self._begin(page)
                self._inbox.append(page)
                self._hand_over(page)
        except Exception as exc:  # noqa: BLE001 - handed on to whoever takes
            self.failure = exc
        finally:
            self._inbox.close()
            self.stop()

    def _begin(self, page: PageText) -> None:
        if self._walk.cursor is None:
            self._walk.at = moment_of(page.at_time, wire.artifacts_in(page))
        self._inbox.begin(self._walk)

    def _hand_over(self, page: PageText) -> None:
        """Let a page be taken, as soon as not too many wait."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_room() or self._ended)
            self._waiting.append(page)
            self._bytes += len(page.body)
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return len(self._waiting) < MOST_PAGES and self._bytes < 2 * BATCH_BYTES


def moment_of(at_time: datetime | None, records: Iterable[Listed]) -> int:
    """Return the time that a page is of, in microseconds: the server's word, or the newest artifact's."""
    if at_time is not None:
        return microseconds(at_time)
    return max((microseconds(record.created_at) for record in records), default=0)
