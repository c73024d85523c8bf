"""Knows the open connections of one client: where each leads, and how to end them all.

Used by `ivcapfs.client.transport`, which has httpcore tell `trace` of each step. Thread-safe: `_lock`
guards `_sockets`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from ivcapfs.errors import OriginRefused
from ivcapfs.hosts import is_link_local


class Connections:
    """The connections of one client.

    Args:
        check_open: raises once the client is closed.
    """

    def __init__(self, check_open: Callable[[], None]) -> None:
        self._check_open = check_open
        self._lock = threading.Lock()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()  # guarded by _lock

    def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Take note of a step of httpcore's; only new connections matter.

        Raises:
            OriginRefused: the connection leads to a link-local address, whatever name was asked for.
            Closing: the client was closed meanwhile.
        """
        if not name.endswith((".connect_tcp.complete", ".start_tls.complete")):
            return
        stream = info["return_value"]
        try:
            self.note(stream.get_extra_info("socket"))
        except BaseException:
            stream.close()
            raise

    def note(self, connected: socket.socket) -> None:
        """Take note of a new connection; the caller closes it if this raises.

        Raises:
            OriginRefused: it leads to a link-local address, whatever name was asked for.
            Closing: the client was closed meanwhile.
        """
        with contextlib.suppress(OSError):
            if is_link_local(str(connected.getpeername()[0])):
                raise OriginRefused("the server's name leads to a link-local address")
        with self._lock:
            self._sockets.add(connected)
        self._check_open()

    def shut_down(self) -> None:
        """End all connections; who waits on one, in whatever thread, is woken at once."""
        with self._lock:
            sockets = list(self._sockets)
        for connected in sockets:
            with contextlib.suppress(OSError):
                # Not SSLSocket.shutdown, which takes the TLS state away from under its reader.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)
