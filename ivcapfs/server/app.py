"""The platform as an ASGI application.

Used by :mod:`ivcapfs.server.runner` and by tests, which may wrap it in middleware of their own. All calls run
on one event loop.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ivcapfs.server import artifacts_api, aspects_api, blob_api, errors, tus_api
from ivcapfs.server.auth import BearerAuth
from ivcapfs.server.context import Context
from ivcapfs.server.counters import Counters
from ivcapfs.server.latency import Latency
from ivcapfs.server.store import Store


def create_app(
    store: Store,
    *,
    token: str | None = None,
    data_href_base: str | None = None,
    counters: Counters | None = None,
    latency: float = 0.0,
) -> Starlette:
    """Return the application that serves ``store``.

    Args:
        store: what is kept; whoever opened it closes it.
        token: the bearer token to ask for, ``None`` to let everybody in.
        data_href_base: replaces scheme and host of every ``data-href``.
        counters: what to count in, new ones unless given.
        latency: how much later each request is answered, in seconds.

    Returns:
        The application; its ``state.counters`` are the :class:`Counters` behind ``/_counters``.
    """
    context = Context(store, counters or Counters(), data_href_base)
    routes = [
        *tus_api.routes(context),
        *blob_api.routes(context),
        *artifacts_api.routes(context),
        *aspects_api.routes(context),
        *_counter_routes(context.counters),
    ]
    around = [Middleware(Latency, seconds=latency)] if latency else []
    if token is not None:
        around.append(Middleware(BearerAuth, token=token, counters=context.counters))
    app = Starlette(routes=routes, middleware=around)
    app.state.counters = context.counters
    errors.install(app)
    return app


def _counter_routes(counters: Counters) -> list[Route]:
    async def show(_request: Request) -> Response:
        return JSONResponse(counters.snapshot())

    async def reset(_request: Request) -> Response:
        counters.reset()
        return Response(status_code=204)

    return [Route("/_counters", show, methods=["GET"]), Route("/_counters/reset", reset, methods=["POST"])]
