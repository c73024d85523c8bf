"""A transport for contents: bytes go from the socket straight into the reader's buffer.

Used by `ivcapfs.client.transport`, below an httpx client like any other transport, for answers whose bodies are big:
httpx's own engine hands over a body in pieces of 16 to 64 KiB, each a Python object of its own, and at a gigabyte a
second that is what a machine is then busy with. Who knows of it finds `readinto` among the response's extensions; who
does not, iterates the body as ever. Tokens, redirects, refusals, retries and validation are the business of the
floors above, and the same for both.

HTTP itself is spoken by the standard library's `http.client`. Only direct connections: a deployment behind a proxy is
read through httpx's own transport (`is_proxied`).

Threading: any thread may make requests; `_lock` guards `_idle`. A response belongs to one thread.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import select
import socket
import ssl
import struct
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import httpx

from ivcapfs.client.connections import Connections
from ivcapfs.client.exchange import Patience

_KEEP_SECONDS = 15.0
_PIECE = 256 * 1024
_FIRST_STRETCH = 64 * 1024
_STRETCH = 1024 * 1024
_SHORTEST_PAUSE = 0.01
_STALE = (ConnectionError, http.client.BadStatusLine, ssl.SSLEOFError, ssl.SSLZeroReturnError)
"""What a kept connection may end with when its server has closed it meanwhile: worth one fresh connection."""

Origin = tuple[str, str, int]


class DirectTransport(httpx.BaseTransport):
    """HTTP/1.1 over connections of its own, kept for the next request.

    Args:
        connections: is told of each connection, so that all of them can be ended at once.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._tls = httpx.create_ssl_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        self._lock = threading.Lock()
        self._is_closed = False  # guarded by _lock
        self._idle: dict[Origin, list[tuple[float, http.client.HTTPConnection]]] = {}  # guarded by _lock

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request without a body; the answer's body is still to be read."""
        url, timeouts = request.url, request.extensions["timeout"]
        origin = (url.scheme, url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80))
        with _translated(httpx.ReadError, httpx.ReadTimeout):
            kept = self._take(origin)
            if kept is not None:
                with contextlib.suppress(*_STALE):
                    return self._ask(kept, origin, request)
        with _translated(httpx.ConnectError, httpx.ConnectTimeout):
            connection = self._connect(origin, timeouts["connect"])
        with _translated(httpx.ReadError, httpx.ReadTimeout):
            return self._ask(connection, origin, request)

    def close(self) -> None:
        """Close the connections that no request uses."""
        with self._lock:
            self._is_closed = True
            idle = [connection for kept in self._idle.values() for _, connection in kept]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def keep(self, origin: Origin, connection: http.client.HTTPConnection) -> None:
        """Take a connection back whose last answer was read to its end."""
        with self._lock:
            if not self._is_closed:
                self._idle.setdefault(origin, []).append((time.monotonic(), connection))
                return
        connection.close()

    def _take(self, origin: Origin) -> http.client.HTTPConnection | None:
        """Return a kept connection, the one used last; those kept too long, to whatever origin, are closed."""
        oldest = time.monotonic() - _KEEP_SECONDS
        found: http.client.HTTPConnection | None = None
        useless: list[http.client.HTTPConnection] = []
        with self._lock:
            for other in list(self._idle):
                kept = self._idle[other]
                useless += [connection for since, connection in kept if since < oldest]
                kept[:] = [entry for entry in kept if entry[0] >= oldest]
                if not kept:
                    del self._idle[other]
            kept = self._idle.get(origin, [])
            while kept and found is None:
                connection = kept.pop()[1]
                if _is_quiet(connection.sock):
                    found = connection
                else:
                    useless.append(connection)
        for connection in useless:
            connection.close()
        return found

    def _connect(self, origin: Origin, seconds: float) -> http.client.HTTPConnection:
        """Return a new connection. It is noted before anything is sent, TLS's greeting included."""
        scheme, host, port = origin
        connected = socket.create_connection((host, port), seconds)
        try:
            self._connections.note(connected)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if scheme == "https":
                connected = self._tls.wrap_socket(connected, server_hostname=host, do_handshake_on_connect=False)
                self._connections.note(connected)
                connected.do_handshake()
        except BaseException:
            connected.close()
            raise
        connection = http.client.HTTPConnection(host, port)
        connection.auto_open = 0
        connection.sock = connected
        return connection

    def _ask(self, connection: http.client.HTTPConnection, origin: Origin, request: httpx.Request) -> httpx.Response:
        """Send the request and read the answer's head; whatever goes wrong, the connection is closed."""
        patience: Patience = request.extensions["timeout"]["read"]
        connected = connection.sock  # getresponse forgets it where the server closes after this answer
        try:
            connected.settimeout(patience.left())
            target = request.url.raw_path.decode("ascii")
            connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.raw:
                connection.putheader(name.decode("ascii"), value)
            connection.endheaders()
            connection.response_class = functools.partial(_Answer, patience)  # type: ignore[assignment]
            answer = connection.getresponse()
            body = DirectBody(self, origin, connection, connected, answer, patience)
        except BaseException:
            connection.close()
            raise
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.getheaders()]
        return httpx.Response(answer.status, headers=headers, stream=body, extensions={"readinto": body.readinto})


class _Answer(http.client.HTTPResponse):
    """An answer that is waited for as long as `patience` has it, however small the pieces that it comes in."""

    def __init__(self, patience: Patience, connected: socket.socket, **more: Any) -> None:
        super().__init__(connected, **more)
        raw = connected.makefile("rb", buffering=0)
        self.fp.close()
        self.fp = io.BufferedReader(_Patiently(patience, connected, raw))

    def begin(self) -> None:
        """Read the head; hints before it (RFC 9110, 15.2) are dropped, which http.client does with 100 only."""
        super().begin()
        while 101 < self.status < 200:
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin()


class _Patiently(io.RawIOBase):
    """Reads from a socket; each time the time-out is set to what is left."""

    def __init__(self, patience: Patience, connected: socket.socket, raw: socket.SocketIO) -> None:
        self._patience = patience
        self._socket = connected
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        self._socket.settimeout(self._patience.left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class DirectBody(httpx.SyncByteStream):
    """The body of an answer, read from the socket as its reader asks for it. One thread."""

    def __init__(
        self,
        transport: DirectTransport,
        origin: Origin,
        connection: http.client.HTTPConnection,
        connected: socket.socket,
        answer: http.client.HTTPResponse,
        patience: Patience,
    ) -> None:
        self._transport = transport
        self._origin = origin
        self._connection = connection
        self._socket = connected
        self._answer = answer
        self._patience = patience
        self._left = answer.length  # None: chunked, or up to the end of the connection
        self._keeps = not answer.will_close
        self._behind_head = True  # http.client may have read some of the body together with the head
        self._stretch = _FIRST_STRETCH
        self._waits_in_kernel = False
        self._is_closed = False

    def readinto(self, view: memoryview) -> int:
        """Read what has come, at least one byte, into `view`; return how many bytes, 0 at the end of the body."""
        if self._left == 0 or self._answer.isclosed():
            return 0
        with _translated(httpx.ReadError, httpx.ReadTimeout):
            if self._left is None:
                data = self._answer.read1(len(view))
                view[: len(data)] = data
                return len(data)
            got = self._read_counted(view[: self._left])
        if not got:
            raise httpx.RemoteProtocolError(f"the body ended {self._left} bytes too early")
        self._left -= got
        return got

    def _read_counted(self, view: memoryview) -> int:
        """Read from a body whose length is known; 0 where the connection ended."""
        if self._behind_head:
            self._behind_head = len(view) < io.DEFAULT_BUFFER_SIZE
            return int(self._answer.fp.readinto1(view))
        view = view[: self._stretch]
        self._stretch = min(self._stretch * 2, _STRETCH)
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.settimeout(self._patience.left())
            return self._socket.recv_into(view)
        return self._read_stretch(view)

    def _read_stretch(self, view: memoryview) -> int:
        """Read until `view` is full or some time has passed, in one system call: recv(2) with MSG_WAITALL.

        So a fast connection wakes this thread once a megabyte, and a slow one still shows what it has.
        """
        if not self._waits_in_kernel:
            self._socket.settimeout(None)
            pause = int(max(_SHORTEST_PAUSE, min(1.0, self._patience.left() / 4)) * 1e6)  # 0 would be for ever
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", *divmod(pause, 10**6)))
            self._waits_in_kernel = True
        end = time.monotonic() + self._patience.left()
        while True:
            try:
                return self._socket.recv_into(view, 0, socket.MSG_WAITALL)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TimeoutError("nothing came") from None

    def __iter__(self) -> Iterator[bytes]:
        buffer = memoryview(bytearray(_PIECE))
        while got := self.readinto(buffer):
            yield bytes(buffer[:got])

    def close(self) -> None:
        """Keep the connection if the body was read to its end, else close it."""
        if self._is_closed:
            return
        self._is_closed = True
        connection = self._connection
        ended = self._left == 0 or (self._left is None and self._answer.isclosed())
        if ended:
            self._answer.length = 0
        self._answer.close()
        if ended and self._keeps:
            self._transport.keep(self._origin, connection)
        else:
            connection.close()


def _is_quiet(connected: socket.socket) -> bool:
    """Return whether a kept connection is as it should be: nothing more has come, and the server has not closed it."""
    poll = select.poll()
    poll.register(connected, select.POLLIN)
    return not poll.poll(0)


def is_proxied(url: httpx.URL) -> bool:
    """Return whether the environment sends requests for this address through a proxy."""
    if url.host in ("localhost", "127.0.0.1", "::1"):
        return False
    proxies = urllib.request.getproxies()
    if not (url.scheme in proxies or "all" in proxies):
        return False
    return not urllib.request.proxy_bypass(url.host)


@contextlib.contextmanager
def _translated(broken: type[httpx.TransportError], late: type[httpx.TimeoutException]) -> Iterator[None]:
    """Raise what httpx's own transport would raise."""
    try:
        yield
    except TimeoutError as exc:
        raise late(str(exc)) from exc
    except http.client.HTTPException as exc:
        raise httpx.RemoteProtocolError(f"{type(exc).__name__}: {exc}") from exc
    except ssl.SSLError as exc:
        raise broken(str(exc)) from exc
    except OSError as exc:
        raise broken(str(exc)) from exc
