"""Knows the open connections of one client: where each leads, and how to end them all.

Used by `ivcapfs.client.transport`, which has httpcore tell `trace` of each step. Thread-safe: `_lock`
guards `_streams`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from ivcapfs.client.origins import is_link_local
from ivcapfs.errors import OriginRefused


class Connections:
    """The connections of one client.

    Args:
        check_open: raises once the client is closed.
    """

    def __init__(self, check_open: Callable[[], None]) -> None:
        self._check_open = check_open
        self._lock = threading.Lock()
        self._streams: weakref.WeakSet[Any] = weakref.WeakSet()

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
            peer = stream.get_extra_info("server_addr")
            if peer and is_link_local(str(peer[0])):
                raise OriginRefused("the server's name leads to a link-local address")
            with self._lock:
                self._streams.add(stream)
            self._check_open()
        except BaseException:
            stream.close()
            raise

    def shut_down(self) -> None:
        """End all connections; who waits on one, in whatever thread, is woken at once."""
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            with contextlib.suppress(OSError, AttributeError):
                # Not SSLSocket.shutdown, which takes the TLS state away from under its reader.
                socket.socket.shutdown(stream.get_extra_info("socket"), socket.SHUT_RDWR)
