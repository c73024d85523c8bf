"""The pieces of one HTTP exchange: what is asked, how long it may take, and the answer on its way.

Used by `ivcapfs.client.transport`, which puts them together. Each belongs to the thread that makes the
exchange.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, Protocol

import httpx

from ivcapfs import errors
from ivcapfs.client import faults
from ivcapfs.client.retry import Clock
from ivcapfs.config import KIB, Limits

_BODY_HEADERS = frozenset({"content-type", "content-length", "upload-offset", "upload-length"})

Headers = Mapping[str, str]
_PIECE = 256 * KIB


@dataclass(frozen=True, slots=True)
class FileSlice:
    """A part of an open file, to be sent without being read into memory first where that can be (sendfile(2)).

    Attributes:
        fd: its descriptor, which must stay open.
        start, size: the part, in bytes.
    """

    fd: int
    start: int
    size: int

    def __len__(self) -> int:
        return self.size

    def pieces(self) -> Iterator[bytes]:
        """Iterate the bytes in pieces, for a connection that has to see them (pread(2)).

        Raises:
            OSError: the file has become shorter, or cannot be read.
        """
        at, end = self.start, self.start + self.size
        while at < end:
            piece = os.pread(self.fd, min(_PIECE, end - at), at)
            if not piece:
                raise OSError("the file to send has become shorter")
            yield piece
            at += len(piece)


Body = bytes | bytearray | memoryview | FileSlice


def pieces(body: Body) -> Iterator[bytes]:
    """Iterate the bytes of a body in pieces. Raises as `FileSlice.pieces`."""
    if isinstance(body, FileSlice):
        yield from body.pieces()
        return
    view = memoryview(body)
    for start in range(0, len(view), _PIECE):
        yield bytes(view[start : start + _PIECE])


def rest_of(body: Body, done: int) -> Body:
    """Return what is left of a body when so many bytes of it have arrived."""
    if isinstance(body, FileSlice):
        return FileSlice(body.fd, body.start + done, body.size - done)
    return memoryview(body)[done:] if done else body


class Response(Protocol):
    """An answer whose body is on its way: httpx's, or that of a direct connection, which is made in less time."""

    @property
    def status_code(self) -> int:
        """As in the answer's first line."""
        ...

    @property
    def is_success(self) -> bool:
        """Whether the status is from 200 to 299."""
        ...

    @property
    def headers(self) -> Headers:
        """The headers, by name in whichever case."""
        ...

    @property
    def extensions(self) -> Mapping[str, Any]:
        """``readinto``, if the body can be read so."""
        ...

    def iter_raw(self) -> Iterator[bytes]:
        """Iterate the body as it comes."""
        ...

    def close(self) -> None:
        """End it."""
        ...


@dataclass(frozen=True, slots=True)
class JsonReply:
    """The answer of a small exchange; `body` is empty where the server sent none, `text` is what it was read from."""

    status: int
    headers: Headers
    body: dict[str, Any]
    text: bytes = b""


class Stream:
    """An answer whose body is still on its way. Made by `Transport.stream`; one thread."""

    def __init__(
        self,
        response: Response,
        what: str,
        check: Callable[[], None],
        fail: Callable[[Exception, str], NoReturn],
    ) -> None:
        self._response = response
        self._what = what
        self._check = check
        self._fail = fail
        self._parts: Iterator[bytes] | None = None
        self._rest = memoryview(b"")
        self.status = response.status_code
        self.headers = response.headers

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it comes from the connection, undecoded.

        Raises:
            TransportError: it broke, or nothing came for `Limits.idle` seconds.
            Closing: the client was closed.
        """
        parts = self._response.iter_raw()
        while True:
            self._check()
            try:
                part = next(parts, None)
            except faults.HTTPX_ERRORS as exc:
                self._fail(exc, self._what)
            if part is None:
                return
            yield part

    def readinto(self, view: memoryview) -> int:
        """Read what has come of the body, at least one byte, into `view`.

        Returns:
            How many bytes; 0 at the end of the body.

        Raises:
            TransportError, Closing: as `chunks`.
        """
        self._check()
        straight = self._response.extensions.get("readinto")
        try:
            if straight is not None:
                return int(straight(view))
            if not self._rest:
                self._parts = self._parts or self._response.iter_raw()
                self._rest = memoryview(next(self._parts, b""))
        except faults.HTTPX_ERRORS as exc:
            self._fail(exc, self._what)
        taken = min(len(view), len(self._rest))
        view[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken


class Patience:
    """A read time-out that shrinks, so that a peer cannot hold us by sending one byte now and then.

    A time-out given as a number holds for each read anew. The socket module takes any object with
    ``__index__``, in whole seconds, and asks it before every read; this one tells what is left, and raises
    when that is nothing.
    """

    def __init__(self, limits: Limits, clock: Clock, deadline: float | None) -> None:
        self._idle = limits.idle
        self._clock = clock
        self.deadline = deadline

    def left(self) -> float:
        """Return how many seconds the next read may take.

        Raises:
            TimeoutError: none.
        """
        left = self._idle if self.deadline is None else min(self._idle, self.deadline - self._clock())
        if left <= 0:
            raise TimeoutError("the bound for the whole exchange is reached")
        return left

    def __index__(self) -> int:
        return math.ceil(self.left())


class Ask(NamedTuple):
    """One request, before it has an address.

    Attributes:
        direct: whether it may go past httpx where no proxy is asked.
        query: what is added to the address: kept apart, because reading a long one again and again takes its time.
    """

    method: str
    headers: Headers
    content: Body | None
    what: str
    direct: bool = False
    query: str = ""

    def at(self, url: httpx.URL) -> str:
        """Return the whole address at which this is asked for."""
        return f"{url}?{self.query}" if self.query else str(url)

    def redirected(self, status: int) -> Ask:
        """Return what to ask at the new address (RFC 9110, 15.4)."""
        becomes_get = status == 303 and self.method != "HEAD"
        if not becomes_get and not (status in (301, 302) and self.method == "POST"):
            return self._replace(query="")
        kept = {name: value for name, value in self.headers.items() if name.lower() not in _BODY_HEADERS}
        return Ask("GET", kept, None, self.what, self.direct)


def refuse_encoding(stream: Stream, what: str) -> None:
    """Raise `errors.ProtocolError` if the body is compressed: we asked for identity, and never unpack."""
    encoding = stream.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise errors.ProtocolError(f"{what}: the body came compressed, which was not asked for")
