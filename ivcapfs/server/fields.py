"""The fields of records that a caller may filter and order by, and what they are in SQL.

Used by the filter parser, by paging and by the tables. Immutable, hence safe in any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ivcapfs.server.clock import parse_rfc3339

Kind = Literal["text", "number", "time"]
SqlValue = str | int | float | None


@dataclass(frozen=True)
class Field:
    """One field.

    Args:
        column: the SQL column that holds it.
        kind: how its values compare; a time is an integer column of microseconds since 1970.
    """

    column: str
    kind: Kind = "text"

    @property
    def sort_key(self) -> str:
        """The SQL expression to order by: never NULL, so that keys compare."""
        return f"coalesce({self.column}, '')" if self.kind == "text" else f"coalesce({self.column}, -1)"

    def sortable(self, value: SqlValue) -> str | int | float:
        """Return what :attr:`sort_key` makes of a value."""
        if value is not None:
            return value
        return "" if self.kind == "text" else -1


Fields = Mapping[str, Field]

ARTIFACT_FIELDS: Fields = {
    "id": Field("id"),
    "name": Field("name"),
    "status": Field("status"),
    "mime-type": Field("mime_type"),
    "size": Field("size", "number"),
    "created-at": Field("created_at", "time"),
    "last-modified-at": Field("last_modified_at", "time"),
}

ASPECT_FIELDS: Fields = {
    "id": Field("id"),
    "entity": Field("entity"),
    "schema": Field("schema"),
    "content": Field("content"),
    "content-type": Field("content_type"),
    "policy": Field("policy"),
    "account": Field("account"),
    "asserter": Field("asserter"),
    "created-by": Field("asserter"),
    "retracter": Field("retracter"),
    "retracted-by": Field("retracter"),
    "replaces": Field("replaces"),
    "valid-from": Field("valid_from", "time"),
    "created-at": Field("valid_from", "time"),
    "valid-to": Field("valid_to", "time"),
}


def find_field(fields: Fields, name: str) -> Field | None:
    """Return the field of this name, written with ``-`` or ``_``, or ``None``."""
    return fields.get(name.lower().replace("_", "-"))


def to_sql(field: Field, literal: str | int | float) -> SqlValue:
    """Return the value to compare ``field`` with.

    Raises:
        ValueError: the literal is not of the field's kind; the text says what is expected.
    """
    if field.kind == "text":
        if not isinstance(literal, str):
            raise ValueError("expected a quoted string")
        return literal
    if field.kind == "time":
        if not isinstance(literal, str):
            raise ValueError("expected a quoted RFC 3339 time")
        try:
            return parse_rfc3339(literal)
        except ValueError as exc:
            raise ValueError("expected an RFC 3339 time") from exc
    try:
        number = (float(literal) if "." in literal else int(literal)) if isinstance(literal, str) else literal
    except ValueError as exc:
        raise ValueError("expected a number") from exc
    if abs(number) >= 2**63:
        raise ValueError("number out of range")
    return number
