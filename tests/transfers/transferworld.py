"""A platform whose answers a test can break, and a client that does not wait long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ivcapfs.client import Connection, connect
from ivcapfs.config import ClientSettings, Limits
from ivcapfs.server.runner import Platform
from ivcapfs.transfers.put import Putter, Sending

LIMITS = Limits(connect=1, idle=2, total=2, retries=1, backoff=0.01)
MIB = 1024 * 1024


class TransferWorld:
    """See the module.

    Attributes:
        refuse: says for each request ("METHOD path") whether it is answered with 403, and not done.
        asked: all requests.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes = folder / "state" / "transfers"
        self.refuse: Callable[[str], bool] = lambda request: False
        self.asked: list[str] = []
        self.platform = Platform(folder / "data", wrap=self._wrap)
        self.platform.start()
        self.connection: Connection = connect(ClientSettings(self.platform.url, limits=LIMITS))

    def file(self, name: str, content: bytes) -> Path:
        """Make a file to be sent."""
        path = self.folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def putter(self, **more: Any) -> Putter:
        return Putter(self.connection, self.notes, **{"chunk": MIB} | more)

    def put(self, path: Path, name: str = "a", **more: Any) -> str:
        """Send a file; return the URN."""
        return self.putter(**more).put(Sending(path, name)).urn

    def content(self, urn: str) -> bytes:
        uuid = urn.rpartition(":")[2]
        content = self.connection.blobs.head(uuid)
        with self.connection.blobs.open_range(uuid, 0, content.size, expected=content) as stream:
            return b"".join(stream)

    def artifacts(self) -> list[str]:
        """Return the URNs of all artifacts that are ready."""
        return [record.urn for record in self.connection.api.iter_artifacts() if record.is_ready]

    def count(self, method: str) -> int:
        """Return how many requests of a method there were since the last time, and forget them."""
        count = sum(request.startswith(method + " ") for request in self.asked)
        self.asked.clear()
        return count

    def close(self) -> None:
        self.connection.close()
        self.platform.close()

    def _wrap(self, app: Any) -> Any:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                return await app(scope, receive, send)
            request = f"{scope['method']} {scope['path']}"
            self.asked.append(request)
            if not self.refuse(request):
                return await app(scope, receive, send)
            while (await receive()).get("more_body"):
                pass
            await send({"type": "http.response.start", "status": 403, "headers": []})
            return await send({"type": "http.response.body", "body": b""})

        return wrapped
