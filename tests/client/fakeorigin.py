"""A scriptable HTTP origin in a thread, and a small fake of the platform on it: no mocks, real sockets."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from ivcapfs.client import Connection, connect
from ivcapfs.config import ClientSettings, Limits, Secret

UUID = "5b6e1f9c-1111-4222-8333-444444444444"
URN = f"urn:ivcap:artifact:{UUID}"
CANARY = "canary-token-8d1f"
LIMITS = Limits(
    connect=2.0, idle=1.0, total=5.0, retries=3, backoff=0.001, backoff_max=0.002, least_rate=1, json_size=100_000
)


@dataclass(frozen=True)
class Asked:
    """One request as it came in; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass
class Reply:
    """What to answer.

    Attributes:
        body: bytes, or parts written one by one.
        length: the Content-Length announced; None: that of `body`; -1: none, the end of the connection is
            the end.
        raw: sent instead of everything else.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes] = b""
    length: int | None = None
    raw: Iterable[bytes] | None = None


Answer = Callable[[Asked], Reply]


class Origin:
    """An HTTP server on a port of its own, answering by a function; keeps what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.stopping = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def drip(self, part: bytes, seconds: float = 0.03) -> Iterable[bytes]:
        """Yield `part` again and again until the origin is stopped."""
        while not self.stopping.wait(seconds):
            yield part

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients of these tests hang up on purpose."""


def _handler(origin: Origin) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, body)
            origin.asked.append(asked)
            self.reply(origin.answer(asked))

        def reply(self, reply: Reply) -> None:
            if reply.raw is not None:
                self.close_connection = True
                for part in reply.raw:
                    self.wfile.write(part)
                return
            whole = reply.body if isinstance(reply.body, bytes) else None
            length = reply.length if reply.length is not None else -1 if whole is None else len(whole)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if length >= 0 and reply.status != 204:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            if whole is None or length != len(whole):
                self.close_connection = True
            if self.command != "HEAD":
                for part in [whole] if whole is not None else reply.body:
                    self.wfile.write(part)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Be quiet."""

    return Handler


def as_json(value: Any, status: int = 200, **headers: str) -> Reply:
    """Return a reply of JSON."""
    return Reply(status, {"Content-Type": "application/json", **headers}, json.dumps(value).encode())


def record(**fields: Any) -> dict[str, Any]:
    """Return an artifact's record as the platform writes it."""
    made = {"id": URN, "name": "n", "status": "ready", "size": 10, "created-at": "2026-01-02T03:04:05Z"}
    return {**made, "data-href": f"/1/artifacts/{URN}/blob", **fields}


def ranged(data: bytes, etag: str | None = '"e1"') -> Answer:
    """Return a function that serves `data` as a good server does."""

    def answer(asked: Asked) -> Reply:
        headers = {"ETag": etag} if etag else {}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", asked.headers.get("range", ""))
        if not wanted or asked.headers.get("if-range", etag) != etag:
            return Reply(200, headers, data)
        first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
        if first >= len(data):
            return Reply(416, {"Content-Range": f"bytes */{len(data)}"})
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return Reply(206, headers, data[first : last + 1])

    return answer


def with_blob(blob: Answer, **fields: Any) -> Answer:
    """Return a platform with one artifact, whose content is served by `blob`."""

    def answer(asked: Asked) -> Reply:
        return blob(asked) if asked.path.endswith("/blob") else as_json(record(**fields))

    return answer


def client(url: str, *, token: str | None = CANARY, limits: Limits = LIMITS, **settings: Any) -> Connection:
    """Return a connection to a fake, with short bounds."""
    return connect(ClientSettings(url, Secret(token) if token else None, limits=limits, **settings))
