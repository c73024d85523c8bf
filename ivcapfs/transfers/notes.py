"""How far a transfer is, noted in a small file, so that an interrupted one goes on.

Used by `put` and `get`. Notes are in a folder of this user's own, each in a file of mode 0600 that is locked (flock(2))
as long as a process works on that transfer. A note is rewritten in place: what was torn by a crash is no note, and the
transfer begins anew.

Threading: a `Note` belongs to one thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any, Self

from ivcapfs.errors import InUse
from ivcapfs.privatefolder import open_private_folder

KEPT = 30 * 86_400.0
"""Seconds after which a note that nobody came back to is forgotten."""
LARGEST = 4 << 20
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Note:
    """What is known of one transfer, held locked. Use it in a ``with``.

    Args:
        folder: of notes; made if there is none.
        key: tells this transfer from all others.

    Attributes:
        value: what was noted last; None: nothing.

    Raises:
        InUse: another process is at this transfer.
        ConfigError: the folder cannot be used.
    """

    def __init__(self, folder: Path, *key: str) -> None:
        text = "".join(f"{len(part)}:{part}" for part in key)
        self._name = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:40] + ".json"
        self._folder = open_private_folder(folder, "folder of transfers", needs=0o700)
        try:
            self._fd = self._locked()
        except BaseException:
            os.close(self._folder)
            raise
        self.value = self._read()

    def save(self, value: dict[str, Any]) -> None:
        """Note something in the place of what was noted before.

        Raises:
            OSError: the disk refuses.
        """
        text = json.dumps(value).encode() + b"\n"
        os.pwrite(self._fd, text, 0)  # the first line counts, so what may follow it for a moment does not
        os.ftruncate(self._fd, len(text))
        self.value = value

    def remove(self) -> None:
        """Forget the transfer."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._folder)
        self.value = None

    def close(self) -> None:
        """Let go of it; an empty one goes."""
        if self.value is None:
            self.remove()
        os.close(self._fd)
        os.close(self._folder)

    def _locked(self) -> int:
        while True:
            fd = os.open(self._name, _OPEN, 0o600, dir_fd=self._folder)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                os.close(fd)
                raise InUse("another ivcapfs is transferring this file just now") from exc
            if os.fstat(fd).st_nlink:
                return fd
            os.close(fd)  # it was removed by who had it before

    def _read(self) -> dict[str, Any] | None:
        try:
            value = json.loads(os.pread(self._fd, LARGEST, 0).partition(b"\n")[0])
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def forget_old(folder: Path, now: float | None = None) -> None:
    """Remove the notes that nobody came back to for long.

    Args:
        now: in seconds since the epoch; None: the present.
    """
    before = (time.time() if now is None else now) - KEPT
    with contextlib.suppress(OSError):
        for path in folder.glob("*.json"):
            if path.lstat().st_mtime < before:
                path.unlink(missing_ok=True)
