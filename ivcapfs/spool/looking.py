"""Looking into the folders of a spool from outside: whose they are, whether somebody has them, what is in them.

Used by `admin`. Nothing is changed, and nobody who works there is disturbed. Threading: no state; any thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ivcapfs.errors import ConfigError, ProtocolError
from ivcapfs.privatefolder import open_private_folder
from ivcapfs.spool.entry import Entry, entry_from_json
from ivcapfs.spool.folder import DATA, JOURNAL, OLD, OWNER, Owner, explain, owner_in, read_file


def owner_of(path: Path) -> Owner | None:
    """Return whose a folder is; None where that cannot be read."""
    with contextlib.suppress(ConfigError), _opened(path) as fd:
        return owner_in(fd)
    return None


def peek(path: Path) -> list[Entry]:
    """Return the entries of a folder that may be another process's; what is changing just now is left out."""
    found: list[Entry] = []
    with contextlib.suppress(ConfigError, OSError), _opened(path) as fd:
        for name in sorted(os.listdir(fd)):  # noqa: PTH208 - of the descriptor
            if name.endswith(JOURNAL):
                with contextlib.suppress(OSError, ProtocolError):
                    found.append(entry_from_json(read_file(fd, name)))
    return found


def is_held(path: Path) -> bool:
    """Return whether a process of this machine has a folder locked."""
    try:
        with _opened(path) as fd:
            lock = os.open(OWNER, os.O_RDONLY | OLD, dir_fd=fd)
    except (ConfigError, OSError):
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def open_bytes(path: Path, entry: Entry) -> int:
    """Return a descriptor of an entry's bytes for reading, in a folder that may be another process's.

    Raises:
        ConfigError: the folder cannot be used.
        FileSystemError: the bytes are not there.
    """
    with _opened(path) as fd:
        try:
            return os.open(entry.id + DATA, os.O_RDONLY | OLD, dir_fd=fd)
        except OSError as exc:
            explain(exc, path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Give a descriptor of a folder.

    Raises:
        ConfigError: it cannot be used.
    """
    fd = open_private_folder(path, "spool folder", create=False)
    try:
        yield fd
    finally:
        os.close(fd)
