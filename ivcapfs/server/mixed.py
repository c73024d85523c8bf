"""The tables of artifacts and aspects, with those that are made by formula among them.

Used by the store in the place of the bare tables. May be used from any thread.
"""

from __future__ import annotations

import io

from ivcapfs.server import artifacts, aspects
from ivcapfs.server.artifacts import ArtifactTable
from ivcapfs.server.aspects import AspectTable
from ivcapfs.server.clock import Clock
from ivcapfs.server.database import Database
from ivcapfs.server.fields import ARTIFACT_FIELDS, ASPECT_FIELDS
from ivcapfs.server.formula import FormulaSource
from ivcapfs.server.paging import ListQuery, merge
from ivcapfs.server.records import ASPECT_PREFIX, Artifact, Aspect
from ivcapfs.server.synthetic import SCHEMA, ContentFile, Synthetic, aspect


class MixedArtifacts(ArtifactTable):
    """The artifacts' records, those by formula among them.

    Args:
        database: where the others are kept.
        clock: dates the others.
        synthetic: the formula.
    """

    def __init__(self, database: Database, clock: Clock, synthetic: Synthetic) -> None:
        super().__init__(database, clock)
        self._synthetic = synthetic
        self._source = FormulaSource(synthetic.artifacts())

    def get(self, artifact_id: str) -> Artifact | None:
        """Return the record of this URN, if there is one."""
        number = self._source.find(artifact_id)
        return super().get(artifact_id) if number is None else self._synthetic.artifact(number)

    def content(self, artifact: Artifact) -> io.RawIOBase | None:
        """Return the content of an artifact by formula, ``None`` when it is none."""
        number = self._source.find(artifact.id)
        return None if number is None else ContentFile(number, self._synthetic.size)

    def select(self, query: ListQuery) -> list[Artifact]:
        """See :meth:`ArtifactTable.select`."""
        made = self._source.select(query, artifacts.condition_of(query), None)
        return merge(query, ARTIFACT_FIELDS, [made, super().select(query)])

    def close(self) -> None:
        """Close it; it cannot be used any more."""
        self._source.close()


class MixedAspects(AspectTable):
    """The aspects' records, those by formula among them.

    One that is retracted is first taken over into the table, as what happens to it has no formula.

    Args:
        database: where the others are kept.
        clock: dates the others.
        synthetic: the formula.
    """

    def __init__(self, database: Database, clock: Clock, synthetic: Synthetic) -> None:
        super().__init__(database, clock)
        self._source = FormulaSource(synthetic.aspects())
        with database.reading() as db:
            marked = f"{ASPECT_PREFIX}________-____-8%"
            rows = db.execute("SELECT id FROM aspects WHERE id LIKE ?", (marked,)).fetchall()
        # INVARIANT: a number is in here only once its row is in the table. Adding to it is atomic.
        self._taken_over = {number for row in rows if (number := self._source.find(row["id"])) is not None}

    def get(self, aspect_id: str) -> Aspect | None:
        """Return the record of this URN, retracted or not, if there is one."""
        number = self._source.find(aspect_id)
        return super().get(aspect_id) or (None if number is None else aspect(number))

    def select(self, query: ListQuery) -> list[Aspect]:
        """See :meth:`AspectTable.select`."""
        # The table comes second: one that is taken over meanwhile is then seen twice, which merging mends.
        made = self._source.select(query, aspects.condition_of(query), aspects.content_clause(query), self._taken_over)
        return merge(query, ASPECT_FIELDS, [made, super().select(query)])

    def update(self, entity: str, schema: str, content: str, *, policy: str | None = None) -> str:
        """See :meth:`AspectTable.update`."""
        number = self._source.find(entity, "entity") if schema == SCHEMA else None
        with self._database.transaction():
            self._take_over(number)
            aspect_id = super().update(entity, schema, content, policy=policy)
        self._note(number)
        return aspect_id

    def retract(self, aspect_id: str) -> bool:
        """See :meth:`AspectTable.retract`."""
        number = self._source.find(aspect_id)
        with self._database.transaction():
            self._take_over(number)
            known = super().retract(aspect_id)
        self._note(number)
        return known

    def close(self) -> None:
        """Close it; it cannot be used any more."""
        self._source.close()

    def _take_over(self, number: int | None) -> None:
        if number is not None and number not in self._taken_over:
            self.insert(aspect(number))

    def _note(self, number: int | None) -> None:
        if number is not None:
            self._taken_over.add(number)
