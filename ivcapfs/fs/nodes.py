"""The kinds of things a path can name, and how each looks to stat(2).

Used by the tree, which makes them, and by the operations. Immutable values: any thread may hold them.
"""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ivcapfs.catalog.interface import Catalog, FileEntry
from ivcapfs.catalog.schema import nanoseconds
from ivcapfs.config import ViewSettings
from ivcapfs.errors import ProtocolError
from ivcapfs.models import ArtifactRecord, AspectRecord, inode_of, uuid_bytes
from ivcapfs.spool.draft import Draft
from ivcapfs.waits import Check

READ = 0o444
READ_AND_SEARCH = 0o555
WRITE = 0o200
"""For the owner, where the mount can write."""
SECTOR = 512


class Attributes(NamedTuple):
    """What stat(2) tells; sizes in bytes, times in nanoseconds since the epoch. A tuple: a listing makes many."""

    mode: int
    inode: int
    size: int
    time_ns: int
    links: int
    uid: int
    gid: int

    @property
    def sectors(self) -> int:
        """The 512-byte blocks that du(1) counts."""
        return -(-self.size // SECTOR)


class Described(Protocol):
    """What has extended attributes: fields, and aspects."""

    @property
    def urn(self) -> str | None:
        """The URN of the entity whose aspects can be changed; None where they cannot, as those of the past."""
        ...

    @property
    def names(self) -> frozenset[str]:
        """The attributes' names, without those of aspects, that there can be."""
        ...

    def at_hand(self) -> dict[str, bytes]:
        """Return the attributes that are known without a request."""
        ...

    def known(self) -> tuple[dict[str, bytes], tuple[AspectRecord, ...]] | None:
        """Return all attributes, and the aspects, if both are here already."""
        ...

    def everything(self, check: Check) -> tuple[dict[str, bytes], tuple[AspectRecord, ...]]:
        """Return all attributes, and the aspects."""
        ...

    def fields(self, check: Check) -> dict[str, bytes]:
        """Return all attributes but those of aspects."""
        ...

    def aspects(self, check: Check) -> tuple[AspectRecord, ...]:
        """Return the aspects, newest first."""
        ...


@dataclass(frozen=True, slots=True)
class FolderNode:
    """A folder.

    Attributes:
        record: set for the folder of one artifact.
        catalog: which tells more about that; None: the mount's own.
        described: set for what else has extended attributes.
    """

    inode: int
    time_ns: int
    record: ArtifactRecord | None = None
    catalog: Catalog | None = field(default=None, compare=False, repr=False)
    described: Described | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FileNode:
    """An artifact's content; `size` in bytes, `catalog` as for a folder."""

    record: ArtifactRecord
    size: int
    catalog: Catalog | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TextNode:
    """A file whose bytes are made here: a record or an aspect as JSON."""

    data: bytes
    inode: int
    time_ns: int


@dataclass(frozen=True, slots=True)
class LinkNode:
    """A symbolic link."""

    target: str
    inode: int
    time_ns: int


@dataclass(frozen=True, slots=True)
class DraftNode:
    """A new file that is not an artifact yet. What stat(2) tells of it changes while it is written."""

    draft: Draft
    described: Described | None = field(default=None, compare=False, repr=False)


Node = FolderNode | FileNode | TextNode | LinkNode | DraftNode
Listed = Node | FileEntry | None
"""What is in a folder; None where its size is not known without asking: stat(2) will ask."""


def attributes(node: Node | FileEntry, view: ViewSettings) -> Attributes:
    """Return what stat(2) tells of a node. Modes are made here, never taken from a server."""
    write = WRITE if view.writable else 0
    match node:
        case FileEntry():
            mode = stat.S_IFREG | (READ | write) & ~view.umask
            return Attributes(mode, inode_of(node.uuid), node.size or 0, node.time_ns, 1, view.uid, view.gid)
        case FolderNode():
            kind, mode, size = stat.S_IFDIR, (READ_AND_SEARCH | write) & ~view.umask, 0
        case LinkNode():
            kind, mode, size = stat.S_IFLNK, 0o777, len(node.target.encode())
        case TextNode():
            kind, mode, size = stat.S_IFREG, READ & ~view.umask, len(node.data)
        case FileNode():
            inode, time = inode_of(node.record.uuid), nanoseconds(node.record.created_at)
            mode = stat.S_IFREG | (READ | write) & ~view.umask
            return Attributes(mode, inode, node.size, time, 1, view.uid, view.gid)
        case DraftNode():
            draft, mode = node.draft, stat.S_IFREG | (READ | write) & ~view.umask
            return Attributes(mode, draft.inode, draft.size, draft.mtime_ns, 1, view.uid, view.gid)
    return Attributes(kind | mode, node.inode, size, node.time_ns, 1, view.uid, view.gid)


def identity(node: Node | FileEntry) -> object:
    """Return a value that is equal for two nodes exactly if the kernel may take one for the other."""
    match node:
        case FileEntry():
            return node[:2]
        case FileNode():
            return uuid_bytes(node.record.uuid), node.size
        case TextNode():
            return hashlib.sha256(node.data).digest()
        case LinkNode():
            return node.target
        case FolderNode():
            return node.inode
        case DraftNode():
            return node.draft.inode


def json_text(value: Any, *, indent: int | None = 2) -> bytes:
    """Return a JSON value as UTF-8 text, readable; what UTF-8 cannot hold stays escaped.

    Raises:
        ProtocolError: it is nested so deeply that it was hardly read.
    """
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent).encode()
    except RecursionError as exc:
        if indent is None:
            raise ProtocolError("a JSON value is nested too deeply to be written") from exc
    return json_text(value, indent=None)  # written in one line, it may be nested as deeply as when it is read
