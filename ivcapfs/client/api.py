"""The platform's calls, one method each: artifacts, aspects, collections.

Used by the catalog, by `blobs` and `tus`, and by the public face (`facade`, `artifact`). Contents of
artifacts are in `blobs` (reading) and `tus` (writing). Thread-safe: it holds nothing but the `Transport`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from ivcapfs.client import wire
from ivcapfs.client.exchange import JsonReply
from ivcapfs.client.pages import all_items
from ivcapfs.client.transport import Transport
from ivcapfs.errors import ConfigError, NotFound, ProtocolError, ServerFault
from ivcapfs.models import (
    ARTIFACT_COLLECTION_SCHEMA,
    ARTIFACT_URN,
    COLLECTION_ITEM_SCHEMA,
    COLLECTION_SCHEMA,
    ArtifactRecord,
    AspectRecord,
    CollectionRecord,
    Page,
    PageText,
)

PAGE_LIMIT = 50
"""The largest page that the platform gives."""


class Api:
    """The platform's JSON calls. Thread-safe.

    Every method raises `ApiError` when the server refuses, `TransportError` when there is no answer within
    the bounds, `ProtocolError` when the answer makes no sense, and `Closing` once the client is closed.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list_artifacts_page(
        self,
        *,
        cursor: str | None = None,
        limit: int = PAGE_LIMIT,
        filter: str | None = None,
        order_by: str | None = None,
        order_desc: bool | None = None,
        at_time: datetime | None = None,
    ) -> Page[ArtifactRecord]:
        """Return one page of artifacts (``GET /1/artifacts``).

        Args:
            cursor: of the page before; None for the first page.
            limit: items on the page, 1 to 50.
            filter: for the server, e.g. ``name ~= 'Scott%'``.
            order_by: an attribute, e.g. ``created-at``.
            order_desc: the largest first.
            at_time: the list as it was then.
        """
        limit = min(max(limit, 1), PAGE_LIMIT)
        params = _params(
            limit=limit, page=cursor, filter=filter, order_by=order_by, order_desc=order_desc, at_time=at_time
        )
        return wire.artifact_page_from_json(self._list("/1/artifacts", "listing artifacts", params).body)

    def list_artifacts_text(
        self,
        *,
        cursor: str | None = None,
        limit: int = PAGE_LIMIT,
        order_by: str | None = None,
        order_desc: bool | None = None,
        at_time: datetime | None = None,
    ) -> PageText:
        """Return one page of artifacts for `wire.artifacts_in`, so that its items may be read while the next page is on
        its way. See `list_artifacts_page`.
        """
        params = _params(limit=limit, page=cursor, order_by=order_by, order_desc=order_desc, at_time=at_time)
        reply = self._list("/1/artifacts", "listing artifacts", params)
        return wire.page_text_from_json(reply.body, reply.text)

    def iter_artifacts(
        self,
        *,
        limit: int = PAGE_LIMIT,
        filter: str | None = None,
        order_by: str | None = None,
        order_desc: bool | None = None,
        at_time: datetime | None = None,
    ) -> Iterator[ArtifactRecord]:
        """Yield all artifacts, over all pages; `limit` is the page's. See `list_artifacts_page`."""

        def page(cursor: str | None) -> Page[ArtifactRecord]:
            return self.list_artifacts_page(
                cursor=cursor, limit=limit, filter=filter,
                order_by=order_by, order_desc=order_desc, at_time=at_time,
            )  # fmt: skip

        return all_items(page, lambda record: record.uuid)

    def read_artifact(self, uuid: str) -> ArtifactRecord:
        """Return the whole record of an artifact (``GET /1/artifacts/{id}``).

        Raises:
            NotFound: there is none of that id.
        """
        path = "/1/artifacts/" + quote(ARTIFACT_URN + uuid, safe="")
        record = wire.artifact_from_json(self._get(path, f"reading artifact {uuid}"))
        if record.uuid != uuid:
            raise ProtocolError(f"reading artifact {uuid}: the server answered with another one")
        return record

    def create_artifact(
        self,
        *,
        name: str | None = None,
        content_type: str,
        size: int | None,
        collection: str | None = None,
        policy: str | None = None,
    ) -> ArtifactRecord:
        """Make the record of a new artifact, whose content is then uploaded (``POST /1/artifacts``).

        Args:
            name: any text; it need not be unique.
            content_type: its MIME type.
            size: bytes; None where that is not known yet.
            collection: URN of a collection to put it in.
            policy: URN of the policy that says who may see it.

        Returns:
            The record; its `data_href` is where the content goes.

        Raises:
            ConfigError: a value that the call cannot carry.
        """
        headers = {
            "X-Content-Type": _header("content type", content_type),
            "X-Content-Length": str(-1 if size is None else size),
            "Tus-Resumable": "1.0.0",
        }
        if size is not None:
            headers["Upload-Length"] = str(size)
        if name:
            headers["X-Name"] = _base64(name)
        if collection:
            headers["X-Collection"] = _header("collection", collection, prefix="urn:")
        if policy:
            headers["X-Policy"] = _header("policy", policy, prefix="urn:ivcap:policy:")
        what = "creating an artifact"
        reply = self._transport.request_json("POST", "/1/artifacts", what=what, headers=headers, idempotent=False)
        href = reply.headers.get("location")
        body = reply.body if reply.body.get("data-href") or not href else {**reply.body, "data-href": href}
        return wire.artifact_from_json(body)

    def iter_aspects(
        self,
        *,
        entity: str | None = None,
        schema: str | None = None,
        include_content: bool = True,
        at_time: datetime | None = None,
        content_path: str | None = None,
        filter: str | None = None,
        order_by: str | None = None,
        order_direction: str | None = None,
        limit: int = PAGE_LIMIT,
    ) -> Iterator[AspectRecord]:
        """Yield all aspects that match, over all pages (``GET /1/aspects``).

        Args:
            entity: URN of what they are about.
            schema: URN, ``%`` stands for anything.
            include_content: whether their content comes along.
            at_time: those that stood then.
            content_path: a PostgreSQL JSONPath that their content must match.
            filter, order_by, order_direction: for the server.
            limit: the page's, 1 to 50.
        """
        params = _params(
            limit=min(max(limit, 1), PAGE_LIMIT), entity=entity, schema=schema,
            include_content=include_content, at_time=at_time, content_path=content_path,
            filter=filter, order_by=order_by, order_direction=order_direction,
        )  # fmt: skip

        def page(cursor: str | None) -> Page[AspectRecord]:
            asked = {**params, "page": cursor} if cursor else params
            return wire.aspect_page_from_json(self._list("/1/aspects", "listing aspects", asked).body)

        return all_items(page, lambda record: record.id)

    def read_aspect(self, id: str) -> AspectRecord:
        """Return one aspect, content included (``GET /1/aspects/{id}``)."""
        path = "/1/aspects/" + quote(id, safe="", errors="replace")
        return wire.aspect_from_json(self._get(path, "reading an aspect"))

    def add_aspect(self, entity: str, schema: str, content: Any, policy: str | None = None) -> str:
        """Add an aspect beside those that stand (``POST /1/aspects``); return its URN.

        Args:
            content: anything that JSON can carry, sent as it is.

        Raises:
            ConfigError: JSON cannot carry the content.
        """
        return self._write_aspect("POST", entity, schema, content, policy)

    def update_aspect(self, entity: str, schema: str, content: Any, policy: str | None = None) -> str:
        """Replace the one aspect of that schema, or add the first; return the new one's URN.

        Some deployments refuse the replacing call (``PUT /1/aspects``) where nothing stands yet: so look
        first.

        Raises:
            Conflict: several aspects of that schema stand.
        """
        standing = self.iter_aspects(entity=entity, schema=schema, include_content=False, limit=1)
        write = self.add_aspect if next(standing, None) is None else self.replace_aspect
        return write(entity, schema, content, policy)

    def replace_aspect(self, entity: str, schema: str, content: Any, policy: str | None = None) -> str:
        """Retract the one aspect of that schema, and add the new one (``PUT /1/aspects``); return the new one's URN.

        Raises:
            Conflict: several aspects of that schema stand.
        """
        return self._write_aspect("PUT", entity, schema, content, policy)

    def retract_aspect(self, id: str) -> None:
        """End an aspect's validity (``DELETE /1/aspects/{id}``); the past still shows it."""
        path = "/1/aspects/" + quote(id, safe="", errors="replace")
        self._transport.request_json("DELETE", path, what="retracting an aspect", idempotent=True)

    def iter_collections(self, *, at_time: datetime | None = None) -> Iterator[CollectionRecord]:
        """Yield each collection once, as last described; those of the older form at the end."""
        seen: set[str] = set()
        for schema in (COLLECTION_SCHEMA, ARTIFACT_COLLECTION_SCHEMA):
            for aspect in self.iter_aspects(schema=schema, at_time=at_time):
                content = aspect.content if isinstance(aspect.content, dict) else {}
                urn = aspect.entity if schema == COLLECTION_SCHEMA else _old_collection(aspect)
                if urn not in seen:
                    seen.add(urn)
                    name, text = content.get("name"), content.get("description")
                    yield CollectionRecord(
                        urn,
                        name if isinstance(name, str) else None,
                        text if isinstance(text, str) else None,
                        aspect.valid_from,
                    )

    def collection_members(self, urn: str, *, at_time: datetime | None = None) -> Iterator[str]:
        """Yield the URN of each member of a collection once, whatever kind of entity it is, in both forms."""
        seen: set[str] = set()
        for aspect in self.iter_aspects(entity=urn, schema=COLLECTION_ITEM_SCHEMA, at_time=at_time):
            if isinstance(aspect.content, dict):
                yield from _fresh([aspect.content.get("item")], seen)
        for aspect in self.iter_aspects(entity=urn, schema=ARTIFACT_COLLECTION_SCHEMA, at_time=at_time):
            yield from _fresh(_old_members(aspect), seen)
        if seen:
            return
        for aspect in self.iter_aspects(schema=ARTIFACT_COLLECTION_SCHEMA, at_time=at_time):
            if _old_collection(aspect) == urn:
                yield from _fresh(_old_members(aspect), seen)

    def _write_aspect(self, method: str, entity: str, schema: str, content: Any, policy: str | None) -> str:
        reply = self._transport.request_json(
            method,
            "/1/aspects",
            what="writing an aspect",
            params=_params(entity=entity, schema=schema, policy=policy),
            json=content,
            idempotent=method == "PUT",
        )
        id = reply.body.get("id")
        if not isinstance(id, str):
            raise ProtocolError("writing an aspect: the answer names no id")
        return id

    def _get(self, path: str, what: str) -> dict[str, Any]:
        return self._transport.request_json("GET", path, what=what, idempotent=True).body

    def _list(self, path: str, what: str, params: Mapping[str, str]) -> JsonReply:
        """Ask for a page. Every deployment has lists: a 404 is a gateway's, and says nothing of what is in them."""
        try:
            return self._transport.request_json("GET", path, what=what, params=params, idempotent=True)
        except NotFound as exc:
            raise ServerFault(str(exc), status=exc.status) from exc


def _params(**values: str | int | bool | datetime | None) -> dict[str, str]:
    """Return query parameters in the platform's spelling; None is left out."""
    return {name.replace("_", "-"): _spelled(value) for name, value in values.items() if value is not None}


def _spelled(value: str | int | bool | datetime) -> str:
    if isinstance(value, datetime):
        return wire.format_time(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _old_collection(aspect: AspectRecord) -> str:
    """Return the collection that an aspect of the older form is about."""
    named = aspect.content.get("collection") if isinstance(aspect.content, dict) else None
    return named if isinstance(named, str) and named else aspect.entity


def _old_members(aspect: AspectRecord) -> list[Any]:
    members = aspect.content.get("artifacts") if isinstance(aspect.content, dict) else None
    return members if isinstance(members, list) else []


def _fresh(values: list[Any], seen: set[str]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str) and value not in seen:
            seen.add(value)
            yield value


def _header(what: str, value: str, *, prefix: str = "") -> str:
    """Return `value` if a header can carry it."""
    if not value.isascii() or not value.isprintable() or not value.startswith(prefix):
        raise ConfigError(f"not a {what}: {value[:100]!r}" + (f"; it begins with {prefix}" if prefix else ""))
    return value


def _base64(name: str) -> str:
    try:
        return base64.b64encode(name.encode("utf-8")).decode("ascii")
    except UnicodeEncodeError as exc:
        raise ConfigError(f"a name must be valid Unicode: {name[:100]!r}") from exc
