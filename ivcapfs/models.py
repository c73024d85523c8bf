"""What the platform speaks of, as frozen values: artifact records, aspects, blobs, block keys.

Used by every floor above; knows nothing of HTTP, FUSE or files. Values are immutable, so any thread may hold them.
"""

from __future__ import annotations

import enum
import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

from ivcapfs.errors import ProtocolError

ARTIFACT_URN = "urn:ivcap:artifact:"
COLLECTION_SCHEMA = "urn:ivcap:schema:collection.1"
COLLECTION_ITEM_SCHEMA = "urn:ivcap:schema:collection-item.1"
ARTIFACT_COLLECTION_SCHEMA = "urn:ivcap:schema:artifact-collection.1"
"""The older form: one aspect that names all members of a collection."""
EPOCH = datetime.fromtimestamp(0, UTC)
"""Stands for a time that the platform does not tell."""

T = TypeVar("T")

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_URN = re.compile(ARTIFACT_URN + r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_PREFIX = len(ARTIFACT_URN)


class ArtifactStatus(enum.StrEnum):
    """Where an artifact stands. Only `READY` has readable content."""

    PENDING = "pending"
    PARTIAL = "partial"
    BUILDING = "building"
    READY = "ready"
    ERROR = "error"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, value: object) -> ArtifactStatus:
        """A status that no document names is `UNKNOWN`, not an error: the platform may grow."""
        return cls.UNKNOWN


BEFORE_READY = frozenset({ArtifactStatus.PENDING, ArtifactStatus.PARTIAL, ArtifactStatus.BUILDING})
"""What an artifact never is again, once it is ready: who says so says what was."""


@dataclass(frozen=True, slots=True)
class ArtifactRecord:
    """One artifact, as ``GET /1/artifacts`` (a list item) or ``GET /1/artifacts/{id}`` (whole) tells it.

    Attributes:
        uuid: lower-case, canonical; the URN is `urn`.
        name: as registered, any string at all; None where there is none.
        size: bytes; None where the record does not say.
        created_at: when the record was made, aware; the epoch where the server did not say.
        data_href: where the content is; only in a whole record.
        whole: whether this came from a read of the record (a list item lacks data-href, etag, policy, account).
    """

    uuid: str
    name: str | None
    status: ArtifactStatus
    mime_type: str | None
    size: int | None
    created_at: datetime
    last_modified_at: datetime | None = None
    etag: str | None = None
    policy: str | None = None
    account: str | None = None
    data_href: str | None = None
    whole: bool = False

    @property
    def urn(self) -> str:
        """The artifact's URN, `urn:ivcap:artifact:<uuid>`."""
        return ARTIFACT_URN + self.uuid

    @property
    def is_ready(self) -> bool:
        """Whether the content can be read."""
        return self.status is ArtifactStatus.READY


class ListedArtifact(NamedTuple):
    """One artifact of a list, as `ArtifactRecord` has it: a tuple, because a list has many."""

    uuid: str
    name: str | None
    status: ArtifactStatus
    mime_type: str | None
    size: int | None
    created_at: datetime

    @property
    def is_ready(self) -> bool:
        """Whether the content can be read."""
        return self.status is ArtifactStatus.READY


@dataclass(frozen=True, slots=True)
class AspectRecord:
    """One aspect: typed JSON about an entity, valid for a time (``GET /1/aspects``).

    Attributes:
        content: the JSON value; None where the answer did not include it.
        valid_to: when it was retracted; None while it stands.
    """

    id: str
    entity: str
    schema: str
    content: Any
    content_type: str | None
    valid_from: datetime
    valid_to: datetime | None = None
    asserter: str | None = None
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class CollectionRecord:
    """One collection, as its aspects tell it.

    Attributes:
        urn: the entity that stands for the collection.
        name: as described; None for the older form, which has none.
    """

    urn: str
    name: str | None
    description: str | None
    valid_from: datetime


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list.

    Attributes:
        cursor: what to ask the next page with; None on the last page.
        at_time: the moment that the list is of, as the server says.
    """

    items: tuple[T, ...]
    cursor: str | None = None
    at_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class PageText:
    """One page of a list of artifacts, of which no more is read than it takes to ask for the next one.

    Attributes:
        body: the answer's, as it came.
        items: of the list in it, as JSON has them; `ivcapfs.client.wire.artifacts_in` reads them.
        cursor, at_time: as in `Page`.
    """

    body: bytes
    items: list[Any]
    cursor: str | None = None
    at_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """Which bytes an artifact has: as long as this stays equal, no byte changed.

    Attributes:
        validator: the ETag of the blob response, or what stands in for it where the server sends none.
        size: total bytes.
        strong: whether the validator may be used in If-Range (RFC 9110, 13.1.5).
    """

    validator: str
    size: int
    strong: bool = False


@dataclass(frozen=True, slots=True)
class BlockKey:
    """The name of one cached block. Origin and identity are in it: what one account may read, another may not."""

    origin: str
    identity: str
    uuid: str
    validator: str
    number: int


def artifact_uuid(text: str) -> str | None:
    """Return the canonical uuid in an artifact's URN or bare uuid, or None if `text` is neither."""
    if _URN.fullmatch(text):  # as servers write it
        return text[_PREFIX:]
    bare = text.removeprefix(ARTIFACT_URN).lower()
    return bare if _UUID.fullmatch(bare) else None


def require_artifact_uuid(text: str) -> str:
    """Return the canonical uuid of an artifact id.

    Raises:
        ProtocolError: `text` is neither a URN of an artifact nor a uuid.
    """
    if (uuid := artifact_uuid(text)) is None:
        raise ProtocolError(f"not an artifact id: {text[:100]!r}")
    return uuid


def uuid_bytes(uuid: str) -> bytes:
    """Return the 16 bytes of a canonical uuid."""
    return bytes.fromhex(uuid.replace("-", ""))


def uuid_text(data: bytes) -> str:
    """Return the canonical uuid of 16 bytes."""
    digits = data.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def inode_of(uuid: str | bytes, salt: int = 0) -> int:
    """Return the inode number of an artifact (or of something in its folder, by `salt`): 64 bits, never 0 or 1.

    It depends on nothing but the uuid, so the same artifact has the same number in every view and every mount.

    Args:
        uuid: canonical, or its 16 bytes.
    """
    number = int.from_bytes(uuid) if isinstance(uuid, bytes) else int(uuid.replace("-", ""), 16)
    mixed = ((number >> 64) ^ (number * 0x9E3779B97F4A7C15) ^ (salt * 0xC2B2AE3D27D4EB4F)) & (2**63 - 1)
    return mixed if mixed > 1 else mixed + 2


def inode_of_text(text: str) -> int:
    """Return an inode number for what has no uuid of its own; the same text has the same number everywhere."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) >> 1 | 1 << 62
