"""A network that is far away: every request is answered so much later.

Used by :mod:`ivcapfs.server.app`, around everything else. Stateless; runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Receive, Scope, Send


class Latency:
    """ASGI middleware that holds each request back for a time; requests do not wait for one another.

    Args:
        app: what is behind it.
        seconds: how long.
        sleep: waits so many seconds.
    """

    def __init__(
        self, app: ASGIApp, seconds: float, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        self._app = app
        self._seconds = seconds
        self._sleep = sleep

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, later (ASGI)."""
        if scope["type"] == "http":
            await self._sleep(self._seconds)
        await self._app(scope, receive, send)
