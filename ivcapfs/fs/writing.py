"""The operations of a mount that writes, one method per callback: thin, as those that read.

Used by `ivcapfs.fs.floors` where the option `write` was given, in place of `Operations`. The rules are in `writer`.

Threading: any thread may call anything; see `Operations`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ivcapfs.cache.block import Sink
from ivcapfs.errors import BadHandle, Invalid, NoSuchEntry, NotAllowed
from ivcapfs.fs.callers import Caller, Callers
from ivcapfs.fs.nodes import DraftNode, FileNode, FolderNode, Node
from ivcapfs.fs.operations import WRITING, Opened, Operations, answers, split
from ivcapfs.fs.writable import Writable
from ivcapfs.spool.draft import Draft
from ivcapfs.spool.entry import is_removed

UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
"""Of utimensat(2), in place of nanoseconds."""
KEEP = 2**32 - 1
"""Of chown(2): leave it as it is."""


@dataclass(slots=True, eq=False)
class _DraftFile:
    """An open new file."""

    draft: Draft
    writes: bool


class WritingOperations(Operations):
    """A deployment as a filesystem in which new files become artifacts.

    Args:
        writable: what writing is made of.
        mountpoint: where this is.
        most: callbacks at a time.
        parts: as for `Operations`.
    """

    def __init__(self, *parts: Any, writable: Writable, mountpoint: Path, most: int) -> None:
        super().__init__(*parts)
        self._times = writable.times.get
        self._writable = writable
        self._mountpoint = str(mountpoint)
        self._callers = Callers(most)
        self._tree = writable.tree(self._tree)
        self._writer, self._names = writable.rules(self._tree, self._bindings, self._check)
        self._uploader = writable.uploader

    # -- files ---------------------------------------------------------------------------------------------------

    @answers
    def create(self, path: str, flags: int) -> int:
        """Make a file and open it (open(2) with O_CREAT); return its handle."""
        draft = self._writer.create(_split(path))
        return self._enter(_DraftFile(draft, writes=True))

    @answers
    def open(self, path: str, flags: int) -> Opened:
        """Open a file (open(2))."""
        node = self._node(path)
        if flags & WRITING:
            draft = self._writer.open(path, split(path), node, flags)
            return Opened(self._enter(_DraftFile(draft, writes=True)), keep_cache=False)
        if isinstance(node, DraftNode):
            if node.draft.opened(writes=False):
                return Opened(self._enter(_DraftFile(node.draft, writes=False)), keep_cache=False)
            node = self._node(path)  # it has become an artifact just now
        return self._open_node(path, node)

    @answers
    def read_buf(self, handle: int, size: int, offset: int, sink: Sink) -> int:
        """See `Operations.read_buf`."""
        file = self._leave(handle, keep=True)
        if not isinstance(file, _DraftFile):
            return super().read_buf(handle, size, offset, sink)
        data = file.draft.read(size, offset)
        sink([memoryview(data)], True)
        return len(data)

    @answers
    def write(self, handle: int, data: memoryview, offset: int) -> int:
        """Write at an offset (pwrite(2)); return the count of bytes, always all."""
        draft = self._draft(handle)
        count = draft.write(data, offset)
        self._uploader.written(draft, self._check)
        return count

    @answers
    def truncate(self, path: str, size: int, handle: int | None) -> None:
        """Cut or lengthen a file (truncate(2), ftruncate(2))."""
        if handle is not None:
            self._draft(handle).truncate(size)
        else:
            self._writer.truncate(path, self._node(path), size)

    @answers
    def flush(self, handle: int, pid: int = 0) -> None:
        """One descriptor of an open file is closed (close(2)): what was written so far is made durable, and every
        failure is told here.

        Args:
            pid: of the process that closes it; see `callers`.
        """
        file = self._leave(handle, keep=True)
        if not isinstance(file, _DraftFile) or not file.writes:
            return
        who = self._callers.look(pid, f"{self._mountpoint}/{file.draft.entry.path}") if pid else Caller()
        with file.draft.lock:
            file.draft.killed = who.was_killed
        if not who.was_killed:
            self._writer.flush(file.draft, is_close=who.has_closed)

    @answers
    def fsync(self, handle: int) -> None:
        """Make what was written so far durable (fsync(2))."""
        file = self._leave(handle, keep=True)
        if isinstance(file, _DraftFile) and file.writes:
            self._writer.flush(file.draft, is_close=False)

    def fsyncdir(self, path: str) -> None:
        """What is in a folder is the platform's: nothing to do (fsync(2))."""

    @answers
    def release(self, handle: int) -> None:
        """Close a file handle; the last one that could write leaves an artifact to be."""
        file = self._leave(handle, keep=True)
        if not isinstance(file, _DraftFile):
            return super().release(handle)
        self._leave(handle)
        if file.writes:
            self._writer.closed(file.draft)
        else:
            file.draft.closed(writes=False)
        self._writer.drop_hidden(file.draft)
        return None

    # -- names ---------------------------------------------------------------------------------------------------

    @answers
    def unlink(self, path: str) -> None:
        """Remove a new file, or a member from its collection (unlink(2))."""
        parts = split(path)
        try:
            node = self._node(path)
        except NoSuchEntry:
            if parts and is_removed(parts[-1]):
                return  # it went with its last handle, before libfuse came to it
            raise
        self._names.unlink(path, parts, node)

    @answers
    def rename(self, old: str, new: str, flags: int) -> None:
        """Rename a new file (renameat2(2))."""
        self._names.rename(split(old), _split(new), flags)

    @answers
    def mkdir(self, path: str) -> None:
        """Make a folder, or a collection (mkdir(2))."""
        self._names.mkdir(_split(path))

    @answers
    def rmdir(self, path: str) -> None:
        """Remove a folder that was made here, or an empty collection (rmdir(2))."""
        self._names.rmdir(split(path))
        self._bindings.let_go(path)

    @answers
    def link(self, existing: str, new: str) -> None:
        """Add an artifact to a collection (link(2))."""
        self._names.link(self._node(existing), _split(new))

    @answers
    def symlink(self, path: str, target: str) -> None:
        """Refuse: an artifact is a file."""
        raise NotAllowed(f"{path}: there are no symbolic links on the platform")

    @answers
    def mknod(self, path: str, *_: object) -> None:
        """Refuse: an artifact is a file."""
        raise NotAllowed(f"{path}: there are only files on the platform")

    # -- attributes ----------------------------------------------------------------------------------------------

    @answers
    def chmod(self, path: str, mode: int, handle: int | None) -> None:
        """Accept what changes nothing, or is of a new file or a folder, where it is not kept (chmod(2))."""
        node = self._changed(path, handle)
        if node is not None and mode & 0o7777 != self._attributes(node).mode & 0o7777:
            raise NotAllowed(f"{path}: the mode of an artifact is made by the mount")

    @answers
    def chown(self, path: str, uid: int, gid: int, handle: int | None) -> None:
        """As `chmod` (chown(2))."""
        node = self._changed(path, handle)
        if node is not None:
            told = self._attributes(node)
            if uid % 2**32 not in (KEEP, told.uid) or gid % 2**32 not in (KEEP, told.gid):
                raise NotAllowed(f"{path}: the owner of an artifact is given by the mount")

    @answers
    def utimens(self, path: str, times: tuple[int, int] | None, handle: int | None) -> None:
        """Set when a file was written last; of an artifact that is kept on this machine alone (utimensat(2)).

        Args:
            times: seconds and nanoseconds of the last write, the latter perhaps `UTIME_NOW` or `UTIME_OMIT`; None: now.
        """
        seconds, nanoseconds = times or (0, UTIME_NOW)
        if nanoseconds == UTIME_OMIT:
            return
        if nanoseconds != UTIME_NOW and not 0 <= nanoseconds < 10**9:
            raise Invalid(f"no time has {nanoseconds} ns")
        time_ns = time.time_ns() if nanoseconds == UTIME_NOW else seconds * 10**9 + nanoseconds
        node = self._node(path) if handle is None else self._opened_node(handle)
        if isinstance(node, DraftNode):
            node.draft.set_time(time_ns)
            if node.draft.is_gone and node.draft.entry.record is not None:  # it has just become an artifact
                self._writable.times.keep(node.draft.entry.record, time_ns)
        elif isinstance(node, FileNode):
            self._writable.times.keep(node.record.uuid, time_ns)

    @answers
    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        """Set an extended attribute (setxattr(2))."""
        self._writable.set_attribute(self._node(path), name, value, flags, self._check)

    @answers
    def removexattr(self, path: str, name: str) -> None:
        """Remove an extended attribute (removexattr(2))."""
        self._writable.remove_attribute(self._node(path), name, self._check)

    @answers
    def statfs(self, path: str) -> dict[str, int]:
        """See `Operations.statfs`; what is free is what the spool has."""
        told = super().statfs(path)
        _, free = self._writable.free_bytes()
        blocks = free // told["f_bsize"]
        return told | {
            "f_blocks": told["f_blocks"] + blocks, "f_bfree": blocks, "f_bavail": blocks,
            "f_files": told["f_files"] + blocks, "f_ffree": blocks, "f_favail": blocks,
        }  # fmt: skip

    def destroy(self, path: str) -> None:
        """See `Operations.destroy`."""
        self._callers.close()
        super().destroy(path)

    # -- handles -------------------------------------------------------------------------------------------------

    def _changed(self, path: str, handle: int | None) -> Node | None:
        """Return what an attribute is to be changed of; None where any change is accepted, and not kept."""
        node = self._node(path) if handle is None else self._opened_node(handle)
        return None if isinstance(node, DraftNode | FolderNode) else node

    def _opened_node(self, handle: int) -> Node:
        file = self._leave(handle, keep=True)
        if isinstance(file, _DraftFile):
            return DraftNode(file.draft)
        return super()._opened_node(handle)

    def _draft(self, handle: int) -> Draft:
        file = self._leave(handle, keep=True)
        if not isinstance(file, _DraftFile) or not file.writes:
            raise BadHandle(f"handle {handle} is not open for writing")
        return file.draft


def _split(path: str) -> tuple[str, ...]:
    """Return the components of a new path.

    Raises:
        Invalid: it is no UTF-8, as every name on the platform is.
    """
    try:
        path.encode()
    except UnicodeEncodeError as exc:
        raise Invalid(f"a name must be UTF-8, and {path!r} is not") from exc
    return split(path)
