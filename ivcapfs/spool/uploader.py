"""When new files are sent: what close(2) waits for, what goes on in the background, and what is tried again.

* **A flush** sends what was written so far, and its caller waits: so close(2) tells the truth.
* **While a large file is written**, whole chunks of it go ahead (`ahead`), so that little is left to do at the end.
* **A closed file** is completed after a short settling time, in which it may be renamed, or removed. Where the server
  is away then, it is tried again for ever, less and less often; where it refuses, the file is kept as failed.

Used by `ivcapfs.fs`. What is still to be done with a new artifact (collections, aspects), and who has to know of it, is
the business of the `Arrivals` given here.

Threading: any thread may call anything. `Uploader._condition` guards the list of what is due. Requests run on two pools
of fixed size; one more thread waits for what is due.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from ivcapfs.errors import CatalogError, Closing, CredentialError, IvcapfsError, NoSpace, NotAuthenticated
from ivcapfs.models import ArtifactRecord
from ivcapfs.spool.ahead import Ahead
from ivcapfs.spool.draft import Draft
from ivcapfs.spool.drafts import Drafts
from ivcapfs.spool.entry import Entry, State
from ivcapfs.spool.sender import Sender, is_passing
from ivcapfs.waits import now, settle

log = logging.getLogger(__name__)

FLUSHES = 16
"""Files that are sent at the same time because somebody waits for it, or writes them."""
COMPLETIONS = 4
"""Files that are completed at the same time."""
FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0
_PASSING = (NotAuthenticated, CredentialError, NoSpace, CatalogError)
"""What passes by itself, too: somebody logs in, or makes room."""


class Arrivals(Protocol):
    """What happens with an upload that is complete."""

    def arrived(self, draft: Draft, record: ArtifactRecord) -> None:
        """Do what is still to be done, and let the catalog know. Raises like a request; it is called again then."""
        ...

    def seen(self, draft: Draft) -> None:
        """The path shows the artifact from now on."""
        ...


class Uploader:
    """See the module.

    Args:
        settle: seconds between close(2) and completion.
        clock: seconds, only ever forward.
    """

    def __init__(
        self,
        drafts: Drafts,
        sender: Sender,
        arrivals: Arrivals,
        *,
        settle: float = 2.0,
        clock: Callable[[], float] = now,
    ) -> None:
        self._drafts = drafts
        self._sender = sender
        self._arrivals = arrivals
        self._settle = settle
        self._clock = clock
        self._flushes = ThreadPoolExecutor(FLUSHES, thread_name_prefix="flush")
        self._ahead = Ahead(sender, self._flushes)
        self.written = self._ahead.written
        self._completions = ThreadPoolExecutor(COMPLETIONS, thread_name_prefix="complete")
        self._condition = threading.Condition()
        self._due: list[tuple[float, int, Draft]] = []  # a heap; guarded by _condition
        self._numbers = itertools.count()
        self._busy: set[Draft] = set()  # being completed; guarded by _condition
        self._closing = False  # guarded by _condition
        self._hurried = False  # guarded by _condition
        self._waits: dict[str, float] = {}  # seconds until the next try, by entry; guarded by _condition
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)
        self._thread.start()

    # -- while it is open ----------------------------------------------------------------------------------------

    def flush(self, draft: Draft, *, is_close: bool) -> Future[None]:
        """Make what was written so far durable, here and on the server.

        Args:
            is_close: whether the file will count as closed, if nothing more is written.

        Returns:
            Done when it is; its exception is what close(2) or fsync(2) tells.
        """
        future: Future[None] = Future()
        with draft.lock:
            draft.ticket += 1
            ticket = draft.ticket
        try:
            self._flushes.submit(self._flush, draft, is_close, ticket, future)
        except RuntimeError:
            future.set_exception(Closing("the mount is being taken down"))
        return future

    def _flush(self, draft: Draft, is_close: bool, ticket: int, future: Future[None]) -> None:
        """Runs on the pool."""
        try:
            self._flush_now(draft, ticket, is_close=is_close)
        except Exception as exc:  # noqa: BLE001 - handed on to whoever waits
            with draft.lock:
                if draft.ticket == ticket:
                    draft.failure = exc if isinstance(exc, IvcapfsError) else IvcapfsError(f"unexpected: {exc!r}")
            settle(future, exc)
        else:
            settle(future, None)

    def _flush_now(self, draft: Draft, ticket: int, *, is_close: bool) -> None:
        with draft.lock:
            changes, is_new = draft.changes, draft.changes > draft.flushed
            wants_sending = is_new and not draft.entry.is_hidden and (draft.size > 0 or draft.entry.begun is not None)
        if is_new and changes:
            try:
                if wants_sending and (is_close or draft.restarts == 0):
                    self._sender.bring(draft)
            finally:
                if not draft.is_on_server():
                    draft.sync()
        with draft.lock:
            draft.flushed = max(draft.flushed, changes)
            if draft.ticket != ticket:
                return
            draft.failure = None
            is_final = is_close and draft.changes == changes
            if is_close:
                draft.closed_at = max(draft.closed_at, changes)
            size, mtime_ns = draft.size, draft.mtime_ns
        if is_final and not draft.is_gone and draft.entry.state in (State.WRITING, State.CLOSED):
            draft.note(_closed(draft, size, mtime_ns), durable=changes > 0)

    # -- when it is closed ---------------------------------------------------------------------------------------

    def note_closed(self, draft: Draft, size: int, mtime_ns: int) -> None:
        """Write into the journal that a file is closed, so that it becomes an artifact whatever happens."""
        draft.note_anyway(_closed(draft, size, mtime_ns))

    def complete_later(self, draft: Draft, *, at_once: bool = False) -> None:
        """Complete a closed file after the settling time; hidden ones stay."""
        if draft.entry.is_hidden:
            return
        with self._condition:
            self._schedule(draft, 0.0 if at_once or self._hurried else self._settle)

    def await_idle(self, seconds: float) -> int:
        """Wait until nothing is left to be completed; return how many files are after so many seconds."""
        end = self._clock() + seconds
        with self._condition:
            while (left := self._pending()) and (wait := end - self._clock()) > 0 and not self._closing:
                self._condition.wait(min(wait, 0.5))
        return left

    def _pending(self) -> int:
        entries = [draft.entry for draft in self._drafts.all()]
        return sum(entry.state is State.CLOSED and not entry.is_hidden for entry in entries)

    def hurry(self, *, for_good: bool = False) -> None:
        """What is closed is completed now; `for_good`: also what will be closed from now on."""
        with self._condition:
            self._hurried = self._hurried or for_good
            waiting = [draft for _, _, draft in self._due]
            self._due.clear()
            for draft in waiting:
                self._schedule(draft, 0.0)

    def close(self) -> None:
        """Begin nothing more. What is left is in the journal. May be called again."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        for pool in (self._flushes, self._completions):
            pool.shutdown(wait=False, cancel_futures=True)

    def _schedule(self, draft: Draft, wait: float) -> None:
        """Put a file on the list. The condition is held."""
        draft.due = self._clock() + wait
        heapq.heappush(self._due, (draft.due, next(self._numbers), draft))
        self._condition.notify_all()

    def _run(self) -> None:
        """Hand on what is due; runs on its own thread."""
        while True:
            with self._condition:
                while not self._closing and (not self._due or self._due[0][0] > self._clock()):
                    left = self._due[0][0] - self._clock() if self._due else None
                    self._condition.wait(left)
                if self._closing:
                    return
                due, _, draft = heapq.heappop(self._due)
                if draft.due != due:
                    continue
                if draft in self._busy:  # perhaps in its last moments, in which nobody looks at what is due
                    self._schedule(draft, FIRST_RETRY)
                    continue
                self._busy.add(draft)
            try:
                self._completions.submit(self._complete, draft)
            except RuntimeError:
                return

    def _complete(self, draft: Draft) -> None:
        """Complete one file, if it is still to be; runs on the pool."""
        wait: float | None = None
        try:
            with draft.journal_lock, draft.lock:
                entry = draft.entry
                is_wanted = entry.state is State.CLOSED and not entry.is_hidden and draft.due is not None
                draft.is_ending = is_wanted = is_wanted and not draft.writers and not draft.is_gone
            if is_wanted:
                self._arrive(draft)
        except Closing:
            pass
        except IvcapfsError as exc:
            wait = self._note_failure(draft, exc)
        except Exception as exc:
            log.exception("%s: unexpected", draft.entry.path)
            wait = self._note_failure(draft, IvcapfsError(f"unexpected: {exc!r}"))
        finally:
            with draft.lock:
                draft.is_ending = draft.is_final
            with self._condition:
                self._busy.discard(draft)
                if wait is not None and not self._closing:
                    self._schedule(draft, wait)

    def _arrive(self, draft: Draft) -> None:
        if draft.entry.record is None:
            record = self._sender.complete(draft)
            # Unjournalled it would be found to be ready by the next mount: nothing is sent twice.
            draft.note_anyway(lambda entry: replace(entry, record=record.uuid, begun=None))
            log.info("%s is artifact %s", draft.entry.path, record.uuid)
        else:
            record = self._sender.record(draft.entry.record)
        draft.set_final(is_final=True)
        seen = None
        while seen is None or not draft.leave(seen):  # else an aspect was set, or a time, while they were sent
            seen = draft.entry
            self._arrivals.arrived(draft, record)
        if self._drafts.take_away(draft):
            self._arrivals.seen(draft)
        draft.folder.remove(draft.entry)
        with self._condition:
            self._waits.pop(draft.entry.id, None)
            self._condition.notify_all()

    def _note_failure(self, draft: Draft, exc: IvcapfsError) -> float | None:
        """Return the seconds until the next try, or None where there is to be none."""
        if is_passing(exc) or isinstance(exc, _PASSING):
            with self._condition:
                before = self._waits.get(draft.entry.id)
                wait = FIRST_RETRY if before is None else min(before * 2, LONGEST_RETRY)
                self._waits[draft.entry.id] = wait
            level = logging.WARNING if before is None else logging.DEBUG
            log.log(level, "%s waits until it can be sent: %s", draft.entry.path, exc)
            return wait
        self.fail(draft, State.FAILED, str(exc))
        return None

    def fail(self, draft: Draft, state: State, reason: str) -> None:
        """Keep a file that is not to be sent by itself."""
        log.warning("%s is kept in the spool, %s: %s (ivcapfs uploads list)", draft.entry.path, state, reason)
        with draft.lock:
            size, mtime_ns = draft.size, draft.mtime_ns
            draft.is_final = draft.entry.record is not None  # then it is an artifact, whatever else was refused
        draft.note_anyway(_in_state(draft, state, size, mtime_ns, reason))

    def let_go(self, draft: Draft) -> None:
        """Allow a failed file to be removed though it is an artifact: what was to be done with that is given up."""
        with draft.lock:
            if draft.entry.state is State.FAILED:
                draft.is_final = draft.is_ending = False

    def retry(self, draft: Draft) -> None:
        """Send a failed or interrupted file after all, as it is now.

        Raises:
            NoSpace, FileSystemError: the journal cannot be written.
        """
        draft.acquire()
        try:
            with draft.lock:
                size = os.fstat(draft.descriptor).st_size
                mtime_ns = draft.mtime_ns
            draft.note(_closed(draft, size, mtime_ns))
        finally:
            draft.release()
        with self._condition:
            self._waits.pop(draft.entry.id, None)
        self.complete_later(draft, at_once=True)


def _closed(draft: Draft, size: int, mtime_ns: int) -> Callable[[Entry], Entry]:
    return _in_state(draft, State.CLOSED, size, mtime_ns)


def _in_state(draft: Draft, state: State, size: int, mtime_ns: int, reason: str = "") -> Callable[[Entry], Entry]:
    """Return what makes an entry tell that a file is not written any more, and no more of an upload that is stale:
    after a crash nobody would know that, and go on with it."""

    def change(entry: Entry) -> Entry:
        begun = None if draft.stale else entry.begun
        return replace(entry, state=state, reason=reason, size=size, mtime_ns=mtime_ns, begun=begun)

    return change
