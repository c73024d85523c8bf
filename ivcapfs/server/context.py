"""What every call works with, and the addresses that go into replies.

Used by all API modules. One per application; what it holds may be used from any thread, except ``uploading``,
which belongs to the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ivcapfs.server.counters import Counters
from ivcapfs.server.errors import conflict, not_found
from ivcapfs.server.records import Artifact, artifact_urn
from ivcapfs.server.store import Store

_WAIT_FOR_WRITER = 2.0  # seconds: how long a broken connection may take to be noticed

Call = Callable[["Context", Request], Awaitable[Response]]


@dataclass
class Context:
    """What every call works with.

    Args:
        store: what is kept.
        counters: what was done.
        data_href_base: replaces scheme and host of every ``data-href``.
        uploading: a lock for each artifact that is being written to; only on the event loop.
    """

    store: Store
    counters: Counters
    data_href_base: str | None = None
    uploading: dict[str, anyio.Lock] = field(default_factory=dict)

    def route(self, path: str, method: str, label: str, call: Call) -> Route:
        """Return the route to ``call``, which is counted under ``label``."""

        async def endpoint(request: Request) -> Response:
            self.counters.count(label)
            return await call(self, request)

        return Route(path, endpoint, methods=[method], name=label)

    def data_href(self, request: Request, artifact_id: str) -> str:
        """Return where an artifact's content is, as the platform is told to say it."""
        if self.data_href_base is None:
            return upload_href(request, artifact_id)
        return f"{self.data_href_base.rstrip('/')}/1/artifacts/{artifact_id}/blob"

    async def artifact(self, request: Request) -> Artifact:
        """Return the record of the artifact that the request's path names.

        Raises:
            ApiError: there is none (404).
        """
        named = request.path_params["id"]
        urn = artifact_urn(named)
        found = None if urn is None else await run_in_threadpool(self.store.artifacts.get, urn)
        if found is None:
            raise not_found(named)
        return found

    @asynccontextmanager
    async def only_writer(self, artifact_id: str) -> AsyncIterator[None]:
        """Hold an artifact for writing; another request that does so is waited for, but not for long.

        Raises:
            ApiError: the other one goes on (409).
        """
        lock = self.uploading.setdefault(artifact_id, anyio.Lock())
        with anyio.move_on_after(_WAIT_FOR_WRITER) as wait:
            await lock.acquire()
        if wait.cancelled_caught:
            raise conflict(artifact_id, "another request is writing to this artifact")
        try:
            yield
        finally:
            lock.release()
            if not lock.locked():  # nobody has waited for it
                self.uploading.pop(artifact_id, None)


def base_url(request: Request) -> str:
    """Return scheme and host by which the client reached us."""
    return str(request.base_url).rstrip("/")


def upload_href(request: Request, artifact_id: str) -> str:
    """Return where an artifact's content is, by the host that the client reached us by."""
    return f"{base_url(request)}/1/artifacts/{artifact_id}/blob"
