"""The part of PostgreSQL's JSON path language that IVCAP's clients send as ``content-path``.

    path      := '$' steps [ '?' '(' predicate ')' ]
    steps     := { '.' name | '."' name '"' | '[*]' | '[' number ']' }
    predicate := conjunction { '||' conjunction };  conjunction := unary { '&&' unary }
    unary     := '!' '(' predicate ')' | '(' predicate ')' | 'exists' '(' operand ')' | operand test
    operand   := '@' steps
    test      := ('==' | '!=' | '<>' | '<' | '<=' | '>' | '>=') literal
               | 'starts' 'with' string | 'like_regex' string [ 'flag' string ]

Lax mode as in PostgreSQL: a member of an array is that member of its elements, and what cannot be compared is
unknown, not an error. Used by the aspects table. Pure (with a cache of parsed paths), safe in any thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache

Json = object
Truth = bool | None  # None: unknown
Step = str | int | None  # a member, an element, all elements
Predicate = Callable[[Json], Truth]

_TOKEN = re.compile(
    r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)'
    r"|(?P<op>==|!=|<>|<=|>=|&&|\|\||[<>!?().\[\]*$@])|(?P<word>\w+))",
    re.DOTALL,
)
_COMPARE = frozenset({"==", "!=", "<>", "<", "<=", ">", ">="})
_FLAGS = {"i": re.IGNORECASE, "s": re.DOTALL, "m": re.MULTILINE, "x": re.VERBOSE}
_MAX_NESTING = 40


class PathError(ValueError):
    """A JSON path that is refused; the text names the position."""

    def __init__(self, position: int, expected: str) -> None:
        super().__init__(f"Cannot understand the content-path at position {position}: {expected}")
        self.position = position


class Path:
    """A parsed path.

    Args:
        steps: from the content to what the predicate is about.
        predicate: what must hold there, ``None`` when it is enough that it exists.
    """

    def __init__(self, steps: list[Step], predicate: Predicate | None) -> None:
        self._steps = steps
        self._predicate = predicate

    def matches(self, content: Json) -> bool:
        """Tell whether the path finds anything in ``content``."""
        found = _walk(content, self._steps)
        predicate = self._predicate
        if predicate is None:
            return bool(found)
        return any(predicate(value) is True for value in _unwrap(found))


@lru_cache(maxsize=256)
def parse_path(text: str) -> Path:
    """Return the path that ``text`` stands for.

    Raises:
        PathError: it cannot be understood, or is beyond what this platform knows.
    """
    parser = _Parser(text)
    parser.expect("$")
    steps = parser.steps()
    predicate = None
    if parser.skip("?"):
        parser.expect("(")
        predicate = parser.predicate(0)
        parser.expect(")")
    parser.expect_end()
    return Path(steps, predicate)


def _unwrap(values: list[Json]) -> list[Json]:
    flat: list[Json] = []
    for value in values:
        if isinstance(value, list):
            flat.extend(value)
        else:
            flat.append(value)
    return flat


def _walk(content: Json, steps: list[Step]) -> list[Json]:
    found = [content]
    for step in steps:
        if isinstance(step, str):
            found = [v[step] for v in _unwrap(found) if isinstance(v, dict) and step in v]
        elif step is None:
            found = _unwrap(found)
        else:
            lists = [v if isinstance(v, list) else [v] for v in found]
            found = [v[step] for v in lists if step < len(v)]
    return found


def _kind(value: Json) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "bool"
    return "number" if isinstance(value, int | float) else type(value).__name__


def _compare(value: Json, op: str, literal: Json) -> Truth:
    if _kind(value) != _kind(literal):
        return op in ("!=", "<>") if value is None or literal is None else None
    if op == "==":
        return value == literal
    if op in ("!=", "<>"):
        return value != literal
    if isinstance(value, str) and isinstance(literal, str):
        return _ordered(op, value < literal, value == literal)
    if isinstance(value, int | float) and isinstance(literal, int | float):
        return _ordered(op, value < literal, value == literal)
    return None


def _ordered(op: str, less: bool, equal: bool) -> bool:
    return {"<": less, "<=": less or equal, ">": not less and not equal, ">=": not less}[op]


def _any(steps: list[Step], test: Predicate) -> Predicate:
    """Return the predicate that holds when ``test`` does for anything that ``steps`` find."""

    def check(current: Json) -> Truth:
        results = [test(value) for value in _unwrap(_walk(current, steps))]
        return True if True in results else (None if None in results else False)

    return check


def _either(left: Predicate, right: Predicate) -> Predicate:
    def check(current: Json) -> Truth:
        results = (left(current), right(current))
        return True if True in results else (None if None in results else False)

    return check


def _both(left: Predicate, right: Predicate) -> Predicate:
    def check(current: Json) -> Truth:
        results = (left(current), right(current))
        return False if False in results else (None if None in results else True)

    return check


def _negated(inner: Predicate) -> Predicate:
    def check(current: Json) -> Truth:
        result = inner(current)
        return None if result is None else not result

    return check


class _Parser:
    """Recursive descent over the text of one path."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str, int]] = []
        self._at = 0
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                raise PathError(at + 1, "an unknown character or a string that is not closed")
            self._tokens.append((match.lastgroup, match[match.lastgroup], match.start(match.lastgroup) + 1))
            at = match.end()
        self._tokens.append(("end", "", len(text) + 1))

    def skip(self, text: str) -> bool:
        kind, found, _ = self._tokens[self._at]
        if kind not in ("op", "word") or found != text:
            return False
        self._at += 1
        return True

    def expect(self, text: str) -> None:
        if not self.skip(text):
            raise self._error(f"expected {text!r}")

    def expect_end(self) -> None:
        if self._tokens[self._at][0] != "end":
            raise self._error("expected the end")

    def steps(self) -> list[Step]:
        steps: list[Step] = []
        while True:
            if self.skip("."):
                steps.append(self._name())
            elif self.skip("["):
                steps.append(None if self.skip("*") else self._index())
                self.expect("]")
            else:
                return steps

    def predicate(self, depth: int) -> Predicate:
        left = self._conjunction(depth)
        while self.skip("||"):
            left = _either(left, self._conjunction(depth))
        return left

    def _conjunction(self, depth: int) -> Predicate:
        left = self._unary(depth)
        while self.skip("&&"):
            left = _both(left, self._unary(depth))
        return left

    def _unary(self, depth: int) -> Predicate:
        if depth > _MAX_NESTING:
            raise self._error("too many parentheses")
        negated = self.skip("!")
        if self.skip("("):
            inner = self.predicate(depth + 1)
            self.expect(")")
            return _negated(inner) if negated else inner
        if self.skip("exists"):
            self.expect("(")
            steps = self._operand()
            self.expect(")")
            return _negated(_exists(steps)) if negated else _exists(steps)
        if negated:
            raise self._error("expected '('")
        return _any(self._operand(), self._test())

    def _operand(self) -> list[Step]:
        self.expect("@")
        return self.steps()

    def _test(self) -> Predicate:
        kind, text, _ = self._tokens[self._at]
        if kind == "op" and text in _COMPARE:
            self._at += 1
            literal = self._literal()
            return lambda value: _compare(value, text, literal)
        if self.skip("starts"):
            self.expect("with")
            prefix = self._string()
            return lambda value: value.startswith(prefix) if isinstance(value, str) else None
        if self.skip("like_regex"):
            pattern = self._regex()
            return lambda value: bool(pattern.search(value)) if isinstance(value, str) else None
        raise self._error("expected a comparison, 'starts with' or 'like_regex'")

    def _regex(self) -> re.Pattern[str]:
        position = self._tokens[self._at][2]
        source = self._string()
        names = self._string() if self.skip("flag") else ""
        flags = 0
        for name in names:
            if name not in _FLAGS and name != "q":
                raise PathError(position, f"unknown flag {name!r}")
            flags |= _FLAGS.get(name, 0)
        try:
            return re.compile(re.escape(source) if "q" in names else source, flags)
        except (re.error, RecursionError, OverflowError) as exc:
            raise PathError(position, f"not a regular expression: {exc}") from exc

    def _literal(self) -> Json:
        for word, value in (("true", True), ("false", False), ("null", None)):
            if self.skip(word):
                return value
        kind, text, _ = self._tokens[self._at]
        if kind == "string":
            return self._string()
        if kind != "number" or len(text) > 400:
            raise self._error("expected a string, a number, true, false or null")
        self._at += 1
        number: Json = json.loads(text)
        return number

    def _string(self) -> str:
        kind, text, _ = self._tokens[self._at]
        if kind != "string":
            raise self._error("expected a string in double quotes")
        try:
            value = json.loads(text, strict=False)
        except ValueError as exc:
            raise self._error("a string with an unknown escape") from exc
        self._at += 1
        return str(value)

    def _name(self) -> str:
        kind, text, _ = self._tokens[self._at]
        if kind == "string":
            return self._string()
        if kind != "word":
            raise self._error("expected the name of a member")
        self._at += 1
        return text

    def _index(self) -> int:
        kind, text, _ = self._tokens[self._at]
        if kind != "number" or not text.isdigit() or len(text) > 9:
            raise self._error("expected '*' or the number of an element")
        self._at += 1
        return int(text)

    def _error(self, expected: str) -> PathError:
        return PathError(self._tokens[self._at][2], expected)


def _exists(steps: list[Step]) -> Predicate:
    return lambda current: bool(_walk(current, steps))
