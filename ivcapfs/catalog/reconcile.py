"""A slow walk over the whole list, once a day, for what the passes cannot see: artifacts that vanished, or were missed.

Used by `ivcapfs.catalog.index`. It rests four times as long as each page took, so that it costs a fifth of what a
synchronization does; it goes on where it was interrupted. The list is that of the last pass's moment: what came later
is the next pass's business.

Threading: `run` is called by one thread at a time; `stop` by any.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from ivcapfs.catalog.chain import ArtifactPage, Chain, is_refusal
from ivcapfs.catalog.lease import Lease
from ivcapfs.catalog.seen import Seen
from ivcapfs.catalog.store import Store, Transaction
from ivcapfs.catalog.sync import OVERLAP, Counters, forget_unseen
from ivcapfs.client import Api
from ivcapfs.errors import ApiError, IvcapfsError
from ivcapfs.models import EPOCH

log = logging.getLogger(__name__)

REST = 4.0
"""How many times longer than a page took the walk rests after it."""
NOTE_PAGES = 100
"""After so many pages it is noted how far the walk has come."""
RETRY_SECONDS = 3600.0


class Reconciler:
    """Walks everything again when it is time.

    Args:
        period: seconds between two walks; 0: never.
        wall: seconds since the epoch.
    """

    def __init__(
        self, api: Api, store: Store, counters: Counters, *, period: float, wall: Callable[[], float] = time.time
    ) -> None:
        self._chain = Chain(api, counters.count)
        self._store = store
        self._period = period
        self._wall = wall
        self._stopping = threading.Event()
        self._retry_at = float("-inf")

    def stop(self) -> None:
        """End what is under way, as soon as its request ends."""
        self._stopping.set()

    def is_due(self) -> bool:
        """Return whether it is time for a walk."""
        if not self._period or self._wall() < self._retry_at:
            return False
        meta = self._store.meta()
        return bool(meta.get("complete")) and self._wall() - meta.get("reconciled", 0.0) >= self._period

    def run(self) -> None:
        """Walk everything once, unless another process does. Raises nothing: what fails is tried again in an hour."""
        path = self._store.path
        try:
            with Lease(None if path is None else path.with_suffix(".reconcile")).taken() as is_ours:
                if is_ours and self.is_due():
                    self._walk()
        except IvcapfsError as exc:
            self._retry_at = self._wall() + RETRY_SECONDS
            if not self._stopping.is_set():
                log.info("the reconcile is tried again later: %s", exc)
        except Exception:
            self._retry_at = self._wall() + RETRY_SECONDS
            log.exception("the reconcile failed unexpectedly")

    def _walk(self) -> None:
        meta = self._store.meta()
        try:
            self._walk_from(meta, meta.get("reconcile_cursor"))
        except ApiError as exc:
            if "reconcile_cursor" not in meta or not is_refusal(exc):
                raise
            self._walk_from(meta, None)

    def _walk_from(self, meta: dict[str, Any], cursor: str | None) -> None:
        until = meta["reconcile_until"] if cursor else meta.get("until", 0)
        seen = Seen(meta["reconcile_last"] if cursor else self._store.last_row()[1])
        if cursor:
            seen.restore(meta["reconcile_seen"])
        began = time.monotonic()
        at_time = EPOCH + timedelta(microseconds=until) if until else None
        for number, page in enumerate(self._chain.pages(cursor, at_time), 1):
            self._store.write(partial(self._put, page=page, seen=seen, until=until, number=number))
            if self._stopping.wait(REST * (time.monotonic() - began)):
                return
            began = time.monotonic()
        gone = forget_unseen(self._store, seen, until - OVERLAP)
        log.info("reconciled with the server: %d artifacts are no longer listed", gone)
        self._store.write(self._finish)

    def _put(self, write: Transaction, *, page: ArtifactPage, seen: Seen, until: int, number: int) -> None:
        seen.add(row for row, _ in write.put(page.items).values())
        if page.cursor and number % NOTE_PAGES == 0:
            write.note(
                reconcile_cursor=page.cursor,
                reconcile_until=until,
                reconcile_last=seen.last,
                reconcile_seen=seen.saved(),
            )

    def _finish(self, write: Transaction) -> None:
        write.note(
            reconciled=self._wall(),
            reconcile_cursor=None,
            reconcile_until=None,
            reconcile_last=None,
            reconcile_seen=None,
        )
