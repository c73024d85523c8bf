"""JSON text to values and back, with every way in which a server can make Python's parser fail turned into
one error.

Used by `ivcapfs.client.transport` (what comes in), `ivcapfs.client.api` (what goes out), and wherever a user gives a
value that goes out. Pure: any thread.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from ivcapfs.errors import ConfigError, Invalid, ProtocolError

MOST_DEPTH = 100
"""How deep a user's value may be nested: no parser on its way has trouble with that."""


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
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except RecursionError as exc:
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
    try:
        value = json.loads(
            text.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique
        )
    except RecursionError as exc:
        raise Invalid(f"{what} is nested more than {MOST_DEPTH} deep") from exc
    except ValueError as exc:
        raise Invalid(f"{what} is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise Invalid(f"{what} is JSON, but not an object")
    _check_given(value, what)
    return value


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
    """Raise `Invalid` where a value is nested too deeply, or holds a text that UTF-8 cannot carry."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MOST_DEPTH:
            raise Invalid(f"{what} is nested more than {MOST_DEPTH} deep")
        texts = [each for each in level if isinstance(each, str)]
        texts += [name for each in level if isinstance(each, dict) for name in each]
        try:
            "".join(texts).encode()
        except UnicodeEncodeError as exc:
            raise Invalid(f"{what} has half a surrogate pair, which is no character") from exc
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [each for values in inner for each in values]
