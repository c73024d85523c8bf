"""Changes of aspects that can be made again after a lost answer, and that lose nothing when they end half-way.

Used by `ivcapfs.catalog.collectionwriter` and `ivcapfs.fs.aspectwriter`, on their pool. Stateless: any thread.
"""

from __future__ import annotations

from typing import Any

from ivcapfs.client.api import Api
from ivcapfs.errors import (
    Conflict,
    ConnectionBroken,
    DeadlineExceeded,
    IvcapfsError,
    NotFound,
    ProtocolError,
    ServerFault,
    Unavailable,
)
from ivcapfs.models import AspectRecord

_UNSURE = (ConnectionBroken, DeadlineExceeded, Unavailable, ServerFault, ProtocolError)
"""After these, nobody knows whether it was done."""


def standing(api: Api, entity: str, schema: str) -> list[AspectRecord]:
    """Return an entity's aspects that stand, newest first, with their contents (``GET /1/aspects``).

    Args:
        schema: ``%`` stands for anything.
    """
    found = api.iter_aspects(entity=entity, schema=schema, include_content=True)
    return newest_first([aspect for aspect in found if aspect.entity == entity])


def newest_first(aspects: list[AspectRecord]) -> list[AspectRecord]:
    """Return aspects in the order in which the newest of a schema counts."""
    return sorted(aspects, key=lambda aspect: aspect.valid_from, reverse=True)


def content_of(entity: str, schema: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return a content as it is sent: it names its schema and its entity, as the SDK's does."""
    bare = {name: value for name, value in content.items() if name not in ("$schema", "$entity")}
    return {"$schema": schema, "$entity": entity, **bare}


def add(api: Api, entity: str, schema: str, content: dict[str, Any]) -> str:
    """Add an aspect beside those that stand (``POST /1/aspects``); return its URN.

    Where the answer is lost, the server is asked whether one of the same content stands.

    Args:
        content: as `content_of` makes it.
    """
    try:
        return api.add_aspect(entity, schema, content)
    except _UNSURE:
        done = _found(api, entity, schema, content)
        if done is None:
            raise
        return done


def replace(api: Api, old: AspectRecord, schema: str, content: dict[str, Any], *, alone: bool) -> str:
    """Put an aspect in the place of another; return its URN.

    In one step (``PUT /1/aspects``) where it is the only one of its schema; else the new one is added before the old
    one is retracted, so that both stand if it ends in between, and never none.

    Args:
        alone: whether no other of this schema stands.
    """
    if alone and old.schema == schema and "%" not in schema:  # which might stand for others, too
        try:
            return api.replace_aspect(old.entity, schema, content)
        except Conflict:
            pass  # there is another one by now
    new = add(api, old.entity, schema, content)
    retract(api, old.id)
    return new


def retract(api: Api, id: str) -> None:
    """End an aspect's validity (``DELETE /1/aspects/{id}``), unless it ended before."""
    try:
        api.retract_aspect(id)
    except NotFound:
        return


def same_content(one: Any, other: Any) -> bool:
    """Return whether two contents say the same, whether or not they name their schema and entity. 1 is not true."""
    return _same(_bare(one), _bare(other))


def _found(api: Api, entity: str, schema: str, content: dict[str, Any]) -> str | None:
    """Return the URN of the newest aspect with that content, if there is one and the server says so."""
    try:
        found = standing(api, entity, schema)
    except IvcapfsError:
        return None
    return next((each.id for each in found if each.schema == schema and same_content(each.content, content)), None)


def _bare(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    return {name: value for name, value in content.items() if name not in ("$schema", "$entity")}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
