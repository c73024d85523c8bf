"""One connection to a server, plain or TLS: bytes out, bytes in, as many as possible at a time.

Used by `ivcapfs.client.direct`. Every wait is the kernel's own (recv(2) with SO_RCVTIMEO), so that a megabyte costs
one system call and the interpreter's lock is let go once; it is cut into short pauses, between which the caller's
patience is asked. TLS is the standard library's, over memory: its sockets read each record of 16 KiB with two calls of
the system and let the lock go for each; here one read brings many records.

Threading: a connection belongs to one thread at a time; shutting its socket down, by any other, ends its waits.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")

_PAUSE = struct.pack("ll", 0, 250_000)
"""Seconds, microseconds: how long one recv(2) waits, and so how late a slow connection shows what it has."""
_SEND_SECONDS = struct.pack("ll", 20, 0)
_HEAD = 16 * 1024
_RECORDS = 256 * 1024
"""Bytes of ciphertext that are read at a time."""


class Patience(Protocol):
    """Says how long the next read may take."""

    def left(self) -> float:
        """Return seconds; raise TimeoutError where there are none."""
        ...


class Wire:
    """A plain connection.

    Args:
        connected: its socket, of which nobody else reads.
    """

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        connected.settimeout(None)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PAUSE)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_SECONDS)
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)

    def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            TimeoutError: the server takes nothing.
            OSError: the connection is broken.
        """
        try:
            self.socket.sendall(data)
        except BlockingIOError:
            raise TimeoutError("the server takes nothing") from None

    def send_file(self, fd: int, start: int, size: int) -> int:
        """Send a part of a file (sendfile(2)); return how many bytes of it were sent, at least one.

        Raises:
            TimeoutError: the server takes nothing.
            OSError: the connection is broken, or the file has become shorter.
        """
        try:
            sent = os.sendfile(self.socket.fileno(), fd, start, size)
        except BlockingIOError:
            raise TimeoutError("the server takes nothing") from None
        if not sent:
            raise OSError("the file to send has become shorter")
        return sent

    def receive(self, patience: Patience) -> bytes:
        """Return what has come, at least one byte; nothing at the end of the connection.

        Raises:
            TimeoutError: nothing came for as long as `patience` had.
        """
        return _patiently(lambda: self.socket.recv(_HEAD), patience)

    def receive_into(self, view: memoryview, patience: Patience) -> int:
        """Read until `view` is full or some time has passed; return how many bytes, 0 at the end of the connection.

        Raises:
            TimeoutError: nothing came for as long as `patience` had.
        """
        return _patiently(lambda: self.socket.recv_into(view, 0, socket.MSG_WAITALL), patience)

    def is_quiet(self) -> bool:
        """Return whether an idle connection is as it should be: nothing more came, and the server has not closed it."""
        return not self._poll.poll(0)

    def close(self) -> None:
        """Close it."""
        self.socket.close()


class TlsWire(Wire):
    """A connection with TLS.

    Args:
        name: whose certificate the server must show.
        seconds: that the greeting may take.

    Raises:
        ssl.SSLError, OSError: the greeting failed.
        TimeoutError: it took too long.
    """

    _one_at_a_time = threading.Lock()
    """Held while records are decrypted: the interpreter's lock is let go for each, and threads that take it from one
    another 60,000 times a GiB are slower together than one by one."""

    def __init__(self, connected: socket.socket, context: ssl.SSLContext, name: str, seconds: float) -> None:
        super().__init__(connected)
        self._came, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._goes, server_hostname=name)
        self._records = memoryview(bytearray(_HEAD))
        patience = Until(time.monotonic() + seconds)
        while not self._greet():
            self._fetch(patience)
        self._records = memoryview(bytearray(_RECORDS))

    def send(self, data: bytes) -> None:
        """See `Wire.send`."""
        self._tls.write(data)
        super().send(self._goes.read())

    def send_file(self, fd: int, start: int, size: int) -> int:
        """See `Wire.send_file`; what is encrypted has to be read."""
        data = os.pread(fd, min(size, _RECORDS), start)
        if not data:
            raise OSError("the file to send has become shorter")
        self.send(data)
        return len(data)

    def receive(self, patience: Patience) -> bytes:
        """See `Wire.receive`."""
        view = memoryview(bytearray(_HEAD))
        return bytes(view[: self.receive_into(view, patience)])

    def receive_into(self, view: memoryview, patience: Patience) -> int:
        """See `Wire.receive_into`; returns what one read of the socket has brought. A part of a record is nothing."""
        got, ended = self._decrypt(view)
        if not (got or ended):
            whole = Until(time.monotonic() + patience.left())
            while not (got or ended):
                self._fetch(whole)
                got, ended = self._decrypt(view)
        return got

    def is_quiet(self) -> bool:
        """See `Wire.is_quiet`."""
        return not self._came.pending and super().is_quiet()

    def _greet(self) -> bool:
        """Go on with the handshake; return whether it is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            if self._goes.pending:
                super().send(self._goes.read())
        return True

    def _fetch(self, patience: Patience) -> None:
        """Wait for ciphertext."""
        got = _patiently(lambda: self.socket.recv_into(self._records), patience)
        if got:
            self._came.write(self._records[:got])
        else:
            self._came.write_eof()

    def _decrypt(self, view: memoryview) -> tuple[int, bool]:
        """Decrypt what is there; return how many bytes, and whether the connection has ended."""
        got, read, ended = 0, self._tls.read, False
        with self._one_at_a_time:
            try:
                while got < len(view) and not ended:
                    count = int(read(len(view) - got, view[got:]))
                    got, ended = got + count, not count
            except ssl.SSLWantReadError:
                pass
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                ended = True  # whether the body was whole is told by its length
        if self._goes.pending:  # an answer to a change of keys
            super().send(self._goes.read())
        return got, ended


class Until:
    """Patience up to a moment of `time.monotonic`: for what comes in parts that are nothing by themselves."""

    def __init__(self, end: float) -> None:
        self._end = end

    def left(self) -> float:
        """See `Patience.left`."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("nothing came")
        return left


def _patiently(receive: Callable[[], T], patience: Patience) -> T:
    """Call `receive` until something came.

    Raises:
        TimeoutError: nothing came for as long as `patience` had at the beginning.
    """
    end = time.monotonic() + patience.left()
    while True:
        try:
            return receive()
        except BlockingIOError:
            if time.monotonic() > end:
                raise TimeoutError("nothing came") from None
