"""Records that are made by formula when they are asked for, listed as if they stood in a table.

Record number n is a function of n, so nothing is kept. Each column is the same for all records, or grows with
their number, or is ordered as their uuids are (see :mod:`ivcapfs.server.scatter`): hence a page of any order
begins where a binary search says, and costs what its items cost. A condition is first narrowed down to spans of
numbers, then put to SQLite for each candidate, so that it means here what it means for a table. Used by
:mod:`ivcapfs.server.synthetic`. May be used from any thread.
"""

from __future__ import annotations

import json
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import filterfalse, islice
from typing import Any, Generic, Literal

from ivcapfs.server import scatter
from ivcapfs.server.database import connect
from ivcapfs.server.fields import Field, Fields, SqlValue
from ivcapfs.server.filters import Clause, Comparison, Condition, to_clause
from ivcapfs.server.paging import Key, ListQuery, Record, order_terms
from ivcapfs.server.spans import Spans, intersection, like_prefix, union

_FIRST_BATCH = 64
_LARGEST_BATCH = 1 << 14
_FEW = 4096
"""Numbers that are sorted rather than picked out of a walk through all."""


@dataclass(frozen=True)
class Column:
    """One column of the records.

    Args:
        value: what it holds in the record of a number.
        order: ``constant``: the same in all; ``number``: strictly growing with the number; ``uuid``: text that
            is ordered as the numbers' uuids are.
        prefix: (uuid) what stands before the uuid.
    """

    value: Callable[[int], SqlValue]
    order: Literal["constant", "number", "uuid"] = "constant"
    prefix: str = ""


@dataclass(frozen=True)
class Formula(Generic[Record]):
    """Records by formula.

    Args:
        numbers: those that there are: from 0 up, the step a power of two.
        record: makes the record of a number.
        fields: what may be named in filters and orders.
        columns: by name, one for each field's column.
        since: the column that tells since when there is a record; it grows with the number.
    """

    numbers: range
    record: Callable[[int], Record]
    fields: Fields
    columns: Mapping[str, Column]
    since: str


class FormulaSource(Generic[Record]):
    """Finds and lists records by formula.

    Args:
        formula: how they are made.
    """

    def __init__(self, formula: Formula[Record]) -> None:
        self._formula = formula
        self._lock = threading.Lock()
        self._connection = connect(":memory:")  # guarded by _lock; holds nothing, but knows what SQL means
        self._connection.create_function("formula", 2, self._value, deterministic=True)
        columns = ", ".join(f"formula('{name}', value) AS {name}" for name in formula.columns)
        self._candidates = f"(SELECT key, value AS number, {columns} FROM json_each(?))"

    def find(self, urn: str, column: str = "id") -> int | None:
        """Return the number of the record that has this URN in a column, if there is one."""
        return self._find(self._formula.columns[column], urn)

    def select(
        self, query: ListQuery, condition: Condition | None, content: Clause | None, hidden: Container[int] = ()
    ) -> list[Record]:
        """Return the first records that a page may hold, in order, one more than its limit if there are so many.

        Args:
            query: its time, order, key and limit are heeded.
            condition: what it asks of a record's fields.
            content: what it asks of their content, in SQL.
            hidden: numbers to leave out.

        Raises:
            OrderError: the order names an unknown field.
        """
        numbers = self._formula.numbers
        since = self._formula.columns[self._formula.since].value
        numbers = numbers[: bisect_right(numbers, query.at_time, key=_sortable(since))]
        found = self._in_order(query, numbers, self._spans(condition, numbers))
        if hidden:
            found = filterfalse(hidden.__contains__, found)
        clauses = [clause for clause in (to_clause(condition), content) if clause is not None]
        if clauses:
            values = tuple(value for clause in clauses for value in clause.params)
            found = self._only(found, Clause(" AND ".join(clause.sql for clause in clauses), values))
        return [self._formula.record(number) for number in islice(found, query.limit + 1)]

    def close(self) -> None:
        """Close it; it cannot be used any more."""
        with self._lock:
            self._connection.close()

    def _in_order(self, query: ListQuery, numbers: range, spans: Spans) -> Iterator[int]:
        """Iterate the numbers within ``spans`` that come after ``query.after``."""
        fields, columns = self._formula.fields, self._formula.columns
        terms = [(field, columns[field.column], desc) for field, desc in order_terms(query, fields)]
        place = next(at for at, (_, column, _) in enumerate(terms) if column.order != "constant")
        _, column, desc = terms[place]
        comes_after = partial(_comes_after, terms, query.after)
        if column.order == "number":
            first = bisect_left(numbers[::-1] if desc else numbers, True, key=comes_after)
            rest = numbers[: len(numbers) - first] if desc else numbers[first:]
            for span in intersection([rest], spans)[:: -1 if desc else 1]:
                yield from reversed(span) if desc else span
            return
        level = _is_level(terms[:place], query.after)
        if not numbers or not (level or comes_after(0)):
            return  # what is the same in all of them comes before the key
        if sum(map(len, spans)) <= _FEW:
            few = [number for span in spans for number in span]
            found = iter(sorted(few, key=_sortable(column.value), reverse=desc))
        else:
            start = _start(terms[place], query.after[place]) if level else None
            found = scatter.walk(numbers, descending=desc, start=start)
            if spans != [numbers]:
                found = (number for number in found if any(number in span for span in spans))
        yield from filter(comes_after, found)

    def _only(self, numbers: Iterator[int], clause: Clause) -> Iterator[int]:
        """Iterate those of these numbers whose record meets a condition; looks at more at a time the rarer they are."""
        size = _FIRST_BATCH
        while batch := list(islice(numbers, size)):
            yield from self._matching(batch, clause)
            size = min(size * 4, _LARGEST_BATCH)

    def _matching(self, numbers: Sequence[int], clause: Clause) -> list[int]:
        sql = f"SELECT number FROM {self._candidates} WHERE {clause.sql} ORDER BY key"
        with self._lock:
            return [row[0] for row in self._connection.execute(sql, (json.dumps(list(numbers)), *clause.params))]

    def _value(self, name: str, number: int) -> SqlValue:
        """The SQL function ``formula``."""
        return self._formula.columns[name].value(number)

    def _spans(self, condition: Condition | None, numbers: range) -> Spans:
        """Return where the numbers are that can meet a condition: all that do, and others."""
        if condition is None:
            return [numbers] if numbers else []
        if isinstance(condition, Comparison):
            return [span for span in self._comparison_spans(condition, numbers) if span]
        join = intersection if condition.word == "AND" else union
        return reduce(join, (self._spans(part, numbers) for part in condition.parts))

    def _comparison_spans(self, condition: Comparison, numbers: range) -> Spans:
        column = self._formula.columns[condition.field.column]
        operator, value = condition.operator, condition.value
        if column.order == "constant":
            clause = to_clause(condition)
            return [numbers] if clause is not None and self._matching(numbers[:1], clause) else []
        if column.order == "uuid":
            if operator != "=":
                return [numbers]
            number = self._find(column, value)
            return [] if number is None else intersection([range(number, number + 1)], [numbers])
        if operator == "LIKE":
            prefix = like_prefix(str(value))
            start = bisect_left(numbers, prefix, key=_sortable(column.value))
            return [numbers[start : bisect_right(numbers, prefix, key=lambda n: str(column.value(n))[: len(prefix)])]]
        left = bisect_left(numbers, value, key=_sortable(column.value))
        right = bisect_right(numbers, value, key=_sortable(column.value))
        return {
            "=": [numbers[left:right]],
            "<>": [numbers[:left], numbers[right:]],
            "<": [numbers[:left]],
            "<=": [numbers[:right]],
            ">": [numbers[right:]],
            ">=": [numbers[left:]],
        }[operator]

    def _find(self, column: Column, value: SqlValue) -> int | None:
        if not isinstance(value, str):
            return None
        number = scatter.number_of(value.removeprefix(column.prefix))
        if number is None or number not in self._formula.numbers or column.value(number) != value:
            return None
        return number

_Term = tuple[Field, Column, bool]


def _sortable(value: Callable[[int], SqlValue]) -> Callable[[int], Any]:
    """Return ``value`` as a key to search by: the values of one column compare."""
    return value


def _comes_after(terms: list[_Term], after: Key, number: int) -> bool:
    """Tell whether a number's record comes after the one with the key ``after``; with none all do."""
    for (field, column, desc), key in zip(terms, after, strict=False):
        value = field.sortable(column.value(number))
        if value != key:
            return _is_less(value, key) is desc
    return not after


def _is_less(value: str | int | float, key: str | int | float) -> bool:
    """Compare as SQLite does: numbers come before text."""
    return bool((isinstance(value, str), value) < (isinstance(key, str), key))


def _is_level(constants: list[_Term], after: Key) -> bool:
    """Tell whether there is a key, and what is the same in all records is as in the key."""
    pairs = zip(constants, after, strict=False)
    return bool(after) and all(field.sortable(column.value(0)) == key for (field, column, _), key in pairs)


def _start(term: _Term, key: str | int | float) -> int:
    """Return where to begin a walk to the numbers on either side of a key."""
    prefix = term[1].prefix
    if isinstance(key, str) and key.startswith(prefix):
        return scatter.seek(key.removeprefix(prefix))
    return scatter.LIMIT - 1 if not _is_less(key, prefix) else 0
