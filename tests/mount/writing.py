"""What the tests of writing share: what the platform has in the end, what waits in the spool, what a mount says of it.

The official SDK tells what became of the files; the platform's own store only tells of records that are not ready.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from ivcap_client.ivcap import IVCAP as SDK

from ivcapfs.server.runner import Platform
from tests.mount.conftest import Mount, Mounter, daemons, eventually, ivcapfs, output

UPLOAD = "user.ivcap.upload"
MIB = 1024 * 1024


def writing_mount(platform: Platform, mounter: Mounter, **options: object) -> Mount:
    """Mount a platform for writing; files settle for a quarter of a second, unless the options say otherwise."""
    return mounter(platform.url, "write", **{"settle": 0.25} | options)


def uploads(mount: Mount) -> dict[str, Any]:
    """Return what the status of a mount tells of its new files."""
    told = json.loads((mount.path / ".ivcapfs/status.json").read_bytes())["uploads"]
    assert isinstance(told, dict)
    return told


def arrived(mount: Mount, seconds: float = 60.0) -> None:
    """Wait until nothing is open or pending any more; what is closed settles no longer."""

    def is_idle() -> bool:
        hurry(mount)
        told = uploads(mount)
        return (told["open"], told["pending"]) == (0, 0)

    eventually(is_idle, "all closed files are artifacts", seconds)


def hurry(mount: Mount) -> None:
    """End the settling of what is closed; what the status tells is of now then."""
    os.setxattr(mount.path / ".ivcapfs/status.json", UPLOAD, b"now")


def upload_state(path: Path) -> str:
    """Return what the attribute of a new file tells."""
    return os.getxattr(path, UPLOAD).decode()


def made(sdk: SDK, but: Container[str] = ()) -> dict[str, list[bytes]]:
    """Return the contents of all artifacts that are ready, by name, newest first, as the SDK reads them.

    Args:
        but: ids of those that do not count.
    """
    found: dict[str, list[bytes]] = {}
    for listed in sdk.list_artifacts(limit=None, order_by="created-at", order_desc=True):
        if listed.status == "ready" and listed.id not in but:
            artifact = sdk.get_artifact(listed.id)
            content = b"".join(artifact.as_stream()) if artifact.size else b""
            assert len(content) == artifact.size
            found.setdefault(artifact.name, []).append(content)
    return found


def once(sdk: SDK, but: Container[str] = ()) -> dict[str, bytes]:
    """As `made`, where each name is that of one artifact alone."""
    found = made(sdk, but)
    assert all(len(contents) == 1 for contents in found.values()), {name: len(each) for name, each in found.items()}
    return {name: content for name, (content,) in found.items()}


def kill(mount: Mount) -> None:
    """Kill a mount's process (SIGKILL), and clear what is left of the mount."""
    (daemon,) = daemons(mount.path)
    os.kill(daemon, signal.SIGKILL)
    eventually(lambda: not daemons(mount.path), "the process is gone")
    output(*ivcapfs("umount", mount.path))


def journal(mounter: Mounter) -> dict[str, dict[str, Any]]:
    """Return the entries in the spool, by path."""
    entries = [json.loads(path.read_bytes()) for path in mounter.spool.glob("*/*/*.json")]
    return {"/".join(entry["parts"]): entry for entry in entries}


@contextlib.contextmanager
def no_tracebacks(*mounts: Mount) -> Iterator[None]:
    """Whatever happens, no mount logs an error that nobody had thought of."""
    yield
    for mount in mounts:
        assert "Traceback" not in mount.logged()
