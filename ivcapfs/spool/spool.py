"""One mount's spool: its own folder, and those that mounts before it left with work to do.

Used by `ivcapfs.fs.writable`, and by the commands that look after uploads while nothing is mounted.

Threading: made and closed by one thread; `new` may be called by any. `Spool._lock` guards the list of folders.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ivcapfs.errors import FileSystemError
from ivcapfs.spool.draft import Draft
from ivcapfs.spool.entry import Entry, State
from ivcapfs.spool.folder import Folder, Owner, folders, open_new, take_over

log = logging.getLogger(__name__)


class Spool:
    """See the module.

    Args:
        root: the spool folder.
        deployment: the name for deployment and account.
        owner: tells others whose it is.

    Raises:
        ConfigError: the place cannot be used.
    """

    def __init__(self, root: Path, deployment: str, owner: Owner) -> None:
        self._root = root
        self._deployment = deployment
        self._own = open_new(root, deployment, owner)
        self._lock = threading.Lock()
        self._others: list[Folder] = []  # guarded by _lock

    @property
    def path(self) -> Path:
        """The mount's own folder."""
        return self._own.path

    def new(self, entry: Entry) -> Draft:
        """Make the files of a new entry.

        Raises:
            NoSpace, FileSystemError: they cannot be made.
        """
        return Draft(self._own, entry, self._own.create(entry))

    def free_bytes(self) -> tuple[int, int]:
        """See `Folder.free_bytes`."""
        return self._own.free_bytes()

    def recover(self) -> Iterator[Draft]:
        """Take over what mounts that are gone left behind, and iterate their files.

        What was never closed is interrupted; of what was closed all bytes must be there, or on the server.
        """
        for path in folders(self._root, self._deployment):
            folder = None if path == self._own.path else take_over(path)
            if folder is None:
                continue
            with self._lock:
                self._others.append(folder)
            try:
                folder.own(self._own.owner)
            except FileSystemError as exc:
                log.warning("ivcapfs uploads will not know that this mount has %s: %s", path, exc)
            for entry in folder.entries():
                yield Draft(folder, taken_up(folder, entry))

    def close(self) -> None:
        """Let go of all folders; empty ones go."""
        with self._lock:
            others, self._others = self._others, []
        for folder in (self._own, *others):
            folder.close()


def taken_up(folder: Folder, entry: Entry) -> Entry:
    """Return an entry of a folder that was taken over as it is to be treated, its journal included."""
    found = as_found(entry, size_of(folder, entry))
    if found != entry:
        folder.save(found)
    if found.state in (State.INTERRUPTED, State.FAILED):
        log.warning("%s is kept in the spool, %s: %s (ivcapfs uploads list)", found.path, found.state, found.reason)
    return found


def as_found(entry: Entry, size: int) -> Entry:
    """Return what is to be made of an entry whose mount is gone.

    Args:
        size: the bytes that the disk has.
    """
    if entry.is_hidden:
        return replace(entry, state=State.CLOSED, size=size)
    if entry.state is State.WRITING:
        reason = "the mount ended before it was closed"
        return replace(entry, state=State.INTERRUPTED, reason=reason, size=size, begun=None)
    if entry.state is State.CLOSED and not (entry.record or entry.begun) and size != entry.size:
        reason = f"of its {entry.size} bytes the disk has {size}"
        return replace(entry, state=State.FAILED, reason=reason, size=size, begun=None)
    return entry


def size_of(folder: Folder, entry: Entry) -> int:
    """Return how many bytes of an entry the disk has."""
    fd = folder.open_data(entry)
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)
