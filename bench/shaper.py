"""A slow link: a TCP proxy that delays each HTTP request and lets each connection carry only so much.

Runs as a program of its own, ``python -m bench.shaper --upstream HOST:PORT``, whose first line is its own HOST:PORT;
used by `bench.world`, and in-process by the tests. One event loop; bytes go from socket to socket through one buffer
a direction, so that the proxy itself carries several hundred MB/s.

It does not parse HTTP. Without pipelining, the first bytes from the client after bytes from the server begin a new
request; those are held back for the delay.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
from dataclasses import dataclass, field

DELAY = 0.05
"""Seconds to the first byte of each reply."""
RATE = 20_000_000
"""Bytes per second that one connection carries."""

_BUFFER = 64 * 1024
_BEHIND = 0.02  # seconds that a reply may be late and catch up: the event loop's sleeps are never exact
_BACKLOG = 512


@dataclass
class Pace:
    """When the bytes of one connection have arrived.

    Args:
        rate: bytes per second.
        due: the event loop's time at which the last ones have.
    """

    rate: float
    due: float = 0.0

    def wait(self, now: float, size: int, *, first: bool) -> float:
        """Send `size` bytes on their way and return the seconds until they arrive.

        Args:
            first: whether they begin a reply; idle time before it is not made up for.
        """
        self.due = max(self.due, now if first else now - _BEHIND) + size / self.rate
        return max(self.due - now, 0.0)


@dataclass
class Shaper:
    """The proxy.

    Args:
        upstream: host and port of the server.
        delay: seconds added to each request.
        rate: bytes per second and connection, from the server to the client.
    """

    upstream: tuple[str, int]
    delay: float = DELAY
    rate: float = RATE
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def listen(self, port: int = 0) -> socket.socket:
        """Return a listening socket on loopback for :meth:`serve`."""
        listener = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
        listener.setblocking(False)
        return listener

    async def serve(self, listener: socket.socket) -> None:
        """Accept connections until cancelled; then break them off."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                client, _ = await loop.sock_accept(listener)
                task = asyncio.create_task(self._connection(client))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, client: socket.socket) -> None:
        """Carry one connection until either side closes it."""
        loop = asyncio.get_running_loop()
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with client, server, contextlib.suppress(OSError):
            for end in (client, server):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(server, self.upstream)
            answered = asyncio.Event()
            answered.set()
            both = [
                asyncio.create_task(self._requests(client, server, answered)),
                asyncio.create_task(self._replies(server, client, answered)),
            ]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in both:
                    task.cancel()
                await asyncio.gather(*both, return_exceptions=True)

    async def _requests(self, client: socket.socket, server: socket.socket, answered: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        buffer = memoryview(bytearray(64 * 1024))
        while size := await loop.sock_recv_into(client, buffer):
            if answered.is_set():
                answered.clear()
                await asyncio.sleep(self.delay)
            await loop.sock_sendall(server, buffer[:size])

    async def _replies(self, server: socket.socket, client: socket.socket, answered: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        buffer = memoryview(bytearray(_BUFFER))
        pace = Pace(self.rate)
        while size := await loop.sock_recv_into(server, buffer):
            pause = pace.wait(loop.time(), size, first=not answered.is_set())
            answered.set()
            if pause:
                await asyncio.sleep(pause)
            await loop.sock_sendall(client, buffer[:size])


async def _run(shaper: Shaper) -> None:
    with shaper.listen() as listener:
        host, port = listener.getsockname()
        print(f"{host}:{port}", flush=True)
        await shaper.serve(listener)


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(description="A slow link: a TCP proxy for HTTP.")
    parser.add_argument("--upstream", required=True, metavar="HOST:PORT")
    parser.add_argument("--delay", type=float, default=DELAY, metavar="SECONDS")
    parser.add_argument("--rate", type=float, default=RATE, metavar="BYTES_PER_SECOND")
    arguments = parser.parse_args()
    host, _, port = arguments.upstream.rpartition(":")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(Shaper((host, int(port)), arguments.delay, arguments.rate)))


if __name__ == "__main__":
    main()
