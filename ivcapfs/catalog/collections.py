"""Collections: which there are, under which names, and what is in each; now or at a moment of the past.

Used by `ivcapfs.fs.collections`, and by `collectionwriter`, which tells what it changed. A collection is an entity with
aspects: one that names and describes it, and one for each member; an older form has one aspect that names all members.
One query lists all collections, another tells everything about one of them. Both answers are kept for a while, and the
last ones are shown while the server is down.

Threading: any thread may call anything. Requests run on the pool only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from ivcapfs.catalog.gathered import Gathered
from ivcapfs.catalog.index import Index
from ivcapfs.catalog.interface import Folder
from ivcapfs.catalog.kept import Kept, Progress
from ivcapfs.catalog.listing import StoredListing
from ivcapfs.catalog.members import Members, Unsynchronized
from ivcapfs.catalog.names import Parts
from ivcapfs.catalog.schema import nanoseconds
from ivcapfs.client import Api
from ivcapfs.errors import NoSuchEntry
from ivcapfs.models import (
    ARTIFACT_COLLECTION_SCHEMA,
    ARTIFACT_URN,
    COLLECTION_ITEM_SCHEMA,
    COLLECTION_SCHEMA,
    ArtifactRecord,
    ArtifactStatus,
    AspectRecord,
    uuid_text,
)
from ivcapfs.waits import Check, never

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
    """All collections: their names, and each by its uuid; those that are gone, too, for who found one just before."""

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

    # -- what was changed here -----------------------------------------------------------------------------------

    def described(self, collection: Collection) -> None:
        """Show a collection that was made or renamed just now."""

        def put(listed: _Listed) -> _Listed:
            listed.by_uuid[collection.uuid] = collection
            listed.names.put(placeholder(collection))
            return listed

        self._lists.amend(_is_present, put)

    def gone(self, urn: str) -> None:
        """Show a collection no more."""

        def remove(listed: _Listed) -> _Listed:
            listed.names.remove(uuid_of(urn))
            return listed

        self._lists.amend(_is_present, remove)

    def record(self, uuid: str) -> ArtifactRecord | None:
        """Return the record of an artifact, or None where this account has none; may ask for it, and wait for that.

        Raises:
            ApiError, TransportError, ProtocolError: the server did not say.
        """
        self._members.look_again(uuid)
        return next(self._members.records([ARTIFACT_URN + uuid], never), None)

    def joined(self, urn: str, uuid: str) -> None:
        """Show an artifact in a collection into which it was put just now; may ask for its record, and wait for that.

        Raises:
            ApiError, TransportError, ProtocolError: the server did not say.
        """
        record = self.record(uuid)
        if record is None or not record.is_ready:
            self.changed(urn)
            return

        def put(contents: Contents) -> Contents:
            count = contents.count + (not contents.members.has(uuid))
            contents.members.put(record)
            return replace(contents, count=count)

        self._contents.amend(partial(_is_of, urn), put)

    def left(self, urn: str, uuid: str) -> None:
        """Show an artifact no more in a collection out of which it was taken just now."""

        def remove(contents: Contents) -> Contents:
            count = contents.count - contents.members.has(uuid)
            contents.members.remove(uuid)
            return replace(contents, count=count)

        self._contents.amend(partial(_is_of, urn), remove)

    def changed(self, urn: str, *, description: bool = False) -> None:
        """Ask anew for a collection's aspects and members; with its description, for the list, too."""
        self._contents.outdate(partial(_is_of, urn))
        if description:
            self._lists.outdate(_is_present)

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
                    described[aspect.entity] = described_by(aspect)
            elif aspect.schema == ARTIFACT_COLLECTION_SCHEMA:
                older.setdefault(subject(aspect), []).append(aspect)
        for urn, aspects in older.items():
            described[urn] = _with_older(described.get(urn), urn, aspects)
        by_uuid = {collection.uuid: collection for collection in described.values()}
        return _Listed(Gathered(map(placeholder, by_uuid.values()), "the list of collections"), by_uuid)

    def _ask_contents(self, key: tuple[Collection, _Moment], step: Progress) -> Contents:
        """Ask for all aspects of a collection; runs on the pool."""
        collection, moment = key
        urns = dict.fromkeys(collection.named)
        aspects: list[AspectRecord] = []
        for aspect in self._api.iter_aspects(entity=collection.urn, include_content=True, at_time=moment):
            step()
            if aspect.schema == COLLECTION_ITEM_SCHEMA:
                urns.update(dict.fromkeys(_strings([value_in(aspect, "item")])))
            elif aspect.schema != ARTIFACT_COLLECTION_SCHEMA:
                aspects.append(aspect)
        records = self._members.records(urns, step)
        if moment is not None:
            records = (record for record in records if record.created_at <= moment)
        aspects.sort(key=lambda aspect: aspect.valid_from, reverse=True)
        return Contents(Gathered(records, f"the collection {collection.urn}"), len(urns), tuple(aspects))


def _is_present(moment: _Moment) -> bool:
    return moment is None


def _is_of(urn: str, key: tuple[Collection, _Moment]) -> bool:
    return key[0].urn == urn and key[1] is None


def described_by(aspect: AspectRecord) -> Collection:
    """Return the collection that an aspect describes."""
    name, text = value_in(aspect, "name"), value_in(aspect, "description")
    return Collection(
        aspect.entity,
        uuid_of(aspect.entity),
        name if isinstance(name, str) and name else None,
        text if isinstance(text, str) else None,
        aspect.valid_from,
    )


def _with_older(described: Collection | None, urn: str, aspects: list[AspectRecord]) -> Collection:
    """Return a collection with the members that aspects of the older form name."""
    named = tuple(dict.fromkeys(members_in(aspects)))
    newest = max(aspects, key=lambda aspect: aspect.valid_from)
    base = described or described_by(newest)
    return Collection(urn, uuid_of(urn), base.name, base.description, base.valid_from, named)


def members_in(aspects: list[AspectRecord]) -> Iterator[str]:
    """Iterate the members that aspects of the older form name."""
    for aspect in aspects:
        members = value_in(aspect, "artifacts")
        yield from _strings(members if isinstance(members, list) else [])


def subject(aspect: AspectRecord) -> str:
    """Return the collection that an aspect of the older form is about."""
    named = value_in(aspect, "collection")
    return named if isinstance(named, str) and named else aspect.entity


def value_in(aspect: AspectRecord, name: str) -> object:
    """Return a field of an aspect's content, or None."""
    return aspect.content.get(name) if isinstance(aspect.content, dict) else None


def _strings(values: list[object]) -> Iterator[str]:
    return (value for value in values if isinstance(value, str))


def uuid_of(urn: str) -> str:
    """Return the uuid of a collection's URN; of one without, a hash of it."""
    bare = urn.removeprefix(COLLECTION_URN).lower()
    if bare != urn.lower() and _UUID.fullmatch(bare):
        return bare
    return uuid_text(hashlib.sha256(urn.encode("utf-8", "surrogatepass")).digest()[:16])


def placeholder(collection: Collection) -> ArtifactRecord:
    """Return what stands for a collection where names are given. One without a name is called by its uuid, or URN."""
    named_by_uuid = collection.urn.lower() == COLLECTION_URN + collection.uuid
    name = collection.name or (None if named_by_uuid else collection.urn)
    return ArtifactRecord(collection.uuid, name, ArtifactStatus.READY, None, 0, collection.valid_from)


def time_ns(collection: Collection) -> int:
    """Return since when a collection stands as it is described, in nanoseconds since the epoch."""
    return nanoseconds(collection.valid_from)
