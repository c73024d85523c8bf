"""The public `Artifact`: a content stored on the platform, and what is known of it.

Made by `IVCAP.get_artifact`, `list_artifacts` and `upload_artifact`. An object may be shared by threads:
its record is replaced as a whole. Files and streams that it gives out belong to one thread each.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from ivcapfs.client import localfiles
from ivcapfs.client.aspect import Aspect, prepare
from ivcapfs.client.connection import Connection
from ivcapfs.client.rangefile import BUFFER, RangeFile
from ivcapfs.config import KIB, MIB
from ivcapfs.models import ArtifactRecord, ArtifactStatus

_SMALLEST_CHUNK = 8 * KIB
_LARGEST_CHUNK = 10 * MIB
_FINAL = frozenset({ArtifactStatus.READY, ArtifactStatus.ERROR})

Progress = Callable[[int, int | None], None]
"""Called with the bytes that came so far, and the total."""


class Artifact:
    """Any content (an image, a table, a model …) with a record: name, type, size, and metadata in aspects.

    Args:
        connection: the deployment.
        record: what is known of it so far.
    """

    def __init__(self, connection: Connection, record: ArtifactRecord) -> None:
        self._connection = connection
        self._record = record

    @property
    def id(self) -> str:
        """The URN, ``urn:ivcap:artifact:<uuid>``."""
        return self._record.urn

    @property
    def urn(self) -> str:
        """The URN, the same as `id`."""
        return self._record.urn

    @property
    def name(self) -> str | None:
        """The name as registered; it need not be unique, nor fit for a file."""
        return self._record.name

    @property
    def size(self) -> int | None:
        """Bytes; None where the record does not say (yet)."""
        return self._record.size

    @property
    def mime_type(self) -> str | None:
        """The content's type as registered."""
        return self._record.mime_type

    @property
    def status(self) -> ArtifactStatus:
        """Where it stands; asked of the server (``GET /1/artifacts/{id}``) until it is ready or in error."""
        if self._record.status not in _FINAL:
            self.refresh()
        return self._record.status

    @property
    def created_at(self) -> datetime:
        """When the record was made; the epoch where the server does not say."""
        return self._record.created_at

    @property
    def last_modified_at(self) -> datetime | None:
        """When the record last changed; read from the server where the list left it out."""
        return self._whole().last_modified_at

    @property
    def etag(self) -> str | None:
        """The record's tag of the content; read from the server where the list left it out."""
        return self._whole().etag

    @property
    def policy(self) -> str | None:
        """The URN of the policy that says who may see it; read from the server where the list left it out."""
        return self._whole().policy

    @property
    def account(self) -> str | None:
        """The URN of the account that owns it; read from the server where the list left it out."""
        return self._whole().account

    def refresh(self) -> Artifact:
        """Read the record anew (``GET /1/artifacts/{id}``); return self.

        Raises:
            NotFound: there is none of that id.
        """
        self._record = self._connection.api.read_artifact(self._record.uuid)
        return self

    def open(self) -> io.BufferedReader:
        """Return the content as a seekable binary file (``HEAD {data-href}`` now, ranged GETs as it is read).

        Nothing but a buffer of 1 MiB is held in memory. Wrap it in `io.TextIOWrapper` for text.

        Raises:
            NotReady: there is no content (yet).
            ContentChanged: from reading, when the server shows other content than on opening.
            ApiError, TransportError, ProtocolError: from opening and reading.
        """
        blobs, uuid = self._connection.blobs, self._record.uuid
        return io.BufferedReader(RangeFile(blobs, uuid, blobs.head(uuid)), BUFFER)

    def as_stream(self, chunk_size: int = -1) -> Iterator[bytes]:
        """Yield the content in chunks (``GET {data-href}``).

        Args:
            chunk_size: bytes per chunk, which every chunk but the last has exactly; -1: a tenth of the
                size, at least 8 KiB and at most 10 MiB (8 KiB where the size is not known).

        Raises:
            ValueError: no such chunk size.
            NotReady, ApiError, TransportError, ProtocolError: as for `open`.
        """
        if chunk_size != -1 and chunk_size < 1:
            raise ValueError(f"not a chunk size: {chunk_size}")
        size = self.size or 0
        automatic = max(_SMALLEST_CHUNK, min(size // 10, _LARGEST_CHUNK))
        return self._chunks(automatic if chunk_size == -1 else chunk_size)

    def as_local_file(
        self, path: Path | str | None = None, chunk_size: int = -1, *, progress_callback: Progress | None = None
    ) -> Path:
        """Save the content to a file.

        Args:
            path: where to; missing folders are made. The file appears only once it is complete: on any
                failure, what was there before is untouched. None: a new temporary file.
            chunk_size: as for `as_stream`.
            progress_callback: called after each chunk with the bytes so far and the total.

        Returns:
            `path`; or the path of the temporary file, which is deleted at the end of a ``with`` on it.

        Raises:
            OSError: the disk refuses.
            NotReady, ApiError, TransportError, ProtocolError: as for `open`.
        """
        chunks: Iterable[bytes] = self.as_stream(chunk_size)
        if progress_callback is not None:
            chunks = self._reported(chunks, progress_callback)
        if path is None:
            return localfiles.save_temporarily(chunks, suffix=localfiles.suffix_for(self.name, self.mime_type))
        localfiles.save(chunks, Path(path))
        return Path(path)

    @property
    def metadata(self) -> Iterator[Aspect]:
        """All aspects about this artifact, over all pages (``GET /1/aspects``)."""
        api = self._connection.api
        return (Aspect(api, record) for record in api.iter_aspects(entity=self.urn))

    def add_metadata(self, aspect: Any, *, schema: str | None = None, policy: str | None = None) -> Artifact:
        """Add an aspect about this artifact (``POST /1/aspects``); return self.

        Args:
            aspect: a dict that JSON can carry; ``$schema`` and ``$entity`` are put in where missing.
            schema: URN; None: the aspect's own ``$schema``.
            policy: URN of the policy that says who may see it.

        Raises:
            ConfigError: no schema, or content that JSON cannot carry.
        """
        named, value = prepare(self.urn, aspect, schema)
        self._connection.api.add_aspect(self.urn, named, value, policy)
        return self

    def _whole(self) -> ArtifactRecord:
        if not self._record.whole:
            self.refresh()
        return self._record

    def _chunks(self, chunk_size: int) -> Iterator[bytes]:
        """Yield the content in chunks of exactly that size, but the last."""
        blobs, uuid = self._connection.blobs, self._record.uuid
        content = blobs.head(uuid)
        with blobs.open_range(uuid, 0, content.size, expected=content) as stream:
            gathered = bytearray()
            for part in stream:
                gathered += part
                at = 0
                while len(gathered) - at >= chunk_size:
                    yield bytes(gathered[at : at + chunk_size])
                    at += chunk_size
                if at:
                    del gathered[:at]
            if gathered:
                yield bytes(gathered)

    def _reported(self, chunks: Iterable[bytes], report: Progress) -> Iterator[bytes]:
        done = 0
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            report(done, self.size)

    def __repr__(self) -> str:
        return f"<Artifact id={self.id}, name={self.name!r}, status={self._record.status}>"
