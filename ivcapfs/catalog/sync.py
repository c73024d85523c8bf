"""What the server lists, into the catalog: all of it once, then what is new.

Used by `ivcapfs.catalog.index`. Times that are compared are the server's (`created-at`, and the `at-time` that it
echoes), never this machine's.

* **The first synchronization** walks all pages of the list as it was at one moment (`ivcapfs.catalog.first`).
* **A pass** walks newest first until a page where everything is known. It goes on a little, and every ten minutes
  through all that was created in the last ten, for what a server shows late. A pass that reaches the end of the list
  has seen everything: what it did not see is gone.
* **Artifacts that are not ready** are asked for one by one, after a tenth of their age; after a day, no more.
* **A reconcile** walks everything again (`ivcapfs.catalog.reconcile`).

Threading: `bring_up_to_date` is called by one thread at a time, on a pool; the counters may be read by any.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ivcapfs.catalog.chain import ArtifactPage, Chain
from ivcapfs.catalog.first import FirstSynchronization, moment_of
from ivcapfs.catalog.lease import Lease
from ivcapfs.catalog.placement import Listed
from ivcapfs.catalog.schema import microseconds
from ivcapfs.catalog.seen import Seen
from ivcapfs.catalog.store import Store, Transaction
from ivcapfs.client import Api
from ivcapfs.errors import ApiError, CatalogError, Closing, NotFound, TransportError
from ivcapfs.models import EPOCH, ArtifactRecord, ArtifactStatus

log = logging.getLogger(__name__)

OVERLAP = 600 * 10**6
"""Microseconds before the last pass in which artifacts may still turn up that it did not see."""
KNOWN_PAGES = 2
"""Pages where everything is known that end a pass within the overlap."""
ASKS = 50
"""Unready artifacts that one pass asks about."""
ASK_SECONDS = 86_400.0
"""Age from which an unready artifact is left to the reconcile."""
ASK_SHARE = 0.1
LEASE_POLL_SECONDS = 0.1

_MAY_BECOME_READY = frozenset(
    {ArtifactStatus.PENDING, ArtifactStatus.PARTIAL, ArtifactStatus.BUILDING, ArtifactStatus.UNKNOWN}
)


@dataclass(slots=True)
class Counters:
    """What the synchronization did so far; written by its threads, read by any.

    Attributes:
        pages: taken from the server.
        artifacts: on the pages of the walk under way or last.
        walk_began: when that walk began, by time.monotonic(); None while none is under way.
        others: pages of the first synchronization, as told by another process that does it.
    """

    pages: int = 0
    artifacts: int = 0
    walk_began: float | None = None
    others: int = 0

    def count(self, artifacts: int) -> None:
        """A page of so many artifacts came."""
        self.pages += 1
        self.artifacts += artifacts

    @property
    def progress(self) -> tuple[int, int]:
        """What is another value once something has come."""
        return self.pages, self.others

    @property
    def rate(self) -> float:
        """Artifacts per second of the walk under way."""
        began = self.walk_began
        return 0.0 if began is None else self.artifacts / max(time.monotonic() - began, 0.001)


class Synchronizer:
    """Keeps a store at what the server lists.

    Args:
        refresh: seconds for which a pass, of whichever process, is recent enough.
        wall: seconds since the epoch; used to compare with earlier mounts of this machine, never with the server.
    """

    def __init__(self, api: Api, store: Store, *, refresh: float, wall: Callable[[], float] = time.time) -> None:
        self._api = api
        self._store = store
        self._refresh = refresh
        self._wall = wall
        self._stopping = threading.Event()
        self._complete_at: int | None = None  # what was complete stays so until it is lost
        self.counters = Counters()
        self.chain = Chain(api, self.counters.count)
        self._first = FirstSynchronization(self.chain, store, self._put, wall=wall, check=self._check)

    def stop(self) -> None:
        """End what is under way, as soon as its request ends."""
        self._stopping.set()

    def is_complete(self) -> bool:
        """Return whether a synchronization was ever finished: before that, what is known is only a part."""
        losses = self._store.losses
        if self._complete_at != losses and self._store.meta().get("complete"):
            self._complete_at = losses
        return self._complete_at == losses

    def has_begun(self) -> bool:
        """Return whether the newest artifact is known: it is on the first page."""
        return self.is_complete() or bool(self._store.meta().get("pages"))

    def bring_up_to_date(self) -> float:
        """Make the store what the server lists.

        Returns:
            Seconds since that was begun: 0, unless another process or an earlier mount did it a moment ago.

        Raises:
            ApiError, TransportError, ProtocolError: the server did not say all of it.
        """
        while True:
            with Lease(self._beside(".lock")).taken() as is_ours:
                meta = self._store.meta()
                age = self._wall() - meta.get("synced", float("-inf"))
                if meta.get("complete") and 0 <= age < self._refresh:
                    return float(age)
                if is_ours and self._walked(meta):
                    return 0.0
                self.counters.others = meta.get("pages", 0)
            if self._stopping.wait(LEASE_POLL_SECONDS):
                raise Closing("the mount is being taken down")

    def _beside(self, suffix: str) -> Any:
        path = self._store.path
        return None if path is None else path.with_suffix(suffix)

    def _walked(self, meta: dict[str, Any]) -> bool:
        """Walk; return whether what was known was not lost meanwhile."""
        losses = self._store.losses
        try:
            self._walk(meta)
        except CatalogError as exc:
            if self._store.losses == losses:
                raise
            log.info("%s", exc)
            return False
        return True

    def _walk(self, meta: dict[str, Any]) -> None:
        self.counters.artifacts, self.counters.walk_began = 0, time.monotonic()
        try:
            if not meta.get("complete"):
                if self._first.run():
                    return
                meta = self._store.meta()  # it went on from an earlier mount: what is new since then is missing
            self._pass(meta)
            self._ask_unready()
        finally:
            self.counters.walk_began = None

    # -- what is new ---------------------------------------------------------------------------------------------

    def _pass(self, meta: dict[str, Any]) -> None:
        began, until = self._wall(), meta.get("until", 0)
        deep = meta.get("deep", 0)
        floor = min(until, deep) - OVERLAP
        seen = Seen(self._store.last_row()[1])
        at, known_pages, previous, is_deep = 0, 0, None, False
        for number, page in enumerate(self.chain.pages()):
            at = at or moment_of(page.at_time, page.items)
            is_deep = bool(meta.get("open")) or at >= deep + OVERLAP
            previous = self._check_order(page, previous)
            is_known = self._put_page(page, at, seen, is_first=number == 0)
            known_pages += is_known
            self._check()
            if page.cursor is None:
                self._forget_unseen(seen, at - OVERLAP)
            elif self.chain.is_ordered and is_known:
                oldest = min((microseconds(record.created_at) for record in page.items), default=at)
                if oldest < floor or (not is_deep and known_pages >= KNOWN_PAGES):
                    break
        self._store.write(lambda write: self._finish(write, max(at, until), began, is_deep))

    def _put_page(self, page: ArtifactPage, at: int, seen: Seen, *, is_first: bool) -> bool:
        """Store a page; return whether everything on it was known."""

        def run(write: Transaction) -> bool:
            stored = self._put(write, page.items, at)
            is_known = all(known for _, known in stored.values())
            if is_first and not is_known:
                write.note(open=1)  # until the pass ends, a known page does not mean that those behind it are known
            seen.add(row for row, _ in stored.values())
            return is_known

        return self._store.write(run)

    def _finish(self, write: Transaction, until: int, began: float, is_deep: bool) -> None:
        if not write.meta().get("complete"):
            raise CatalogError("the catalog was lost: all of it is synchronized again")
        write.note(open=None, until=until, synced=began)
        if is_deep:
            write.note(deep=until)

    def _check_order(self, page: ArtifactPage, previous: ArtifactRecord | None) -> ArtifactRecord | None:
        """Look whether a page goes on where the one before it ended; return its last artifact."""
        for record in page.items:
            if record.created_at == EPOCH and previous is None:
                self.chain.give_up_order("artifacts have no created-at")
            elif previous is not None and record.created_at > previous.created_at:
                self.chain.give_up_order("an older artifact comes before a newer one")
            previous = record
        return previous

    def _forget_unseen(self, seen: Seen, until: int) -> None:
        gone = forget_unseen(self._store, seen, until)
        if gone:
            log.info("%d artifacts are no longer listed", gone)

    # -- artifacts that are not ready ----------------------------------------------------------------------------

    def _put(self, write: Transaction, records: Iterable[Listed], at: int) -> dict[str, tuple[int, bool]]:
        """Store records, and note which of them to ask about; `at` is the server's present time."""
        records = list(records)
        stored = write.put(records)
        for record in records:
            if record.status is not ArtifactStatus.READY and record.status in _MAY_BECOME_READY:
                age = max(0.0, (at - microseconds(record.created_at)) / 1e6)
                self._ask_later(write, stored[record.uuid][0], self._wall() - age)
        return stored

    def _ask_later(self, write: Transaction, row: int, since: float) -> None:
        age = self._wall() - since
        write.await_ready(
            row, since, None if age > ASK_SECONDS else self._wall() + max(self._refresh, age * ASK_SHARE)
        )

    def _ask_unready(self) -> None:
        """Ask about the unready artifacts that it is time for."""
        for uuid, since in self._store.due(self._wall(), ASKS):
            self._check()
            record, is_gone = None, False
            try:
                record = self._api.read_artifact(uuid)
            except NotFound:
                is_gone = True
            except TransportError as exc:
                log.debug("unready artifacts are asked for later: %s", exc)
                return
            except ApiError as exc:
                log.debug("asking for %s later: %s", uuid, exc)
            self._store.write(partial(self._put_asked, record=record, uuid=uuid, since=since, is_gone=is_gone))

    def _put_asked(
        self, write: Transaction, *, record: ArtifactRecord | None, uuid: str, since: float, is_gone: bool
    ) -> None:
        """Store what the server said of an unready artifact; neither record nor gone: it did not say."""
        row = write.put([record])[uuid][0] if record is not None else write.row(uuid)
        if is_gone:
            write.remove([row])
        elif record is None or record.status in _MAY_BECOME_READY:
            self._ask_later(write, row, since)
        else:
            write.await_ready(row, since, None)

    def _check(self) -> None:
        if self._stopping.is_set():
            raise Closing("the mount is being taken down")


def forget_unseen(store: Store, seen: Seen, until: int) -> int:
    """Forget the artifacts that a walk over the whole list did not see; return how many.

    Args:
        until: younger ones, by microseconds of the server's time, are left alone: a list may show them late.
    """
    gone = 0
    after = 0
    while rows := store.rows(after, until, 5000):
        after = rows[-1]
        unseen = [row for row in rows if row not in seen and row <= seen.last]
        if unseen:
            gone += store.write(partial(Transaction.remove, ids=unseen))
    return gone
