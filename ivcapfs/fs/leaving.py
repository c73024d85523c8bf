"""Before a mount is taken down: waiting for what it is still to send, with progress on the terminal.

Used by ``ivcapfs umount``. Runs on the main thread; asks nobody but the mount.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ivcapfs.places import status_file
from ivcapfs.spool.describe import UPLOAD

POLL_SECONDS = 0.2


def uploads_of(mountpoint: Path) -> dict[str, Any] | None:
    """Return what the mount at a path tells of its new files; None where there are none, or it does not answer."""
    try:
        told = json.loads(status_file(mountpoint).read_bytes()).get("uploads")
    except (OSError, ValueError, AttributeError):
        return None
    return told if isinstance(told, dict) else None


def await_uploads(mountpoint: Path, tell: Callable[[int, int], None]) -> None:
    """Wait until all closed files of a mount are artifacts. Ctrl-C ends the wait, and the caller.

    Args:
        tell: called again and again with the files and the bytes that are left.
    """
    while uploads := _hurried_uploads_of(mountpoint):
        left = int(uploads.get("pending", 0))
        if not left:
            return
        tell(left, int(uploads.get("bytes_left", 0)))
        time.sleep(POLL_SECONDS)


def _hurried_uploads_of(mountpoint: Path) -> dict[str, Any] | None:
    """As `uploads_of`, once nothing that is closed settles any longer."""
    with contextlib.suppress(OSError):  # a mount that only reads
        os.setxattr(status_file(mountpoint), UPLOAD, b"now")
    return uploads_of(mountpoint)
