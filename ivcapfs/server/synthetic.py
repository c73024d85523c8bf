"""Artifacts and aspects by formula: a million of them, or a thousand million, without disk and without memory.

Artifact n is called ``artifact-<n in 7 digits>.bin`` (more digits when there are more), was created n seconds
after the beginning of 1990, is ready, and has :attr:`Synthetic.size` bytes, which differ from those of all others
in the first eight. Every eighth carries an aspect, of its own age. Used by the store. Pure, hence safe in any thread.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from functools import cached_property

from ivcapfs.server import scatter
from ivcapfs.server.fields import ARTIFACT_FIELDS, ASPECT_FIELDS
from ivcapfs.server.formula import Column, Formula
from ivcapfs.server.records import (
    ACCOUNT,
    ARTIFACT_POLICY,
    ARTIFACT_PREFIX,
    ASPECT_POLICY,
    ASPECT_PREFIX,
    MAX_UPLOAD,
    PRINCIPAL,
    Artifact,
    Aspect,
)

MAX_COUNT = 10**9
DEFAULT_SIZE = 4096
SCHEMA = "urn:x:synthetic:1"
"""The schema of the aspects."""
ASPECT_EVERY = 8

_BEGIN = 631_152_000_000_000  # 1990-01-01T00:00:00Z
_APART = 1_000_000  # microseconds
_MIME_TYPE = "application/octet-stream"
_ARTIFACT_SALT = 0x6A09E667F3BCC908B2FB13
_ASPECT_SALT = 0xBB67AE8584CAA73B3C6EF3

_BLOCK = 1 << 16
_NOISE = hashlib.shake_128(b"synthetic artifacts").digest((1 << 20) + _BLOCK)
_PLACE = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Synthetic:
    """How many artifacts there are by formula.

    Args:
        count: up to :data:`MAX_COUNT`.
        size: of each one's content, in bytes.

    Raises:
        ValueError: there cannot be so many, or so much in one.
    """

    count: int
    size: int = DEFAULT_SIZE

    def __post_init__(self) -> None:
        if not 0 <= self.count <= MAX_COUNT:
            raise ValueError(f"there can be {MAX_COUNT} synthetic artifacts at most, not {self.count}")
        if not 0 <= self.size <= MAX_UPLOAD:
            raise ValueError(f"an artifact may have {MAX_UPLOAD} bytes at most, not {self.size}")

    def name(self, number: int) -> str:
        """Return an artifact's name; names are in the order of their numbers."""
        return self._name_format % number

    @cached_property
    def _name_format(self) -> str:
        return f"artifact-%0{max(7, len(str(self.count - 1)))}d.bin"

    def artifact(self, number: int) -> Artifact:
        """Return an artifact's record."""
        at = created_at(number)
        return Artifact(
            artifact_id(number), self.name(number), _MIME_TYPE, self.size, "ready", f"synthetic-{number}-{self.size}",
            ARTIFACT_POLICY, ACCOUNT, 0, at, at,
        )  # fmt: skip

    def artifacts(self) -> Formula[Artifact]:
        """Return all artifacts."""
        columns = {
            "id": Column(artifact_id, "uuid", ARTIFACT_PREFIX),
            "name": Column(self.name, "number"),
            "status": Column(lambda _: "ready"),
            "mime_type": Column(lambda _: _MIME_TYPE),
            "size": Column(lambda _: self.size),
            "created_at": Column(created_at, "number"),
            "last_modified_at": Column(created_at, "number"),
        }
        return Formula(range(self.count), self.artifact, ARTIFACT_FIELDS, columns, "created_at")

    def aspects(self) -> Formula[Aspect]:
        """Return all aspects; each has the number of the artifact that carries it."""
        columns = {
            "id": Column(aspect_id, "uuid", ASPECT_PREFIX),
            "entity": Column(artifact_id, "uuid", ARTIFACT_PREFIX),
            "schema": Column(lambda _: SCHEMA),
            "content": Column(aspect_content, "uuid", _CONTENT_BEGIN),
            "content_type": Column(lambda _: "application/json"),
            "policy": Column(lambda _: ASPECT_POLICY),
            "account": Column(lambda _: ACCOUNT),
            "asserter": Column(lambda _: PRINCIPAL),
            "retracter": Column(lambda _: None),
            "replaces": Column(lambda _: None),
            "valid_from": Column(created_at, "number"),
            "valid_to": Column(lambda _: None),
        }
        return Formula(range(0, self.count, ASPECT_EVERY), aspect, ASPECT_FIELDS, columns, "valid_from")


def artifact_id(number: int) -> str:
    """Return an artifact's URN."""
    return ARTIFACT_PREFIX + scatter.uuid_of(number, _ARTIFACT_SALT)


def aspect_id(number: int) -> str:
    """Return the URN of the aspect that an artifact carries."""
    return ASPECT_PREFIX + scatter.uuid_of(number, _ASPECT_SALT)


def created_at(number: int) -> int:
    """Return when an artifact was created, in microseconds since 1970."""
    return _BEGIN + number * _APART


_CONTENT_BEGIN = f'{{"$entity": "{ARTIFACT_PREFIX}'


def aspect_content(number: int) -> str:
    """Return an aspect's content, as JSON text."""
    # The entity comes first: so the contents, too, are in the order of the artifacts' uuids.
    return json.dumps({"$entity": artifact_id(number), "$schema": SCHEMA, "number": number, "group": number // 8 % 10})


def aspect(number: int) -> Aspect:
    """Return the record of the aspect that an artifact carries."""
    return Aspect(
        aspect_id(number), artifact_id(number), SCHEMA, aspect_content(number), "application/json", ASPECT_POLICY,
        ACCOUNT, PRINCIPAL, None, None, created_at(number), None,
    )  # fmt: skip


def content(number: int, start: int, stop: int) -> bytes:
    """Return an artifact's bytes from ``start`` to before ``stop``.

    A block of 64 KiB is the artifact's number and the block's, eight bytes each, and then a piece of noise that
    begins where a hash of the two says.
    """
    first, last = start // _BLOCK, (stop - 1) // _BLOCK
    blocks = b"".join(_block(number, block) for block in range(first, last + 1))
    return blocks[start - first * _BLOCK : stop - first * _BLOCK] if stop > start else b""


def _block(number: int, block: int) -> bytes:
    at = ((number * _PLACE ^ block) * _PLACE >> 40) & 0xFFFFF
    return number.to_bytes(8, "big") + block.to_bytes(8, "big") + _NOISE[at + 16 : at + _BLOCK]


class ContentFile(io.RawIOBase):
    """An artifact's content as a file that is read; of one thread at a time.

    Args:
        number: the artifact.
        size: how many bytes it has.
    """

    def __init__(self, number: int, size: int) -> None:
        super().__init__()
        self._number = number
        self._size = size
        self._at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset from the start; other origins are not needed."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only from the start")
        self._at = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, as many as are wanted or there are."""
        stop = self._size if size < 0 else min(self._at + size, self._size)
        data = content(self._number, self._at, stop)
        self._at += len(data)
        return data
