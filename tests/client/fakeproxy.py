"""A small HTTP proxy in a thread that counts what goes through it: CONNECT, and plain requests."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_PIECE = 64 * 1024


class Proxy:
    """An HTTP proxy.

    Args:
        places: host name -> port on this machine; other hosts are refused with 502.

    Attributes:
        connects, plains: targets of the CONNECT and of the plain requests, in order.
        heads: of all requests to the proxy itself.
    """

    def __init__(self, places: Mapping[str, int]) -> None:
        self.places = dict(places)
        self.connects: list[str] = []
        self.plains: list[str] = []
        self.heads: list[str] = []
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    proxy.serve(self.request)

        class Threads(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Threads(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def serve(self, client: socket.socket) -> None:
        """Serve one connection of a client."""
        head = b""
        while b"\r\n\r\n" not in head:
            more = client.recv(_PIECE)
            if not more:
                return
            head += more
        head, _, rest = head.partition(b"\r\n\r\n")
        self.heads.append(head.decode("latin-1"))
        method, target, _ = head.decode("latin-1").split("\r\n")[0].split(" ")
        host = target.rpartition(":")[0] if method == "CONNECT" else urlsplit(target).hostname or ""
        if host not in self.places:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", self.places[host])) as server:
            if method == "CONNECT":
                self.connects.append(target)
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                self.plains.append(target)
                parts = urlsplit(target)
                path = parts.path + (f"?{parts.query}" if parts.query else "")
                lines = head.split(b"\r\n")
                lines[0] = f"{method} {path} HTTP/1.1".encode()
                kept = [line for line in lines if not line.lower().startswith(b"connection:")]
                server.sendall(b"\r\n".join([*kept, b"Connection: close", b"", b""]) + rest)
            _relay(client, server)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes on in both directions until both have ended."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    back = threading.Thread(target=pump, args=(other, one), daemon=True)
    back.start()
    pump(one, other)
    back.join()
