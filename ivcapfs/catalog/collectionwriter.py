"""Collections made, renamed, filled, emptied and taken away, by their paths.

Used by the writing operations (mkdir, rmdir, link, unlink, rename), and by whoever uploads into a collection. What the
platform is told is in `memberships`; what was done is shown at once (see `Collections.described`, `joined`, …).

Threading: any thread may call anything. Requests run on the pool only; the changes of one collection are made in turn.
"""

from __future__ import annotations

import logging
import threading
import uuid as uuids
from collections.abc import Callable
from concurrent.futures import Executor

from cachetools import TTLCache

from ivcapfs.catalog.collections import COLLECTION_URN, Collection, Collections
from ivcapfs.catalog.interface import Folder
from ivcapfs.catalog.memberships import Memberships
from ivcapfs.catalog.names import Parts, decode, id_in, id_path, plain_path
from ivcapfs.client import Api
from ivcapfs.errors import (
    AlreadyThere,
    Invalid,
    IsAFolder,
    IvcapfsError,
    NoSuchEntry,
    NotAFolder,
    NotAllowed,
    NotEmpty,
)
from ivcapfs.models import ARTIFACT_URN, EPOCH, ArtifactRecord, ArtifactStatus, ListedArtifact
from ivcapfs.waits import Check, InTurn, never, now

log = logging.getLogger(__name__)

EMPTIED = 4096
EMPTIED_SECONDS = 300.0
"""How long a folder that went with the last that was in it can still be removed: ``rm -r`` comes to that only then."""

_ANY = str(uuids.UUID(int=0))


class CollectionWriter:
    """See the module. Paths are given below `collections/`.

    Args:
        pool: runs the requests.
        bound: seconds that one wait lasts at most.
    """

    def __init__(self, api: Api, collections: Collections, pool: Executor, bound: float) -> None:
        self._memberships = Memberships(api)
        self._collections = collections
        self._bound = bound
        self._turns: InTurn[str] = InTurn(pool)
        self._lock = threading.Lock()
        self._emptied: TTLCache[Parts, bool] = TTLCache(EMPTIED, EMPTIED_SECONDS, now)  # guarded by _lock

    # -- collections ---------------------------------------------------------------------------------------------

    def make(self, parts: Parts, check: Check) -> str:
        """Make a collection (mkdir(2)); return its URN (``POST /1/aspects`` of its description).

        Raises:
            AlreadyThere: there is a collection or a folder of that name.
            NoSuchEntry: the folder that it is to be in is not there.
            NotAllowed: it would be in a collection, where folders come with the names of members.
            Invalid: no collection can have that name.
            ApiError, TransportError, ProtocolError: the server refused, or did not say.
        """
        name = self._free_name(parts, check)
        urn = COLLECTION_URN + str(uuids.uuid4())
        self._in_turn(urn, lambda: self._describe(urn, name), check)
        return urn

    def rename(self, source: Parts, target: Parts, check: Check) -> None:
        """Give a collection another name (rename(2)); its members and description stay.

        Raises:
            NoSuchEntry, NotAllowed: there is no collection `source`, but perhaps something else.
            others: as `make`, of `target`.
        """
        collection = self._own(source, check)
        if source == target:
            return
        name = self._free_name(target, check)
        self._in_turn(collection.urn, lambda: self._describe(collection.urn, name, collection.named), check)
        self._note_emptied(source, check)

    def remove(self, parts: Parts, check: Check) -> None:
        """Take an empty collection away (rmdir(2)): retract what describes it.

        Raises:
            NotEmpty: it has members, if only such as cannot be shown; or there is a folder of that name.
            NoSuchEntry, NotAFolder: there is no such folder.
            ApiError, TransportError, ProtocolError: the server refused, or did not say.
        """
        try:
            collection = self._removable(parts, check)
        except NoSuchEntry:
            with self._lock:
                if self._emptied.pop(parts, False):
                    return
            raise
        self._in_turn(collection.urn, lambda: self._remove(collection), check)
        self._note_emptied(parts, check)

    # -- members -------------------------------------------------------------------------------------------------

    def collection_of(self, parts: Parts, check: Check) -> tuple[str, Parts]:
        """Return the URN of the collection that a path goes to, or into, and the rest of the path within it.

        Raises:
            NoSuchEntry: there is none.
            NotAllowed: there is a folder of collections, which has no members itself.
            ApiError, TransportError, ProtocolError: the server did not say.
        """
        found, rest = self._find(parts, check)
        if isinstance(found, Folder):
            raise NotAllowed(f"{_text(parts)} is no collection: make one with mkdir, and put members into that")
        return found.urn, rest

    def add(self, parts: Parts, uuid: str, check: Check) -> None:
        """Put an artifact into a collection (link(2)); one that is in it already stays.

        Args:
            parts: the collection's path, or one in it under which the artifact would be shown.

        Raises:
            NoSuchEntry: there is no collection.
            NotAllowed: it would be shown under another path; or see `collection_of`.
            ApiError, TransportError, ProtocolError: the server refused, or did not say.
        """
        urn, rest = self.collection_of(parts, check)
        self._in_turn(urn, lambda: self._add(urn, uuid, rest), check)

    def add_by_urn(self, urn: str, uuid: str, check: Check = never) -> None:
        """Put an artifact into a collection whose URN is known, perhaps for the second time.

        Raises:
            ApiError, TransportError, ProtocolError: the server refused, or did not say.
        """
        self._in_turn(urn, lambda: self._add(urn, uuid), check)

    def discard(self, parts: Parts, check: Check) -> None:
        """Take a member out of its collection (unlink(2)); the artifact itself stays.

        Raises:
            NoSuchEntry: there is no such member.
            IsAFolder: there is a folder of that name.
            ApiError, TransportError, ProtocolError: the server refused, or did not say.
        """
        collection, record = self._member(parts, check)
        self._in_turn(collection.urn, lambda: self._discard(collection, record.uuid), check)
        self._note_emptied(parts, check)

    def move(self, source: Parts, target: Parts, check: Check) -> None:
        """Take a member of one collection into another (rename(2)): it is added there first.

        Args:
            source: the member's path.
            target: as in `add`.

        Raises:
            NotAllowed: it would get another name in the same collection; or see `collection_of`.
            others: as `add` and `discard`.
        """
        collection, record = self._member(source, check)
        urn, rest = self.collection_of(target, check)
        if urn == collection.urn:
            if rest and target != source:
                raise NotAllowed(f"{_text(source)}: a member's name is that of its artifact, which cannot be renamed")
            return
        self._in_turn(urn, lambda: self._add(urn, record.uuid, rest), check)
        self._in_turn(collection.urn, lambda: self._discard(collection, record.uuid), check)
        self._note_emptied(source, check)

    # -- looking -------------------------------------------------------------------------------------------------

    def _find(self, parts: Parts, check: Check) -> tuple[Folder | Collection, Parts]:
        return self._collections.find(parts, None, check)

    def _own(self, parts: Parts, check: Check) -> Collection:
        """Return the collection whose own path this is."""
        found, rest = self._find(parts, check)
        if isinstance(found, Folder) or rest:
            raise NotAllowed(f"{_text(parts)} is no collection")
        return found

    def _removable(self, parts: Parts, check: Check) -> Collection:
        """Return the collection whose own path this is, or say why rmdir(2) does not remove what is there."""
        found, rest = self._find(parts, check)
        if isinstance(found, Folder):
            raise NotEmpty(f"{_text(parts)} is not empty: there are collections in it")
        if not rest:
            return found
        if isinstance(self._collections.contents(found, None, check).members.find(rest, check), Folder):
            raise NotEmpty(f"{_text(parts)} is not empty: it is there as long as a member's name begins so")
        raise NotAFolder(f"{_text(parts)} is a file")

    def _note_emptied(self, parts: Parts, check: Check) -> None:
        """Take note of the folders that went with what was at a path."""
        for depth in range(len(parts) - 1, 0, -1):
            try:
                found, rest = self._find(parts[:depth], check)
                if rest and isinstance(found, Collection):
                    self._collections.contents(found, None, check).members.find(rest, check)
                return
            except NoSuchEntry:
                with self._lock:
                    self._emptied[parts[:depth]] = True
            except IvcapfsError as exc:
                log.debug("%s: whether it went is not known: %s", _text(parts[:depth]), exc)
                return

    def _member(self, parts: Parts, check: Check) -> tuple[Collection, ArtifactRecord]:
        found, rest = self._find(parts, check)
        if isinstance(found, Folder) or not rest:
            raise IsAFolder(f"{_text(parts)} is no member of a collection")
        record = self._collections.contents(found, None, check).members.find(rest, check)
        if isinstance(record, Folder):
            raise IsAFolder(f"{_text(parts)} is a folder, because names of members begin so")
        return found, record

    def _free_name(self, parts: Parts, check: Check) -> str:
        """Return the name of the collection that would be shown at a path at which there is nothing."""
        try:
            found, rest = self._find(parts, check)
        except NoSuchEntry:
            if len(parts) > 1:
                self._find(parts[:-1], check)
        else:
            if isinstance(found, Collection) and rest:
                raise NotAllowed(f"{_text(parts)}: there are no collections in a collection")
            raise AlreadyThere(f"{_text(parts)} is there already")
        name = decode(parts)
        if "\0" in name or not _is_unicode(name):
            raise Invalid(f"no collection can be called {_text(parts)!r}: the platform takes no such characters")
        shown = plain_path(ListedArtifact(_ANY, name, ArtifactStatus.READY, None, 0, EPOCH))
        if shown != parts:
            raise Invalid(f"no collection can be called {_text(parts)!r}: it would be shown as {_text(shown)!r}")
        return name

    # -- writing, on the pool, alone for this collection ---------------------------------------------------------

    def _in_turn(self, urn: str, work: Callable[[], None], check: Check) -> None:
        self._turns.wait(urn, work, check, self._bound, f"the collection {urn}")

    def _describe(self, urn: str, name: str, named: tuple[str, ...] = ()) -> None:
        aspect = self._memberships.describe(urn, name)
        try:
            self._collections.described(self._memberships.described(aspect, named))
        except IvcapfsError as exc:
            log.debug("the collection %s stands, but what describes it cannot be read: %s", urn, exc)
            self._collections.changed(urn, description=True)

    def _remove(self, collection: Collection) -> None:
        urn = collection.urn
        member = self._memberships.any_member(urn)
        if member is not None:
            self._collections.changed(urn)
            raise NotEmpty(f"the collection {urn} is not empty: it has {member[:100]!r}, even if that is not shown")
        try:
            self._memberships.end(urn)
        except IvcapfsError:
            self._collections.changed(urn, description=True)
            raise
        self._collections.gone(urn)

    def _add(self, urn: str, uuid: str, path: Parts = ()) -> None:
        record = self._collections.record(uuid) if path else None
        if record is not None and not _is_shown_at(record, path):
            raise NotAllowed(f"{record.urn} would be shown as {_text(plain_path(record))!r}, not as {_text(path)!r}")
        self._memberships.add(urn, uuid)
        try:
            self._collections.joined(urn, uuid)
        except IvcapfsError as exc:
            log.debug("%s is in the collection %s, but its record cannot be read: %s", uuid, urn, exc)
            self._collections.changed(urn)

    def _discard(self, collection: Collection, uuid: str) -> None:
        urn, is_older = collection.urn, ARTIFACT_URN + uuid in collection.named
        try:
            if is_older:
                self._memberships.discard_older(urn, uuid)
            self._memberships.discard(urn, uuid)
        except IvcapfsError:
            self._collections.changed(urn, description=is_older)
            raise
        self._collections.left(urn, uuid)
        if is_older:
            self._collections.changed(urn, description=True)


def _is_shown_at(record: ArtifactRecord, path: Parts) -> bool:
    """Return whether an artifact can be opened under a path in a set: its plain one, or one of the @id form."""
    digits = id_in(path[-1])
    return path == plain_path(record) or (digits is not None and path == id_path(record, len(digits)))


def _text(parts: Parts) -> str:
    return "/".join(parts)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)
