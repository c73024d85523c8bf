"""Resumable uploads, TUS 1.0.0: ``HEAD``, ``POST`` and ``PATCH {data-href}``.

An upload is complete when its announced length has arrived. When no length was announced, a client either
says that it will tell it later (``Upload-Defer-Length: 1``, on a POST before or on each PATCH, and
``Upload-Length`` on the last PATCH), or it does not, and then the end of its first PATCH that does not break
off is the end.
Used by :mod:`ivcapfs.server.app`. Runs on the event loop; files are written in threads.
"""

from __future__ import annotations

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ivcapfs.server import blob_api, params
from ivcapfs.server.artifacts_api import TUS_VERSION
from ivcapfs.server.context import Context, upload_href
from ivcapfs.server.errors import ApiError, bad_request, conflict, too_large, unsupported_type
from ivcapfs.server.records import MAX_UPLOAD, Artifact
from ivcapfs.server.store import Store
from ivcapfs.server.uploads import Writer

_GATHER = 1 << 20  # bytes gathered before they are written: a thread for every 64 KB would be slow
_PATH = "/1/artifacts/{id}/blob"
_TUS = {"Tus-Resumable": TUS_VERSION}


def routes(context: Context) -> list[Route]:
    """Return the routes of TUS; they must come before those of the blob calls, for HEAD."""
    plain_head = context.route(_PATH, "HEAD", "blob.head", blob_api.head).endpoint
    tus_head = context.route(_PATH, "HEAD", "tus.head", _head).endpoint

    async def either(request: Request) -> Response:
        chosen = tus_head if "Tus-Resumable" in request.headers else plain_head
        reply: Response = await chosen(request)
        return reply

    return [
        Route(_PATH, either, methods=["HEAD"]),
        context.route(_PATH, "POST", "tus.create", _create),
        context.route(_PATH, "PATCH", "tus.patch", _patch),
    ]


async def _head(context: Context, request: Request) -> Response:
    artifact = await context.artifact(request)
    if artifact.status == "ready":
        offset = artifact.size or 0
    else:
        offset = await run_in_threadpool(context.store.files.arrived, artifact.id)
    headers = _TUS | {"Upload-Offset": str(offset), "Cache-Control": "no-store"}
    if artifact.size is not None:
        headers["Upload-Length"] = str(artifact.size)
    elif artifact.deferred:
        headers["Upload-Defer-Length"] = "1"
    return Response(headers=headers)


async def _create(context: Context, request: Request) -> Response:
    """Announce the length, or that it will be told later; the answer says where to send the content."""
    length = params.number_header(request, "Upload-Length")
    deferred = request.headers.get("Upload-Defer-Length") == "1"
    if length is None and not deferred:
        raise bad_request("Upload-Length or 'Upload-Defer-Length: 1' is missing")
    artifact = await context.artifact(request)
    async with context.only_writer(artifact.id):
        artifact = _unfinished(await context.artifact(request))
        offset = await run_in_threadpool(context.store.files.arrived, artifact.id)
        await run_in_threadpool(_announce, context.store, artifact, offset, length, deferred)
    headers = _TUS | {"Location": upload_href(request, artifact.id), "Upload-Offset": str(offset)}
    return Response(status_code=201, headers=headers)


async def _patch(context: Context, request: Request) -> Response:
    _check_headers(request)
    artifact = await context.artifact(request)
    async with context.only_writer(artifact.id):
        artifact = _unfinished(await context.artifact(request))
        await _check_lengths(context.store, request, artifact)
        artifact = await context.artifact(request)
        writer = await run_in_threadpool(context.store.uploads.resume, artifact)
        try:
            whole = await _receive(context.store, request, artifact, writer)
            is_end = writer.offset == artifact.size or (artifact.size is None and not artifact.deferred)
            if whole and is_end:
                await run_in_threadpool(context.store.uploads.complete, artifact, writer)
        finally:
            # Even when this task is being cancelled: what has arrived is kept.
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(_leave, context.store, artifact, writer)
    headers = _TUS | {"Upload-Offset": str(writer.offset)}
    return Response(status_code=204, headers=headers)


def _leave(store: Store, artifact: Artifact, writer: Writer) -> None:
    now = store.artifacts.get(artifact.id)
    if now is not None and now.status in ("pending", "partial"):
        store.uploads.suspend(artifact, writer)
    else:
        writer.close()


def _check_headers(request: Request) -> None:
    if request.headers.get("Tus-Resumable") != TUS_VERSION:
        body = {"message": f"Tus-Resumable must be {TUS_VERSION}"}
        raise ApiError(412, body, {"Tus-Version": TUS_VERSION} | _TUS)
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "application/offset+octet-stream":
        raise unsupported_type(f"cannot handle {kind!r}, only 'application/offset+octet-stream'")


def _unfinished(artifact: Artifact) -> Artifact:
    if artifact.status not in ("pending", "partial"):
        raise conflict(artifact.id, f"the content cannot be changed, its status is '{artifact.status}'", _TUS)
    return artifact


async def _check_lengths(store: Store, request: Request, artifact: Artifact) -> None:
    """Check the offset and the lengths that a PATCH tells, and note the latter.

    Raises:
        ApiError: 400 bad headers, 409 another offset, 413 too much.
    """
    offset = params.number_header(request, "Upload-Offset")
    if offset is None:
        raise bad_request("Upload-Offset is missing")
    arrived = await run_in_threadpool(store.files.arrived, artifact.id)
    if offset != arrived:
        message = f"the content goes on at {arrived}, not at {offset}"
        raise conflict(artifact.id, message, _TUS | {"Upload-Offset": str(arrived)})
    coming = params.number_header(request, "Content-Length") or 0
    length = params.number_header(request, "Upload-Length")
    known = artifact.size if length is None else length
    if offset + coming > (MAX_UPLOAD if known is None else known):
        raise too_large(f"{offset + coming} bytes are more than the {known or MAX_UPLOAD} that there may be")
    deferred = request.headers.get("Upload-Defer-Length") == "1"
    await run_in_threadpool(_announce, store, artifact, arrived, length, deferred)


def _announce(store: Store, artifact: Artifact, arrived: int, length: int | None, deferred: bool) -> None:
    if length is not None:
        if length > MAX_UPLOAD:
            raise too_large(f"an artifact may have {MAX_UPLOAD} bytes at most")
        if artifact.size not in (None, length) or length < arrived:
            known = artifact.size if artifact.size is not None else f"{arrived} and more"
            raise bad_request(f"Upload-Length contradicts what is known: {known}")
        store.artifacts.set_length(artifact.id, length)
    elif deferred:
        store.artifacts.set_deferred(artifact.id)


async def _receive(store: Store, request: Request, artifact: Artifact, writer: Writer) -> bool:
    """Write the request's body, and return whether it came whole.

    Raises:
        ApiError: there was more than there may be (413); the rest is not written.
    """
    room = MAX_UPLOAD if artifact.size is None else artifact.size
    gathered = bytearray()
    whole = True
    try:
        async for chunk in request.stream():
            gathered += chunk
            if writer.offset + len(gathered) > room:
                raise too_large(f"there may be {room} bytes at most")
            if len(gathered) >= _GATHER:
                await _write(store, artifact, writer, gathered)
                gathered = bytearray()
    except ClientDisconnect:
        whole = False
    await _write(store, artifact, writer, gathered)
    return whole


async def _write(store: Store, artifact: Artifact, writer: Writer, data: bytearray) -> None:
    if not data:
        return
    first = writer.offset == 0
    await run_in_threadpool(writer.write, data)
    if first:
        await run_in_threadpool(store.artifacts.set_partial, artifact.id)
