"""Query parameters and headers of requests, read and checked.

Used by the API modules; every refusal is an :class:`~ivcapfs.server.errors.ApiError`. Pure.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace

from starlette.requests import Request

from ivcapfs.server.clock import parse_rfc3339
from ivcapfs.server.errors import bad_request, invalid_parameter
from ivcapfs.server.paging import CursorError, ListQuery, parse_cursor

DEFAULT_LIMIT = 10
MAX_LIMIT = 50


def limit(request: Request) -> int | None:
    """Return the ``limit``, if there is one: 1 to 50."""
    text = request.query_params.get("limit", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= MAX_LIMIT):
        raise invalid_parameter("limit", text, f"limit must be a number from 1 to {MAX_LIMIT}")
    return int(text)


def at_time(request: Request, now: int) -> int:
    """Return ``at-time`` in microseconds since 1970, ``now`` when there is none."""
    text = request.query_params.get("at-time", "")
    if not text:
        return now
    try:
        return parse_rfc3339(text)
    except ValueError as exc:
        raise invalid_parameter("at-time", text, "at-time must be an RFC 3339 time") from exc


def flag(request: Request, name: str, default: bool) -> bool:
    """Return a parameter that is true or false."""
    text = request.query_params.get(name, "").lower()
    if text in ("true", "1", "t"):
        return True
    if text in ("false", "0", "f"):
        return False
    if text:
        raise invalid_parameter(name, text, f"{name} must be true or false")
    return default


def page(request: Request) -> ListQuery | None:
    """Return the query of the ``page`` cursor, if there is one, with the ``limit`` of this request."""
    text = request.query_params.get("page", "")
    if not text:
        return None
    try:
        query = parse_cursor(text)
    except CursorError as exc:
        raise invalid_parameter("page", text, str(exc)) from exc
    wanted = limit(request)
    if wanted is None:
        return query
    return replace(query, limit=wanted)


def urn(request: Request, name: str) -> str:
    """Return a query parameter that must be a URN."""
    text = request.query_params.get(name, "")
    if not text.startswith("urn:"):
        raise invalid_parameter(name, text, f"{name} must be a URN")
    return text


def urn_header(request: Request, name: str) -> str | None:
    """Return a header that must be a URN, if it is there."""
    text = request.headers.get(name, "")
    if not text:
        return None
    if not text.startswith("urn:"):
        raise bad_request(f"{name} must be a URN")
    return text


def number_header(request: Request, name: str) -> int | None:
    """Return a header that must be a number, not negative, if it is there."""
    text = request.headers.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise bad_request(f"{name} must be a number")
    return int(text)


def name_header(request: Request) -> str | None:
    """Return the name in ``X-Name``, which is base64 of its UTF-8 form, if it is there."""
    text = request.headers.get("X-Name", "")
    try:
        return base64.b64decode(text, validate=True).decode("utf-8") or None
    except (binascii.Error, ValueError) as exc:
        raise bad_request("X-Name must be the base64 form of a name in UTF-8") from exc
