"""The artifact calls: ``GET /1/artifacts``, ``GET /1/artifacts/{id}`` and ``POST /1/artifacts``.

Used by :mod:`ivcapfs.server.app`. Runs on the event loop; what touches files or SQLite goes to a thread.
"""

from __future__ import annotations

from dataclasses import replace

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ivcapfs.server import listing, params
from ivcapfs.server.clock import to_rfc3339
from ivcapfs.server.context import Context, base_url
from ivcapfs.server.errors import ApiError, bad_request, invalid_parameter, too_large
from ivcapfs.server.fields import ARTIFACT_FIELDS
from ivcapfs.server.paging import ListQuery, OrderError, parse_order
from ivcapfs.server.records import COLLECTION_ITEM_SCHEMA, MAX_UPLOAD, Artifact, new_artifact_id
from ivcapfs.server.store import Store
from ivcapfs.server.uploads import EMPTY_ETAG

TUS_VERSION = "1.0.0"


def routes(context: Context) -> list[Route]:
    """Return the routes of the artifact calls."""
    return [
        context.route("/1/artifacts", "GET", "artifact.list", _list),
        context.route("/1/artifacts", "POST", "artifact.create", _create),
        context.route("/1/artifacts/{id}", "GET", "artifact.read", _read),
    ]


async def _list(context: Context, request: Request) -> Response:
    query = params.page(request) or _query(context.store, request)
    page, key = await listing.fetch(context.store.list_artifacts, query)
    base = f"{base_url(request)}/1/artifacts/"
    items = [_item(base, artifact) for artifact in page]
    return JSONResponse(listing.reply(request, query, items, key))


async def _read(context: Context, request: Request) -> Response:
    return JSONResponse(_record(context, request, await context.artifact(request)))


async def _create(context: Context, request: Request) -> Response:
    length = _announced_length(request)
    async for chunk in request.stream():
        if chunk:
            raise bad_request("the content goes to the data-href; this request must be empty")
    artifact = await run_in_threadpool(
        _insert,
        context.store,
        name=params.name_header(request),
        mime_type=request.headers.get("X-Content-Type") or None,
        length=length,
        policy=params.urn_header(request, "X-Policy"),
        collection=params.urn_header(request, "X-Collection"),
    )
    headers = {
        "Location": _href(request, artifact.id),
        "Tus-Resumable": TUS_VERSION,
        "Upload-Offset": "0",
    }
    return JSONResponse(_record(context, request, artifact), status_code=201, headers=headers)


def _announced_length(request: Request) -> int | None:
    """Return the length that the content will have, ``None`` when it is not known yet."""
    upload_length = params.number_header(request, "Upload-Length")
    unknown = request.headers.get("X-Content-Length", "").strip() == "-1"
    content_length = None if unknown else params.number_header(request, "X-Content-Length")
    if None not in (upload_length, content_length) and upload_length != content_length:
        raise bad_request("Upload-Length and X-Content-Length contradict each other")
    length = content_length if upload_length is None else upload_length
    if length is not None and length > MAX_UPLOAD:
        raise too_large(f"an artifact may have {MAX_UPLOAD} bytes at most")
    return length


def _insert(
    store: Store,
    *,
    name: str | None,
    mime_type: str | None,
    length: int | None,
    policy: str | None,
    collection: str | None,
) -> Artifact:
    urn = new_artifact_id()
    empty = length == 0
    with store.batch():
        store.artifacts.insert(
            urn,
            name,
            mime_type,
            size=length,
            status="ready" if empty else "pending",
            etag=EMPTY_ETAG if empty else None,
            policy=policy,
        )
        if collection is not None:
            member = {"collection": collection, "item": urn}
            content = {"$schema": COLLECTION_ITEM_SCHEMA, "$entity": collection} | member
            store.add_aspect(collection, COLLECTION_ITEM_SCHEMA, content)
    artifact = store.artifacts.get(urn)
    if artifact is None:
        raise ApiError(500, {"message": "the artifact vanished"})
    return artifact


def _query(store: Store, request: Request) -> ListQuery:
    query = ListQuery(
        at_time=params.at_time(request, store.clock.now()),
        limit=params.limit(request) or params.DEFAULT_LIMIT,
        filter=request.query_params.get("filter", ""),
    )
    order_by = request.query_params.get("order-by", "") or "created-at"
    descending = params.flag(request, "order-desc", default=True)
    try:
        return replace(query, order=parse_order(order_by, [descending], ARTIFACT_FIELDS))
    except OrderError as exc:
        raise invalid_parameter("order-by", order_by, str(exc)) from exc


def _href(request: Request, artifact_id: str) -> str:
    return f"{base_url(request)}/1/artifacts/{artifact_id}"


def _item(base: str, artifact: Artifact) -> dict[str, object]:
    """Return the item of a list; ``base`` is what comes before the id in its address."""
    item: dict[str, object] = {"id": artifact.id}
    if artifact.name is not None:
        item["name"] = artifact.name
    item["status"] = artifact.status
    if artifact.mime_type is not None:
        item["mime-type"] = artifact.mime_type
    if artifact.size is not None:
        item["size"] = artifact.size
    item["created-at"] = to_rfc3339(artifact.created_at)
    item["href"] = base + artifact.id
    return item


def _record(context: Context, request: Request, artifact: Artifact) -> dict[str, object]:
    href = _href(request, artifact.id)
    record = _item(href.removesuffix(artifact.id), artifact)
    del record["href"]
    record["last-modified-at"] = to_rfc3339(artifact.last_modified_at)
    record["policy"] = artifact.policy
    record["account"] = artifact.account
    record["data-href"] = context.data_href(request, artifact.id)
    record["links"] = [listing.link("self", href)]
    if artifact.etag is not None:
        record["etag"] = artifact.etag
    return record
