"""The filesystem's operations, one method per callback: thin, no policy, no kernel.

Called by `ivcapfs.fs.binding` for the kernel, and by tests directly. What exists is asked of the tree, bytes of the
reader, what a path is bound to of the bindings. Each method raises OSError with the errno that the caller is told; an
error that is not one of ours is logged with its traceback and answers EIO.

Threading: any thread may call anything. Open handles are guarded by `Operations._lock`.
"""

from __future__ import annotations

import errno
import functools
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from ivcapfs.cache.block import Sink
from ivcapfs.cache.readahead import Handle
from ivcapfs.cache.reader import Reader
from ivcapfs.cache.transfer import Blob
from ivcapfs.catalog.interface import Catalog, FileEntry
from ivcapfs.catalog.names import Parts
from ivcapfs.config import ViewSettings
from ivcapfs.errors import (
    ApiError,
    BadHandle,
    FileSystemError,
    IsAFolder,
    IvcapfsError,
    NoSuchEntry,
    NotAFolder,
    NotALink,
    ProtocolError,
    ReadOnly,
    TransportError,
)
from ivcapfs.fs.bindings import Bindings, Pin
from ivcapfs.fs.errnos import errno_name, errno_of
from ivcapfs.fs.neighbours import Neighbours
from ivcapfs.fs.nodes import Attributes, FileNode, FolderNode, LinkNode, Node, TextNode, attributes
from ivcapfs.fs.reading import Reading
from ivcapfs.fs.tree import Nodes, Tree, View
from ivcapfs.fs.xattrs import ExtendedAttributes
from ivcapfs.models import uuid_bytes
from ivcapfs.waits import Check, never

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

WRITING = os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_CREAT
BLOCK = 4096
NAME_MAX = 255
DOTS = (".", "..")


@dataclass(frozen=True, slots=True)
class Opened:
    """The answer to open(2): the handle, and whether the kernel may keep the pages that it has."""

    handle: int
    keep_cache: bool


@dataclass(slots=True, eq=False)
class _File:
    """An open file: an artifact read through the reader, or text made here."""

    pin: Pin
    reading: Handle | bytes
    was_read: bool = False


@dataclass(slots=True, eq=False)
class _Folder:
    """An open folder, and the reading of it."""

    parts: Parts
    reading: Reading | None = None


class Answer(OSError):
    """What a caller is told: an errno of the table."""


def answers(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Turn our exceptions into OSError with the errno of the table, in this one place."""

    @functools.wraps(method)
    def answer(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except Answer:
            raise
        except IvcapfsError as exc:
            code = errno_of(exc)
            level = logging.DEBUG if isinstance(exc, FileSystemError) else logging.WARNING
            log.log(level, "%s%r: %s: %s", method.__name__, args[:1], errno_name(code), exc)
            raise Answer(code, os.strerror(code)) from exc
        except Exception as exc:
            log.exception("%s%r: unexpected error, answering EIO", method.__name__, args[:1])
            raise Answer(errno.EIO, os.strerror(errno.EIO)) from exc

    return answer


class Operations:
    """A read-only deployment as a filesystem.

    Args:
        check: ends waits; called on the thread that answers (see `ivcapfs.waits`).
        views: top folders besides `artifacts/` and `by-id/`.
        counted: wraps what takes the bytes of an artifact, to count them (`ivcapfs.cache.traffic`).
    """

    use_ns = True

    def __init__(
        self, catalog: Catalog, reader: Reader, bindings: Bindings, neighbours: Neighbours, view: ViewSettings,
        check: Check, views: Mapping[str, View] | None = None, counted: Callable[[Sink], Sink] = lambda sink: sink,
    ) -> None:  # fmt: skip
        self._catalog = catalog
        self._reader = reader
        self._bindings = bindings
        self._neighbours = neighbours
        self._view = view
        self._check = check
        self._tree: Nodes = Tree(catalog, views or {})
        self._xattrs = ExtendedAttributes(catalog)
        self._counted = counted
        self._times: Callable[[bytes], int | None] = never  # tells a time that was set here, by a uuid's bytes
        self._lock = threading.Lock()
        self._open: dict[int, object] = {}  # guarded by _lock
        self._numbers = itertools.count(1)

    @answers
    def getattr(self, path: str, handle: int | None = None) -> Attributes:
        """Return what stat(2) tells; of the open file, where a handle is given."""
        node = self._node(path) if handle is None else self._opened_node(handle)
        return self._attributes(self._bindings.tell(path, node) if handle is None else node)

    @answers
    def readlink(self, path: str) -> str:
        """Return a symbolic link's target (readlink(2))."""
        node = self._tree.node(split(path), self._check)
        if not isinstance(node, LinkNode):
            raise NotALink(f"{path} is no symbolic link")
        return node.target

    @answers
    def open(self, path: str, flags: int) -> Opened:
        """Open a file for reading (open(2)).

        Args:
            flags: of open(2); any that would write is refused with EROFS.
        """
        if flags & WRITING:
            raise ReadOnly(f"{path}: artifacts are immutable, and this mount only reads")
        return self._open_node(path, self._node(path))

    def _open_node(self, path: str, node: Node) -> Opened:
        """Open what a path is bound to, for reading."""
        if not isinstance(node, FileNode | TextNode):
            raise IsAFolder(f"{path} cannot be read as a file")
        content = self._reader.blob(node.record.uuid, node.size) if isinstance(node, FileNode) else node.data
        pin = self._bindings.pin(path, node, content, self._check)
        reading = self._reader.open(pin.content) if isinstance(pin.content, Blob) else pin.content
        view, *below = split(path)
        if isinstance(node, FileNode) and view == "artifacts":
            self._neighbours.opened(tuple(below), node.size)
        return Opened(self._enter(_File(pin, reading)), pin.keep_cache)

    def read(self, handle: int, size: int, offset: int) -> bytes:
        """Return the bytes of [offset, offset + size), fewer only at the end of the file (pread(2))."""
        gathered = bytearray()
        self.read_buf(handle, size, offset, lambda pieces, _: gathered.extend(b"".join(pieces)))
        return bytes(gathered)

    @answers
    def read_buf(self, handle: int, size: int, offset: int, sink: Sink) -> int:
        """Hand the bytes of [offset, offset + size) to `sink`; return how many, fewer only at the end of the file."""
        file = self._file(handle)
        if not file.was_read:
            file.was_read = True
            self._bindings.confirm(file.pin)
        if isinstance(file.reading, Handle):
            return self._reader.read_into(file.reading, offset, size, self._counted(sink), self._check)
        piece = memoryview(file.reading)[offset : offset + size]
        sink([piece], True)
        return len(piece)

    @answers
    def release(self, handle: int) -> None:
        """Close a file handle."""
        file = self._leave(handle)
        if isinstance(file, _File):
            if isinstance(file.reading, Handle):
                self._reader.close(file.reading)
            self._bindings.unpin(file.pin, was_read=file.was_read)

    @answers
    def opendir(self, path: str) -> int:
        """Open a folder (opendir(3)). Nothing is listed yet."""
        parts = split(path)
        # The time of artifacts/ is worth a wait to who asks for it. Here the wait would come before that for the list.
        if parts != ("artifacts",) and not isinstance(self._tree.node(parts, self._check), FolderNode):
            raise NotAFolder(f"{path} is no folder")
        return self._enter(_Folder(parts))

    @answers
    def readdir(
        self, handle: int, offset: int, *, plus: bool = True
    ) -> Iterator[tuple[str, Attributes | None, int]]:
        """Iterate (name, attributes or None, offset of the next entry), from an offset on (readdir(3)).

        Attributes are None where they are not known without a request. Offset 0 lists afresh.

        Args:
            plus: whether the kernel takes the attributes, too, and not only the names.
        """
        folder = self._leave(handle, keep=True)
        if not isinstance(folder, _Folder):
            raise BadHandle("not an open folder")
        if folder.reading is None or offset == 0:
            folder.reading = self._tree.reading(folder.parts, self._check)
        return self._told(folder.parts, folder.reading, offset, plus=plus)

    @answers
    def releasedir(self, handle: int) -> None:
        """Close a folder handle."""
        self._leave(handle)

    @answers
    def getxattr(self, path: str, name: str) -> bytes:
        """Return an extended attribute's value (getxattr(2))."""
        if not name.startswith("user."):
            return self._xattrs.value(FolderNode(0, 0), name, self._check)
        return self._xattrs.value(self._node(path), name, self._check)

    @answers
    def listxattr(self, path: str, room: int) -> list[str]:
        """Return the names of the extended attributes (listxattr(2)); `room` in bytes, 0 asks for the size."""
        return self._xattrs.names(self._node(path), room, self._check)

    @answers
    def statfs(self, path: str) -> dict[str, int]:
        """Return what statvfs(3) tells, from what is known; a full and read-only filesystem."""
        files, blocks = self._catalog.totals()
        return {
            "f_bsize": BLOCK,
            "f_frsize": BLOCK,
            "f_blocks": blocks,
            "f_files": files,
            "f_namemax": NAME_MAX,
        }

    def destroy(self, path: str) -> None:
        """End: the mount is gone. Whoever unmounted waits until this returns (see `mountpoint.unmount`)."""
        self._reader.shutdown()

    # -- handles -------------------------------------------------------------------------------------------------

    def _node(self, path: str) -> Node:
        """Return what a path is bound to; of an open path it is known without the server, too."""
        pinned = self._bindings.pinned(path)
        try:
            node = self._tree.node(split(path), self._check)
        except (ApiError, TransportError, ProtocolError):
            if pinned is None:
                raise
            return pinned
        except (NoSuchEntry, NotAFolder):
            bound = None if pinned is None else self._bindings.settled(path, None)
            if bound is None:
                raise
            return bound
        return node if pinned is None else self._bindings.settled(path, node) or node

    def _enter(self, opened: object) -> int:
        with self._lock:
            number = next(self._numbers)
            self._open[number] = opened
            return number

    def _leave(self, handle: int, *, keep: bool = False) -> object:
        with self._lock:
            opened = self._open.get(handle) if keep else self._open.pop(handle, None)
        if opened is None:
            raise BadHandle(f"handle {handle} is not open")
        return opened

    def _opened_node(self, handle: int) -> Node:
        return self._file(handle).pin.node

    def _attributes(self, node: Node | FileEntry) -> Attributes:
        """Return what stat(2) tells of a node, with the time that was set here, if any."""
        found = attributes(node, self._view)
        if isinstance(node, FileEntry | FileNode):
            uuid = node.uuid if isinstance(node, FileEntry) else uuid_bytes(node.record.uuid)
            time_ns = self._times(uuid)
            return found if time_ns is None else found._replace(time_ns=time_ns)
        return found

    def _file(self, handle: int) -> _File:
        opened = self._leave(handle, keep=True)
        if not isinstance(opened, _File):
            raise BadHandle(f"handle {handle} is not a file")
        return opened

    def _told(
        self, parts: Parts, reading: Reading, offset: int, *, plus: bool
    ) -> Iterator[tuple[str, Attributes | None, int]]:
        """Iterate a folder's entries with what the kernel is told about each."""
        base = "/" + "/".join((*parts, "")) if parts else "/"
        bindings = self._bindings
        for cookie, name in enumerate(DOTS[offset:], offset + 1):
            yield name, None, cookie
        for name, node, cookie in reading.entries(max(offset - len(DOTS), 0)):
            if node is None:
                yield name, None, cookie + len(DOTS)
                continue
            path = base + name
            shown = bindings.pinned(path) or node
            yield name, self._attributes(shown), cookie + len(DOTS)
            if plus:  # the kernel took it: had its buffer been full, this generator would not have gone on
                bindings.tell(path, shown)


def split(path: str) -> Parts:
    """Return a path's components.

    Raises:
        NoSuchEntry: it is no UTF-8, as no name here is.
    """
    try:
        path.encode()
    except UnicodeEncodeError as exc:
        raise NoSuchEntry(f"no name here is {path!r}") from exc
    return tuple(part for part in path.split("/") if part)


