"""The table of artifacts.

Used by the store, by uploads and by the artifact calls. May be used from any thread (see
:mod:`ivcapfs.server.database`).
"""

from __future__ import annotations

import io

from ivcapfs.server.clock import Clock
from ivcapfs.server.database import Database
from ivcapfs.server.fields import ARTIFACT_FIELDS
from ivcapfs.server.filters import Clause, Condition, parse_filter, to_clause
from ivcapfs.server.paging import ListQuery
from ivcapfs.server.records import ACCOUNT, ARTIFACT_POLICY, Artifact
from ivcapfs.server.selection import Selection

_COLUMNS = "id, name, mime_type, size, status, etag, policy, account, deferred, created_at, last_modified_at"
_SELECTION = Selection(_COLUMNS, ARTIFACT_FIELDS, Artifact)

# The artifacts as they were: only those that there were, and not yet ready before they were.
_AS_OF = """(SELECT id, name, mime_type, size, etag, policy, account, deferred, created_at, last_modified_at,
    CASE WHEN status = 'ready' AND ready_at > ?1 THEN
              CASE WHEN partial_at <= ?1 THEN 'partial' ELSE 'pending' END
         WHEN status = 'partial' AND partial_at > ?1 THEN 'pending'
         ELSE status END AS status
    FROM artifacts WHERE created_at <= ?1)"""
# On later pages the key says where to begin, and SQLite is kept from beginning at the time instead.
_AS_OF_LATER = _AS_OF.replace("WHERE created_at", "WHERE +created_at")


def condition_of(query: ListQuery) -> Condition | None:
    """Return what a query asks of an artifact, ``None`` for nothing.

    Raises:
        FilterError: the filter cannot be understood.
    """
    return parse_filter(query.filter, ARTIFACT_FIELDS)


class ArtifactTable:
    """The artifacts' records.

    Args:
        database: where they are kept.
        clock: dates them.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def content(self, artifact: Artifact) -> io.RawIOBase | None:
        """Return the content of an artifact that has no file, opened; ``None`` when it has one."""
        return None

    def close(self) -> None:
        """Let go of what the table holds; the database is closed by who opened it."""

    def insert(
        self,
        artifact_id: str,
        name: str | None,
        mime_type: str | None,
        *,
        size: int | None = None,
        status: str = "pending",
        etag: str | None = None,
        policy: str | None = None,
        created_at: int | None = None,
    ) -> None:
        """Add a record; ``created_at`` (microseconds since 1970) is now unless given."""
        with self._database.transaction() as db:
            at = self._clock.tick() if created_at is None else created_at
            db.execute(
                f"INSERT INTO artifacts ({_COLUMNS}, partial_at, ready_at)"
                " VALUES (?,?,?,?,?,?,?,?,0,?,?,?,?)",
                (
                    artifact_id, name, mime_type, size, status, etag, policy or ARTIFACT_POLICY, ACCOUNT, at,
                    at, at if status in ("ready", "partial") else None, at if status == "ready" else None,
                ),
            )  # fmt: skip

    def get(self, artifact_id: str) -> Artifact | None:
        """Return the record of this URN, if there is one."""
        with self._database.reading() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM artifacts WHERE id = ?", (artifact_id,)).fetchone()
        return None if row is None else Artifact(*row)

    def select(self, query: ListQuery) -> list[Artifact]:
        """Return the first records that a page may hold, in order, one more than its limit if there are so many.

        Raises:
            FilterError: the filter cannot be understood.
            OrderError: the order names an unknown field.
        """
        source = Clause(_AS_OF_LATER if query.after else _AS_OF, (query.at_time,))
        return _SELECTION.run(self._database, query, source, [to_clause(condition_of(query))])

    def unfinished(self) -> list[Artifact]:
        """Return the records whose length is known and whose content may have come in whole."""
        with self._database.reading() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM artifacts WHERE status IN ('pending', 'partial') AND size IS NOT NULL"
            ).fetchall()
        return [Artifact(*row) for row in rows]

    def set_length(self, artifact_id: str, size: int) -> None:
        """Note how many bytes the content will have."""
        with self._database.transaction() as db:
            db.execute("UPDATE artifacts SET size = ? WHERE id = ?", (size, artifact_id))

    def set_deferred(self, artifact_id: str) -> None:
        """Note that the length will be told at the end of the upload."""
        with self._database.transaction() as db:
            db.execute("UPDATE artifacts SET deferred = 1 WHERE id = ?", (artifact_id,))

    def set_partial(self, artifact_id: str) -> None:
        """Note that content has begun to come."""
        with self._database.transaction() as db:
            at = self._clock.tick()
            db.execute(
                "UPDATE artifacts SET status = 'partial', partial_at = ?, last_modified_at = ?"
                " WHERE id = ? AND status = 'pending'",
                (at, at, artifact_id),
            )

    def set_ready(self, artifact_id: str, size: int, etag: str) -> None:
        """Note that the content is complete; it never changes any more."""
        with self._database.transaction() as db:
            at = self._clock.tick()
            db.execute(
                "UPDATE artifacts SET status = 'ready', size = ?, etag = ?, last_modified_at = ?,"
                " ready_at = ? WHERE id = ?",
                (size, etag, at, at, artifact_id),
            )
