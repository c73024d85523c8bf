"""Records, collections and their aspects as extended attributes (xattr(7)).

Used by the operations. Any thread may call it. A request is made only when a value or a full list is asked for, or an
aspect is changed (see `aspectwriter`), never for an attribute that a mount does not have: ``ls -l`` probes each file
for ACLs and labels.

Linux allows 255 bytes for a name, 64 KiB for a value and 64 KiB for a list. What does not fit is left out of the list,
so that one big aspect cannot hide the others; the whole is always in `by-id/<uuid>/aspects/`.
"""

from __future__ import annotations

from typing import Protocol

from ivcapfs.catalog.interface import Catalog
from ivcapfs.errors import AttributesUnsupported, AttributeTooLarge, NoSuchAttribute, ReadOnly
from ivcapfs.fs.described import LISTED, WHOLE, fields, labels
from ivcapfs.fs.nodes import Described, DraftNode, FileNode, FolderNode, Node, json_text
from ivcapfs.models import ArtifactRecord, AspectRecord
from ivcapfs.waits import Check

MIME_TYPE = "user.mime_type"
"""The name that freedesktop.org gave it."""
PREFIX = "user.ivcap."
ASPECT_PREFIX = "user.ivcap.aspect."
MAX_NAME = 255
MAX_VALUE = 64 * 1024
MAX_LIST = 64 * 1024
_ONLY_WHOLE = frozenset(PREFIX + field for field in WHOLE)
_NAMES = _ONLY_WHOLE | {MIME_TYPE} | {PREFIX + field for field in LISTED}
PROBE = 256
"""A list asked for with fewer bytes of room than this is a probe (ls(1) of coreutils 9.6), and worth no request."""


class Writer(Protocol):
    """Who changes aspects; see `ivcapfs.fs.aspectwriter.AspectWriter`."""

    def set(self, urn: str, name: str, value: bytes, flags: int, check: Check) -> None:
        """Set an attribute of an entity."""
        ...

    def remove(self, urn: str, name: str, check: Check) -> None:
        """Remove an attribute of an entity."""
        ...


class ExtendedAttributes:
    """The extended attributes of the mount's nodes.

    Args:
        catalog: what is known of artifacts.
        writer: None where the mount does not write.
    """

    def __init__(self, catalog: Catalog, writer: Writer | None = None) -> None:
        self._catalog = catalog
        self._writer = writer

    def value(self, node: Node, name: str, check: Check) -> bytes:
        """Return one attribute's value (getxattr(2)).

        Raises:
            AttributesUnsupported: not in the `user.` namespace.
            NoSuchAttribute: the node has no such attribute.
            AttributeTooLarge: the value is over 64 KiB.
        """
        if not name.startswith("user."):
            raise AttributesUnsupported(f"only user attributes are kept, not {name!r}")
        described = self._described(node)
        if described is None:
            raise NoSuchAttribute(f"no attribute {name!r} here")
        if name.startswith(ASPECT_PREFIX):
            return _aspect(described, name.removeprefix(ASPECT_PREFIX), check)
        value = described.at_hand().get(name)
        if value is None and name in described.names:  # a list item may lack any of them
            value = described.fields(check).get(name)
        if value is None:
            raise NoSuchAttribute(f"no attribute {name!r} here")
        return _checked(value, name)

    def names(self, node: Node, room: int, check: Check) -> list[str]:
        """Return the attributes' names (listxattr(2)).

        Args:
            room: bytes that the caller has for the list; 0 asks for its size.
        """
        described = self._described(node)
        if described is None:
            return []
        known = described.known()
        if known is None and 0 < room < PROBE:
            return _fitting(list(described.at_hand()), room)
        told, aspects = known or described.everything(check)
        names = [name for name, value in told.items() if len(value) <= MAX_VALUE]
        names += [ASPECT_PREFIX + label for label, aspect in labels(aspects).items() if _fits(label, aspect)]
        return _fitting(names, MAX_LIST)

    def set(self, node: Node, name: str, value: bytes, flags: int, check: Check) -> None:
        """Set an attribute (setxattr(2)). One that the platform sets can be set to the value that it has, as copying
        tools do.

        Args:
            flags: ``XATTR_CREATE``, ``XATTR_REPLACE`` or 0.

        Raises:
            ReadOnly: the mount does not write, or the node is of the past.
            others: see `ivcapfs.fs.aspectwriter.AspectWriter.set`.
        """
        writer, described = self._writing(node, name)
        if not name.startswith(ASPECT_PREFIX) and name in described.names:
            if value == (described.at_hand().get(name) or described.fields(check).get(name)):
                return
            raise AttributesUnsupported(f"{name!r} is set by the platform, and cannot be set to another value")
        writer.set(described.urn or "", name, value, flags, check)

    def remove(self, node: Node, name: str, check: Check) -> None:
        """Remove an attribute (removexattr(2)).

        Raises:
            ReadOnly: as `set`.
            others: see `ivcapfs.fs.aspectwriter.AspectWriter.remove`.
        """
        writer, described = self._writing(node, name)
        writer.remove(described.urn or "", name, check)

    def _writing(self, node: Node, name: str) -> tuple[Writer, Described]:
        """Return who writes, and what a node's attributes tell of."""
        described = self._described(node)
        if described is None or not name.startswith("user."):
            raise AttributesUnsupported(f"{name!r} cannot be set here")
        if self._writer is None or described.urn is None:
            raise ReadOnly(f"{name!r} cannot be set: this is read-only")
        return self._writer, described

    def _described(self, node: Node) -> Described | None:
        """Return what a node's attributes tell of, or None if it has none."""
        if isinstance(node, DraftNode) or (isinstance(node, FolderNode) and node.record is None):
            return node.described
        if not isinstance(node, FileNode | FolderNode) or node.record is None:
            return None
        catalog = node.catalog or self._catalog
        return _Artifact(node.record, catalog, is_present=catalog is self._catalog)


class _Artifact:
    """An artifact's attributes; see `Described`."""

    names = _NAMES

    def __init__(self, record: ArtifactRecord, catalog: Catalog, *, is_present: bool) -> None:
        self._record = record
        self._catalog = catalog
        self.urn = record.urn if is_present else None

    def at_hand(self) -> dict[str, bytes]:
        return {name: value for name, value in _fields(self._record).items() if name not in _ONLY_WHOLE}

    def known(self) -> tuple[dict[str, bytes], tuple[AspectRecord, ...]] | None:
        known = self._catalog.details_known(self._record.uuid)
        return None if known is None else (_fields(known[0]), known[1])

    def everything(self, check: Check) -> tuple[dict[str, bytes], tuple[AspectRecord, ...]]:
        record, aspects = self._catalog.record_and_aspects(self._record.uuid, check)
        return _fields(record), aspects

    def fields(self, check: Check) -> dict[str, bytes]:
        return _fields(self._catalog.whole_record(self._record.uuid, check))

    def aspects(self, check: Check) -> tuple[AspectRecord, ...]:
        return self._catalog.aspects(self._record.uuid, check)


def _fields(record: ArtifactRecord) -> dict[str, bytes]:
    """Return a record's fields as attribute name -> value."""
    told = fields(record)
    named = {PREFIX + name: str(told[name]) for name in (*LISTED, *WHOLE) if name in told}
    if record.mime_type is not None:
        named = {MIME_TYPE: record.mime_type, **named}
    return {name: attribute(value) for name, value in named.items()}


def attribute(text: str) -> bytes:
    """Return a text as an attribute's value."""
    return text.encode("utf-8", "backslashreplace")


def _aspect(described: Described, label: str, check: Check) -> bytes:
    aspect = labels(described.aspects(check)).get(label)
    if aspect is None:
        raise NoSuchAttribute(f"it has no aspect {label!r}")
    return _checked(json_text(aspect.content, indent=None), label)


def _fits(label: str, aspect: AspectRecord) -> bool:
    name_fits = len((ASPECT_PREFIX + label).encode()) <= MAX_NAME
    return name_fits and len(json_text(aspect.content, indent=None)) <= MAX_VALUE


def _checked(value: bytes, name: str) -> bytes:
    if len(value) > MAX_VALUE:
        raise AttributeTooLarge(f"{name!r} has {len(value)} bytes, and an attribute holds 64 KiB: see by-id/")
    return value


def _fitting(names: list[str], room: int) -> list[str]:
    """Return the names that fit into so many bytes, each with its NUL, in order."""
    fitting: list[str] = []
    for name in names:
        room -= len(name.encode()) + 1
        if room < 0:
            break
        fitting.append(name)
    return fitting
