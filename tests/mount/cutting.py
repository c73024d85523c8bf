"""A TCP proxy that counts what goes through it, and can be cut: the network between a mount and its platform.

Used by the tests of broken networks. Threads: one for each direction of each connection; `_lock` guards the list.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import urlsplit


class Cutting:
    """See the module.

    Attributes:
        up: bytes that went from clients to the platform, headers included.
        cut_at: as soon as so many have gone, every connection breaks, and none is accepted any more.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []  # guarded by _lock
        self.up = 0
        self.cut_at: int | None = None
        self.is_cut = False
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break all connections, and refuse new ones until `mend`."""
        self.is_cut = True
        with self._lock:
            broken, self._open = self._open, []
        for each in broken:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        self.cut_at = None
        self.is_cut = False

    def close(self) -> None:
        """End."""
        self._closed = True
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = None if self.is_cut else socket.create_connection(self._target)
            except OSError:
                server = None
            if server is None:
                client.close()
                continue
            with self._lock:
                self._open += [client, server]
            for source, target, counts in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pump, args=(source, target, counts), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(16_384):
                if counts:
                    with self._lock:
                        self.up += len(data)
                target.sendall(data)
                if counts and self.cut_at is not None and self.up >= self.cut_at:
                    self.cut()
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
