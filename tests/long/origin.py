"""A server for contents that costs next to nothing: ranges of local files, sent by sendfile(2).

What a test makes large is not on the disk many times over: an artifact is a stretch of a file of noise (the pool),
and each artifact's stretch begins elsewhere, so that a byte of one is never taken for a byte of another.

Threading: a thread per connection. `Origin` may be used from any thread; the counts are guarded by `_lock`.
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MIB = 1024 * 1024


@dataclass(frozen=True)
class Stretch:
    """Where an artifact's content is: `size` bytes of a file from `start` on."""

    file: Path
    start: int
    size: int


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that go away."""


class Origin:
    """Serves the stretches that it was given, below whatever path names the artifact's URN.

    Attributes:
        url: where.
        silent: from which byte of the content on nothing is sent, by URN; -1: not even the head of an answer.
        requests: (URN, first byte, byte behind the last) of every GET.
    """

    def __init__(self) -> None:
        self.silent: dict[str, int] = {}
        self.requests: list[tuple[str, int, int]] = []
        self.stretches: dict[str, Stretch] = {}
        self._lock = threading.Lock()
        self._sent = 0
        self._released = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def sent(self) -> int:
        """Bytes of content sent so far."""
        with self._lock:
            return self._sent

    def close(self) -> None:
        """End all answers, and the server."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(origin) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler has a self of its own
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                found = re.search(r"urn:ivcap:artifact:[0-9a-f-]{36}", self.path)
                stretch = origin.stretches.get(found.group()) if found else None
                span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                if found is None or stretch is None or span is None:
                    self.send_error(404)
                    return
                first, stop = int(span[1]), min(int(span[2]) + 1, stretch.size)
                silent = origin.silent.get(found.group(), stretch.size)
                with origin._lock:
                    origin.requests.append((found.group(), first, stop))
                if silent >= 0:
                    self.send_response(206)
                    self.send_header("ETag", f'"{found.group()[-36:]}"')
                    self.send_header("Content-Length", str(stop - first))
                    self.send_header("Content-Range", f"bytes {first}-{stop - 1}/{stretch.size}")
                    self.end_headers()
                    origin._send(self.connection.fileno(), stretch, first, min(stop, silent))
                if silent < stop:
                    origin._released.wait()
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def _send(self, connection: int, stretch: Stretch, first: int, stop: int) -> None:
        file = os.open(stretch.file, os.O_RDONLY)
        try:
            while first < stop:
                sent = os.sendfile(connection, file, stretch.start + first, stop - first)
                if not sent:
                    raise OSError(f"{stretch.file} is too short")
                first += sent
                with self._lock:
                    self._sent += sent
        finally:
            os.close(file)


def make_noise(path: Path, size: int) -> Path:
    """Write a file of random bytes; return its path."""
    with path.open("wb", buffering=0) as file:
        for start in range(0, size, 8 * MIB):
            file.write(os.urandom(min(8 * MIB, size - start)))
    return path
