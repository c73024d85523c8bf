"""HTTP's conditional and range headers, for blobs.

Used by the blob calls. Pure, hence safe in any thread.
"""

from __future__ import annotations

import re

_RANGE = re.compile(r"\s*(\d*)\s*-\s*(\d*)\s*")


class RangeNotSatisfiable(ValueError):
    """The range asked for lies outside the content."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the range of bytes that a ``Range`` header asks for.

    Args:
        header: its value, e.g. ``bytes=0-99``, ``bytes=100-``, ``bytes=-5``.
        size: the size of the content in bytes.

    Returns:
        The first byte and the one after the last; ``None`` when the whole is to be sent: no header, one that
        is malformed, of another unit, or with several ranges (as RFC 9110 allows).

    Raises:
        RangeNotSatisfiable: nothing of the content lies within the range.
    """
    unit, sep, spec = (header or "").partition("=")
    match = _RANGE.fullmatch(spec)
    if not sep or unit.strip().lower() != "bytes" or match is None or len(spec) > 100:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), size if not last else min(size, int(last) + 1)
        if last and int(last) < int(first):
            return None
    if start >= size or stop <= start:
        raise RangeNotSatisfiable(f"bytes */{size}")
    return start, stop


def etag_matches(header: str, etag: str) -> bool:
    """Tell whether ``If-Match`` or ``If-None-Match`` names this quoted ETag, or is ``*``."""
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return header.strip() == "*" or etag in tags


def if_range_holds(header: str | None, etag: str, last_modified: str) -> bool:
    """Tell whether a ``Range`` is to be honoured: no ``If-Range``, or one that names what we hold."""
    return header is None or header.strip() in (etag, last_modified)
