"""A server between the client and the embedded platform: it hands on what is asked, and spoils the answer when told to.

Used by the harnesses of this folder. It speaks raw bytes over sockets, because most of what goes wrong on a network no
HTTP library would send: resets, bodies that end too early, heads that never end.

Threading: a thread per connection. `FaultServer._lock` guards what is armed and the counts; nothing is sent under it.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urlsplit

from tests.faults.listening import Listening

ALWAYS = 1_000_000
"""So many times that it never ends."""
LISTS = "lists"
"""The key of requests that name no artifact."""
LONGEST_STALL = 30.0
DRIP_SECONDS = 1.0
KNOWN = 2000
"""Answers of the platform that are kept: what the harnesses ask never changes."""

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HOPS = ("connection", "transfer-encoding", "content-length", "date")


@dataclass(frozen=True)
class Request:
    """What was asked; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def key(self) -> str:
        """What faults are armed for: the first artifact that is named, else `LISTS`."""
        found = _UUID.search(unquote(self.target))
        return found.group() if found else LISTS


@dataclass(frozen=True)
class Answer:
    """What the platform answers; `body` whole, header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def but(self, body: bytes | None = None, status: int | None = None, **headers: str | None) -> Answer:
        """Return it with another body, status, or headers (`content_range` for Content-Range; None: without it)."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        merged: dict[str, str | None] = {**self.headers, **named}
        return replace(
            self,
            status=self.status if status is None else status,
            body=self.body if body is None else body,
            headers={name: value for name, value in merged.items() if value is not None},
        )

    def head(self, *, length: int | None = None, chunked: bool = False) -> bytes:
        """Return the head as it is sent.

        Args:
            length: bytes that are announced, if not those of the body; -1: nothing is announced.
        """
        announced = len(self.body) if length is None else length
        lines = [f"HTTP/1.1 {self.status} as it is"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if chunked:
            lines.append("transfer-encoding: chunked")
        elif announced >= 0:
            lines.append(f"content-length: {announced}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


class GoneError(Exception):
    """The connection ends here."""


class Line:
    """A client's connection, as a fault sees it."""

    def __init__(self, connected: socket.socket, released: threading.Event) -> None:
        self._connected = connected
        self._released = released

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._connected.sendall(data)

    def answer(self, answer: Answer) -> None:
        """Send an answer as a good server does."""
        self.send(answer.head() + answer.body)

    def hang_up(self) -> None:
        """End the connection (FIN)."""
        raise GoneError

    def reset(self) -> None:
        """Break the connection (RST)."""
        self._connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise GoneError

    def stall(self, seconds: float = LONGEST_STALL) -> None:
        """Send nothing, until the fault is disarmed; then hang up."""
        self._released.wait(seconds)
        raise GoneError

    def drip(self, data: bytes) -> None:
        """Send a byte a second, until the fault is disarmed; then hang up."""
        for number in range(len(data)):
            self.send(data[number : number + 1])
            if self._released.wait(DRIP_SECONDS):
                break
        raise GoneError


Spoil = Callable[[Line, Request, Answer], None]
"""Answers in the platform's place."""


@dataclass
class _Armed:
    name: str
    spoil: Spoil
    left: int
    released: threading.Event = field(default_factory=threading.Event)


class FaultServer(Listening):
    """Serves what a platform serves.

    Args:
        upstream: the platform's URL.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"
        self._upstream = urlsplit(upstream).netloc
        self._lock = threading.Lock()
        self._armed: dict[str, _Armed] = {}  # guarded by _lock
        self._injected: Counter[str] = Counter()  # guarded by _lock
        self._known: dict[tuple[str, str], Answer] = {}  # guarded by _lock
        self._never = threading.Event()
        self._open: set[socket.socket] = set()  # guarded by _lock

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        with self._lock:
            armed, connections = list(self._armed.values()), list(self._open)
        for each in armed:
            each.released.set()
        for connected in connections:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def arm(self, key: str, name: str, spoil: Spoil, times: int) -> None:
        """Spoil the next `times` answers to requests of a key."""
        with self._lock:
            self._armed[key] = _Armed(name, spoil, times)

    def disarm(self, key: str) -> int:
        """Spoil nothing more of a key; what stalls is let go. Return how often it was spoiled."""
        with self._lock:
            armed = self._armed.pop(key, None)
        if armed is None:
            return 0
        armed.released.set()
        return armed.left

    def injected(self) -> Counter[str]:
        """Return how many answers were spoiled so far, by kind."""
        with self._lock:
            return self._injected.copy()

    def total(self) -> int:
        """Return how many answers were spoiled so far."""
        with self._lock:
            return self._injected.total()

    def _begin(self, connected: socket.socket) -> None:
        with self._lock:
            self._open.add(connected)
        super()._begin(connected)

    def _serve(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        upstream = http.client.HTTPConnection(self._upstream, timeout=30)
        try:
            with connected, connected.makefile("rb") as reading:
                while (request := _read_request(reading)) is not None:
                    self._answer(connected, request, upstream)
        except (GoneError, OSError):
            pass
        finally:
            upstream.close()
            with self._lock:
                self._open.discard(connected)

    def _answer(self, connected: socket.socket, request: Request, upstream: http.client.HTTPConnection) -> None:
        armed = self._take(request.key)
        answer = self._ask(upstream, request)
        if armed is None:
            Line(connected, self._never).answer(answer)
        else:
            armed.spoil(Line(connected, armed.released), request, answer)

    def _take(self, key: str) -> _Armed | None:
        with self._lock:
            armed = self._armed.get(key)
            if armed is None or armed.left <= 0:
                return None
            armed.left -= 1
            self._injected[armed.name] += 1
            return armed

    def _ask(self, upstream: http.client.HTTPConnection, request: Request) -> Answer:
        key = (request.method, request.target)
        with self._lock:
            known = self._known.get(key)
        if known is not None:
            return known
        passed = {name: value for name, value in request.headers.items() if name not in _HOPS}
        upstream.request(request.method, request.target, headers=passed)
        reply = upstream.getresponse()
        body = reply.read()
        headers = {name.lower(): value for name, value in reply.getheaders() if name.lower() not in _HOPS}
        answer = Answer(reply.status, headers, body)
        if "range" not in request.headers:
            with self._lock:
                if len(self._known) < KNOWN:
                    self._known[key] = answer
        return answer


def _read_request(reading: object) -> Request | None:
    """Read a request, which has no body here; None at the end of the connection."""
    readline = reading.readline  # type: ignore[attr-defined]
    words = readline(65536).decode("latin-1").split()
    if len(words) != 3:
        return None
    headers: dict[str, str] = {}
    while (line := readline(65536).decode("latin-1").strip()):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Request(words[0], words[1], headers)
