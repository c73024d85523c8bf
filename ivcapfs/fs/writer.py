"""The rules of a mount that writes: what may become of a path, and with which refusal if not.

Artifacts are immutable, and never deleted or renamed; so a new file is a new artifact, and what it replaces stays under
its @id form. `docs/SEMANTICS.md` tells each rule with its errno.

Used by `ivcapfs.fs.writing`, which holds the handles. Threading: any thread may call anything; the state is that of the
drafts and the uploader.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Protocol

from ivcapfs.catalog.names import MAX_COMPONENT, MAX_PATH, Parts, decode, encode, encode_component
from ivcapfs.errors import (
    AlreadyThere,
    FileSystemError,
    InUse,
    Invalid,
    IsAFolder,
    IvcapfsError,
    NameTooLong,
    NoSuchEntry,
    NotAFolder,
    NotAllowed,
    NotEmpty,
    ReadOnly,
)
from ivcapfs.fs.bindings import Bindings
from ivcapfs.fs.nodes import DraftNode, FileNode, FolderNode, Node
from ivcapfs.fs.tree import Nodes
from ivcapfs.spool.draft import Draft
from ivcapfs.spool.drafts import Drafts, Made
from ivcapfs.spool.entry import ARTIFACTS, COLLECTIONS, Entry, State
from ivcapfs.spool.spool import Spool
from ivcapfs.spool.uploader import Uploader
from ivcapfs.waits import POLL_SECONDS, Check, now, wait_for

FLUSH_SECONDS = 86_400.0
"""The bound on one flush as a whole; the sender's own, without progress, comes long before."""
COMPLETE_SECONDS = 60.0
RENAME_NOREPLACE = 1
"""Of renameat2(2); the other flags are refused."""


class CollectionRules(Protocol):
    """What a path below `collections/` can be changed to; see `ivcapfs.fs.collectionwriter`."""

    def place(self, parts: Parts, check: Check) -> tuple[str, Parts]:
        """Return the URN of the collection that a member's path goes into, and the rest of the path."""
        ...

    def make(self, parts: Parts, check: Check) -> None:
        """Make a collection."""
        ...

    def remove(self, parts: Parts, check: Check) -> None:
        """Retract an empty collection."""
        ...

    def add(self, parts: Parts, uuid: str, check: Check) -> None:
        """Make an artifact a member of the collection that a path goes into."""
        ...

    def discard(self, parts: Parts, check: Check) -> None:
        """Take a member out."""
        ...

    def move(self, old: Parts, new: Parts, check: Check) -> None:
        """Move a member to another collection."""
        ...


class Writer:
    """See the module."""

    def __init__(
        self, spool: Spool, drafts: Drafts, uploader: Uploader, bindings: Bindings, collections: CollectionRules,
        tree: Nodes, check: Check,
    ) -> None:  # fmt: skip
        self._spool = spool
        self._drafts = drafts
        self._uploader = uploader
        self._bindings = bindings
        self._collections = collections
        self._tree = tree
        self._check = check

    # -- files ---------------------------------------------------------------------------------------------------

    def create(self, parts: Parts) -> Draft:
        """Make a new file at a path, open for writing once.

        Raises:
            ReadOnly, NotAllowed, Invalid, NameTooLong, NoSpace, FileSystemError: not there, or not so.
        """
        draft = self._spool.new(self._entry(parts))
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

    def unlink(self, path: str, parts: Parts, node: Node) -> None:
        """Remove a new file, or a member from its collection (unlink(2)).

        Raises:
            NotAllowed: it is an artifact.
        """
        match node:
            case DraftNode(draft=draft):
                self._discard(draft)
                self._bindings.let_go(path)
            case FolderNode():
                raise IsAFolder(f"{path} is a folder")
            case FileNode() if parts[0] == COLLECTIONS:
                self._collections.discard(parts[1:], self._check)
                self._bindings.let_go(path)
            case _:
                raise NotAllowed(f"{path}: artifacts are never deleted")

    def rename(self, old: Parts, new: Parts, flags: int) -> None:
        """Give a new file, or a folder of new files, another path; move a member to another collection (renameat2(2)).

        Raises:
            NotAllowed: it is an artifact.
            AlreadyThere: something is there, and RENAME_NOREPLACE was given.
            Invalid: other flags.
        """
        if flags & ~RENAME_NOREPLACE:
            raise Invalid("two files cannot be exchanged: artifacts are never renamed")
        if old == new:
            return
        node, target = self._tree.node(old, self._check), self._node_or_none(new)
        if target is not None and flags & RENAME_NOREPLACE:
            raise AlreadyThere(f"{'/'.join(new)} is there already")
        match node:
            case DraftNode(draft=draft):
                if isinstance(target, FolderNode):
                    raise IsAFolder(f"{'/'.join(new)} is a folder")
                self._rename_draft(draft, old, new, target)
            case FolderNode():
                self._rename_folder(old, new, target)
            case FileNode() if old[0] == new[0] == COLLECTIONS:
                self._collections.move(old[1:], new[1:], self._check)
            case _:
                raise NotAllowed(f"{'/'.join(old)}: artifacts are never renamed")
        self._bindings.let_go(_path(old), _path(new))

    # -- folders -------------------------------------------------------------------------------------------------

    def mkdir(self, parts: Parts) -> None:
        """Make a folder for new files, or a collection (mkdir(2))."""
        if self._node_or_none(parts) is not None:
            raise AlreadyThere(f"{'/'.join(parts)} is there already")
        _check_names(parts[1:])
        if parts[0] == COLLECTIONS and not self._is_in_collection(parts):
            self._collections.make(parts[1:], self._check)
        elif parts[0] in (ARTIFACTS, COLLECTIONS):
            self._drafts.make_folder(parts)
        else:
            raise ReadOnly(f"nothing can be made in {parts[0]}")

    def rmdir(self, parts: Parts) -> None:
        """Remove a folder made here, or an empty collection (rmdir(2)).

        Raises:
            NotEmpty: something is in it.
        """
        if not isinstance(self._tree.node(parts, self._check), FolderNode):
            raise NotAFolder(f"{'/'.join(parts)} is no folder")
        if len(parts) < 2 or parts[0] not in (ARTIFACTS, COLLECTIONS):
            raise NotAllowed(f"{'/'.join(parts)} is a part of every mount")
        is_made = isinstance(self._drafts.at(parts), Made)
        reading = self._tree.reading(parts, self._check)
        if next(reading.entries(0), None) is not None:
            raise NotEmpty(f"{'/'.join(parts)} is not empty")
        if is_made and self._drafts.remove_folder(parts):
            return
        if parts[0] != COLLECTIONS:
            raise NoSuchEntry(f"no folder {'/'.join(parts)}")
        self._collections.remove(parts[1:], self._check)

    def link(self, node: Node, new: Parts) -> None:
        """Add an artifact to a collection (link(2)); a new file is completed first.

        Raises:
            NotAllowed: elsewhere, or under another name.
        """
        if new[0] != COLLECTIONS:
            raise NotAllowed("an artifact has one name: a link goes into a collection")
        if isinstance(node, DraftNode):
            self._complete(node.draft)
            node = self._tree.node(node.draft.entry.parts, self._check)
        if not isinstance(node, FileNode):
            raise NotAllowed("only artifacts can be members of a collection")
        self._collections.add(new[1:], node.record.uuid, self._check)

    # -- new files -----------------------------------------------------------------------------------------------

    def _entry(self, parts: Parts) -> Entry:
        """Return the entry of a new file at a path."""
        below, collection = self._place(parts)
        return Entry(parts, below=below, collection=collection)

    def _place(self, parts: Parts) -> tuple[int, str | None]:
        """Return how much of a path is the name, and the collection that it goes into."""
        if len(parts) < 2 or parts[0] not in (ARTIFACTS, COLLECTIONS):
            raise ReadOnly(f"no new files in /{'/'.join(parts[:-1])}")
        if parts[0] == COLLECTIONS:
            urn, rest = self._collections.place(parts[1:], self._check)
            _check_names(rest)
            return len(rest), urn
        _check_names(parts[1:])
        return len(parts) - 1, None

    def _rename_draft(self, draft: Draft, old: Parts, new: Parts, target: Node | None) -> None:
        below, collection = self._place(new)
        if isinstance(target, DraftNode):
            self._discard(target.draft, is_replaced=True)
        with draft.lock:
            if draft.is_ending or draft.is_gone:
                raise NotAllowed(f"{'/'.join(old)} is becoming an artifact, which is never renamed")
            was_hidden, draft.due = draft.entry.is_hidden, None
        before = draft.entry

        def moved(entry: Entry) -> Entry:
            after = replace(entry, parts=new, below=below, collection=collection)
            return after if after.name == entry.name else replace(after, begun=None, twins=None)

        after = draft.note(moved)
        if after.begun is None and before.begun is not None:
            with draft.lock:
                draft.stale = True
        self._drafts.moved(draft, old)
        if draft.writers or after.state is not State.CLOSED:
            return
        if was_hidden and not after.is_hidden:
            self._send_under_its_name(draft, before, new)
        self._uploader.complete_later(draft)

    def _send_under_its_name(self, draft: Draft, before: Entry, new: Parts) -> None:
        """Send a file whose name was hidden so far; as with close(2), whoever renames it is told the truth."""
        with draft.lock:
            draft.flushed = -1
            draft.changes = max(draft.changes, 1)
        try:
            draft.acquire()
            try:
                self.flush(draft, is_close=True)
            finally:
                draft.release()
        except IvcapfsError:
            draft.note(lambda entry: replace(entry, parts=before.parts, below=before.below,
                                             collection=before.collection, begun=None))  # fmt: skip
            with draft.lock:
                draft.stale, draft.failure = True, None
            self._drafts.moved(draft, new)
            raise

    def _rename_folder(self, old: Parts, new: Parts, target: Node | None) -> None:
        if target is not None:
            raise AlreadyThere(f"{'/'.join(new)} is there already")
        found = self._drafts.at(old)
        if not isinstance(found, Made) or not found.is_made or self._is_on_platform(old):
            raise NotAllowed(f"{'/'.join(old)} holds artifacts, which are never renamed")
        self._place((*new, "x"))
        for draft in self._drafts.move_folder(old, new):
            before = draft.entry.parts
            self._rename_draft(draft, before, new + before[len(old) :], None)

    def _discard(self, draft: Draft, *, is_replaced: bool = False) -> None:
        """Remove a new file.

        Args:
            is_replaced: by one that takes its path.
        """
        with draft.lock:
            if draft.is_ending and is_replaced:
                return  # it becomes an artifact, and this path goes to the other one
            if draft.is_ending:
                raise InUse(f"{draft.entry.path} is becoming an artifact")
            draft.is_gone, draft.due = True, None
        self._drafts.take_away(draft)
        with draft.journal_lock:
            draft.folder.remove(draft.entry)

    # -- what is there -------------------------------------------------------------------------------------------

    def _complete(self, draft: Draft) -> None:
        """Wait until a closed file is an artifact.

        Raises:
            InUse: it is not within a bound: it is open, or the server is away.
        """
        if draft.entry.state is State.CLOSED and not draft.writers:
            self._uploader.complete_later(draft, at_once=True)
            end = now() + COMPLETE_SECONDS
            while not draft.is_gone and draft.entry.state is State.CLOSED and now() < end:
                self._check()
                time.sleep(POLL_SECONDS)
        if not draft.is_gone:
            raise InUse(f"{draft.entry.path} is not an artifact yet")

    def _node_or_none(self, parts: Parts) -> Node | None:
        try:
            return self._tree.node(parts, self._check)
        except (NoSuchEntry, NotAFolder):
            return None

    def _is_in_collection(self, parts: Parts) -> bool:
        try:
            self._collections.place(parts[1:], self._check)
        except (NoSuchEntry, FileSystemError):
            return False
        return True

    def _is_on_platform(self, parts: Parts) -> bool:
        found = self._node_or_none(parts)
        reading = self._tree.reading(parts, self._check) if isinstance(found, FolderNode) else None
        return reading is not None and any(isinstance(each, FileNode) for _, each, _ in reading.entries(0))

    def _await(self, future: Future[None], draft: Draft) -> None:
        try:
            wait_for(future, self._check, FLUSH_SECONDS, f"sending {draft.entry.path}")
        except FileSystemError as exc:
            with draft.lock:  # whatever becomes of it now, whoever waited was told that it failed
                draft.ticket += 1
                draft.failure = exc
            raise


def _check_names(parts: Parts) -> None:
    """See that a path can be an artifact's.

    Raises:
        Invalid, NameTooLong: it cannot.
    """
    if any(len(part.encode()) > MAX_COMPONENT for part in parts):
        raise NameTooLong(f"a name may have {MAX_COMPONENT} bytes")
    if sum(len(part.encode()) + 1 for part in parts) > MAX_PATH:
        raise NameTooLong(f"a path may have {MAX_PATH} bytes")
    if parts and tuple(map(encode_component, parts)) != encode(decode(parts)):
        raise Invalid(f"{'/'.join(parts)!r} means another name: it has escapes for what a path cannot hold")


def _path(parts: Parts) -> str:
    return "/" + "/".join(parts)

