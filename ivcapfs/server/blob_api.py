"""The content of artifacts, read and put: ``GET``, ``HEAD`` and ``PUT {data-href}``.

Used by :mod:`ivcapfs.server.app`. Runs on the event loop; files are read and written in threads, in pieces:
content is never whole in memory.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from email.utils import formatdate
from functools import partial

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ivcapfs.server import params
from ivcapfs.server.context import Context
from ivcapfs.server.counters import Counters
from ivcapfs.server.errors import ApiError, bad_request, conflict, not_found, too_large
from ivcapfs.server.ranges import RangeNotSatisfiable, etag_matches, if_range_holds, parse_range
from ivcapfs.server.records import Artifact
from ivcapfs.server.uploads import Writer

CHUNK = 1 << 20
MAX_PUT = 16 * 1024 * 1024
"""The most bytes that one PUT may carry."""


def routes(context: Context) -> list[Route]:
    """Return the routes of the blob calls, except those of TUS."""
    return [
        context.route("/1/artifacts/{id}/blob", "GET", "blob.get", _get),
        context.route("/1/artifacts/{id}/blob", "PUT", "blob.put", _put),
    ]


class BlobResponse(Response):
    """A reply that streams a part of a content and stops when the client has gone.

    Args:
        opened: opens the content.
        start: the first byte to send.
        stop: the one after the last.
        counters: where the bytes are counted.
        status_code: 200 or 206.
        headers: those of the reply.
    """

    def __init__(
        self,
        opened: Callable[[], io.RawIOBase],
        start: int,
        stop: int,
        counters: Counters,
        status_code: int,
        headers: dict[str, str],
    ) -> None:
        super().__init__(status_code=status_code, headers=headers | {"Content-Length": str(stop - start)})
        self._open = opened
        self._start = start
        self._stop = stop
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the reply (ASGI)."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, receive, group.cancel_scope)
            await self._stream(send)
            group.cancel_scope.cancel()

    @staticmethod
    async def _watch(receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _stream(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        left = self._stop - self._start
        if not left:
            await send(start)
            await send({"type": "http.response.body", "body": b""})
            return
        with await run_in_threadpool(self._open) as file:
            file.seek(self._start)
            await send(start)
            while left:
                chunk = await run_in_threadpool(file.read, min(left, CHUNK))
                if not chunk:
                    raise OSError(f"content ends {left} bytes before its record says")
                left -= len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": left > 0})
                self._counters.sent(len(chunk))


async def _get(context: Context, request: Request) -> Response:
    artifact = await context.artifact(request)
    size, headers = readable(artifact)
    unchanged = _condition(request, headers)
    if unchanged is not None:
        return unchanged
    start, stop, status = 0, size, 200
    if if_range_holds(request.headers.get("If-Range"), headers["ETag"], headers["Last-Modified"]):
        try:
            part = parse_range(request.headers.get("Range"), size)
        except RangeNotSatisfiable as exc:
            body = {"message": "nothing lies within this range"}
            raise ApiError(416, body, {"Content-Range": str(exc)}) from exc
        if part is not None:
            (start, stop), status = part, 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return BlobResponse(
        partial(context.store.open_content, artifact), start, stop, context.counters, status, headers
    )


async def head(context: Context, request: Request) -> Response:
    """Answer a HEAD that is not TUS's: the headers of a GET of the whole."""
    artifact = await context.artifact(request)
    size, headers = readable(artifact)
    unchanged = _condition(request, headers)
    if unchanged is not None:
        return unchanged
    return Response(headers=headers | {"Content-Length": str(size)})


def readable(artifact: Artifact) -> tuple[int, dict[str, str]]:
    """Return the size in bytes and the headers of content that can be read.

    Raises:
        ApiError: it cannot be read (yet): 404, with a message that tells the status.
    """
    if artifact.status != "ready" or artifact.size is None or artifact.etag is None:
        raise not_found(artifact.id, f"the content is not ready, its status is '{artifact.status}'")
    return artifact.size, {
        "ETag": f'"{artifact.etag}"',
        "Last-Modified": formatdate(artifact.last_modified_at / 1e6, usegmt=True),
        "Accept-Ranges": "bytes",
        "Content-Type": artifact.mime_type or "application/octet-stream",
    }


def _condition(request: Request, headers: dict[str, str]) -> Response | None:
    if_match = request.headers.get("If-Match")
    if if_match is not None and not etag_matches(if_match, headers["ETag"]):
        raise ApiError(412, {"message": "the content has another ETag"}, {"ETag": headers["ETag"]})
    if_none_match = request.headers.get("If-None-Match")
    if if_none_match is not None and etag_matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers={k: v for k, v in headers.items() if k != "Content-Type"})
    return None


async def _put(context: Context, request: Request) -> Response:
    announced = params.number_header(request, "Content-Length")
    if announced is not None and announced > MAX_PUT:
        raise too_large(f"a PUT may carry {MAX_PUT} bytes at most")
    named = await context.artifact(request)
    async with context.only_writer(named.id):
        artifact = await context.artifact(request)
        if artifact.status not in ("pending", "partial"):
            raise conflict(artifact.id, f"the content cannot be changed, its status is '{artifact.status}'")
        uploads = context.store.uploads
        writer = await run_in_threadpool(uploads.replacement, artifact)
        try:
            await _receive(request, writer)
            if artifact.size not in (None, writer.offset):
                raise bad_request(f"{artifact.size} bytes were announced, {writer.offset} came")
            await run_in_threadpool(uploads.put_in_place, artifact, writer)
        finally:
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(uploads.drop, artifact, writer)
    return Response(status_code=204, headers={"ETag": f'"{writer.checksum.hexdigest()}"'})


async def _receive(request: Request, writer: Writer) -> None:
    try:
        async for chunk in request.stream():
            if writer.offset + len(chunk) > MAX_PUT:
                raise too_large(f"a PUT may carry {MAX_PUT} bytes at most")
            if chunk:
                await run_in_threadpool(writer.write, chunk)
    except ClientDisconnect as exc:
        raise bad_request("the request broke off") from exc
