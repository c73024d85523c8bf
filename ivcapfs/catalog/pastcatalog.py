"""The catalog at a moment of the past: the artifacts from its tables, their aspects from the server, with ``at-time``.

Implements `ivcapfs.catalog.interface.Catalog`, so that `artifacts/` and `by-id/` below `at/<time>/` are the same views
over another catalog. It holds no state but the shared answers, so there may be one for each question.

Threading: any thread may call anything.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from datetime import datetime, timedelta

from ivcapfs.catalog.index import Index
from ivcapfs.catalog.interface import Folder, Totals
from ivcapfs.catalog.kept import Kept, Progress
from ivcapfs.catalog.listing import StoredListing
from ivcapfs.catalog.moments import moment_text
from ivcapfs.catalog.names import Parts
from ivcapfs.catalog.past import Past
from ivcapfs.catalog.schema import microseconds
from ivcapfs.catalog.store import Store
from ivcapfs.client import Api
from ivcapfs.errors import NoSuchEntry, NotAFolder, NotFound
from ivcapfs.models import ARTIFACT_URN, ArtifactRecord, AspectRecord
from ivcapfs.waits import Check

ANSWERS = 10_000
"""Artifacts whose aspects at a moment are remembered, over all moments."""
RECENT = timedelta(minutes=10)
"""For moments so close to the present an unknown name is asked for: the lists may be about to show it."""

PastAspects = Kept[tuple[str, datetime], tuple[AspectRecord, ...]]


def past_aspects(
    api: Api, pool: Executor, *, keep: float, bound: float, clock: Callable[[], float]
) -> PastAspects:
    """Return the answers to what aspects an artifact had at a moment, newest first."""

    def ask(key: tuple[str, datetime], step: Progress) -> tuple[AspectRecord, ...]:
        uuid, moment = key
        stood = list(api.iter_aspects(entity=ARTIFACT_URN + uuid, include_content=True, at_time=moment))
        return tuple(sorted(stood, key=lambda aspect: aspect.valid_from, reverse=True))

    return Kept("aspects of the past", ask, pool, keep=keep, bound=bound, clock=clock, most=ANSWERS)


class PastCatalog:
    """See the module.

    Args:
        index: the present.
        wall: tells the present time.
    """

    def __init__(
        self, index: Index, store: Store, aspects: PastAspects, moment: datetime, wall: Callable[[], datetime]
    ) -> None:
        self._index = index
        self._store = store
        self._aspects = aspects
        self._moment = moment
        self._wall = wall
        self._past = Past(store, microseconds(moment))

    def root(self, check: Check) -> Folder:
        """See `Catalog.root`."""
        return self._past.root()

    def totals(self) -> Totals:
        """See `Catalog.totals`; those of the present."""
        return self._index.totals()

    def listing(self, parts: Parts, check: Check) -> StoredListing:
        """See `Catalog.listing`."""
        return self._index.whole(lambda: self._listing(parts), check)

    def everything(self, check: Check) -> StoredListing:
        """See `Catalog.everything`."""
        return self._index.whole(lambda: self._past.listing(None), check)

    def find(self, parts: Parts, check: Check) -> Folder | ArtifactRecord:
        """See `Catalog.find`; waits for the first synchronization, for before that nobody owns a name for sure."""
        self._index.whole(lambda: self._past.listing(None), check)
        found = self._past.find(parts)
        if found is None and parts and self._wall() - self._moment < RECENT:
            self._index.find(parts, check)  # what it finds is in the store then
            found = self._past.find(parts)
        if found is None:
            raise NoSuchEntry(f"no artifact was called {'/'.join(parts)!r} at {moment_text(self._moment)}")
        return found

    def record(self, uuid: str, check: Check) -> ArtifactRecord:
        """See `Catalog.record`.

        Raises:
            NotFound: also where the artifact was created later.
        """
        record = self._index.record(uuid, check)
        if record.created_at > self._moment:
            raise NotFound(f"artifact {uuid} was created after {moment_text(self._moment)}")
        return record

    def whole_record(self, uuid: str, check: Check) -> ArtifactRecord:
        """See `Catalog.whole_record`; records have no history."""
        return self._index.whole_record(uuid, check)

    def aspects(self, uuid: str, check: Check) -> tuple[AspectRecord, ...]:
        """Return the aspects that stood then, newest first."""
        return self._aspects.get((uuid, self._moment), check)

    def record_and_aspects(self, uuid: str, check: Check) -> tuple[ArtifactRecord, tuple[AspectRecord, ...]]:
        """See `Catalog.record_and_aspects`; one after the other."""
        return self.whole_record(uuid, check), self.aspects(uuid, check)

    def details_known(self, uuid: str) -> None:
        """See `Catalog.details_known`; nothing is, for certain."""
        return

    def size(self, record: ArtifactRecord, check: Check) -> int:
        """See `Catalog.size`."""
        return self._index.size(record, check)

    def _listing(self, parts: Parts) -> StoredListing | NoSuchEntry | NotAFolder:
        found = self._past.find(parts)
        if found is None:
            return NoSuchEntry(f"no folder artifacts/{'/'.join(parts)} at {moment_text(self._moment)}")
        if not isinstance(found, Folder):
            return NotAFolder(f"artifacts/{'/'.join(parts)} was a file")
        return self._past.listing(found.id)
