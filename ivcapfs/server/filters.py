"""The filter language of the list calls: a small parser from text to a condition, and that in parameterised SQL.

    expression := conjunction { 'or' conjunction }
    conjunction := term { 'and' term }
    term := '(' expression ')' | field operator literal
    operator := '~=' | '=' | '==' | '!=' | '<' | '<=' | '>' | '>=' | 'eq' | 'ne' | 'lt' | 'le' | 'gt' | 'ge'
    literal := number | 'string, with quotes doubled'

``~=`` is SQL's LIKE (``%``, ``_``, escaped by a backslash). Used by the tables and by what is made by formula.
Pure, hence safe in any thread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ivcapfs.server.fields import Field, Fields, SqlValue, find_field, to_sql

_MAX_TERMS = 400  # SQLite refuses expressions deeper than 1000
_MAX_NESTING = 40

_TOKEN = re.compile(
    r"\s*(?:(?P<string>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<op>~=|==|!=|<=|>=|=|<|>)"
    r"|(?P<paren>[()])|(?P<word>[A-Za-z_][A-Za-z0-9_-]*))"
)
_OPERATORS = {
    "~=": "LIKE", "=": "=", "==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">=",
    "eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
}  # fmt: skip

_TokenKind = Literal["string", "number", "op", "paren", "word", "end"]


class FilterError(ValueError):
    """A filter that is refused.

    Args:
        position: where the trouble begins, in characters from the start of the filter, the first being 1.
        expected: what should have stood there.
    """

    def __init__(self, position: int, expected: str) -> None:
        super().__init__(f"Cannot understand the filter at position {position}: {expected}")
        self.position = position


@dataclass(frozen=True)
class Clause:
    """A condition in SQL and the values of its ``?`` in their order."""

    sql: str
    params: tuple[SqlValue, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A field compared with a value; the operator is SQL's: ``= <> < <= > >= LIKE``."""

    field: Field
    operator: str
    value: SqlValue


@dataclass(frozen=True)
class Junction:
    """Several conditions of which all (``AND``) or any (``OR``) must hold."""

    word: Literal["AND", "OR"]
    parts: tuple[Condition, ...]


Condition = Comparison | Junction


@dataclass(frozen=True)
class _Token:
    kind: _TokenKind
    text: str
    position: int


def parse_filter(text: str, fields: Fields) -> Condition | None:
    """Return the condition that a filter stands for, ``None`` for an empty filter.

    Args:
        text: the filter, e.g. ``name ~= 'Scott%' and size > 1000``.
        fields: the fields that may be named.

    Raises:
        FilterError: the filter cannot be understood; it names the position.
    """
    if not text.strip():
        return None
    parser = _Parser(_tokens(text), fields)
    condition = parser.expression(0)
    parser.expect_end()
    return condition


def to_clause(condition: Condition | None) -> Clause | None:
    """Return a condition in SQL."""
    if condition is None:
        return None
    if isinstance(condition, Comparison):
        suffix = " ESCAPE '\\'" if condition.operator == "LIKE" else ""
        return Clause(f"{condition.field.column} {condition.operator} ?{suffix}", (condition.value,))
    clauses = [clause for clause in map(to_clause, condition.parts) if clause is not None]
    sql = f" {condition.word} ".join(clause.sql for clause in clauses)
    return Clause(f"({sql})", tuple(value for clause in clauses for value in clause.params))


def all_of(*conditions: Condition | None) -> Condition | None:
    """Return the condition that all of these hold; ``None`` always does."""
    parts = tuple(condition for condition in conditions if condition is not None)
    return _join(parts, "AND") if parts else None


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            blanks = len(text[at:]) - len(text[at:].lstrip())
            what = "a string that is not closed" if text[at + blanks] == "'" else "an unknown character"
            raise FilterError(at + blanks + 1, what)
        for kind in ("string", "number", "op", "paren", "word"):
            if match[kind] is not None:
                tokens.append(_Token(kind, match[kind], match.start(kind) + 1))
        at = match.end()
    tokens.append(_Token("end", "", len(text) + 1))
    return tokens


class _Parser:
    """Recursive descent over the tokens of one filter."""

    def __init__(self, tokens: list[_Token], fields: Fields) -> None:
        self._tokens = tokens
        self._fields = fields
        self._at = 0
        self._terms = 0

    def expression(self, depth: int) -> Condition:
        parts = [self._conjunction(depth)]
        while self._skip_word("or"):
            parts.append(self._conjunction(depth))
        return _join(tuple(parts), "OR")

    def expect_end(self) -> None:
        token = self._tokens[self._at]
        if token.kind != "end":
            raise FilterError(token.position, "expected 'and', 'or' or the end")

    def _conjunction(self, depth: int) -> Condition:
        parts = [self._term(depth)]
        while self._skip_word("and"):
            parts.append(self._term(depth))
        return _join(tuple(parts), "AND")

    def _term(self, depth: int) -> Condition:
        token = self._next()
        if token.text == "(" and token.kind == "paren":
            if depth >= _MAX_NESTING:
                raise FilterError(token.position, "too many parentheses")
            inner = self.expression(depth + 1)
            closing = self._next()
            if closing.text != ")" or closing.kind != "paren":
                raise FilterError(closing.position, "expected ')'")
            return inner
        self._terms += 1
        if self._terms > _MAX_TERMS:
            raise FilterError(token.position, f"more than {_MAX_TERMS} comparisons")
        return self._comparison(self._field(token))

    def _field(self, token: _Token) -> Field:
        field = find_field(self._fields, token.text) if token.kind == "word" else None
        if field is None:
            raise FilterError(token.position, f"expected one of {', '.join(self._fields)}")
        return field

    def _comparison(self, field: Field) -> Condition:
        token = self._next()
        operator = _OPERATORS.get(token.text.lower()) if token.kind in ("op", "word") else None
        if operator is None:
            raise FilterError(token.position, "expected one of ~= = == != < <= > >=")
        if operator == "LIKE" and field.kind != "text":
            raise FilterError(token.position, f"'~=' is for text, not for a {field.kind}")
        return Comparison(field, operator, self._value(field))

    def _value(self, field: Field) -> SqlValue:
        token = self._next()
        literal: str | int | float
        if token.kind == "string":
            literal = token.text[1:-1].replace("''", "'")
        elif token.kind == "number" and len(token.text) <= 30:
            literal = float(token.text) if "." in token.text else int(token.text)
        else:
            raise FilterError(token.position, "expected a number or a quoted string")
        try:
            return to_sql(field, literal)
        except ValueError as exc:
            raise FilterError(token.position, str(exc)) from exc

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        if token.kind != "end":
            self._at += 1
        return token

    def _skip_word(self, word: str) -> bool:
        token = self._tokens[self._at]
        if token.kind != "word" or token.text.lower() != word:
            return False
        self._at += 1
        return True


def _join(parts: tuple[Condition, ...], word: Literal["AND", "OR"]) -> Condition:
    return parts[0] if len(parts) == 1 else Junction(word, parts)
