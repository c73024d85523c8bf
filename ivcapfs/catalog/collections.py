"""Collections: which there are, under which names, and what is in each; now or at a moment of the past.

Used by `ivcapfs.fs.collections`. A collection is an entity with aspects: one that names and describes it, and one for
each member; an older form has one aspect that names all members. One query lists all collections, another tells
everything about one of them. Both answers are kept for a while, and the last ones are shown while the server is down.

Threading: any thread may call anything. Requests run on the pool only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime

from ivcapfs.catalog.gathered import Gathered
from ivcapfs.catalog.index import Index
from ivcapfs.catalog.interface import Folder
from ivcapfs.catalog.kept import Kept, Progress
from ivcapfs.catalog.listing import StoredListing
from ivcapfs.catalog.members import Members, Unsynchronized
from ivcapfs.catalog.names import Parts
from ivcapfs.catalog.schema import microseconds
from ivcapfs.client import Api
from ivcapfs.errors import NoSuchEntry
from ivcapfs.models import (
    ARTIFACT_COLLECTION_SCHEMA,
    COLLECTION_ITEM_SCHEMA,
    COLLECTION_SCHEMA,
    ArtifactRecord,
    ArtifactStatus,
    AspectRecord,
    uuid_text,
)
from ivcapfs.waits import Check

COLLECTION_URN = "urn:ivcap:collection:"
BOTH_FORMS = "urn:ivcap:schema:%collection.1"
"""Matches the schemas of both forms, so that one query is enough; what else it matches is left out here."""
MOST_COLLECTIONS = 50_000
MOST_MEMBERS = 100_000
"""The weight of all lists of collections, and of all members, that are kept."""
ABSENT_SECONDS = 2.0
"""How old the list may be when a name is not in it."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Collection:
    """One collection, as it was described last.

    Attributes:
        uuid: of its URN; of a URN without one, a hash of it.
        name: None where there is none.
        named: the members that the older form names.
    """

    urn: str
    uuid: str
    name: str | None
    description: str | None
    valid_from: datetime
    named: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a collection.

    Attributes:
        members: the artifacts that can be shown.
        count: all members, those included that cannot.
        aspects: of the collection itself, newest first; those that name its members left out.
    """

    members: Gathered
    count: int
    aspects: tuple[AspectRecord, ...]


@dataclass(frozen=True, slots=True)
class _Listed:
    """All collections: their names, and each by its uuid."""

    names: Gathered
    by_uuid: dict[str, Collection] = field(default_factory=dict)


_Moment = datetime | None


class Collections:
    """See the module.

    Args:
        pool: runs the queries.
        keep: seconds that an answer is good.
        bound: seconds that one wait lasts at most without anything coming.
    """

    def __init__(
        self, api: Api, index: Index, members: Members, pool: Executor, *, keep: float, bound: float,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._api = api
        self._index = index
        self._members = members
        self._lists: Kept[_Moment, _Listed] = Kept(
            "the list of collections", self._ask_list, pool, keep=keep, bound=bound, clock=clock, most=MOST_COLLECTIONS,
            weigh=lambda listed: min(listed.names.weight, MOST_COLLECTIONS),
        )  # fmt: skip
        self._contents: Kept[tuple[Collection, _Moment], Contents] = Kept(
            "the collection", self._ask_contents, pool, keep=keep, bound=bound, clock=clock, most=MOST_MEMBERS,
            weigh=lambda contents: min(contents.members.weight + len(contents.aspects), MOST_MEMBERS),
        )  # fmt: skip

    def listing(self, parts: Parts, moment: _Moment, check: Check) -> StoredListing:
        """Begin to read a folder of collections, in which each has an entry like an artifact's.

        Raises:
            NoSuchEntry, NotAFolder: there is no such folder.
            ApiError, TransportError, ProtocolError: the server did not say.
        """
        return self._lists.get(moment, check).names.listing(parts, check)

    def find(self, parts: Parts, moment: _Moment, check: Check) -> tuple[Folder | Collection, Parts]:
        """Return the folder or collection that a path goes to, or into, and the rest of the path within it.

        Raises:
            NoSuchEntry: there is no such collection.
            ApiError, TransportError, ProtocolError: the server did not say.
        """
        found = self._find(self._lists.get(moment, check), parts)
        if found is None and not any(part.startswith(".") for part in parts[:1]):
            found = self._find(self._lists.get(moment, check, younger=ABSENT_SECONDS), parts)
        if found is None:
            raise NoSuchEntry(f"no collection is called {'/'.join(parts)!r}")
        return found

    def contents(self, collection: Collection, moment: _Moment, check: Check) -> Contents:
        """Return what is in a collection.

        Raises:
            ApiError, TransportError, ProtocolError: the server did not say.
        """
        key = (collection, moment)
        if self._contents.is_fresh(key):
            return self._contents.get(key, check)
        if self._index.is_complete():
            self._index.bring_up_to_date(check)
        try:
            return self._contents.get(key, check)
        except Unsynchronized:
            self._index.bring_up_to_date(check)
            return self._contents.get(key, check)

    def _find(self, listed: _Listed, parts: Parts) -> tuple[Folder | Collection, Parts] | None:
        """Walk down as far as there are folders; the first collection on the way has the rest of the path."""
        found: Folder | ArtifactRecord | None = listed.names.root()
        for depth in range(1, len(parts) + 1):
            found = listed.names.get(parts[:depth])
            if isinstance(found, ArtifactRecord):
                return listed.by_uuid[found.uuid], parts[depth:]
        return None if found is None or isinstance(found, ArtifactRecord) else (found, ())

    # -- asking --------------------------------------------------------------------------------------------------

    def _ask_list(self, moment: _Moment, step: Progress) -> _Listed:
        """Ask for all collections; runs on the pool."""
        described: dict[str, Collection] = {}
        older: dict[str, list[AspectRecord]] = {}
        for aspect in self._api.iter_aspects(schema=BOTH_FORMS, include_content=True, at_time=moment):
            step()
            if aspect.schema == COLLECTION_SCHEMA:
                known = described.get(aspect.entity)
                if known is None or aspect.valid_from > known.valid_from:
                    described[aspect.entity] = _described(aspect)
            elif aspect.schema == ARTIFACT_COLLECTION_SCHEMA:
                older.setdefault(_subject(aspect), []).append(aspect)
        for urn, aspects in older.items():
            described[urn] = _with_older(described.get(urn), urn, aspects)
        by_uuid = {collection.uuid: collection for collection in described.values()}
        return _Listed(Gathered(map(_placeholder, by_uuid.values()), "the list of collections"), by_uuid)

    def _ask_contents(self, key: tuple[Collection, _Moment], step: Progress) -> Contents:
        """Ask for all aspects of a collection; runs on the pool."""
        collection, moment = key
        urns = dict.fromkeys(collection.named)
        aspects: list[AspectRecord] = []
        for aspect in self._api.iter_aspects(entity=collection.urn, include_content=True, at_time=moment):
            step()
            if aspect.schema == COLLECTION_ITEM_SCHEMA:
                urns.update(dict.fromkeys(_strings([_value(aspect, "item")])))
            elif aspect.schema != ARTIFACT_COLLECTION_SCHEMA:
                aspects.append(aspect)
        records = self._members.records(urns, step)
        if moment is not None:
            records = (record for record in records if record.created_at <= moment)
        aspects.sort(key=lambda aspect: aspect.valid_from, reverse=True)
        return Contents(Gathered(records, f"the collection {collection.urn}"), len(urns), tuple(aspects))


def _described(aspect: AspectRecord) -> Collection:
    name, text = _value(aspect, "name"), _value(aspect, "description")
    return Collection(
        aspect.entity,
        _uuid_of(aspect.entity),
        name if isinstance(name, str) and name else None,
        text if isinstance(text, str) else None,
        aspect.valid_from,
    )


def _with_older(described: Collection | None, urn: str, aspects: list[AspectRecord]) -> Collection:
    """Return a collection with the members that aspects of the older form name."""
    named = tuple(dict.fromkeys(_members_in(aspects)))
    newest = max(aspects, key=lambda aspect: aspect.valid_from)
    base = described or _described(newest)
    return Collection(urn, _uuid_of(urn), base.name, base.description, base.valid_from, named)


def _members_in(aspects: list[AspectRecord]) -> Iterator[str]:
    for aspect in aspects:
        members = _value(aspect, "artifacts")
        yield from _strings(members if isinstance(members, list) else [])


def _subject(aspect: AspectRecord) -> str:
    """Return the collection that an aspect of the older form is about."""
    named = _value(aspect, "collection")
    return named if isinstance(named, str) and named else aspect.entity


def _value(aspect: AspectRecord, name: str) -> object:
    return aspect.content.get(name) if isinstance(aspect.content, dict) else None


def _strings(values: list[object]) -> Iterator[str]:
    return (value for value in values if isinstance(value, str))


def _uuid_of(urn: str) -> str:
    bare = urn.removeprefix(COLLECTION_URN).lower()
    if bare != urn.lower() and _UUID.fullmatch(bare):
        return bare
    return uuid_text(hashlib.sha256(urn.encode("utf-8", "surrogatepass")).digest()[:16])


def _placeholder(collection: Collection) -> ArtifactRecord:
    """Return what stands for a collection where names are given. One without a name is called by its uuid, or URN."""
    named_by_uuid = collection.urn.lower() == COLLECTION_URN + collection.uuid
    name = collection.name or (None if named_by_uuid else collection.urn)
    return ArtifactRecord(collection.uuid, name, ArtifactStatus.READY, None, 0, collection.valid_from)


def time_ns(collection: Collection) -> int:
    """Return since when a collection stands as it is described, in nanoseconds since the epoch."""
    return microseconds(collection.valid_from) * 1000
