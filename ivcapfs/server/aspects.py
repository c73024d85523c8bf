"""The table of aspects: typed JSON about entities, added and retracted, never deleted.

Used by the store and by the aspect calls. May be used from any thread (see :mod:`ivcapfs.server.database`).
"""

from __future__ import annotations

from ivcapfs.server.clock import Clock
from ivcapfs.server.database import Database
from ivcapfs.server.fields import ASPECT_FIELDS
from ivcapfs.server.filters import Clause, Comparison, Condition, all_of, parse_filter, to_clause
from ivcapfs.server.jsonpath import parse_path
from ivcapfs.server.paging import ListQuery
from ivcapfs.server.records import ACCOUNT, ASPECT_POLICY, PRINCIPAL, Aspect, new_aspect_id
from ivcapfs.server.selection import Selection

_COLUMNS = (
    "id, entity, schema, content, content_type, policy, account, asserter, retracter, replaces, valid_from, valid_to"
)
_INSERT = f"INSERT OR IGNORE INTO aspects ({_COLUMNS}) VALUES ({', '.join('?' * 12)})"
_SELECTION = Selection(_COLUMNS, ASPECT_FIELDS, Aspect)


class NotUnique(ValueError):
    """Several aspects stand where one was expected.

    Args:
        matches: how many.
    """

    def __init__(self, matches: int) -> None:
        super().__init__(f"found {matches} matches")
        self.matches = matches


class AspectTable:
    """The aspects' records.

    Args:
        database: where they are kept.
        clock: dates them.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def close(self) -> None:
        """Let go of what the table holds; the database is closed by who opened it."""

    def add(
        self,
        entity: str,
        schema: str,
        content: str,
        *,
        policy: str | None = None,
        replaces: str | None = None,
    ) -> str:
        """Add an aspect (``content`` is JSON text) beside those that stand already, and return its URN."""
        aspect_id = new_aspect_id()
        with self._database.transaction():
            aspect = Aspect(
                aspect_id, entity, schema, content, "application/json", policy or ASPECT_POLICY, ACCOUNT,
                PRINCIPAL, None, replaces, self._clock.tick(), None,
            )  # fmt: skip
            self.insert(aspect)
        return aspect_id

    def insert(self, aspect: Aspect) -> None:
        """Put a record in place, unless its id is there already."""
        with self._database.transaction() as db:
            db.execute(_INSERT, aspect)

    def update(self, entity: str, schema: str, content: str, *, policy: str | None = None) -> str:
        """Put an aspect in the place of the one of its schema that stands, if any, and return its URN.

        Raises:
            NotUnique: several stand there; nothing is changed.
        """
        with self._database.transaction() as db:
            rows = db.execute(
                "SELECT id FROM aspects WHERE entity = ? AND schema = ? AND valid_to IS NULL",
                (entity, schema),
            ).fetchall()
            if len(rows) > 1:
                raise NotUnique(len(rows))
            old = rows[0]["id"] if rows else None
            if old is not None:
                self.retract(old)
            return self.add(entity, schema, content, policy=policy, replaces=old)

    def retract(self, aspect_id: str) -> bool:
        """End an aspect's validity, now; return whether there is such an aspect. Twice is once."""
        with self._database.transaction() as db:
            db.execute(
                "UPDATE aspects SET valid_to = ?, retracter = ? WHERE id = ? AND valid_to IS NULL",
                (self._clock.tick(), PRINCIPAL, aspect_id),
            )
            return db.execute("SELECT 1 FROM aspects WHERE id = ?", (aspect_id,)).fetchone() is not None

    def get(self, aspect_id: str) -> Aspect | None:
        """Return the record of this URN, retracted or not, if there is one."""
        with self._database.reading() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM aspects WHERE id = ?", (aspect_id,)).fetchone()
        return None if row is None else Aspect(*row)

    def select(self, query: ListQuery) -> list[Aspect]:
        """Return the first records that a page may hold, in order, one more than its limit if there are so many.

        Raises:
            FilterError: the filter cannot be understood.
            PathError: the content path cannot be understood.
            OrderError: the order names an unknown field.
        """
        # On later pages the key says where to begin; the '+' keeps SQLite from beginning at the time instead.
        began = "+valid_from <= ?" if query.after else "valid_from <= ?"
        standing = Clause(f"{began} AND (valid_to IS NULL OR valid_to > ?)", (query.at_time, query.at_time))
        conditions = [standing, to_clause(condition_of(query)), content_clause(query)]
        return _SELECTION.run(self._database, query, Clause("aspects"), conditions)


def condition_of(query: ListQuery) -> Condition | None:
    """Return what a query asks of an aspect's record, ``None`` for nothing.

    Raises:
        FilterError: the filter cannot be understood.
    """
    entity = Comparison(ASPECT_FIELDS["entity"], "=", query.entity) if query.entity else None
    return all_of(entity, _of_schema(query.schema), parse_filter(query.filter, ASPECT_FIELDS))


def content_clause(query: ListQuery) -> Clause | None:
    """Return what a query asks of an aspect's content, ``None`` for nothing.

    Raises:
        PathError: the content path cannot be understood.
    """
    if not query.content_path:
        return None
    parse_path(query.content_path)  # refused here rather than within SQL
    return Clause("content_matches(?, content)", (query.content_path,))


def _of_schema(schema: str) -> Condition | None:
    if not schema:
        return None
    if "%" not in schema:
        return Comparison(ASPECT_FIELDS["schema"], "=", schema)
    pattern = schema.replace("\\", "\\\\").replace("_", "\\_")
    return Comparison(ASPECT_FIELDS["schema"], "LIKE", pattern)
