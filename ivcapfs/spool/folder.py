"""The spool on disk: a folder for each mount, with two files for each new file, its bytes and its journal entry.

Used by the rest of `ivcapfs.spool` and by the commands. Everything is of this user alone: folders 0700, files 0600,
opened relative to a verified folder and never through a symbolic link. ::

    <spool-dir>/<deployment and account>/<mount>/owner      whose it is; locked (flock(2)) as long as that lives
                                                 <id>.data   the bytes
                                                 <id>.json   the entry, replaced by rename(2)

A folder that nobody holds locked is of a mount that ended with work left; the next mount of the same deployment and
account on this machine takes it over.

Threading: any thread may call anything; different entries do not meet, one entry's calls are the caller's to order.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import platform
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from ivcapfs.crashing import reach
from ivcapfs.errors import ConfigError, FileSystemError, NoSpace, ProtocolError
from ivcapfs.privatefolder import open_private_folder
from ivcapfs.spool.entry import Entry, entry_from_json, entry_json

log = logging.getLogger(__name__)

OWNER = "owner"
DATA, JOURNAL, TEMPORARY = ".data", ".json", ".tmp"
MOST_JOURNAL = 16 << 20
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
OLD = os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a folder is.

    Attributes:
        host: the machine; a spool on a network disk is left to the machine that wrote it.
        url: of the deployment.
        source: the word that named it, as a context of the `ivcap` program; empty: none did.
    """

    host: str
    pid: int
    mountpoint: str
    url: str
    source: str = ""


def this_host() -> str:
    """Return what tells this machine from others (machine-id(5), else its name)."""
    with contextlib.suppress(OSError):
        text = Path("/etc/machine-id").read_text(encoding="ascii").strip()
        if text:
            return text
    return platform.node()


class Folder:
    """One mount's folder, held locked.

    Args:
        path: where it is.
        fd: of the folder.
        lock: of the file `owner`, locked.
    """

    def __init__(self, path: Path, fd: int, lock: int, owner: Owner) -> None:
        self.path = path
        self.owner = owner
        self._fd = fd
        self._lock = lock

    def close(self) -> None:
        """Let go of it; an empty one is removed first."""
        with contextlib.suppress(OSError):
            if all(name == OWNER for name in os.listdir(self._fd)):  # noqa: PTH208 - of the descriptor
                os.unlink(OWNER, dir_fd=self._fd)
                self.path.rmdir()
        os.close(self._lock)
        os.close(self._fd)

    def own(self, owner: Owner) -> None:
        """Say whose it is from now on, where it was another's before (flock(2) stays held all the time).

        Raises:
            NoSpace, FileSystemError: that cannot be written; it stays as it was.
        """
        with self._explained():
            lock = _locked_owner(self._fd, owner)
        os.close(self._lock)
        self.owner, self._lock = owner, lock

    # -- entries -------------------------------------------------------------------------------------------------

    def create(self, entry: Entry) -> int:
        """Make the two files of a new entry; return the descriptor of its bytes."""
        with self._explained():
            self._write(entry, durable=False)
            return os.open(entry.id + DATA, _NEW, 0o600, dir_fd=self._fd)

    def save(self, entry: Entry, *, durable: bool = False) -> None:
        """Replace what the journal says.

        Args:
            durable: also if the machine's power fails (fsync(2)), and not only if the process does.
        """
        with self._explained():
            self._write(entry, durable=durable)

    def open_data(self, entry: Entry) -> int:
        """Return a descriptor of an entry's bytes, for reading and writing."""
        with self._explained():
            return os.open(entry.id + DATA, os.O_RDWR | OLD, dir_fd=self._fd)

    def remove(self, entry: Entry) -> None:
        """Forget an entry: first what would send it again, then its bytes."""
        for suffix in (JOURNAL, DATA):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.id + suffix, dir_fd=self._fd)
            if suffix == JOURNAL:
                reach("removal")

    def entries(self) -> Iterator[Entry]:
        """Iterate all entries; one that cannot be read is left where it is, and said so."""
        for name in sorted(os.listdir(self._fd)):  # noqa: PTH208 - of the descriptor
            if name.endswith(JOURNAL):
                try:
                    entry = entry_from_json(read_file(self._fd, name))
                    os.stat(entry.id + DATA, dir_fd=self._fd, follow_symlinks=False)
                except (OSError, ProtocolError) as exc:
                    log.error("the new file %s/%s cannot be taken up, and is left there: %s", self.path, name, exc)
                else:
                    yield entry

    def free_bytes(self) -> tuple[int, int]:
        """Return the bytes that this disk has, and those of them that are free for this user."""
        told = os.fstatvfs(self._fd)
        return told.f_frsize * told.f_blocks, told.f_frsize * told.f_bavail

    def _write(self, entry: Entry, *, durable: bool) -> None:
        name, temporary = entry.id + JOURNAL, f"{entry.id}.{secrets.token_hex(4)}{TEMPORARY}"
        fd = os.open(temporary, _NEW, 0o600, dir_fd=self._fd)
        try:
            try:
                write_all(fd, entry_json(entry), 0)
                if durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
            reach("journal write")
            os.rename(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            reach("spool rename")
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self._fd)
            raise
        if durable:
            os.fsync(self._fd)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            explain(exc, self.path)


def explain(exc: OSError, where: Path) -> NoReturn:
    """Raise our error for one of the spool's disk."""
    if exc.errno in _FULL:
        raise NoSpace(f"the spool {where} is full: make room, or choose another place by spool-dir") from exc
    raise FileSystemError(f"the spool {where} cannot be used: {exc.strerror}") from exc


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all bytes at an offset (pwrite(2))."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def read_all(fd: int, size: int, offset: int) -> bytes:
    """Return the bytes of [offset, offset + size), fewer only at the end of the file (pread(2))."""
    parts: list[bytes] = []
    while size > 0 and (part := os.pread(fd, size, offset)):
        parts.append(part)
        size, offset = size - len(part), offset + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


# -- folders ---------------------------------------------------------------------------------------------------------


def open_new(root: Path, deployment: str, owner: Owner) -> Folder:
    """Make a folder for a mount, and lock it.

    Args:
        deployment: the name for deployment and account; see `ivcapfs.catalog.store.store_name`.

    Raises:
        ConfigError: the place cannot be used.
    """
    os.close(open_private_folder(root, "spool folder", needs=0o700))
    above = root / deployment
    os.close(open_private_folder(above, "spool folder", needs=0o700))
    path = above / secrets.token_hex(8)
    fd = open_private_folder(path, "spool folder", needs=0o700)
    try:
        lock = _locked_owner(fd, owner)
    except OSError as exc:
        os.close(fd)
        raise ConfigError(f"the spool folder {path} cannot be used: {exc.strerror}") from exc
    return Folder(path, fd, lock, owner)


def _locked_owner(fd: int, owner: Owner) -> int:
    """Put a new file `owner` into a folder; return its descriptor, which holds the lock."""
    name = f"{OWNER}.{secrets.token_hex(4)}{TEMPORARY}"
    lock = os.open(name, _NEW, 0o600, dir_fd=fd)
    try:
        # The lock goes with the file: whoever can see it under its name finds it locked.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        write_all(lock, json.dumps(asdict(owner)).encode(), 0)
        os.rename(name, OWNER, src_dir_fd=fd, dst_dir_fd=fd)
    except BaseException:
        os.close(lock)
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=fd)
        raise
    return lock


def folders(root: Path, deployment: str | None = None) -> Iterator[Path]:
    """Iterate the folders of mounts below a spool: of one deployment and account, or of all."""
    above = [root / deployment] if deployment else sorted(_folders_in(root))
    for each in above:
        yield from sorted(_folders_in(each))


def take_over(path: Path) -> Folder | None:
    """Lock a folder that nobody holds; None where somebody does, where it is another machine's, or gone."""
    try:
        fd = open_private_folder(path, "spool folder", create=False, needs=0o700)
    except ConfigError as exc:
        log.warning("%s", exc)
        return None
    taken = None
    try:
        taken = _locked(path, fd)
    finally:
        if taken is None:
            os.close(fd)
    return taken


def _locked(path: Path, fd: int) -> Folder | None:
    owner = owner_in(fd)
    if owner is None or owner.host != this_host():
        return None
    try:
        lock = os.open(OWNER, os.O_RDWR | OLD, dir_fd=fd)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_nlink:  # else its owner removed it just now
            return Folder(path, fd, lock, owner)
    except OSError as exc:
        log.debug("%s is in use: %s", path, exc)
    os.close(lock)
    return None


def owner_in(fd: int) -> Owner | None:
    """Return whose the folder behind a descriptor is; None where that cannot be read."""
    try:
        return Owner(**json.loads(read_file(fd, OWNER)))
    except (OSError, ValueError, TypeError):
        return None


def read_file(fd: int, name: str) -> bytes:
    """Return a file of the folder behind a descriptor (openat(2))."""
    file = os.open(name, os.O_RDONLY | OLD, dir_fd=fd)
    with os.fdopen(file, "rb") as stream:
        return stream.read(MOST_JOURNAL)


def _folders_in(path: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return [each for each in path.iterdir() if each.is_dir() and not each.is_symlink()]
    return []
