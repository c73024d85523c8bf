"""A server on a socket, each connection on a thread of its own: what the harnesses' servers are made of."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class Listening:
    """Listens from when it is made, and serves within a ``with``.

    Args:
        address: host and port; 0: any.

    Attributes:
        port: where it listens.
    """

    def __init__(self, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._listener = socket.create_server(address, family=family, backlog=512)
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, name="listening", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            self._begin(connected)

    def _begin(self, connected: socket.socket) -> None:
        threading.Thread(target=self._serve, args=(connected,), name="connection", daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        """Serve one connection, and close it."""
        raise NotImplementedError
