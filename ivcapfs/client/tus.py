"""Writing the content of a new artifact: the resumable uploads of the platform (TUS 1.0.0).

Used by `IVCAP.upload_artifact`, by the filesystem's writer and by ``ivcapfs put``. An upload has two steps: `begin`
makes the record, `send` brings the bytes, in chunks; after an error the server is asked how far it got, and it goes
on from there. `await_ready` waits for what the platform still does after the last byte.

Threading: `Uploads` holds nothing of its own, any number of threads may use it; one upload belongs to one
thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import IO

from ivcapfs import errors
from ivcapfs.client.api import Api
from ivcapfs.client.exchange import Body, rest_of
from ivcapfs.client.origins import resolve_data_href
from ivcapfs.client.retry import Clock, Retries, Sleep, Stopped, never_stopped
from ivcapfs.client.transport import Transport
from ivcapfs.config import MIB
from ivcapfs.models import ArtifactRecord, ArtifactStatus

CHUNK = 8 * MIB
READY_POLL, LONGEST_READY_POLL = 0.02, 1.0
_TUS = {"Tus-Resumable": "1.0.0"}
_MOST_DIGITS = 18
_WORTH_ASKING = (errors.TransportError, errors.Unavailable, errors.Conflict, errors.ServerFault)
"""After these the server may have some of what was sent: ask it."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An artifact whose record is made and whose content is on its way.

    Attributes:
        url: where the content goes.
        size: bytes that were announced; None where that was not known.
    """

    uuid: str
    url: str
    size: int | None


class Uploads:
    """Makes artifacts. Thread-safe.

    Args:
        api: for the records.
        transport: for the bytes.
        chunk: bytes per request; so much of a content is in memory at a time.
    """

    def __init__(self, api: Api, transport: Transport, *, chunk: int = CHUNK) -> None:
        self._api = api
        self._transport = transport
        self._chunk = chunk

    def upload(
        self,
        source: IO[bytes],
        *,
        name: str | None = None,
        content_type: str,
        size: int | None = None,
        collection: str | None = None,
        policy: str | None = None,
        chunk: int | None = None,
        stopped: Stopped = never_stopped,
    ) -> ArtifactRecord:
        """Make an artifact of what `source` gives from its present position on (``POST /1/artifacts``,
        ``PATCH``).

        Args:
            source: read once, in order; need not be seekable.
            name, content_type, collection, policy: as for `Api.create_artifact`.
            size: bytes to take; None: up to the end. A source that ends within one chunk is announced by
                its size.
            chunk: bytes per request, if not as set up.
            stopped: asked before each request; True ends the upload with `errors.Closing`.

        Returns:
            The record, as it is after the last byte.

        Raises:
            ConfigError: the source has fewer bytes than `size`, or a value cannot be sent.
            ApiError, TransportError, ProtocolError: as for `Api`; `TooLarge` where the platform takes no
                more.
            OSError: from `source`.
        """
        step = max(chunk or self._chunk, 1)
        first = _read(source, step if size is None else min(step, size))
        if size is None and len(first) < step:
            size = len(first)
        upload = self.begin(name=name, content_type=content_type, size=size, collection=collection, policy=policy)
        self.send(upload, source, head=first, chunk=step, stopped=stopped)
        return self._api.read_artifact(upload.uuid)

    def begin(
        self,
        *,
        name: str | None,
        content_type: str,
        size: int | None,
        collection: str | None = None,
        policy: str | None = None,
    ) -> Upload:
        """Make the record; see `Api.create_artifact` for arguments and errors."""
        record = self._api.create_artifact(
            name=name, content_type=content_type, size=size, collection=collection, policy=policy
        )
        if not record.data_href:
            raise errors.ProtocolError("creating an artifact: the answer does not say where its content goes")
        return Upload(record.uuid, resolve_data_href(self._transport.base, record.data_href), size)

    def send(
        self,
        upload: Upload,
        source: IO[bytes],
        *,
        offset: int = 0,
        head: bytes = b"",
        chunk: int | None = None,
        stopped: Stopped = never_stopped,
    ) -> None:
        """Bring the content.

        Args:
            source: stands at `offset` plus the length of `head`.
            offset: bytes that the server already has; `offset_of` tells.
            head: bytes that were already read from `source`.
            chunk, stopped: as for `upload`.
        """
        step = max(chunk or self._chunk, 1)
        pending = head
        while True:
            room = step if upload.size is None else min(step, upload.size - offset)
            pending += _read(source, room - len(pending))
            if upload.size is not None and len(pending) < room:
                raise errors.ConfigError(f"the source ended at {offset + len(pending)} of {upload.size} bytes")
            if pending:
                self.bring(upload, offset, pending, stopped)
            offset += len(pending)
            if upload.size is None and len(pending) < step:
                self.finish(upload, offset, stopped)
                return
            if offset == upload.size:
                return
            pending = b""

    def offset_of(self, upload: Upload) -> int:
        """Return how many bytes of an upload the server has (``HEAD`` with ``Tus-Resumable``)."""
        return self._progress(upload)[0]

    def _progress(self, upload: Upload) -> tuple[int, int | None]:
        """Return how many bytes the server has, and how many it expects if it knows."""
        what = f"asking how far the upload of {upload.uuid} got"
        reply = self._transport.request_json("HEAD", upload.url, what=what, headers=_TUS, idempotent=True)
        offset = _number(reply.headers.get("upload-offset", ""))
        if offset is None:
            raise errors.ProtocolError(f"{what}: the server does not say")
        return offset, _number(reply.headers.get("upload-length", ""))

    def bring(self, upload: Upload, offset: int, chunk: Body, stopped: Stopped) -> None:
        """Send some bytes, going on from wherever the server says it got to (``PATCH {data-href}``).

        Args:
            offset: bytes that the server has.
            stopped: as for `upload`.
        """
        retries = self._transport.retries()
        done = 0
        while done < len(chunk):
            try:
                reached = self._patch(upload, offset + done, rest_of(chunk, done), stopped)
            except _WORTH_ASKING as exc:
                _wait(retries, exc)
                reached = self.offset_of(upload)
            if not offset + done <= reached <= offset + len(chunk):
                raise errors.ProtocolError(
                    f"uploading {upload.uuid}: the server is at byte {reached}, we at {offset + done}"
                )
            if reached > offset + done:
                retries.progressed()
            done = reached - offset

    def finish(self, upload: Upload, length: int, stopped: Stopped) -> None:
        """Say that an upload of unannounced size is complete (an empty ``PATCH`` with ``Upload-Length``).

        Args:
            length: of the whole, in bytes.
        """
        retries = self._transport.retries()
        while True:
            try:
                self._patch(upload, length, b"", stopped, final=True)
                return
            except _WORTH_ASKING as exc:
                _wait(retries, exc)
            if self._progress(upload) == (length, length):
                return

    def _patch(self, upload: Upload, offset: int, content: Body, stopped: Stopped, *, final: bool = False) -> int:
        """Send some bytes; return how many the server has then (``PATCH {data-href}``)."""
        what = f"uploading {upload.uuid}"
        if stopped():
            raise errors.Closing(f"{what}: ended by its writer")
        headers = {**_TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
        if upload.size is None:
            headers["Upload-Defer-Length"] = "1"
        if final:
            headers["Upload-Length"] = str(offset)
        with self._transport.stream("PATCH", upload.url, what=what, headers=headers, content=content) as stream:
            reached = _number(stream.headers.get("upload-offset", ""))
        return offset + len(content) if reached is None else reached


def await_ready(
    api: Api, uuid: str, *, seconds: float, pause: Sleep = time.sleep, clock: Clock = time.monotonic
) -> ArtifactRecord:
    """Return the record of an artifact once it is ready: asked for again and again (``GET /1/artifacts/{id}``).

    Args:
        seconds: the bound on the wait.
        pause: waits that many seconds between two questions; may end the wait with `errors.Closing`.
        clock: seconds, only ever forward.

    Raises:
        ApiError, TransportError: as `Api.read_artifact`.
        ProtocolError: its content is in error.
        DeadlineExceeded: it is still not ready.
    """
    end, wait = clock() + seconds, READY_POLL
    while not (record := api.read_artifact(uuid)).is_ready:
        if record.status is ArtifactStatus.ERROR:
            raise errors.ProtocolError(f"artifact {uuid}: the platform says that its content is in error")
        if clock() > end:
            raise errors.DeadlineExceeded(f"artifact {uuid}: its status is still '{record.status}'")
        pause(wait)
        wait = min(wait * 2, LONGEST_READY_POLL)
    return record


def _wait(retries: Retries, error: errors.IvcapfsError) -> None:
    """Wait before the next try; raise `error` if none may help."""
    if isinstance(error, errors.OriginRefused) or (
        isinstance(error, errors.ServerFault) and error.status not in (None, 500)
    ):
        raise error
    retries.wait(error)


def _read(source: IO[bytes], size: int) -> bytes:
    """Return exactly `size` bytes, fewer only at the end of `source`."""
    parts: list[bytes] = []
    while size > 0:
        part = source.read(size)
        if not isinstance(part, bytes | bytearray | memoryview):
            raise errors.ConfigError("the stream to upload must give bytes: open it in binary, blocking mode")
        if not part:
            break
        parts.append(bytes(part))
        size -= len(part)
    return b"".join(parts)


def _number(text: str) -> int | None:
    usable = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    return int(text) if usable else None
