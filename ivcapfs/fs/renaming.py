"""The rules for names in a mount that writes: what may be renamed, removed, made, linked, and what refuses it.

Artifacts are never deleted or renamed. New files can be, until they are artifacts; members can leave a collection, and
move to another. `docs/SEMANTICS.md` tells each rule with its errno.

Used by `ivcapfs.fs.writing`. Threading: any thread may call anything; the state is that of the drafts and the uploader.
"""

from __future__ import annotations

import time
from dataclasses import replace

from ivcapfs.catalog.collectionwriter import CollectionWriter
from ivcapfs.catalog.names import Parts, id_path, plain_path
from ivcapfs.errors import (
    AlreadyThere,
    InUse,
    Invalid,
    IsAFolder,
    IvcapfsError,
    NoSpace,
    NoSuchEntry,
    NotAFolder,
    NotAllowed,
    NotEmpty,
    ReadOnly,
)
from ivcapfs.fs.bindings import Bindings
from ivcapfs.fs.nodes import DraftNode, FileNode, FolderNode, Node
from ivcapfs.fs.placing import Places, check_names
from ivcapfs.fs.tree import Nodes
from ivcapfs.fs.writer import Writer
from ivcapfs.spool.draft import Draft
from ivcapfs.spool.drafts import Drafts, Made
from ivcapfs.spool.entry import ARTIFACTS, COLLECTIONS, Entry, State, is_removed
from ivcapfs.spool.uploader import Uploader
from ivcapfs.waits import POLL_SECONDS, Check, now

COMPLETE_SECONDS = 60.0
RENAME_NOREPLACE = 1
"""Of renameat2(2); the other flags are refused."""


class Names:
    """See the module."""

    def __init__(
        self, drafts: Drafts, uploader: Uploader, writer: Writer, bindings: Bindings, places: Places,
        collections: CollectionWriter, tree: Nodes, check: Check,
    ) -> None:  # fmt: skip
        self._drafts = drafts
        self._uploader = uploader
        self._writer = writer
        self._bindings = bindings
        self._places = places
        self._collections = collections
        self._tree = tree
        self._check = check

    def unlink(self, path: str, parts: Parts, node: Node) -> None:
        """Remove a new file, or a member from its collection (unlink(2)).

        Raises:
            NotAllowed: it is an artifact.
        """
        match node:
            case DraftNode(draft=draft):
                self._writer.discard(draft)
            case FolderNode():
                raise IsAFolder(f"{path} is a folder")
            case FileNode() if parts[0] == COLLECTIONS:
                self._collections.discard(parts[1:], self._check)
            case _:
                raise NotAllowed(f"{path}: artifacts are never deleted")
        self._bindings.let_go(path)

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
        if is_removed(new[-1]) and isinstance(node, FileNode):  # it is open, and being removed or replaced
            if old[0] != COLLECTIONS:
                raise InUse(f"{'/'.join(old)} is an artifact, and open for reading")
            self.unlink(_path(old), old, node)
            return
        if target is not None and flags & RENAME_NOREPLACE:
            raise AlreadyThere(f"{'/'.join(new)} is there already")
        match node:
            case DraftNode(draft=draft):
                if isinstance(target, FolderNode):
                    raise IsAFolder(f"{'/'.join(new)} is a folder")
                self._rename_draft(draft, old, new, target)
            case FolderNode() if old[0] == new[0] == COLLECTIONS and not self._places.is_in_collection(old):
                self._collections.rename(old[1:], new[1:], self._check)
            case FolderNode():
                self._rename_folder(old, new, target)
            case FileNode() if old[0] == new[0] == COLLECTIONS:
                self._check_member_name(node, new)
                self._collections.move(old[1:], new[1:], self._check)
            case _:
                raise NotAllowed(f"{'/'.join(old)}: artifacts are never renamed")
        self._bindings.let_go(_path(old), _path(new))

    # -- folders -------------------------------------------------------------------------------------------------

    def mkdir(self, parts: Parts) -> None:
        """Make a folder for new files, or a collection (mkdir(2))."""
        if self._node_or_none(parts) is not None:
            raise AlreadyThere(f"{'/'.join(parts)} is there already")
        check_names(parts[1:])
        if parts[0] == COLLECTIONS and not self._places.is_in_collection(parts):
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
        if len(parts) < 2 or parts[0] not in (ARTIFACTS, COLLECTIONS):
            raise NotAllowed(f"{'/'.join(parts)} is a part of every mount")
        node = self._node_or_none(parts)
        if node is None and parts[0] == COLLECTIONS:  # a folder that went with its last member, as rm -r takes it
            self._collections.remove(parts[1:], self._check)
            return
        if not isinstance(node, FolderNode):
            raise NotAFolder(f"{'/'.join(parts)} is no folder")
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
        self._check_member_name(node, new)
        self._collections.add(new[1:], node.record.uuid, self._check)

    def _check_member_name(self, node: FileNode, new: Parts) -> None:
        """See that a member is to be shown as it will be.

        Raises:
            NotAllowed: it would have another name there than its artifact's.
        """
        _, rest = self._collections.collection_of(new[1:], self._check)
        if rest not in (plain_path(node.record), id_path(node.record)):
            name = "/".join(plain_path(node.record))
            raise NotAllowed(f"{'/'.join(new)}: a member has the name of its artifact, {name!r}")

    # -- new files -----------------------------------------------------------------------------------------------

    def _rename_draft(self, draft: Draft, old: Parts, new: Parts, target: Node | None) -> None:
        below, collection = self._places.of(new)

        def moved(entry: Entry) -> Entry:
            after = replace(entry, parts=new, below=below, collection=collection)
            return after if after.name == entry.name else replace(after, begun=None, twins=None)

        with draft.journal_lock:  # half renamed it would be completed under its old name, or removed and shown again
            with draft.lock:
                if draft.is_ending or draft.is_gone:
                    raise NotAllowed(f"{'/'.join(old)} is becoming an artifact, which is never renamed")
                before, draft.due = draft.entry, None
            try:
                after = draft.note(moved)
            except IvcapfsError as exc:
                if isinstance(exc, NoSpace) and is_removed(new[-1]):  # removed while open
                    self._writer.discard(draft)
                    draft.note(moved)
                    return
                self._complete_if_closed(draft)
                raise
            if after.begun is None and before.begun is not None:
                with draft.lock:
                    draft.stale = True
            self._drafts.moved(draft, old)
        replaced = target.draft if isinstance(target, DraftNode) else None
        if before.is_hidden and not after.is_hidden and after.state is State.CLOSED and not draft.writers:
            self._send_under_its_name(draft, before, new, replaced)
        if replaced is not None:
            self._writer.discard(replaced, is_replaced=True)
        self._writer.drop_hidden(draft)
        self._complete_if_closed(draft)

    def _complete_if_closed(self, draft: Draft) -> None:
        if draft.entry.state is State.CLOSED and not draft.writers and not draft.is_gone:
            self._uploader.complete_later(draft)

    def _send_under_its_name(self, draft: Draft, before: Entry, new: Parts, replaced: Draft | None) -> None:
        """Send a file whose name was hidden so far; as with close(2), whoever renames it is told the truth.

        Args:
            before: what it is to be again, where that fails.
            replaced: what was at the path so far, and is to be there again then.
        """
        is_kept = replaced is not None and self._hold_back(replaced)
        with draft.lock:
            draft.flushed = -1
            draft.changes = max(draft.changes, 1)
        try:
            draft.acquire()
            try:
                self._writer.flush(draft, is_close=True)
            finally:
                draft.release()
        except IvcapfsError:
            with draft.journal_lock:
                draft.note(lambda entry: replace(entry, parts=before.parts, below=before.below,
                                                 collection=before.collection, begun=None))  # fmt: skip
                with draft.lock:
                    draft.stale, draft.failure = True, None
                self._drafts.moved(draft, new)
            if replaced is not None and is_kept:
                self._drafts.put(replaced)
                self._complete_if_closed(replaced)
            raise

    @staticmethod
    def _hold_back(draft: Draft) -> bool:
        """Do not complete a file that is perhaps to be removed; return False where that has begun."""
        with draft.lock:
            if draft.is_ending or draft.is_gone:
                return False
            draft.due = None
            return True

    def _rename_folder(self, old: Parts, new: Parts, target: Node | None) -> None:
        if target is not None:
            raise AlreadyThere(f"{'/'.join(new)} is there already")
        found = self._drafts.at(old)
        if not isinstance(found, Made) or not found.is_made or self._is_on_platform(old):
            raise NotAllowed(f"{'/'.join(old)} holds artifacts, which are never renamed")
        self._places.of((*new, "x"))
        for draft in self._drafts.move_folder(old, new):
            before = draft.entry.parts
            self._rename_draft(draft, before, new + before[len(old) :], None)

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

    def _is_on_platform(self, parts: Parts) -> bool:
        """Return whether a folder holds artifacts, at whatever depth."""
        for name, listed, _ in self._tree.reading(parts, self._check).entries(0):
            below = (*parts, name)
            match listed:
                case DraftNode():
                    continue
                case FolderNode() if self._drafts.at(below) is not None and not self._is_on_platform(below):
                    continue
            return True
        return False


def _path(parts: Parts) -> str:
    return "/" + "/".join(parts)
