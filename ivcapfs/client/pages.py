"""Following a list from page to page, to its end but never for ever.

Used by `ivcapfs.client.api`. A generator belongs to one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

from ivcapfs.errors import ProtocolError
from ivcapfs.models import Page

T = TypeVar("T")

MOST_PAGES = 200_000
_REMEMBERED = 4
_BARREN = 3


def all_items(page: Callable[[str | None], Page[T]], key: Callable[[T], str]) -> Iterator[T]:
    """Yield the items of all pages.

    Args:
        page: gets the page of a cursor (None: the first).
        key: what makes an item the same as another.

    Raises:
        ProtocolError: the chain of pages does not end: a cursor comes again, three pages running bring
            nothing that the pages just before did not have, or there are more than `MOST_PAGES`.
    """
    cursors: set[str] = set()
    recent: deque[frozenset[str]] = deque(maxlen=_REMEMBERED)
    cursor: str | None = None
    barren = 0
    for _ in range(MOST_PAGES):
        current = page(cursor)
        yield from current.items
        cursor = current.cursor
        if cursor is None:
            return
        keys = frozenset(key(item) for item in current.items)
        barren = 0 if keys.difference(*recent) else barren + 1
        recent.append(keys)
        if cursor in cursors or barren >= _BARREN:
            raise ProtocolError("the list's pages do not come to an end")
        cursors.add(cursor)
    raise ProtocolError(f"the list has more than {MOST_PAGES} pages")
