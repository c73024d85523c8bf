"""A transport for contents and lists: bytes go from the socket straight into the reader's buffer.

Used by `ivcapfs.client.transport`, below an httpx client like any other transport, for answers whose bodies are big,
and for parts of files that are sent (sendfile(2), where there is no TLS): httpx's own engine hands over a body in
pieces of 16 to 64 KiB, each a Python object of its own, and at a gigabyte a second that is what a machine is then
busy with. Also for all JSON that is asked for with GET: in a chain of 20,000 pages that engine is busy as long as the
server. Who knows of it finds `readinto` among the response's extensions; who does not, iterates the body as ever.
Tokens, redirects, refusals, retries and validation are the business of the floors above, and the same for both.

Only direct connections: a deployment behind a proxy is read through httpx's own transport (`network`).

Threading: any thread may make requests; `_lock` guards `_idle`. A response belongs to one thread.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx

from ivcapfs.client import heads
from ivcapfs.client.connections import Connections
from ivcapfs.client.exchange import FileSlice
from ivcapfs.client.network import tls_context
from ivcapfs.client.wires import Patience, TlsWire, Until, Wire
from ivcapfs.crashing import reach

_KEEP_SECONDS = 15.0
_PIECE = 256 * 1024
_SENT = 1024 * 1024
"""Bytes of a file that are sent at a time; between them it is seen whether the server has answered already."""
_FIRST_STRETCH = 64 * 1024
_STRETCH = 1024 * 1024
_MOST_HINTS = 20
_LONGEST_LINE = 4096
_STALE = (ConnectionError, heads.NoAnswer, ssl.SSLEOFError, ssl.SSLZeroReturnError)
"""What a kept connection may end with when its server has closed it meanwhile: worth one fresh connection."""

Origin = tuple[str, str, int]


class DirectTransport(httpx.BaseTransport):
    """HTTP/1.1 over connections of its own, kept for the next request.

    Args:
        connections: is told of each connection, so that all of them can be ended at once.
        tls: whose certificates are believed; None: as the environment says.
    """

    def __init__(self, connections: Connections, tls: ssl.SSLContext | None = None) -> None:
        self._connections = connections
        self._tls = tls or tls_context()
        self._lock = threading.Lock()
        self._is_closed = False  # guarded by _lock
        self._idle: dict[Origin, list[tuple[float, Wire]]] = {}  # guarded by _lock

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, whose body can only be part of a file (the extension ``file``), and to whose address a query
        can be added (``query``); the answer's body is still to be read."""
        url, timeouts = request.url, request.extensions["timeout"]
        origin = (url.scheme, url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80))
        kept = self._take(origin)
        if kept is not None:
            with contextlib.suppress(_StaleError):
                return self._ask(kept, origin, request, is_kept=True)
        with _translated(httpx.ConnectError, httpx.ConnectTimeout):
            wire = self._connect(origin, timeouts["connect"])
        return self._ask(wire, origin, request)

    def close(self) -> None:
        """Close the connections that no request uses."""
        with self._lock:
            self._is_closed = True
            idle = [wire for kept in self._idle.values() for _, wire in kept]
            self._idle.clear()
        for wire in idle:
            wire.close()

    def keep(self, origin: Origin, wire: Wire) -> None:
        """Take a connection back whose last answer was read to its end."""
        with self._lock:
            if not self._is_closed:
                self._idle.setdefault(origin, []).append((time.monotonic(), wire))
                return
        wire.close()

    def _take(self, origin: Origin) -> Wire | None:
        """Return a kept connection, the one used last; those kept too long, to whatever origin, are closed."""
        oldest = time.monotonic() - _KEEP_SECONDS
        found: Wire | None = None
        useless: list[Wire] = []
        with self._lock:
            for other, kept in list(self._idle.items()):
                while kept and kept[0][0] < oldest:
                    useless.append(kept.pop(0)[1])
                if not kept:
                    del self._idle[other]
            kept = self._idle.get(origin, [])
            while kept and found is None:
                wire = kept.pop()[1]
                if wire.is_quiet():
                    found = wire
                else:
                    useless.append(wire)
        for wire in useless:
            wire.close()
        return found

    def _connect(self, origin: Origin, seconds: float) -> Wire:
        """Return a new connection. It is noted before anything is sent, TLS's greeting included."""
        scheme, host, port = origin
        connected = socket.create_connection((host, port), seconds)
        try:
            self._connections.note(connected)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return TlsWire(connected, self._tls, host, seconds) if scheme == "https" else Wire(connected)
        except BaseException:
            connected.close()
            raise

    def _ask(self, wire: Wire, origin: Origin, request: httpx.Request, *, is_kept: bool = False) -> httpx.Response:
        """Send the request and read the answer's head; whatever goes wrong, the connection is closed.

        Raises:
            _StaleError: the connection was a kept one, and has ended.
        """
        patience: Patience = request.extensions["timeout"]["read"]
        try:
            with _translated(httpx.ReadError, httpx.ReadTimeout, _STALE if is_kept else ()):
                wire.send(_text(request), patience)
                whole = self._send_file(wire, request, patience)
                head, rest = _head(wire, request.method, patience)
        except BaseException:
            wire.close()
            raise
        head = head if whole else replace(head, keeps=False)
        body = DirectBody(self, origin, wire, head, rest, patience)
        return httpx.Response(head.status, headers=head.fields, stream=body, extensions={"readinto": body.readinto})

    def _send_file(self, wire: Wire, request: httpx.Request, patience: Patience) -> bool:
        """Send the request's body, if it has one; return whether all of it, for a server may answer before, to refuse.

        Raises:
            TimeoutError: the server takes nothing.
            OSError: the connection broke, and no answer is there.
        """
        file = request.extensions.get("file")
        if not isinstance(file, FileSlice):
            return True
        at = 0
        try:
            while at < file.size and wire.is_quiet():
                at += wire.send_file(file.fd, file.start + at, min(_SENT, file.size - at), patience)
                if at < file.size:
                    reach("mid chunk")
        except (ConnectionError, TimeoutError):
            if wire.is_quiet():
                raise
        return at == file.size


class _StaleError(Exception):
    """A kept connection has ended before its answer began."""


def _text(request: httpx.Request) -> bytes:
    """Return a request as it is sent."""
    query = request.extensions.get("query", "")
    target = b"%s?%s" % (request.url.raw_path, query.encode("ascii")) if query else request.url.raw_path
    first = b"%s %s HTTP/1.1" % (request.method.encode("ascii"), target)
    return b"\r\n".join([first, *(b"%s: %s" % field for field in request.headers.raw), b"", b""])


def _head(wire: Wire, method: str, patience: Patience) -> tuple[heads.Head, bytes]:
    """Return an answer's head, and what came behind it; hints before it (RFC 9110, 15.2) are dropped."""
    came = b""
    for _ in range(_MOST_HINTS):
        while (end := came.find(b"\r\n\r\n", 0, heads.LONGEST)) < 0:
            if len(came) >= heads.LONGEST or came.count(b"\r\n") > heads.MOST_FIELDS + 1:
                raise httpx.RemoteProtocolError("the head of the answer does not end")
            more = wire.receive(patience)
            if not more:
                raise heads.NoAnswer("the server hung up without an answer")
            came += more
        head, came = heads.parse(came[:end], method), came[end + 4 :]
        if head.status >= 200 or head.status == 101:
            return head, came
    raise httpx.RemoteProtocolError("hints, and no answer")


class DirectBody(httpx.SyncByteStream):
    """The body of an answer, read from the socket as its reader asks for it. One thread.

    Args:
        rest: what came behind the head.
    """

    def __init__(
        self,
        transport: DirectTransport,
        origin: Origin,
        wire: Wire,
        head: heads.Head,
        rest: bytes,
        patience: Patience,
    ) -> None:
        self._transport = transport
        self._origin = origin
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
        self._stretch = _FIRST_STRETCH
        self._is_closed = False

    def readinto(self, view: memoryview) -> int:
        """Read what has come, at least one byte, into `view`; return how many bytes, 0 at the end of the body."""
        if self._ended:
            return 0
        with _translated(httpx.ReadError, httpx.ReadTimeout):
            if self._is_chunked and self._left == 0 and not self._next_chunk():
                return 0
            got = self._read(view if self._left is None else view[: self._left])
        if self._left is None:
            self._ended = not got
        elif not got:
            raise httpx.RemoteProtocolError(f"the body ended {self._left} bytes too early")
        else:
            self._left -= got
            self._ended = not self._left and not self._is_chunked
        return got

    def _read(self, view: memoryview) -> int:
        """Read something: what came with the head first, then from the connection in ever longer stretches."""
        if self._rest:
            got = min(len(view), len(self._rest))
            view[:got], self._rest = self._rest[:got], self._rest[got:]
            return got
        view = view[: self._stretch]
        self._stretch = min(self._stretch * 2, _STRETCH)
        return self._wire.receive_into(view, self._patience)

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
            self._transport.keep(self._origin, self._wire)
        else:
            self._wire.close()


@contextlib.contextmanager
def _translated(
    broken: type[httpx.TransportError], late: type[httpx.TimeoutException], stale: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Raise what httpx's own transport would raise; for what is in `stale`, `_StaleError`."""
    try:
        yield
    except TimeoutError as exc:
        raise late(str(exc)) from exc
    except stale as exc:
        raise _StaleError from exc
    except OSError as exc:  # ssl.SSLError is one
        raise broken(str(exc)) from exc
