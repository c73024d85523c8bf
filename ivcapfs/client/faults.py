"""What went wrong on the wire, in the words of `ivcapfs.errors`: the one place that knows httpx's exceptions.

Used by `ivcapfs.client.transport`. Pure: any thread. Nothing here puts a query, a user name or a token in a
message.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import httpx

from ivcapfs import errors
from ivcapfs.client.origins import redact_text

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
_LONGEST_MESSAGE = 300
_REFUSALS: Mapping[int, type[errors.ApiError]] = {
    400: errors.BadRequest,
    401: errors.NotAuthenticated,
    403: errors.NotPermitted,
    404: errors.NotFound,
    408: errors.Unavailable,
    409: errors.Conflict,
    410: errors.NotFound,
    412: errors.Conflict,
    413: errors.TooLarge,
    422: errors.BadRequest,
    424: errors.Conflict,
    429: errors.Unavailable,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.Unavailable,
    507: errors.StorageFull,
}
_TRANSLATIONS: tuple[tuple[type[Exception], type[errors.IvcapfsError], str], ...] = (
    (httpx.ConnectTimeout, errors.ConnectFailed, "no connection within the bound"),
    (httpx.PoolTimeout, errors.DeadlineExceeded, "all connections were busy"),
    (httpx.TimeoutException, errors.DeadlineExceeded, "nothing came within the bound"),
    (httpx.ConnectError, errors.ConnectFailed, "no connection"),
    (httpx.ProxyError, errors.ConnectFailed, "the proxy refused"),
    (httpx.UnsupportedProtocol, errors.OriginRefused, "not an http(s) address"),
    (httpx.LocalProtocolError, errors.ProtocolError, "this request cannot be sent over HTTP"),
    (httpx.HTTPError, errors.ConnectionBroken, "the connection broke"),
    (httpx.StreamError, errors.ConnectionBroken, "the transfer was ended"),
    (httpx.InvalidURL, errors.OriginRefused, "the address cannot be read"),
    (OSError, errors.ConnectionBroken, "the connection broke"),
    (ValueError, errors.ProtocolError, "this request cannot be sent over HTTP"),
)
HTTPX_ERRORS = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError, ValueError)
"""What a call of httpx may raise besides our own exceptions (ValueError: a header that is not ASCII)."""


def translate(exc: Exception, what: str) -> errors.IvcapfsError:
    """Return our exception for one of `HTTPX_ERRORS`; the caller raises it ``from exc``."""
    for theirs, ours, words in _TRANSLATIONS:
        if isinstance(exc, theirs):
            detail = tidy(str(exc)) if ours in (errors.ConnectFailed, errors.ConnectionBroken) else ""
            return ours(f"{what}: {words}" + (f" ({detail})" if detail else ""))
    raise AssertionError(f"not one of HTTPX_ERRORS: {type(exc).__name__}")


def refusal(status: int, what: str, *, message: str = "", retry_after: float | None = None) -> errors.ApiError:
    """Return the exception for an answer that is no success.

    Args:
        status: the HTTP status.
        what: the exchange.
        message: the server's own words, raw.
        retry_after: seconds, from the header of that name.
    """
    words = tidy(message)
    text = f"{what}: the server answered {status}" + (f": {words}" if words else "")
    error = _REFUSALS.get(status, errors.ServerFault)(text, status=status)
    if isinstance(error, errors.Unavailable):
        error.retry_after = retry_after
    return error


def tidy(text: str, *, secret: str | None = None) -> str:
    """Return a server's text as one short printable line without queries, and without `secret`."""
    if secret:
        text = text.replace(secret, "<secret>")
    printable = _CONTROL.sub(" ", redact_text(text[: 20 * _LONGEST_MESSAGE]))
    return printable.encode("utf-8", "replace").decode("utf-8")[:_LONGEST_MESSAGE].strip()


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header (a number or a date); None without a usable one."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
