"""Brings a new file to the platform: makes its record, sends its bytes in order, says that it is complete.

Used by `uploader`. While a file is written its length is not known, so it is told with the end (a *deferred length* of
TUS). Where the network fails, the server is asked how far it got, and it goes on from there, as long as the outage is
shorter than `patience`. What was sent and then changed here is sent again under another record; the first stays pending
on the platform, which never lists it. What the answers mean after a crash:

* the record is ready: it is done, whoever said so last; nothing is sent twice;
* the record is not: it goes on from the offset that the server has;
* an empty file is ready as soon as its record is made, so before that the uuids of all its namesakes are noted: one
  that is new afterwards is it.

Threading: any thread; one file is sent by one thread at a time (`Draft.sending`).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from ivcapfs.catalog.asking import all_named
from ivcapfs.client import Api, Uploads
from ivcapfs.client.exchange import FileSlice, rest_of
from ivcapfs.client.tus import Upload, await_ready
from ivcapfs.config import MIB
from ivcapfs.crashing import reach
from ivcapfs.errors import (
    BadRequest,
    Closing,
    Conflict,
    IvcapfsError,
    NotFound,
    OriginRefused,
    ProtocolError,
    ServerFault,
    StorageFull,
    TransportError,
    Unavailable,
)
from ivcapfs.models import ArtifactRecord
from ivcapfs.spool.draft import Draft
from ivcapfs.spool.entry import Begun, Entry, restarted
from ivcapfs.spool.mime import HEAD, mime_type
from ivcapfs.waits import now

log = logging.getLogger(__name__)

V = TypeVar("V")

CHUNK = 8 * MIB
"""Bytes of a request."""
RESTARTS = 3
"""How often one flush begins anew, because the file was changed while it was sent."""
FIRST_WAIT, LONGEST_WAIT = 0.1, 2.0
_NO_DEFERRING = (BadRequest, Conflict, ServerFault)
"""What a server may answer that wants to know the length at the beginning."""


class Sender:
    """See the module.

    Args:
        policy: URN of the policy of new artifacts; None: the platform's own.
        patience: seconds without progress after which a failure is told.
        stopped: asked now and then; True ends everything with `Closing`.
        clock: seconds, only ever forward.
    """

    def __init__(
        self,
        api: Api,
        uploads: Uploads,
        *,
        policy: str | None = None,
        patience: float = 50.0,
        stopped: Callable[[], bool] = lambda: False,
        chunk: int = CHUNK,
        clock: Callable[[], float] = now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api = api
        self._uploads = uploads
        self._policy = policy
        self._patience = patience
        self._stopped = stopped
        self._chunk = chunk
        self._clock = clock
        self._sleep = sleep
        self._defers = True  # whether the server takes a length at the end; a guess, so any thread may set it

    def bring(self, draft: Draft) -> None:
        """Send what there is of a file now, so that the server has all of it; the upload stays open.

        Raises:
            ApiError, TransportError, ProtocolError, ConfigError: the server does not take it.
        """
        with draft.sending:
            draft.acquire()
            try:
                self._bring_all(draft, announced=None)
            finally:
                draft.release()

    def advance(self, draft: Draft) -> None:
        """Send the whole chunks that there are of a file that is being written. Raises as `bring`."""
        with draft.sending:
            draft.acquire()
            try:
                if not draft.stale and self._defers:
                    self._bring_chunks(draft, announced=None, whole=True)
            finally:
                draft.release()

    def complete(self, draft: Draft) -> ArtifactRecord:
        """Make a file that nobody writes any more an artifact; return its record, which is ready.

        Raises:
            ApiError, TransportError, ProtocolError, ConfigError: as `bring`; nothing is lost, call it again.
        """
        with draft.sending:
            draft.acquire()
            try:
                return self._complete(draft)
            except IvcapfsError:
                draft.sending_began = False  # what was asked for may have been done: the next try is to ask
                raise
            finally:
                draft.release()

    def _complete(self, draft: Draft) -> ArtifactRecord:
        if draft.size == 0 and draft.entry.begun is None:
            return self._complete_empty(draft)
        done = self._taken_up(draft)
        if done is not None:
            return done
        _check_whole(draft)
        begun = draft.entry.begun
        draft.set_final(is_final=begun is not None and begun.announced is not None)
        self._bring_all(draft, announced=draft.size)
        begun = draft.entry.begun
        if begun is None:
            raise ProtocolError(f"{draft.entry.path}: the upload was lost")
        reach("before completion")
        if begun.announced is None:
            draft.set_final(is_final=True)
            upload = _upload(begun)
            self._patiently(draft, lambda: self._uploads.finish(upload, draft.size, self._stopped))
        reach("after completion")
        return self._ready(begun.uuid)

    def record(self, uuid: str) -> ArtifactRecord:
        """Return the record of an artifact that was completed before."""
        return self._api.read_artifact(uuid)

    # -- bytes ---------------------------------------------------------------------------------------------------

    def _bring_all(self, draft: Draft, *, announced: int | None) -> None:
        for _ in range(RESTARTS):
            if announced is None and not self._defers and draft.entry.begun is None:
                return  # this server wants to know the length at the beginning: it is sent when that is known
            try:
                self._bring_chunks(draft, announced=announced, whole=False)
            except NotFound as exc:
                log.info("%s: the server has lost the upload, it begins anew (%s)", draft.entry.path, exc)
                self._give_up(draft)
                continue
            if not draft.stale:
                return
        log.debug("%s is being changed while it is sent: the rest is sent later", draft.entry.path)

    def _bring_chunks(self, draft: Draft, *, announced: int | None, whole: bool) -> None:
        begun = self._begun(draft, announced)
        while begun is not None and (claimed := draft.claim(self._chunk, whole=whole)) is not None:
            start, stop = claimed
            self._send(draft, begun, FileSlice(draft.descriptor, start, stop - start))

    def _send(self, draft: Draft, begun: Begun, chunk: FileSlice) -> None:
        """Send one chunk, going on from wherever the server got to; one that is changed meanwhile need not arrive."""
        upload, start = _upload(begun), chunk.start
        is_first_try = True

        def bring() -> None:
            nonlocal is_first_try
            done = 0
            if draft.stale or draft.is_gone:
                return
            if not is_first_try:
                done = self._uploads.offset_of(upload) - start
                if not 0 <= done <= len(chunk):
                    raise ProtocolError(f"{draft.entry.path}: the server is at byte {start + done}, we at {start}")
            is_first_try = False
            if done < len(chunk):
                self._uploads.bring(upload, start + done, rest_of(chunk, done), self._stopped)

        try:
            self._patiently(draft, bring)
        except IvcapfsError:
            draft.sending_began = False  # it may have come further: the next try is to ask
            raise
        reach("chunk sent")
        draft.reached(start + len(chunk))

    # -- records -------------------------------------------------------------------------------------------------

    def _begun(self, draft: Draft, announced: int | None) -> Begun | None:
        """Return the record that the content goes to, made now if there is none; None: that has to wait."""
        begun = draft.entry.begun
        if begun is not None and (draft.stale or begun.announced not in (None, announced)):
            self._give_up(draft)
            begun = None
        elif begun is None and draft.stale:
            draft.begin_anew()
        return begun or self._begin(draft, announced)

    def _begin(self, draft: Draft, announced: int | None) -> Begun | None:
        entry = draft.entry
        kind = mime_type(entry.name, draft.read(HEAD, 0))

        def begin() -> Upload:
            return self._uploads.begin(name=entry.name, content_type=kind, size=announced, policy=self._policy)

        try:
            upload = self._patiently(draft, begin)
        except _NO_DEFERRING as exc:
            if announced is not None:
                self._defers = True  # so it was not for the length
                raise
            if is_passing(exc) or isinstance(exc, StorageFull):
                raise
            log.info("the server wants to know the length of an upload at its beginning: %s", exc)
            self._defers = False
            return None
        reach("upload create")
        begun = Begun(upload.uuid, upload.url, announced)
        after = draft.note(lambda present: replace(present, begun=begun) if _goes_as(present, entry) else present)
        draft.sending_began = True
        if after.begun != begun:
            return self._begin(draft, announced)
        draft.set_final(is_final=announced is not None)  # the last byte completes it
        return begun

    def _give_up(self, draft: Draft) -> None:
        draft.note(restarted)
        draft.begin_anew()

    def _taken_up(self, draft: Draft) -> ArtifactRecord | None:
        """Look what became of an upload that an earlier process, or try, began; return its record if it is done."""
        begun = draft.entry.begun
        if begun is None or draft.sending_began:
            return None
        draft.sending_began = True
        try:
            record = self._patiently(draft, lambda: self._api.read_artifact(begun.uuid))
            if record.is_ready and record.size in (None, draft.size):
                return record
            offset = self._patiently(draft, lambda: self._uploads.offset_of(_upload(begun)))
        except NotFound:
            offset = -1
        if 0 <= offset <= draft.size:
            draft.reached(offset)
        else:
            self._give_up(draft)
        return None

    def _complete_empty(self, draft: Draft) -> ArtifactRecord:
        entry = draft.entry
        there = self._patiently(draft, lambda: self._empties(entry.name))
        twins = entry.twins
        if twins is None:
            twins = tuple(there)
            draft.note(lambda present: replace(present, twins=twins), durable=True)
        for uuid, record in there.items():
            if uuid not in twins:
                return record
        kind = mime_type(entry.name, b"")
        draft.set_final(is_final=True)
        upload = self._uploads.begin(name=entry.name, content_type=kind, size=0, policy=self._policy)
        return self._ready(upload.uuid)

    def _empties(self, name: str) -> dict[str, ArtifactRecord]:
        """Return the empty artifacts of a name that are ready."""
        found = [record for record in all_named(self._api, name) if record.is_ready]
        return {record.uuid: record for record in found if record.size in (0, None)}

    def _ready(self, uuid: str) -> ArtifactRecord:
        return await_ready(self._api, uuid, seconds=self._patience, pause=self._pause, clock=self._clock)

    # -- patience ------------------------------------------------------------------------------------------------

    def _patiently(self, draft: Draft, work: Callable[[], V]) -> V:
        """Return what `work` does, tried again while the server is away, within `patience` seconds."""
        end, wait = self._clock() + self._patience, FIRST_WAIT
        while True:
            try:
                return work()
            except IvcapfsError as exc:
                if not is_passing(exc) or self._clock() + wait > end:
                    raise
                log.debug("%s: going on in %.1f s: %s", draft.entry.path, wait, exc)
            self._pause(wait)
            wait = min(wait * 2, LONGEST_WAIT)

    def _pause(self, seconds: float) -> None:
        end = self._clock() + seconds
        while (left := end - self._clock()) > 0:
            if self._stopped():
                raise Closing("the mount is being taken down")
            self._sleep(min(left, 0.05))


def is_passing(exc: IvcapfsError) -> bool:
    """Return whether a failure may pass by itself: the network, or a server in trouble."""
    if isinstance(exc, TransportError):
        return not isinstance(exc, OriginRefused)
    if isinstance(exc, ServerFault):
        return exc.status in (500, None) and not isinstance(exc, StorageFull)
    return isinstance(exc, Unavailable)


def _upload(begun: Begun) -> Upload:
    return Upload(begun.uuid, begun.url, begun.announced)


def _check_whole(draft: Draft) -> None:
    """See that what the server has not is here: after a power failure it may not be."""
    there = os.fstat(draft.descriptor).st_size
    if there < draft.size and draft.sent < draft.size:
        raise ProtocolError(f"{draft.entry.path}: of its {draft.size} bytes the disk has {there}")


def _goes_as(present: Entry, entry: Entry) -> bool:
    """Return whether a file still goes under the name that a record was made with."""
    return present.name == entry.name and present.begun is None
