"""Embedded platforms that know the files as artifacts, and say that nginx has their content.

Used by `bench.world`. Each platform serves in a thread of its own; filling it is done by the caller's thread.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bench.content import Folder
from ivcapfs.server.runner import Platform

_RECORD = re.compile(r"/1/artifacts/[^/]+")
_NAMESPACE = uuid.UUID("6f0c1f0e-7c0b-4a57-9c5e-2f6f2f7d1d11")


def urn_of(name: str) -> str:
    """Return the URN of the artifact of this name, the same in every run."""
    return f"urn:ivcap:artifact:{uuid.uuid5(_NAMESPACE, name)}"


class BlobHrefs:
    """ASGI middleware that has the data-href of each record point to ``/blobs/<urn>`` on nginx.

    Args:
        app: the platform.
        base: scheme, host and port of nginx; None: those by which the client reached us, through nginx.
    """

    def __init__(self, app: ASGIApp, base: str | None) -> None:
        self._app = app
        self._base = base

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "GET" or not _RECORD.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        base = self._base or _reached_by(scope)
        start: Message = {}
        body = bytearray()

        async def rewrite(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body.extend(message.get("body", b""))
            if not message.get("more_body", False):
                changed = rewritten(bytes(body), base) if start["status"] == 200 else bytes(body)
                kept = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
                length = (b"content-length", str(len(changed)).encode())
                await send({**start, "headers": [*kept, length]})
                await send({"type": "http.response.body", "body": changed})

        await self._app(scope, receive, rewrite)


def rewritten(body: bytes, base: str) -> bytes:
    """Return a record's JSON with its data-href on nginx."""
    record = json.loads(body)
    record["data-href"] = f"{base}/blobs/{record['id']}"
    return json.dumps(record).encode()


def start_platform(data: Path, contents: list[Folder], base: str | None) -> Platform:
    """Start a platform whose artifacts are these folders' files; close it afterwards.

    Args:
        data: its data directory.
        base: where the blobs are, see :class:`BlobHrefs`.
    """
    platform = Platform(data, wrap=lambda app: BlobHrefs(app, base))
    platform.start()
    try:
        store = platform.store
        with store.batch():
            for folder in contents:
                for name in folder.files:
                    whole = f"{folder.name}/{name}"
                    etag = hashlib.sha256(whole.encode()).hexdigest()
                    store.artifacts.insert(
                        urn_of(whole), whole, "application/octet-stream", size=folder.size, status="ready", etag=etag
                    )
    except BaseException:
        platform.close()
        raise
    return platform


def link_blobs(blobs: Path, files: Path, contents: list[Folder]) -> None:
    """Make the files reachable by URN, for nginx."""
    blobs.mkdir(exist_ok=True)
    for folder in contents:
        for name in folder.files:
            (blobs / urn_of(f"{folder.name}/{name}")).symlink_to(files / folder.name / name)


def _reached_by(scope: Scope) -> str:
    host = next((value for name, value in scope["headers"] if name == b"host"), b"127.0.0.1").decode("latin-1")
    return f"{scope['scheme']}://{host}"
