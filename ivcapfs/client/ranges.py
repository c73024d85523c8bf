"""Whether a server's answer to a ranged GET is what was asked for, decided from status and headers alone.

Used by `ivcapfs.client.blobs` before it hands on a byte. Pure: any thread. (RFC 9110, 14: range requests.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from ivcapfs.errors import ContentChanged, ProtocolError
from ivcapfs.models import Content

MOVED = frozenset({401, 403, 404, 410})
"""The refusals after which a content's address is asked for again: signed addresses expire."""

_NUMBER = re.compile(r"[0-9]{1,18}")
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_NOTHING = re.compile(r"bytes \*/([0-9]{1,18})")
_STRONG = re.compile(r'"[\x21\x23-\x7e]*"')

Headers = Mapping[str, str]


class Answer(NamedTuple):
    """What an answer will bring.

    Attributes:
        content: which content it is from.
        skip: bytes that come before those wanted (the server sends all from the start).
        length: bytes wanted that it brings, after `skip`.
        ends: whether the body ends after them; else the rest is not read.
    """

    content: Content
    skip: int
    length: int
    ends: bool


def content_length(headers: Headers) -> int | None:
    """Return the body's length as announced; None where it is not."""
    text = headers.get("content-length", "").strip()
    return int(text) if _NUMBER.fullmatch(text) else None


def content_of(headers: Headers, size: int) -> Content:
    """Return the content that an answer with these headers shows, given its total size in bytes."""
    etag = headers.get("etag", "").strip()
    if etag:
        return Content(etag, size, strong=_STRONG.fullmatch(etag) is not None)
    modified = headers.get("last-modified", "").strip()
    return Content(f"last-modified:{modified};size:{size}" if modified else f"size:{size}", size)


def shown_content(status: int, headers: Headers, hint: int | None, what: str) -> Content:
    """Return the content that the answer to ``Range: bytes=0-0`` shows, an empty one included.

    Args:
        hint: the size in the artifact's record, for an answer that tells no length.

    Raises:
        ProtocolError: the answer does not show its size.
    """
    if status == 206:
        return content_of(headers, _partial(headers, 0, 1, what)[1])
    if status == 416:
        nothing = _NOTHING.fullmatch(headers.get("content-range", "").strip())
        size = int(nothing[1]) if nothing else hint
        if size == 0:
            return content_of(headers, 0)
        raise ProtocolError(f"{what}: the server refuses the first byte")
    return content_of(headers, _whole(status, headers, hint, what))


def read_answer(
    status: int,
    headers: Headers,
    *,
    start: int,
    stop: int,
    expected: Content | None,
    hint: int | None,
    what: str,
) -> Answer:
    """Return what the answer to a GET of the bytes `start` to `stop` (excluded) brings.

    Args:
        expected: the content that it must be from.
        hint: the size in the artifact's record, for an answer that tells no length.

    Raises:
        ContentChanged: it is from another content.
        ProtocolError: it is not what was asked for.
    """
    if status == 416:
        if expected is not None:
            raise ContentChanged(f"{what}: the content no longer has bytes {start} to {stop}")
        raise ProtocolError(f"{what}: the content has no bytes {start} to {stop}")
    if status == 206:
        last, total = _partial(headers, start, stop, what)
        answer = Answer(content_of(headers, total), 0, last - start + 1, ends=True)
    else:
        total = _whole(status, headers, expected.size if expected else hint, what)
        answer = Answer(content_of(headers, total), start, stop - start, ends=stop == total)
    shown = answer.content
    if expected is not None and (shown.validator, shown.size) != (expected.validator, expected.size):
        raise ContentChanged(f"{what}: the server shows other content than before")
    if stop > total:
        raise ProtocolError(f"{what}: the content has {total} bytes, not {stop}")
    return answer


def _partial(headers: Headers, start: int, stop: int, what: str) -> tuple[int, int]:
    """Return last byte and total of a 206 that begins at `start` and does not go beyond `stop`."""
    found = _RANGE.fullmatch(headers.get("content-range", "").strip())
    if found is None:
        raise ProtocolError(f"{what}: a partial answer that does not say which part it is")
    first, last, total = (int(group) for group in found.groups())
    length = content_length(headers)
    if first != start or not first <= last < total or last >= stop:
        raise ProtocolError(f"{what}: asked for bytes {start} to {stop - 1}, got {first} to {last} of {total}")
    if length is not None and length != last - first + 1:
        raise ProtocolError(f"{what}: {length} bytes announced for a part of {last - first + 1}")
    return last, total


def _whole(status: int, headers: Headers, hint: int | None, what: str) -> int:
    """Return the total size of an answer that has all of the content."""
    if status != 200:
        raise ProtocolError(f"{what}: an answer of status {status}, which was not asked for")
    length = content_length(headers)
    size = hint if length is None else length
    if size is None:
        raise ProtocolError(f"{what}: the server tells no size")
    return size
