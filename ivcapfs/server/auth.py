"""Who may call: a bearer token, if the platform was given one.

Used by :mod:`ivcapfs.server.app`. Stateless; the token is never logged.
"""

from __future__ import annotations

import hmac

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ivcapfs.server.counters import Counters


class BearerAuth:
    """ASGI middleware that answers 401, without a body, to requests that do not carry the token.

    Args:
        app: what is behind it.
        token: the token to ask for.
        counters: where refusals are counted, as ``unauthorized``.
    """

    def __init__(self, app: ASGIApp, token: str, counters: Counters) -> None:
        self._app = app
        self._token = token.encode()
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it (ASGI)."""
        if scope["type"] != "http" or self._is_allowed(scope):
            await self._app(scope, receive, send)
            return
        self._counters.count("unauthorized")
        await Response(status_code=401, headers={"WWW-Authenticate": "Bearer"})(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)
