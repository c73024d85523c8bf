"""JSON text to values and back, with every way in which a server can make Python's parser fail turned into
one error.

Used by `ivcapfs.client.transport` (what comes in) and `ivcapfs.client.api` (what goes out). Pure: any thread.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from ivcapfs.errors import ConfigError, ProtocolError


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
