"""JSON text to values and back, with every way in which a server can make Python's parser fail turned into
one error.

Used by `ivcapfs.client.transport` (what comes in), `ivcapfs.client.api` (what goes out), and wherever a user gives a
value that goes out. Pure: any thread.
"""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any, NoReturn

from ivcapfs.errors import ConfigError, Invalid, ProtocolError

MOST_DEPTH = 100
"""How deep a user's value may be nested: no parser on its way has trouble with that."""
MOST_READ_DEPTH = 400
"""How deep an answer may be nested. Python's parser goes down one call for each level, and at the interpreter's limit
(1,000 calls) whatever else runs on the thread fails, too: a finalizer, say, that the garbage collector runs just then.
"""
_SHALLOW = 8
"""Levels of nearly all answers, which are told at once."""
_STRING = re.compile(rb'"[^"]*"')
_OTHERS = bytes(set(range(256)) - set(b'"[]{}'))
_ALIKE = bytes.maketrans(b"{}", b"[]")
_STEPS = {ord("["): 1, ord("]"): -1, ord('"'): 0}
_PIECE = 64 * 1024


def parse_object(body: bytes | bytearray, *, what: str) -> dict[str, Any]:
    """Return the JSON object in `body`.

    Lone surrogates inside strings are let through; who makes names of them deals with them.

    Args:
        body: the text, in UTF-8.
        what: the exchange, for the message.

    Raises:
        ProtocolError: it is no JSON, is nested too deeply, holds a number of thousands of digits or a
            constant that JSON does not have, or is not an object.
    """
    if nested_over(body, MOST_READ_DEPTH):
        raise ProtocolError(f"{what}: the answer is nested too deeply")
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except RecursionError as exc:  # in UTF-16, which the parser takes too, levels can look like texts
        raise ProtocolError(f"{what}: the answer is nested too deeply") from exc
    except ValueError as exc:
        raise ProtocolError(f"{what}: the answer is not JSON") from exc
    if not isinstance(value, dict):
        raise ProtocolError(f"{what}: the answer is JSON, but not an object")
    return value


def parse_given(text: bytes, *, what: str) -> dict[str, Any]:
    """Return the JSON object that a user gave, if every parser will find the same in it.

    Args:
        text: in UTF-8.
        what: the text in words, for the message.

    Raises:
        Invalid: it is no JSON object; or it has NaN, infinity or a number that becomes it, thousands of digits, a lone
            surrogate, a name twice in one object, or more than `MOST_DEPTH` levels.
    """
    if nested_over(text, MOST_DEPTH):
        raise Invalid(f"{what} is nested more than {MOST_DEPTH} deep")
    try:
        value = json.loads(
            text.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique
        )
    except ValueError as exc:
        raise Invalid(f"{what} is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise Invalid(f"{what} is JSON, but not an object")
    _check_given(value, what)
    return value


def nested_over(text: bytes | bytearray, most: int) -> bool:
    """Return whether a parser would go down more than `most` levels, without being one.

    Of what is no JSON in UTF-8 it may say either. Takes a fifth of the parser's time, and at worst as long.

    Args:
        most: at least `_SHALLOW`.
    """
    if text.count(b"[") + text.count(b"{") <= most:
        return False
    if b"\\" in text:
        text = text.replace(rb"\\", b"").replace(rb"\"", b"")
    quoted = text.translate(_ALIKE, _OTHERS).replace(b'""', b"")  # most strings have no brackets
    brackets = _STRING.sub(b"", quoted)
    for _ in range(_SHALLOW):
        brackets = brackets.replace(b"[]", b"")  # the innermost level
    level = 0
    for start in range(0, len(brackets), _PIECE):  # between two pieces other threads have their turn
        levels = list(accumulate(map(_STEPS.__getitem__, brackets[start : start + _PIECE]), initial=level))
        if max(levels) > most - _SHALLOW:
            return True
        level = levels[-1]
    return False


def to_bytes(value: Any, *, what: str) -> bytes:
    """Return `value` as JSON text in ASCII.

    Raises:
        ConfigError: `value` holds something that JSON cannot carry (NaN included).
    """
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{what}: the content cannot be written as JSON ({exc})") from exc


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, each in pairs:
        if name in value:
            raise ValueError(f"{name[:40]!r} is there twice")
        value[name] = each
    return value


def _check_given(value: Any, what: str) -> None:
    """Raise `Invalid` where a value holds a text that UTF-8 cannot carry."""
    level = [value]
    while level:
        texts = [each for each in level if isinstance(each, str)]
        texts += [name for each in level if isinstance(each, dict) for name in each]
        try:
            "".join(texts).encode()
        except UnicodeEncodeError as exc:
            raise Invalid(f"{what} has half a surrogate pair, which is no character") from exc
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [each for values in inner for each in values]
