"""Who of several processes does a piece of work: a lock on a file, which the kernel lets go of when its process ends.

Used by `sync` and `reconcile`. A lease belongs to one thread at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class Lease:
    """The right to do something with one catalog (flock(2)).

    Args:
        path: the file; None: no other process can have the catalog.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @contextlib.contextmanager
    def taken(self) -> Iterator[bool]:
        """Within, tell whether the lease is ours; it is also where no file can be locked, for all steps are such that
        two processes may take them at once."""
        fd = self._open()
        try:
            yield fd is None or _try_lock(fd)
        finally:
            if fd is not None:
                os.close(fd)

    def _open(self) -> int | None:
        if self._path is None:
            return None
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        except OSError:
            return None


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a filesystem without locks
    return True
