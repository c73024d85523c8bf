"""Pages of a list: what is asked for, the cursor that says where to go on, the order, and the SQL for it.

Pages are cut by key, not by count: a page begins after the last item of the page before, so that items which
arrive between two requests neither repeat nor hide others. A cursor holds the whole query (and the time as of
which the first page was made), in unreserved characters only. Used by the tables and the list calls. Pure.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

from ivcapfs.server.fields import Field, Fields, SqlValue, find_field
from ivcapfs.server.filters import Clause

Key = tuple[str | int | float, ...]


class HasId(Protocol):
    """A record; beside its id it has an attribute for the column of each of its fields."""

    @property
    def id(self) -> str:
        """Its URN."""


Record = TypeVar("Record", bound=HasId)


class CursorError(ValueError):
    """A page cursor that this platform did not make."""


class OrderError(ValueError):
    """An order-by or a direction that is refused."""


@dataclass(frozen=True)
class ListQuery:
    """One list call, complete.

    Args:
        at_time: the list as of this time, in microseconds since 1970.
        limit: the most items of a page, 1 to 50.
        filter: in the language of :mod:`ivcapfs.server.filters`.
        order: field and whether it descends; the id, in the last one's direction, decides what is left open.
        after: the key of the last item of the page before, empty for the first page.
        entity: (aspects) the entity they are about.
        schema: (aspects) their schema, ``%`` being a wildcard.
        content_path: (aspects) a JSON path that must match their content.
        include_content: (aspects) whether the items carry their content.
    """

    at_time: int
    limit: int = 10
    filter: str = ""
    order: tuple[tuple[str, bool], ...] = (("created-at", True),)
    after: Key = ()
    entity: str = ""
    schema: str = ""
    content_path: str = ""
    include_content: bool = False

    def cursor(self) -> str:
        """Return this query as a cursor."""
        packed = json.dumps(list(vars(self).values()), separators=(",", ":"))
        return base64.urlsafe_b64encode(packed.encode()).decode().rstrip("=")

    def following(self, key: Key) -> ListQuery:
        """Return the query for the page after the item with this key."""
        return replace(self, after=key)

    def first(self) -> ListQuery:
        """Return the query for the first page."""
        return replace(self, after=())


def parse_cursor(cursor: str) -> ListQuery:
    """Return the query within a cursor; a whole link with ``page=`` in it is understood too.

    Raises:
        CursorError: this is no cursor of ours.
    """
    if "page=" in cursor:  # the SDK's retract_collection sends the href of the link as it stands
        cursor = cursor.partition("page=")[2].partition("&")[0]
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        values = json.loads(raw)
        at_time, limit, text, order, after, entity, schema, path, content = values
        order = tuple((name, bool(desc)) for name, desc in order)
        query = ListQuery(at_time, limit, text, order, tuple(after), entity, schema, path, bool(content))
    except (binascii.Error, ValueError, TypeError, RecursionError) as exc:
        raise CursorError("not a page cursor of this platform") from exc
    if not _is_sound(query):
        raise CursorError("not a page cursor of this platform")
    return query


def _is_sound(query: ListQuery) -> bool:
    texts = (query.filter, query.entity, query.schema, query.content_path, *(name for name, _ in query.order))
    return (
        all(isinstance(text, str) for text in texts)
        and isinstance(query.at_time, int)
        and abs(query.at_time) < 2**62
        and isinstance(query.limit, int)
        and 1 <= query.limit <= 50
        and all(isinstance(part, str) or _is_number(part) for part in query.after)
        and _is_text("".join((*texts, *(part for part in query.after if isinstance(part, str)))))
        and len(query.after) in (0, len(query.order) + 1)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < 2**63


def _is_text(text: str) -> bool:
    """Tell whether SQLite can take it: lone surrogates have no UTF-8 form."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_order(order_by: str, descending: list[bool], fields: Fields) -> tuple[tuple[str, bool], ...]:
    """Return the order that ``order-by`` asks for.

    Args:
        order_by: names of fields, separated by commas, each with ``asc`` or ``desc`` after it if need be.
        descending: the direction of each field; the last one goes for all that follow.
        fields: the fields that may be named.

    Raises:
        OrderError: an unknown field or direction.
    """
    order: list[tuple[str, bool]] = []
    for number, element in enumerate(part.split() for part in order_by.split(",")):
        if not element or len(element) > 2 or find_field(fields, element[0]) is None:
            raise OrderError(f"cannot order by {' '.join(element)!r}")
        desc = descending[min(number, len(descending) - 1)]
        if len(element) == 2:
            if element[1].lower() not in ("asc", "desc"):
                raise OrderError(f"unknown direction {element[1]!r}")
            desc = element[1].lower() == "desc"
        order.append((element[0].lower().replace("_", "-"), desc))
    return tuple(order)


def order_terms(query: ListQuery, fields: Fields) -> list[tuple[Field, bool]]:
    """Return the fields to order by, the id being the last, and whether each descends.

    Raises:
        OrderError: an unknown field (in a cursor that somebody made up).
    """
    terms = []
    for name, desc in query.order:
        field = find_field(fields, name)
        if field is None:
            raise OrderError(f"cannot order by {name!r}")
        terms.append((field, desc))
    return [*terms, (Field("id"), terms[-1][1] if terms else True)]


def order_sql(query: ListQuery, fields: Fields) -> str:
    """Return what comes after ORDER BY."""
    return ", ".join(f"{_expr(f)} {'DESC' if desc else 'ASC'}" for f, desc in order_terms(query, fields))


def after_sql(query: ListQuery, fields: Fields) -> Clause | None:
    """Return the condition that an item comes after ``query.after``, ``None`` on the first page."""
    if not query.after:
        return None
    terms = order_terms(query, fields)
    if len({desc for _, desc in terms}) == 1:
        sign = "<" if terms[0][1] else ">"
        names = ", ".join(_expr(field) for field, _ in terms)
        return Clause(f"({names}) {sign} ({', '.join('?' * len(terms))})", query.after)
    cases: list[str] = []
    params: list[SqlValue] = []
    for depth, (field, desc) in enumerate(terms):
        same = [f"{_expr(f)} = ?" for f, _ in terms[:depth]]
        cases.append("(" + " AND ".join([*same, f"{_expr(field)} {'<' if desc else '>'} ?"]) + ")")
        params.extend(query.after[: depth + 1])
    return Clause("(" + " OR ".join(cases) + ")", tuple(params))


def cut(query: ListQuery, fields: Fields, records: list[Record]) -> tuple[list[Record], Key | None]:
    """Return the page of a query, and the key to go on from or ``None`` on the last page.

    Args:
        query: what is asked for.
        fields: the records' fields; a record has an attribute for each one's column.
        records: the first of those found, in order; one more than the limit when there are more.
    """
    page = records[: query.limit]
    if len(records) <= query.limit:
        return page, None
    last = page[-1]
    return page, tuple(field.sortable(getattr(last, field.column)) for field, _ in order_terms(query, fields))


def merge(query: ListQuery, fields: Fields, sources: Iterable[list[Record]]) -> list[Record]:
    """Return the first records of several sources, each in order, as one; of those with the same id the last counts."""
    found = [records for records in sources if records]
    if len(found) < 2:
        return found[0] if found else []
    whole = list({record.id: record for records in found for record in records}.values())
    for field, desc in reversed(order_terms(query, fields)):
        whole.sort(key=partial(_sort_value, field), reverse=desc)  # stable, as is sorting in reverse
    return whole[: query.limit + 1]


def _sort_value(field: Field, record: object) -> Any:
    return field.sortable(getattr(record, field.column))


_NEVER_NULL = frozenset({"id", "created_at", "valid_from", "entity", "schema"})


def _expr(field: Field) -> str:
    # The bare column where that can be, for SQLite uses an index only then.
    return field.column if field.column in _NEVER_NULL else field.sort_key
