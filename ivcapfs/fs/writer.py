"""The rules for contents in a mount that writes: who may write what, and what becomes of it when it is closed.

Artifacts are immutable; so a new file is a new artifact, and one whose name it takes stays under its @id form.
`docs/SEMANTICS.md` tells each rule with its errno; those for names are in `renaming`.

Used by `ivcapfs.fs.writing`, which holds the handles. Threading: any thread may call anything; the state is that of the
drafts and the uploader.
"""

from __future__ import annotations

import os
from concurrent.futures import Future

from ivcapfs.catalog.names import Parts
from ivcapfs.errors import (
    FileSystemError,
    InUse,
    IsAFolder,
    NotAllowed,
)
from ivcapfs.fs.bindings import Bindings
from ivcapfs.fs.nodes import DraftNode, FileNode, FolderNode, Node
from ivcapfs.fs.placing import Places
from ivcapfs.spool.draft import Draft
from ivcapfs.spool.drafts import Drafts
from ivcapfs.spool.entry import Entry, State
from ivcapfs.spool.spool import Spool
from ivcapfs.spool.uploader import Uploader
from ivcapfs.waits import Check, wait_for

FLUSH_SECONDS = 86_400.0
"""The bound on one flush as a whole; the sender's own, without progress, comes long before."""


class Writer:
    """See the module."""

    def __init__(
        self, spool: Spool, drafts: Drafts, uploader: Uploader, bindings: Bindings, places: Places, check: Check
    ) -> None:
        self._spool = spool
        self._drafts = drafts
        self._uploader = uploader
        self._bindings = bindings
        self._places = places
        self._check = check

    def create(self, parts: Parts) -> Draft:
        """Make a new file at a path, open for writing once.

        Raises:
            ReadOnly, NotAllowed, Invalid, NameTooLong, NoSpace, FileSystemError: not there, or not so.
        """
        below, collection = self._places.of(parts)
        draft = self._spool.new(Entry(parts, below=below, collection=collection))
        draft.opened(writes=True)
        self._drafts.put(draft)
        return draft

    def open(self, path: str, parts: Parts, node: Node, flags: int) -> Draft:
        """Open an existing file for writing.

        Raises:
            NotAllowed: it is an artifact, and not to be replaced by a new one.
            InUse: it is to be, but somebody reads it.
        """
        truncates = bool(flags & os.O_TRUNC)
        match node:
            case DraftNode(draft=draft) if draft.opened(writes=True):
                if truncates and draft.size:
                    try:
                        draft.truncate(0)
                    except BaseException:
                        self.closed(draft)
                        raise
                return draft
            case FileNode() | DraftNode() if truncates:
                if self._bindings.pinned(path) is not None:
                    raise InUse(f"{path} is open for reading: the new file cannot have its name now")
                return self.create(parts)
            case FolderNode():
                raise IsAFolder(f"{path} cannot be written as a file")
        raise NotAllowed(f"{path}: artifacts are immutable")

    def truncate(self, path: str, node: Node, size: int) -> None:
        """Cut or lengthen a file by its path (truncate(2)).

        Raises:
            NotAllowed: it is an artifact.
        """
        if not isinstance(node, DraftNode) or not node.draft.opened(writes=True):
            raise NotAllowed(f"{path}: artifacts are immutable")
        try:
            node.draft.truncate(size)
        finally:
            self.closed(node.draft)

    def flush(self, draft: Draft, *, is_close: bool) -> None:
        """Make what was written so far durable, here and on the server; wait for it.

        Raises:
            IvcapfsError: it is not.
        """
        self._await(self._uploader.flush(draft, is_close=is_close), draft)

    def closed(self, draft: Draft) -> None:
        """One who could write has closed a file: the last one leaves an artifact to be, or a failed file."""
        if not draft.closed(writes=True):
            return
        with draft.lock:
            changes, failure, state = draft.changes, draft.failure, draft.entry.state
            is_killed = draft.killed and changes > draft.closed_at
            size, mtime_ns = draft.size, draft.mtime_ns
            if draft.is_gone:
                return
        if state in (State.FAILED, State.INTERRUPTED):
            return  # opened and closed again, not changed
        if failure is not None:
            self._uploader.fail(draft, State.FAILED, str(failure))
        elif is_killed:
            self._uploader.fail(draft, State.INTERRUPTED, "who wrote it was killed")
        else:
            if state is not State.CLOSED:
                self._uploader.note_closed(draft, size, mtime_ns)
            self._uploader.complete_later(draft)

    def discard(self, draft: Draft, *, is_replaced: bool = False) -> None:
        """Remove a new file.

        Args:
            is_replaced: by one that takes its path.
        """
        with draft.journal_lock:
            with draft.lock:
                if draft.is_ending and is_replaced:
                    return  # it becomes an artifact, and this path goes to the other one
                if draft.is_ending:
                    raise InUse(f"{draft.entry.path} is becoming an artifact")
                draft.is_gone, draft.due = True, None
            self._drafts.take_away(draft)
            draft.folder.remove(draft.entry)

    def drop_hidden(self, draft: Draft) -> None:
        """Remove a file that was removed while it was open, and is not open any more.

        libfuse does so itself, unless the last handle was released while it was giving the file its hidden name.
        """
        with draft.lock:
            is_left = draft.handles == 0 and draft.entry.is_removed and not draft.is_gone
        if is_left:
            self.discard(draft)

    def _await(self, future: Future[None], draft: Draft) -> None:
        try:
            wait_for(future, self._check, FLUSH_SECONDS, f"sending {draft.entry.path}")
        except FileSystemError as exc:
            with draft.lock:  # whatever becomes of it now, whoever waited was told that it failed
                draft.ticket += 1
                draft.failure = exc
            raise
