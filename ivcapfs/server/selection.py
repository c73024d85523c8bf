"""A page of records out of a table: the one SELECT behind both list calls.

Used by the tables of artifacts and aspects. May be used from any thread (see :mod:`ivcapfs.server.database`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic

from ivcapfs.server.database import Database
from ivcapfs.server.fields import Fields
from ivcapfs.server.filters import Clause
from ivcapfs.server.paging import ListQuery, Record, after_sql, order_sql


@dataclass(frozen=True)
class Selection(Generic[Record]):
    """How the rows of one table become records.

    Args:
        columns: the record's, in its order.
        fields: those that may be ordered by.
        make: makes the record.
    """

    columns: str
    fields: Fields
    make: Callable[..., Record]

    def run(
        self, database: Database, query: ListQuery, source: Clause, conditions: Iterable[Clause | None]
    ) -> list[Record]:
        """Return the first records after ``query.after``, in order, one more than the limit if there are so many.

        Args:
            database: where the table is.
            query: its order, key and limit are heeded.
            source: what comes after FROM.
            conditions: all that must hold.

        Raises:
            OrderError: the order names an unknown field.
        """
        clauses = [c for c in (*conditions, after_sql(query, self.fields)) if c is not None]
        sql = (
            f"SELECT {self.columns} FROM {source.sql} WHERE {' AND '.join(c.sql for c in clauses) or '1'}"
            f" ORDER BY {order_sql(query, self.fields)} LIMIT ?"
        )
        values = [*source.params, *(value for c in clauses for value in c.params), query.limit + 1]
        with database.reading() as db:
            return [self.make(*row) for row in db.execute(sql, values)]
