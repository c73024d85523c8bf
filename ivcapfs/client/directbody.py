"""The answer to a request over a connection of our own: its bytes go from the socket into the reader's buffer.

Used by `ivcapfs.client.direct`, which makes the request.

Threading: an answer belongs to one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import httpx

from ivcapfs.client import heads
from ivcapfs.client.wires import Patience, Until, Wire

_PIECE = 256 * 1024
_STRETCH = 1024 * 1024
"""Bytes that are read at a time, where the connection brings them in time."""
_LONGEST_LINE = 4096


class StaleError(Exception):
    """A kept connection has ended before its answer began."""


class DirectAnswer:
    """An answer whose body is on its way; see `ivcapfs.client.exchange.Response`. One thread."""

    def __init__(self, status: int, headers: heads.Named, body: DirectBody) -> None:
        self.status_code = status
        self.headers = headers
        self._body = body
        self.extensions = {"readinto": body.readinto}
        self.is_success = 200 <= status < 300

    def iter_raw(self) -> Iterator[bytes]:
        """Iterate the body as it came."""
        return iter(self._body)

    def close(self) -> None:
        """See `DirectBody.close`."""
        self._body.close()


class DirectBody:
    """The body of an answer, read from the socket as its reader asks for it. One thread.

    Args:
        keep: takes the connection back, if it can be used again.
        rest: what came behind the head.
    """

    def __init__(
        self,
        keep: Callable[[Wire], None],
        wire: Wire,
        head: heads.Head,
        rest: bytes,
        patience: Patience,
    ) -> None:
        self._keep = keep
        self._wire = wire
        self._rest = memoryview(rest)
        self._patience = patience
        self._left = head.length  # of the body, or of the chunk; None: up to the end of the connection
        self._is_chunked = head.is_chunked
        if head.is_chunked:
            self._left = 0
        self._is_first_chunk = True
        self._ended = head.length == 0
        self._keeps = head.keeps
        self._is_closed = False

    def readinto(self, view: memoryview) -> int:
        """Read what has come, at least one byte, into `view`; return how many bytes, 0 at the end of the body."""
        if self._ended:
            return 0
        try:
            if self._is_chunked and self._left == 0 and not self._next_chunk():
                return 0
            got = self._read(view if self._left is None else view[: self._left])
        except OSError as exc:
            raise translated(exc, httpx.ReadError, httpx.ReadTimeout) from exc
        if self._left is None:
            self._ended = not got
        elif not got:
            raise httpx.RemoteProtocolError(f"the body ended {self._left} bytes too early")
        else:
            self._left -= got
            self._ended = not self._left and not self._is_chunked
        return got

    def _read(self, view: memoryview) -> int:
        """Read something: what came with the head first, then from the connection."""
        if self._rest:
            got = min(len(view), len(self._rest))
            view[:got], self._rest = self._rest[:got], self._rest[got:]
            return got
        return self._wire.receive_into(view[:_STRETCH], self._patience)

    def _next_chunk(self) -> bool:
        """Read the head of the next chunk; return whether there is one (RFC 9112, 7.1)."""
        patience = Until(time.monotonic() + self._patience.left())
        if not self._is_first_chunk and self._line(patience):
            raise httpx.RemoteProtocolError("a chunk is longer than it said")
        self._is_first_chunk = False
        size = self._line(patience).partition(b";")[0].strip()
        try:
            self._left = int(size, 16)
        except ValueError:
            raise httpx.RemoteProtocolError(f"no length of a chunk: {size[:20]!r}") from None
        if self._left < 0:
            raise httpx.RemoteProtocolError("a chunk of a negative length")
        if self._left:
            return True
        trailers = 0
        while self._line(patience):
            trailers += 1
            if trailers > heads.MOST_FIELDS:
                raise httpx.RemoteProtocolError("the trailers do not end")
        self._ended = True
        return False

    def _line(self, patience: Until) -> bytes:
        """Read one line of the chunked coding."""
        came = bytes(self._rest)
        while (end := came.find(b"\r\n")) < 0:
            more = self._wire.receive(patience)
            if not more or len(came) > _LONGEST_LINE:
                raise httpx.RemoteProtocolError("the body ended within a chunk")
            came += more
        self._rest = memoryview(came)[end + 2 :]
        return came[:end]

    def __iter__(self) -> Iterator[bytes]:
        buffer = memoryview(bytearray(_PIECE))
        while got := self.readinto(buffer):
            yield bytes(buffer[:got])

    def close(self) -> None:
        """Keep the connection if the body was read to its end, and nothing came behind it; else close it."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._ended and self._keeps and not self._rest:
            self._keep(self._wire)
        else:
            self._wire.close()


def translated(
    exc: OSError, broken: type[httpx.TransportError], late: type[httpx.TimeoutException]
) -> httpx.TransportError:
    """Return what httpx's own transport would raise."""
    return late(str(exc)) if isinstance(exc, TimeoutError) else broken(str(exc))  # ssl.SSLError is an OSError, too
