"""The head of an HTTP/1.1 answer: its text -> status, headers, and how long the body is (RFC 9112).

Used by `ivcapfs.client.direct`. Pure. Stricter than the libraries are: what could be read in two ways, as where a body
ends, is no answer at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import httpx

LONGEST = 64 * 1024
"""Bytes of a head; more is no head."""
MOST_FIELDS = 100

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: [^\r\n]*)?(?=\r\n|\Z)")
_FIELD = re.compile(rb"\r\n([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\r\n\x00]*)(?=\r\n|\Z)")
"""A line with a header. All of them are found at once: of the answer with a small block that is seen."""
_FOLD = re.compile(rb"\r\n[ \t]+")
_LENGTH = re.compile(rb"\d{1,18}")
_BODILESS = frozenset({204, 304})


class NoAnswer(httpx.RemoteProtocolError):
    """What came, if anything, does not even begin like an answer."""


class Named(Mapping[str, str]):
    """Headers by name, in whichever case; those of one that came several times are joined (RFC 9110, 5.3).

    httpx's own take ten times as long to be made, and five times as long to be asked; of a small block that is seen.

    Args:
        values: by the names in lower case.
    """

    def __init__(self, values: dict[bytes, list[bytes]]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> str:
        return _joined(self._values[name.lower().encode()])

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        """Return a header; `default` where there is none."""
        values = self._values.get(name.lower().encode())
        return default if values is None else _joined(values)

    def __iter__(self) -> Iterator[str]:
        return (name.decode() for name in self._values)

    def __len__(self) -> int:
        return len(self._values)


def _joined(values: list[bytes]) -> str:
    return _text(values[0]) if len(values) == 1 else ", ".join(map(_text, values))


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


class Head(NamedTuple):
    """What the head of an answer says.

    Attributes:
        length: bytes of the body; None: it is chunked, or goes up to the end of the connection.
        is_chunked: whether the body is chunked.
        keeps: whether the connection can be used again after the body.
    """

    status: int
    headers: Named
    length: int | None
    is_chunked: bool
    keeps: bool


def parse(text: bytes, method: str) -> Head:
    """Return what a head says.

    Args:
        text: the head, without the empty line at its end.
        method: of the request: an answer to HEAD has no body.

    Raises:
        httpx.RemoteProtocolError: it is no head of HTTP/1; `NoAnswer` where not even the status can be read.
    """
    if b"\r\n " in text or b"\r\n\t" in text:
        text = _FOLD.sub(b" ", text)
    found = _STATUS.match(text)
    if found is None:
        first, _, _ = text.partition(b"\r\n")
        raise NoAnswer(f"no status line: {first[:60]!r}")
    fields = _FIELD.findall(text, found.end())
    lines = text.count(b"\r\n")
    if lines > MOST_FIELDS:
        raise httpx.RemoteProtocolError(f"more than {MOST_FIELDS} headers")
    if len(fields) < lines:
        bad = next(line for line in text.split(b"\r\n")[1:] if not _FIELD.fullmatch(b"\r\n" + line))
        raise httpx.RemoteProtocolError(f"no header: {bad[:60]!r}")
    named: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        named.setdefault(name.lower(), []).append(value.strip(b" \t"))
    return _framed(int(found[2]), method, found[1] == b"1", named)


def _framed(status: int, method: str, is_11: bool, named: dict[bytes, list[bytes]]) -> Head:
    """Decide where the body ends (RFC 9112, 6.3), and whether the connection outlives it (9.3)."""
    options = {option.lower() for option in _listed(named.get(b"connection", ()))}
    keeps = b"close" not in options if is_11 else b"keep-alive" in options
    if method == "HEAD" or status in _BODILESS or status < 200:
        return Head(status, Named(named), 0, is_chunked=False, keeps=keeps)
    codings = named.get(b"transfer-encoding")
    if codings is not None:
        if [coding.lower() for coding in codings] != [b"chunked"]:
            raise httpx.RemoteProtocolError(f"an unknown transfer coding: {codings}")
        return Head(status, Named(named), None, is_chunked=True, keeps=keeps and b"content-length" not in named)
    lengths = set(_listed(named.get(b"content-length", ())))
    if not lengths:
        return Head(status, Named(named), None, is_chunked=False, keeps=False)
    length = lengths.pop()
    if lengths or not _LENGTH.fullmatch(length):
        raise httpx.RemoteProtocolError("no one length of the body")
    return Head(status, Named(named), int(length), is_chunked=False, keeps=keeps)


def _listed(values: Sequence[bytes]) -> list[bytes]:
    """Return the members of comma-separated lists."""
    return [member.strip() for value in values for member in value.split(b",")]
