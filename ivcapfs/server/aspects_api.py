"""The aspect calls: list, add, put in place, read and retract.

``GET/POST/PUT /1/aspects`` and ``GET/DELETE /1/aspects/{id}``. Used by :mod:`ivcapfs.server.app`. Runs on the
event loop; what touches SQLite goes to a thread.
"""

from __future__ import annotations

import json
from dataclasses import replace

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ivcapfs.server import listing, params
from ivcapfs.server.aspects import NotUnique
from ivcapfs.server.clock import to_rfc3339
from ivcapfs.server.context import Context, base_url
from ivcapfs.server.errors import (
    bad_request,
    invalid_parameter,
    not_found,
    not_unique,
    too_large,
    unsupported_type,
)
from ivcapfs.server.fields import ASPECT_FIELDS
from ivcapfs.server.paging import ListQuery, OrderError, parse_order
from ivcapfs.server.records import Aspect, aspect_urn

MAX_CONTENT = 16 * 1024 * 1024
"""The most bytes that an aspect's content may have."""


def routes(context: Context) -> list[Route]:
    """Return the routes of the aspect calls."""
    return [
        context.route("/1/aspects", "GET", "aspect.list", _list),
        context.route("/1/aspects", "POST", "aspect.create", _create),
        context.route("/1/aspects", "PUT", "aspect.update", _update),
        context.route("/1/aspects/{id}", "GET", "aspect.read", _read),
        context.route("/1/aspects/{id}", "DELETE", "aspect.retract", _retract),
    ]


async def _list(context: Context, request: Request) -> Response:
    query = params.page(request) or _query(context, request)
    page, key = await listing.fetch(context.store.list_aspects, query)
    items = [_item(aspect, query.include_content) for aspect in page]
    body = listing.reply(request, query, items, key)
    echoes = {"entity": query.entity, "schema": query.schema, "aspect-path": query.content_path}
    return JSONResponse(body | {name: value for name, value in echoes.items() if value})


async def _create(context: Context, request: Request) -> Response:
    content = await _content(request)
    entity, schema = params.urn(request, "entity"), _schema(request, content)
    policy = request.query_params.get("policy") or None
    aspect_id = await run_in_threadpool(context.store.aspects.add, entity, schema, json.dumps(content), policy=policy)
    return JSONResponse({"id": aspect_id})


async def _update(context: Context, request: Request) -> Response:
    content = await _content(request)
    entity, schema = params.urn(request, "entity"), _schema(request, content)
    policy = request.query_params.get("policy") or None
    try:
        aspect_id = await run_in_threadpool(
            context.store.aspects.update, entity, schema, json.dumps(content), policy=policy
        )
    except NotUnique as exc:
        raise not_unique(exc.matches) from exc
    return JSONResponse({"id": aspect_id})


async def _read(context: Context, request: Request) -> Response:
    named = request.path_params["id"]
    urn = aspect_urn(named)
    aspect = None if urn is None else await run_in_threadpool(context.store.aspects.get, urn)
    if aspect is None:
        raise not_found(named)
    record = _item(aspect, include_content=True)
    record |= {"asserter": aspect.asserter, "policy": aspect.policy, "account": aspect.account}
    record["links"] = [listing.link("self", f"{base_url(request)}/1/aspects/{aspect.id}")]
    if aspect.retracter is not None:
        record["retracter"] = aspect.retracter
    if aspect.replaces is not None:
        record["replaces"] = aspect.replaces
    return JSONResponse(record)


async def _retract(context: Context, request: Request) -> Response:
    named = request.path_params["id"]
    urn = aspect_urn(named)
    if urn is None or not await run_in_threadpool(context.store.aspects.retract, urn):
        raise not_found(named)
    return Response(status_code=204)


async def _content(request: Request) -> dict[str, object]:
    """Return the request's body, a JSON object."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise unsupported_type(f"cannot handle {kind!r}, only 'application/json'")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_CONTENT:
            raise too_large(f"an aspect may have {MAX_CONTENT} bytes at most")
    try:
        content = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise bad_request(f"the body is not JSON: {exc}") from exc
    if not isinstance(content, dict):
        raise bad_request("the body must be a JSON object")
    return content


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _schema(request: Request, content: dict[str, object]) -> str:
    schema = request.query_params.get("schema") or content.get("$schema") or ""
    if not isinstance(schema, str) or not schema.startswith("urn:") or not schema.isprintable():
        raise invalid_parameter("schema", str(schema), "schema (or the content's '$schema') must be a URN")
    return schema


def _query(context: Context, request: Request) -> ListQuery:
    given = request.query_params
    query = ListQuery(
        at_time=params.at_time(request, context.store.clock.now()),
        limit=params.limit(request) or params.DEFAULT_LIMIT,
        filter=given.get("filter", ""),
        entity=given.get("entity", ""),
        schema=given.get("schema", ""),
        content_path=given.get("content-path", ""),
        include_content=params.flag(request, "include-content", default=False),
    )
    order_by = given.get("order-by", "") or "valid_from"
    directions = [text.strip().upper() for text in (given.get("order-direction", "") or "DESC").split(",")]
    if not {"ASC", "DESC"}.issuperset(directions):
        raise invalid_parameter("order-direction", given["order-direction"], "must be ASC or DESC")
    descending = [text == "DESC" for text in directions]
    try:
        return replace(query, order=parse_order(order_by, descending, ASPECT_FIELDS))
    except OrderError as exc:
        raise invalid_parameter("order-by", order_by, str(exc)) from exc


def _item(aspect: Aspect, include_content: bool) -> dict[str, object]:
    item: dict[str, object] = {
        "id": aspect.id,
        "entity": aspect.entity,
        "schema": aspect.schema,
        "content-type": aspect.content_type,
        "valid-from": to_rfc3339(aspect.valid_from),
    }
    if include_content:
        item["content"] = json.loads(aspect.content)
    if aspect.valid_to is not None:
        item["valid-to"] = to_rfc3339(aspect.valid_to)
    return item
