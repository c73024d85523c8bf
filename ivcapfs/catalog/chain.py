"""The list of artifacts, page by page: a chain of requests, each of which needs the answer before it.

Used by `sync` and `reconcile`. `Chain` belongs to one thread; `FetchAhead` fetches on a thread of its own, so that the
chain never waits for the database.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime

from ivcapfs.client import Api
from ivcapfs.errors import ApiError, ProtocolError
from ivcapfs.models import ArtifactRecord, Page

log = logging.getLogger(__name__)

PAGE = 50
"""Artifacts on a page; the most that the platform gives."""
MOST_PAGES = 2_000_000
AHEAD = 2
"""Pages that may wait to be stored."""
BARREN = 3
REFUSED = frozenset({400, 404, 410, 422, 501})
"""How a server answers what it does not know: an order, a time, a cursor."""

ArtifactPage = Page[ArtifactRecord]


def is_refusal(exc: ApiError) -> bool:
    """Return whether the server refused what was asked, rather than failed."""
    return exc.status in REFUSED


class Chain:
    """How this server gives its list: newest first, unless it turned out to refuse an order.

    Args:
        count: called with each page that was taken.
    """

    def __init__(self, api: Api, count: Callable[[ArtifactPage], None]) -> None:
        self._api = api
        self._count = count
        self.is_ordered = True
        self.takes_time = True

    def pages(self, cursor: str | None = None, at_time: datetime | None = None) -> Iterator[ArtifactPage]:
        """Iterate the pages of the list, newest artifacts first.

        Args:
            cursor: where to go on; None: at the beginning.
            at_time: the list as it was then; None: as it is now. Cursors keep the time of their first page.

        Raises:
            ApiError, TransportError: a page cannot be had; none is ever left out.
            ProtocolError: the pages do not come to an end.
        """
        seen: set[int] = set()
        recent: deque[frozenset[str]] = deque(maxlen=BARREN + 1)
        barren = 0
        for _ in range(MOST_PAGES):
            page = self._first(at_time) if cursor is None else self._api.list_artifacts_page(cursor=cursor, limit=PAGE)
            self._count(page)
            yield page
            cursor = page.cursor
            if cursor is None:
                return
            items = frozenset(record.uuid for record in page.items)
            barren = 0 if items.difference(*recent) else barren + 1
            recent.append(items)
            if hash(cursor) in seen or barren >= BARREN:
                raise ProtocolError("the list's pages do not come to an end")
            seen.add(hash(cursor))
        raise ProtocolError(f"the list has more than {MOST_PAGES} pages")

    def give_up_order(self, why: object) -> None:
        """The server does not keep the order asked for: from now on the whole list is walked each time."""
        if self.is_ordered:
            self.is_ordered = False
            log.warning("the server does not list artifacts by time, so each refresh walks the whole list: %s", why)

    def _first(self, at_time: datetime | None) -> ArtifactPage:
        """Take the first page; what the server refuses is left out, and not asked for again."""
        while True:
            moment = at_time if self.takes_time else None
            try:
                if self.is_ordered:
                    return self._api.list_artifacts_page(
                        limit=PAGE, order_by="created-at", order_desc=True, at_time=moment
                    )
                return self._api.list_artifacts_page(limit=PAGE, at_time=moment)
            except ApiError as exc:
                if not is_refusal(exc):
                    raise
                if moment is not None:
                    self.takes_time = False
                    log.warning("the server does not list artifacts as of a time: %s", exc)
                elif self.is_ordered:
                    self.give_up_order(exc)
                else:
                    raise


class FetchAhead:
    """Pages, fetched while those before them are stored.

    Args:
        pages: used on the fetching thread alone.
    """

    def __init__(self, pages: Iterator[ArtifactPage]) -> None:
        self._pages = pages
        self._changed = threading.Condition()
        self._waiting: deque[ArtifactPage] = deque()  # guarded by _changed
        self._ended = False  # guarded by _changed
        self._failure: Exception | None = None  # guarded by _changed
        self._thread = threading.Thread(target=self._run, name="catalog-fetch", daemon=True)
        self._thread.start()

    def take(self) -> list[ArtifactPage]:
        """Return all pages that have come, at least one; none at the end.

        Raises:
            IvcapfsError: what the fetching raised, once all pages before it were taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            pages = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
            if not pages and self._failure is not None:
                raise self._failure
            return pages

    def stop(self) -> None:
        """No more pages are wanted; one may still be on its way."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            for page in self._pages:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._waiting) < AHEAD or self._ended)
                    if self._ended:
                        return
                    self._waiting.append(page)
                    self._changed.notify_all()
        except Exception as exc:  # noqa: BLE001 - handed on to whoever takes
            self._failure = exc
        finally:
            self.stop()
