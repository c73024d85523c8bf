"""A set of artifacts under their names: what a search found, what is in a collection, or the collections themselves.

Used by `collections` and `search`. The names are given by the catalog's own tables and rules, kept in memory here; so
what holds for `artifacts/` (see `names`) holds for every other set.

Threading: any thread may call anything; see `ivcapfs.catalog.store`.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import partial
from itertools import islice

from ivcapfs.catalog.interface import Folder
from ivcapfs.catalog.listing import StoredListing
from ivcapfs.catalog.names import Parts
from ivcapfs.catalog.store import Store, Transaction
from ivcapfs.errors import NoSuchEntry, NotAFolder
from ivcapfs.models import ArtifactRecord
from ivcapfs.waits import Check, never

PORTION = 5000
BASE_WEIGHT = 500
"""What an empty set takes in memory, in artifacts."""


class _MemoryStore(Store):
    """A store in memory that is closed when nobody uses it any more, listings included."""

    def __init__(self) -> None:
        super().__init__(None, "")
        weakref.finalize(self, self._database.close)


class Gathered:
    """Artifacts under their names. What is listed already goes on as it was when one is put in or taken out.

    Args:
        records: those that are not ready are left out.
        what: the set in words, for messages.
    """

    def __init__(self, records: Iterable[ArtifactRecord], what: str) -> None:
        self._what = what
        self._store = _MemoryStore()
        ready = (record for record in records if record.is_ready)
        while portion := list(islice(ready, PORTION)):
            self._store.write(partial(Transaction.put, records=portion))
        self._changed()

    def put(self, record: ArtifactRecord) -> None:
        """Put an artifact in, or a newer record of it in the place of the older."""
        self._store.write(partial(Transaction.put, records=[record]))
        self._changed()

    def remove(self, uuid: str) -> None:
        """Take an artifact out, if it is here."""
        self._store.write(lambda write: write.remove([write.row(uuid)]))
        self._changed()

    def has(self, uuid: str) -> bool:
        """Return whether an artifact is here."""
        return self._store.record(uuid) is not None

    def _changed(self) -> None:
        self._top = self._store.root()
        self.weight = BASE_WEIGHT + self._store.totals().files

    def root(self, check: Check = never) -> Folder:
        """Return the top folder."""
        return self._top

    def get(self, parts: Parts) -> Folder | ArtifactRecord | None:
        """Return what is at a path, or None."""
        return self._store.find(parts)

    def find(self, parts: Parts, check: Check) -> Folder | ArtifactRecord:
        """Return what is at a path.

        Raises:
            NoSuchEntry: there is nothing.
        """
        found = self._store.find(parts)
        if found is None:
            raise NoSuchEntry(f"{self._what} has no {'/'.join(parts)!r}")
        return found

    def listing(self, parts: Parts, check: Check) -> StoredListing:
        """Begin to read a folder.

        Raises:
            NoSuchEntry, NotAFolder: there is no such folder.
        """
        found = self.find(parts, check)
        if not isinstance(found, Folder):
            raise NotAFolder(f"{'/'.join(parts)} in {self._what} is a file")
        return StoredListing(self._store, found.id)
