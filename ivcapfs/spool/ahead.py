"""Sending a large file while it is written, and holding back who writes faster than it can be sent.

Used by `uploader`. Without this the writer of a large file would be done at once, and then wait in close(2) for all of
it. So it sees how fast it really goes, and the spool's disk does not fill with what cannot leave.

Threading: any thread may call anything; `Ahead._lock` guards which files are being sent. Requests run on the pool.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Executor

from ivcapfs.config import MIB
from ivcapfs.errors import Closing, IvcapfsError
from ivcapfs.spool.draft import Draft
from ivcapfs.spool.sender import Sender
from ivcapfs.waits import POLL_SECONDS, Check, submit

log = logging.getLogger(__name__)

AHEAD = 64 * MIB
"""Size from which a file is sent while it is written."""
BEHIND = 32 * MIB
"""Bytes that the sending of it may be behind the writing."""
FILES = 8
"""Files that are sent so at the same time."""


class Ahead:
    """See the module."""

    def __init__(self, sender: Sender, pool: Executor) -> None:
        self._sender = sender
        self._pool = pool
        self._lock = threading.Lock()
        self._sent: set[Draft] = set()  # guarded by _lock

    def written(self, draft: Draft, check: Check) -> None:
        """More of a file was written: begin to send it, if that is worth it; wait while the sending is far behind.

        Raises:
            Interrupted, Closing: the wait was ended by `check`.
        """
        if self._is_worth_it(draft):
            self._begin(draft)
        while draft.size - draft.sent > BEHIND and self._is_sent(draft):
            with draft.lock:
                draft.progress.wait(POLL_SECONDS)
            check()

    def _is_worth_it(self, draft: Draft) -> bool:
        return draft.size >= AHEAD and draft.in_order and not draft.entry.is_hidden and draft.failure is None

    def _is_sent(self, draft: Draft) -> bool:
        with self._lock:
            return draft in self._sent

    def _begin(self, draft: Draft) -> None:
        with self._lock:
            if draft in self._sent or len(self._sent) >= FILES:
                return
            self._sent.add(draft)
        try:
            submit(self._pool, self._send, draft)
        except Closing:
            self._end(draft)

    def _send(self, draft: Draft) -> None:
        """Runs on the pool."""
        try:
            self._sender.advance(draft)
        except Closing:
            pass
        except IvcapfsError as exc:
            log.info("%s: sending ahead failed, close(2) will try again: %s", draft.entry.path, exc)
            with draft.lock:
                draft.in_order = False  # not again before
        except Exception:
            log.exception("%s: unexpected", draft.entry.path)
        finally:
            self._end(draft)

    def _end(self, draft: Draft) -> None:
        with self._lock:
            self._sent.discard(draft)
        with draft.lock:
            draft.progress.notify_all()
