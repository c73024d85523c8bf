"""One reading of a folder, batch by batch from the store.

Used by `ivcapfs.catalog.index`. Belongs to one thread at a time, as the kernel reads a folder through one handle. No
cursor of the database is kept between two calls.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from operator import itemgetter

from ivcapfs.catalog.interface import Entry
from ivcapfs.catalog.store import Store
from ivcapfs.errors import CatalogError

_cookie = itemgetter(2)


class StoredListing:
    """See `ivcapfs.catalog.interface.Listing`.

    Args:
        folder: its row; None: all ready artifacts by their uuids.
    """

    def __init__(self, store: Store, folder: int | None) -> None:
        self._store = store
        self._folder = folder
        self._losses = store.losses
        self._last = store.last_row()
        self._after = 0  # the cookie that `_batch` begins behind
        self._batch: list[Entry] = []

    def entries(self, after: int) -> Iterator[Entry]:
        """See `Listing.entries`.

        Raises:
            CatalogError: the catalog was lost meanwhile; what is left of the folder is not known.
        """
        while True:
            batch = self._behind(after)
            if not batch:
                return
            for entry in batch[bisect_right(batch, after, key=_cookie) :]:
                yield entry
                after = entry[2]

    def _behind(self, after: int) -> list[Entry]:
        """Return a batch that has the entry behind a cookie, the one at hand if it does."""
        if not self._batch or not self._after <= after < self._batch[-1][2]:
            self._batch = self._take(after, self._last)
            self._after = after
            if self._store.losses != self._losses:
                raise CatalogError("the catalog was damaged while a folder was read: read it again")
        return self._batch

    def _take(self, after: int, last: tuple[int, int]) -> list[Entry]:
        if self._folder is None:
            return self._store.all_batch(after, last)
        return self._store.folder_batch(self._folder, after, last)
