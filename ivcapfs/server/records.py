"""What the platform keeps, as values: artifact and aspect records, and the names they are known by.

Used by the tables, which make them, and by the API, which sends them. Immutable, hence safe in any thread.
"""

from __future__ import annotations

import uuid
from typing import NamedTuple

ACCOUNT = "urn:ivcap:account:00000000-0000-4000-8000-000000000001"
PRINCIPAL = "urn:ivcap:principal:00000000-0000-4000-8000-000000000002"
ARTIFACT_POLICY = "urn:ivcap:policy:ivcap.base.artifact"
ASPECT_POLICY = "urn:ivcap:policy:ivcap.base.metadata"
COLLECTION_ITEM_SCHEMA = "urn:ivcap:schema:collection-item.1"

ARTIFACT_PREFIX = "urn:ivcap:artifact:"
ASPECT_PREFIX = "urn:ivcap:aspect:"

MAX_UPLOAD = 5 * 1024**3
"""The most bytes that an artifact may have."""


class Artifact(NamedTuple):
    """An artifact's record; the times are in microseconds since 1970, the size is in bytes.

    ``etag`` is the SHA-256 of the content in hexadecimal, but for content by formula. ``deferred`` (0 or
    1) says that whoever uploads it has promised to tell the length at the end.
    """

    id: str
    name: str | None
    mime_type: str | None
    size: int | None
    status: str
    etag: str | None
    policy: str
    account: str
    deferred: int
    created_at: int
    last_modified_at: int


class Aspect(NamedTuple):
    """An aspect's record; ``content`` is JSON text, the times are in microseconds since 1970."""

    id: str
    entity: str
    schema: str
    content: str
    content_type: str
    policy: str
    account: str
    asserter: str
    retracter: str | None
    replaces: str | None
    valid_from: int
    valid_to: int | None


def new_artifact_id() -> str:
    """Return a new artifact's URN."""
    return f"{ARTIFACT_PREFIX}{uuid.uuid4()}"


def new_aspect_id() -> str:
    """Return a new aspect's URN."""
    return f"{ASPECT_PREFIX}{uuid.uuid4()}"


def artifact_urn(text: str) -> str | None:
    """Return the URN of an artifact named by its URN or its bare uuid, ``None`` when it is neither."""
    return _urn(ARTIFACT_PREFIX, text)


def aspect_urn(text: str) -> str | None:
    """Return the URN of an aspect named by its URN or its bare uuid, ``None`` when it is neither."""
    return _urn(ASPECT_PREFIX, text)


def _urn(prefix: str, text: str) -> str | None:
    bare = text.removeprefix(prefix)
    try:
        return f"{prefix}{uuid.UUID(bare)}" if len(bare) == 36 else None
    except ValueError:
        return None
