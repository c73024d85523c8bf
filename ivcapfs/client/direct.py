"""Connections for contents and lists: bytes go from the socket straight into the reader's buffer.

Used by `ivcapfs.client.transport`, beside its httpx clients, for answers whose bodies are big, and for parts of files
that are sent (sendfile(2), where there is no TLS): httpx's own engine hands over a body in pieces of 16 to 64 KiB, each
a Python object of its own, and at a gigabyte a second that is what a machine is then busy with; and its requests and
answers take as long to be made as a small block to be fetched. Also for all JSON that is asked for with GET: in a chain
of 20,000 pages that engine is busy as long as the server. What goes wrong is raised as httpx would raise it. Who knows
of it finds `readinto` among the answer's extensions; who does not, iterates the body as ever. Tokens, redirects,
refusals, retries and validation are the business of the floors above, and the same for both.

Only direct connections: a deployment behind a proxy is read through httpx's own transport (`network`).

Threading: any thread may make requests; `_lock` guards `_idle`. A response belongs to one thread.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import httpx

from ivcapfs.client import heads
from ivcapfs.client.connections import Connections
from ivcapfs.client.directbody import DirectAnswer, DirectBody, StaleError, translated
from ivcapfs.client.exchange import FileSlice
from ivcapfs.client.network import tls_context
from ivcapfs.client.wires import Patience, TlsWire, Wire
from ivcapfs.crashing import reach

_KEEP_SECONDS = 15.0
_SENT = 1024 * 1024
"""Bytes of a file that are sent at a time; between them it is seen whether the server has answered already."""
_MOST_HINTS = 20
_STALE = (ConnectionError, heads.NoAnswer, ssl.SSLEOFError, ssl.SSLZeroReturnError)
"""What a kept connection may end with when its server has closed it meanwhile: worth one fresh connection."""

Origin = tuple[str, str, int]


class DirectRequest(NamedTuple):
    """A request.

    Attributes:
        headers: all that it needs, but for Host, where that is the address's own.
        extensions: ``timeout``, as httpx has it; ``file``, the part of a file that is the body; ``query``, what is
            added to the address.
    """

    method: str
    url: httpx.URL
    headers: Mapping[str, str]
    extensions: Mapping[str, Any]

    def head(self) -> bytes:
        """Return it as it is sent, but for the body."""
        target, query = self.url.raw_path, self.extensions.get("query", "")
        if query:
            target = b"%s?%s" % (target, query.encode("ascii"))
        lines = [b"%s %s HTTP/1.1" % (self.method.encode("ascii"), target)]
        if "Host" not in self.headers:
            lines.append(b"Host: %s" % self.url.netloc)
        lines += [f"{name}: {value}".encode("ascii") for name, value in self.headers.items()]
        return b"\r\n".join([*lines, b"", b""])


class DirectTransport:
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

    def ask(self, asked: DirectRequest) -> DirectAnswer:
        """Send a request; the answer's body is still to be read."""
        url, timeouts = asked.url, asked.extensions["timeout"]
        origin = (url.scheme, url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80))
        kept = self._take(origin)
        if kept is not None:
            with contextlib.suppress(StaleError):
                return self._ask(kept, origin, asked, is_kept=True)
        try:
            wire = self._connect(origin, timeouts["connect"])
        except OSError as exc:
            raise translated(exc, httpx.ConnectError, httpx.ConnectTimeout) from exc
        return self._ask(wire, origin, asked)

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

    def _ask(self, wire: Wire, origin: Origin, asked: DirectRequest, *, is_kept: bool = False) -> DirectAnswer:
        """Send the request and read the answer's head; whatever goes wrong, the connection is closed.

        Raises:
            StaleError: the connection was a kept one, and has ended.
        """
        patience: Patience = asked.extensions["timeout"]["read"]
        try:
            wire.send(asked.head(), patience)
            whole = self._send_file(wire, asked, patience)
            head, rest = _head(wire, asked.method, patience)
        except BaseException as exc:
            wire.close()
            if is_kept and isinstance(exc, _STALE):
                raise StaleError from exc
            if isinstance(exc, OSError):
                raise translated(exc, httpx.ReadError, httpx.ReadTimeout) from exc
            raise
        head = head if whole else head._replace(keeps=False)
        body = DirectBody(partial(self.keep, origin), wire, head, rest, patience)
        return DirectAnswer(head.status, head.headers, body)

    def _send_file(self, wire: Wire, asked: DirectRequest, patience: Patience) -> bool:
        """Send the request's body, if it has one; return whether all of it, for a server may answer before, to refuse.

        Raises:
            TimeoutError: the server takes nothing.
            OSError: the connection broke, and no answer is there.
        """
        file = asked.extensions.get("file")
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
