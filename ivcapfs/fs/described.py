"""A record and its aspects as text: the fields with their public names, the aspects with their labels.

Used by the tree (`artifact.json`, `aspects/*.json`) and by the extended attributes, read and written, so that all say
the same. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime

from ivcapfs.catalog.names import encode_component
from ivcapfs.models import ArtifactRecord, AspectRecord

LISTED = ("id", "name", "status", "size", "created-at")
"""The fields that every list item has."""
WHOLE = ("etag", "policy", "account", "last-modified-at")
"""The fields that only a read of the record tells."""
MAX_LABEL = 230
"""Bytes: with its prefix or suffix, a label must fit into 255."""


def fields(record: ArtifactRecord) -> dict[str, str | int]:
    """Return what is known of a record, under the API's own names. The data-href stays out: it may be signed."""
    told: dict[str, str | int | None] = {
        "id": record.urn,
        "name": record.name,
        "status": str(record.status),
        "mime-type": record.mime_type,
        "size": record.size,
        "created-at": timestamp(record.created_at),
        "last-modified-at": timestamp(record.last_modified_at) if record.last_modified_at else None,
        "etag": record.etag,
        "policy": record.policy,
        "account": record.account,
    }
    return {name: value for name, value in told.items() if value is not None}


def timestamp(time: datetime) -> str:
    """Return RFC 3339 in UTC."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def labels(aspects: Iterable[AspectRecord]) -> dict[str, AspectRecord]:
    """Give each aspect a label, fit for a file name and an attribute name: its schema.

    Args:
        aspects: newest first; of several of one schema the newest is plain, the next `~2`, then `~3`.
    """
    standing = list(aspects)
    named: dict[str, AspectRecord] = {}
    later: list[AspectRecord] = []
    for aspect in standing:
        label = label_of(aspect.schema)
        if label in named:
            later.append(aspect)
        else:
            named[label] = aspect
    for aspect in later:
        label, count = label_of(aspect.schema), 2
        while f"{label}~{count}" in named:
            count += 1
        named[f"{label}~{count}"] = aspect
    return named


def label_of(schema: str) -> str:
    """Return the label of the newest aspect of a schema. A cut one ends in `~` and 16 digits of its hash."""
    text = encode_component(schema or "none").replace("/", "%2F")
    if text.startswith("."):  # a hidden name is never asked for
        text = "%2E" + text[1:]
    data = text.encode()
    if len(data) <= MAX_LABEL:
        return text
    digest = hashlib.sha256(data).hexdigest()[:16]
    return f"{data[: MAX_LABEL - 20].decode('utf-8', 'ignore')}~{digest}"
