"""The public `IVCAP`: one deployment of the platform, as one user.

Its methods follow the platform's own SDK. Thread-safe: it holds nothing but the `Connection`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ivcapfs.client import aspect as aspects
from ivcapfs.client.api import PAGE_LIMIT
from ivcapfs.client.artifact import Artifact
from ivcapfs.client.aspect import Aspect
from ivcapfs.client.connection import Connection, connect
from ivcapfs.client.localfiles import content_type_of
from ivcapfs.client.tus import CHUNK
from ivcapfs.config import MIB, ClientSettings, client_settings
from ivcapfs.errors import ConfigError
from ivcapfs.models import ArtifactRecord, artifact_uuid

_LARGEST_CHUNK = 64 * MIB


class IVCAP:
    """One deployment, as one user. Close it, or use it in a ``with``.

    Args:
        url: the deployment's URL; None: the environment's (``IVCAP_URL``, or ``IVCAP_BASE_URL`` inside the
            platform).
        token: the bearer token; None: the environment's (``IVCAP_JWT``, ``IVCAP_ACCESS_TOKEN``).
        account_id: URN of the account; None: the environment's (``IVCAP_ACCOUNT_ID``).
        settings: all of these and the bounds of every exchange; the other arguments must then be left out.

    Raises:
        ConfigError: nothing names a deployment, or what does is not usable.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        account_id: str | None = None,
        *,
        settings: ClientSettings | None = None,
    ) -> None:
        if settings is not None and (url or token or account_id):
            raise ConfigError("give either settings or url, token and account_id")
        self._settings = settings or client_settings(url, token, account_id)
        self._connection: Connection = connect(self._settings)

    @property
    def url(self) -> str:
        """The deployment's URL."""
        return self._settings.url

    def close(self) -> None:
        """End all exchanges, in all threads. Every later call raises `errors.Closing`."""
        self._connection.close()

    def list_artifacts(
        self,
        *,
        filter: str | None = None,
        limit: int | None = 10,
        order_by: str | None = None,
        order_desc: bool | None = False,
        at_time: datetime | None = None,
    ) -> Iterator[Artifact]:
        """Yield artifacts, over as many pages as needed (``GET /1/artifacts``).

        Args:
            filter: for the server, e.g. ``name ~= 'Scott%'``.
            limit: how many at most, in all; None: all there are.
            order_by: an attribute, e.g. ``created-at``.
            order_desc: the largest first.
            at_time: the list as it was then; without a zone it is UTC.

        Raises:
            ApiError, TransportError, ProtocolError: while iterating.
        """
        records = self._connection.api.iter_artifacts(
            limit=_page_limit(limit), filter=filter, order_by=order_by, order_desc=order_desc, at_time=at_time
        )
        return (self._artifact(record) for record in islice(records, _at_least_0(limit)))

    def get_artifact(self, id: str) -> Artifact:
        """Return an artifact (``GET /1/artifacts/{id}``).

        Args:
            id: its URN, or its uuid alone.

        Raises:
            ConfigError: neither of these.
            NotFound: there is none of that id.
        """
        uuid = artifact_uuid(id)
        if uuid is None:
            raise ConfigError(f"not an artifact: {id[:100]!r}; give urn:ivcap:artifact:<uuid>, or the uuid")
        return self._artifact(self._connection.api.read_artifact(uuid))

    def upload_artifact(
        self,
        *,
        name: str | None = None,
        file_path: Path | str | None = None,
        io_stream: IO[bytes] | None = None,
        content_type: str | None = None,
        content_size: int | None = -1,
        collection: str | None = None,
        policy: str | None = None,
        chunk_size: int | None = None,
    ) -> Artifact:
        """Make an artifact of a file or a stream (``POST /1/artifacts``, then ``PATCH`` by chunks).

        Args:
            name: any text; it need not be unique.
            file_path: the file to upload; nothing is written beside it, and every call makes a new artifact.
            io_stream: instead of a file: an open binary file, taken from its present position.
            content_type: MIME type; None: as the file's suffix suggests, else ``application/octet-stream``.
            content_size: bytes to take from the stream; -1 or None: up to its end.
            collection: URN of a collection to put it in.
            policy: URN of the policy that says who may see it.
            chunk_size: bytes per request, at most 64 MiB; None: 8 MiB.

        Returns:
            The artifact as it is after the last byte.

        Raises:
            ConfigError: not exactly one of file and stream, a file that cannot be read, a value that cannot
                be sent.
            TooLarge: more bytes than the platform takes.
            ApiError, TransportError, ProtocolError: the upload failed; a record without content may remain.
        """
        if (file_path is None) == (io_stream is None):
            raise ConfigError("give either file_path or io_stream")
        if io_stream is not None:
            size = None if content_size is None or content_size < 0 else content_size
            return self._upload(
                io_stream, name, content_type or "application/octet-stream", size, collection, policy, chunk_size
            )
        path = Path(file_path or "")
        try:
            file = path.open("rb")
        except OSError as exc:
            raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
        with file:
            facts = os.fstat(file.fileno())
            size = facts.st_size if stat.S_ISREG(facts.st_mode) else None
            kind = content_type or content_type_of(path)
            return self._upload(file, name, kind, size, collection, policy, chunk_size)

    def list_aspects(
        self,
        *,
        entity: str | None = None,
        schema: str | None = None,
        content_path: str | None = None,
        at_time: datetime | None = None,
        limit: int | None = 10,
        filter: str | None = None,
        order_by: str | None = "valid_from",
        order_direction: str | None = "DESC",
        include_content: bool | None = True,
    ) -> Iterator[Aspect]:
        """Yield aspects, over as many pages as needed (``GET /1/aspects``).

        Args:
            entity: URN of what they are about.
            schema: URN; ``%`` stands for anything.
            content_path: a PostgreSQL JSONPath that their content must match.
            at_time: those that stood then; without a zone it is UTC.
            limit: how many at most, in all; None: all there are.
            filter: for the server.
            order_by: attributes, separated by commas.
            order_direction: ``ASC`` or ``DESC``.
            include_content: whether contents come along; else each is read when first looked at.

        Raises:
            ApiError, TransportError, ProtocolError: while iterating.
        """
        api = self._connection.api
        records = api.iter_aspects(
            entity=entity, schema=schema, content_path=content_path, at_time=at_time, filter=filter,
            order_by=order_by, order_direction=order_direction, include_content=include_content is not False,
            limit=_page_limit(limit),
        )  # fmt: skip
        return (Aspect(api, record) for record in islice(records, _at_least_0(limit)))

    def add_aspect(self, entity: str, aspect: Any, *, schema: str | None = None, policy: str | None = None) -> Aspect:
        """Add an aspect beside those that stand (``POST /1/aspects``); return it.

        Args:
            entity: URN of what it is about.
            aspect: a dict that JSON can carry; ``$schema`` and ``$entity`` are put in where missing.
            schema: URN; None: the aspect's own ``$schema``.
            policy: URN of the policy that says who may see it.

        Raises:
            ConfigError: no schema, or content that JSON cannot carry.
            ApiError, TransportError, ProtocolError: it was not added.
        """
        return aspects.add(self._connection.api, entity, aspect, schema, policy, replace=False)

    def update_aspect(
        self, entity: str, aspect: Any, *, schema: str | None = None, policy: str | None = None
    ) -> Aspect:
        """Replace the one aspect of that schema, or add the first (``PUT`` or ``POST /1/aspects``); return
        it.

        Arguments and errors are those of `add_aspect`; and:

        Raises:
            Conflict: several aspects of that schema stand.
        """
        return aspects.add(self._connection.api, entity, aspect, schema, policy, replace=True)

    def _upload(
        self,
        source: IO[bytes],
        name: str | None,
        content_type: str,
        size: int | None,
        collection: str | None,
        policy: str | None,
        chunk_size: int | None,
    ) -> Artifact:
        chunk = CHUNK if chunk_size is None else min(max(chunk_size, 1), _LARGEST_CHUNK)
        record = self._connection.uploads.upload(
            source, name=name, content_type=content_type, size=size,
            collection=collection, policy=policy, chunk=chunk,
        )  # fmt: skip
        return self._artifact(record)

    def _artifact(self, record: ArtifactRecord) -> Artifact:
        return Artifact(self._connection, record)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<IVCAP url={self.url}>"


def _page_limit(limit: int | None) -> int:
    return PAGE_LIMIT if limit is None else min(max(limit, 1), PAGE_LIMIT)


def _at_least_0(limit: int | None) -> int | None:
    return None if limit is None else max(limit, 0)
