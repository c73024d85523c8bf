"""A platform that fails at a given rate: what the network and a server in trouble do to requests, at the HTTP level.

An ASGI wrap around the embedded platform. Connections are broken at their socket, so that the client sees what it would
see of a real network: a reset, an end in the middle of a body, silence. Half of the kinds let the platform do its work
first: those are the *lost answers*, after which the client cannot know whether it was heard.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections import Counter
from typing import Any

import anyio

KINDS = (
    "503",
    "500",
    "reset before",
    "closed before",
    "stall before",
    "reset after",
    "closed after",
    "504 after",
    "stall after",
    "short body",
)
"""What can happen to a request. "before": the platform hears nothing of it. "after": it has done what was asked (a 503
says that it has not, and is believed)."""


class FaultyPlatform:
    """See the module. Its one thread is the platform's loop; the attributes may be set by any.

    Args:
        rate: of the requests that fail, 0 to 1.
        seed: of the chance.
        stall: how long a silent server is silent, in seconds.

    Attributes:
        rate: the same.
        requests: how many there were.
        injected: how many failed, by kind.
    """

    def __init__(self, rate: float, seed: int, stall: float) -> None:
        self.rate = rate
        self.requests = 0
        self.injected: Counter[str] = Counter()
        self._chance = random.Random(f"faults/{seed}")
        self._stall = stall
        self._app: Any = None

    def wrap(self, app: Any) -> Any:
        """Return the application with the faults around it."""
        self._app = app
        return self

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer a request, or not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self.requests += 1
        if self._chance.random() >= self.rate:
            await self._app(scope, receive, send)
            return
        kind = self._chance.choice(KINDS)
        self.injected[kind] += 1
        if kind in ("reset after", "closed after", "504 after", "stall after"):
            await self._app(scope, receive, _nothing)
        if kind == "short body":
            await self._app(scope, receive, _short(send))
        elif kind.startswith("5"):
            await _answer(send, int(kind[:3]))
        else:
            if kind.startswith("stall"):
                with contextlib.suppress(TimeoutError), anyio.fail_after(self._stall):
                    while (await receive())["type"] != "http.disconnect":
                        pass
            _cut(send, reset=kind.startswith("reset"))


async def _nothing(message: dict[str, Any]) -> None:
    """What becomes of a lost answer."""


async def _answer(send: Any, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def _short(send: Any) -> Any:
    """Return a `send` that gives the head, at most half of the first piece of the body, and then no more."""

    async def half(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            body = bytes(message.get("body", b""))
            with contextlib.suppress(Exception):  # it is cut already
                await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            _cut(send, reset=False)
        else:
            await send(message)

    return half


def _cut(send: Any, *, reset: bool) -> None:
    """End the connection of a request: with a reset (RST), or as if the peer's process had ended (FIN)."""
    transport = send.__self__.transport  # uvicorn's
    if reset:
        with contextlib.suppress(OSError):
            peer = transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
