"""Collections and their members as aspects on the platform, written in the forms that its SDK writes and reads.

Used by `collectionwriter`, on its pool. Nothing is lost half-way: what is new stands before what is old is retracted.
Whatever is done may be done again.

Threading: any thread; whoever calls sees to it that a collection is changed by one at a time, as each call looks at
what stands before it writes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ivcapfs.catalog.collections import Collection, described_by, members_in, subject, value_in
from ivcapfs.client import Api, aspectedits
from ivcapfs.errors import BadRequest, ConnectionBroken, ProtocolError, ServerFault, Unavailable
from ivcapfs.models import (
    ARTIFACT_COLLECTION_SCHEMA,
    ARTIFACT_URN,
    COLLECTION_ITEM_SCHEMA,
    COLLECTION_SCHEMA,
    AspectRecord,
    artifact_uuid,
)

log = logging.getLogger(__name__)

_NO_PATHS = (BadRequest, ServerFault, Unavailable, ConnectionBroken, ProtocolError)
"""What deployments answer that do not know JSONPath."""


class Memberships:
    """See the module."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._knows_paths = True  # whether the server finds a member by JSONPath; one assignment, hence no lock

    def describe(self, urn: str, name: str) -> str:
        """Give a collection a name, and so make it if it is not there; return the aspect that does it."""
        standing = aspectedits.standing(self._api, urn, COLLECTION_SCHEMA)
        old = standing[0] if standing else None
        known = old.content if old is not None and isinstance(old.content, dict) else {}
        content = aspectedits.content_of(urn, COLLECTION_SCHEMA, {**known, "name": name})
        if old is None:
            return aspectedits.add(self._api, urn, COLLECTION_SCHEMA, content)
        return aspectedits.replace(self._api, old, COLLECTION_SCHEMA, content, alone=len(standing) == 1)

    def described(self, aspect: str, named: tuple[str, ...] = ()) -> Collection:
        """Return the collection that an aspect describes (``GET /1/aspects/{id}``).

        Args:
            named: the members that the older form names.
        """
        return replace(described_by(self._api.read_aspect(aspect)), named=named)

    def any_member(self, urn: str) -> str | None:
        """Return a member, whatever it is and by whichever form, or None if there is none; asks for no more pages than
        it takes.
        """
        items = (value_in(each, "item") for each in self._api.iter_aspects(entity=urn, schema=COLLECTION_ITEM_SCHEMA))
        found = next((item for item in items if isinstance(item, str)), None)
        return found or next(members_in(self._older(urn)), None)

    def end(self, urn: str) -> None:
        """Retract everything that describes a collection, the newest last: until then it has its name."""
        descriptions = aspectedits.standing(self._api, urn, COLLECTION_SCHEMA)
        for aspect in (*self._older(urn), *reversed(descriptions)):
            aspectedits.retract(self._api, aspect.id)

    def add(self, urn: str, uuid: str) -> None:
        """Make an artifact a member, if it is none."""
        if not self._items(urn, uuid, sure=False):
            content = {"collection": urn, "item": ARTIFACT_URN + uuid}
            whole = aspectedits.content_of(urn, COLLECTION_ITEM_SCHEMA, content)
            aspectedits.add(self._api, urn, COLLECTION_ITEM_SCHEMA, whole)

    def discard(self, urn: str, uuid: str) -> None:
        """Make an artifact a member no more, if it is one: retract all aspects that make it one."""
        for item in self._items(urn, uuid, sure=True):
            aspectedits.retract(self._api, item.id)

    def discard_older(self, urn: str, uuid: str) -> None:
        """The same for the older form: put lists without the member in the place of those that have it."""
        for aspect in self._older(urn):
            members: list[Any] = aspect.content.get("artifacts") or []
            left = [member for member in members if not _is_artifact(member, uuid)]
            if len(left) < len(members):
                content = aspectedits.content_of(aspect.entity, aspect.schema, {**aspect.content, "artifacts": left})
                aspectedits.replace(self._api, aspect, aspect.schema, content, alone=False)

    def _items(self, urn: str, uuid: str, *, sure: bool) -> list[AspectRecord]:
        """Return the aspects that make an artifact a member; there may be several.

        Args:
            sure: whether to look at all members where the server finds none.
        """
        found: list[AspectRecord] = []
        if self._knows_paths:
            try:
                found = list(self._items_at(urn, uuid, f'$.item ? (@ == "{ARTIFACT_URN + uuid}")'))
            except _NO_PATHS as exc:
                log.info("the server does not find members by a path (%s): all are looked at from now on", exc)
                self._knows_paths = False
        if not self._knows_paths or (sure and not found):
            found = list(self._items_at(urn, uuid, None))
        return found

    def _items_at(self, urn: str, uuid: str, path: str | None) -> Iterator[AspectRecord]:
        for aspect in self._api.iter_aspects(entity=urn, schema=COLLECTION_ITEM_SCHEMA, content_path=path):
            if _is_artifact(value_in(aspect, "item"), uuid):
                yield aspect

    def _older(self, urn: str) -> list[AspectRecord]:
        """Return the aspects of the older form that are about a collection."""
        found = self._api.iter_aspects(schema=ARTIFACT_COLLECTION_SCHEMA)
        return [aspect for aspect in found if subject(aspect) == urn]


def _is_artifact(member: object, uuid: str) -> bool:
    return isinstance(member, str) and member.startswith(ARTIFACT_URN) and artifact_uuid(member) == uuid
