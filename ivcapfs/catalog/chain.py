"""The list of artifacts, page by page: a chain of requests, each of which needs the answer before it.

Used by `first`, `sync` and `reconcile`. A chain belongs to one thread at a time.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TypeVar

from ivcapfs.client import Api, wire
from ivcapfs.errors import ApiError, ProtocolError
from ivcapfs.models import ArtifactRecord, Page, PageText

log = logging.getLogger(__name__)

PAGE = 50
"""Artifacts on a page; the most that the platform gives."""
MOST_PAGES = 2_000_000
BARREN = 3
REFUSED = frozenset({400, 404, 410, 422, 501})
"""How a server answers what it does not know: an order, a time, a cursor."""

ArtifactPage = Page[ArtifactRecord]
P = TypeVar("P", ArtifactPage, PageText)


def is_refusal(exc: ApiError) -> bool:
    """Return whether the server refused what was asked, rather than failed."""
    return exc.status in REFUSED


class Chain:
    """How this server gives its list: newest first, unless it turned out to refuse an order.

    Args:
        count: called with the number of items on each page that was taken.
    """

    def __init__(self, api: Api, count: Callable[[int], None]) -> None:
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

        def mark(page: ArtifactPage) -> tuple[int, frozenset[str]]:
            return len(page.items), frozenset(record.uuid for record in page.items)

        return self._walk(self._api.list_artifacts_page, mark, cursor, at_time)

    def texts(self, cursor: str | None = None) -> Iterator[PageText]:
        """Iterate the pages of the list as they come; as `pages`."""

        def mark(page: PageText) -> tuple[int, frozenset[str]]:
            return len(page.items), wire.ids_in(page)

        return self._walk(self._api.list_artifacts_text, mark, cursor, None)

    def _walk(
        self,
        ask: Callable[..., P],
        mark: Callable[[P], tuple[int, frozenset[str]]],
        cursor: str | None,
        at_time: datetime | None,
    ) -> Iterator[P]:
        """Iterate pages; `mark` tells how many items one has, and which."""
        seen: set[int] = set()
        recent: deque[frozenset[str]] = deque(maxlen=BARREN + 1)
        barren = 0
        for _ in range(MOST_PAGES):
            page = self._first(ask, at_time) if cursor is None else ask(cursor=cursor, limit=PAGE)
            count, items = mark(page)
            self._count(count)
            yield page
            cursor = page.cursor
            if cursor is None:
                return
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

    def _first(self, ask: Callable[..., P], at_time: datetime | None) -> P:
        """Take the first page; what the server refuses is left out, and not asked for again."""
        while True:
            moment = at_time if self.takes_time else None
            try:
                if self.is_ordered:
                    return ask(limit=PAGE, order_by="created-at", order_desc=True, at_time=moment)
                return ask(limit=PAGE, at_time=moment)
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
