"""The new files of a spool, looked after from outside: shown, found by their ids, copied out, given up.

Used by ``ivcapfs uploads``. What a running mount holds is asked of that mount, by its paths and their attributes; what
nobody holds is taken over for the moment.

Threading: one thread; no state. The mount points asked are this user's own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ivcapfs.client import localfiles
from ivcapfs.config import MIB
from ivcapfs.errors import AlreadyThere, ConfigError, FileSystemError, NoSuchEntry
from ivcapfs.models import inode_of_text
from ivcapfs.spool.describe import UPLOAD, upload_state
from ivcapfs.spool.entry import Entry, State
from ivcapfs.spool.folder import Folder, Owner, folders, take_over, this_host
from ivcapfs.spool.looking import is_held, open_bytes, owner_of, peek
from ivcapfs.spool.spool import as_found
from ivcapfs.waits import never, now

URN = "user.ivcap.id"
SHORTEST = 8
"""Digits of an id that are shown, if they are enough."""
POLL_SECONDS = 0.2
STILL_SECONDS = 300.0
"""How long a file that a mount sends may stand where it is, before nobody waits for it any longer."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Spooled:
    """A new file in the spool.

    Attributes:
        entry: what its journal says; where no mount has it, what the next one would make of it.
        folder: where its files are.
        owner: the mount that has it, or had it last; None: that cannot be read.
        is_held: whether that mount runs.
        size: bytes on the disk.
    """

    entry: Entry
    folder: Path
    owner: Owner | None
    is_held: bool
    size: int

    @property
    def state(self) -> str:
        """Where it stands, with the reason."""
        return upload_state(self.entry, 0, self.size)

    @property
    def can_be_retried(self) -> bool:
        """Whether nobody sends it by itself."""
        if self.entry.is_hidden:
            return False
        return not self.is_held or self.entry.state in (State.FAILED, State.INTERRUPTED)

    @property
    def is_elsewhere(self) -> bool:
        """Whether another machine wrote it, so that nobody here can know whether it is in use."""
        return self.owner is not None and self.owner.host != this_host()

    @property
    def mountpoint(self) -> str | None:
        """Where the mount is that has it; None: none has."""
        return self.owner.mountpoint if self.is_held and self.owner is not None else None

    @property
    def path(self) -> Path:
        """Its path in the mount that has it.

        Raises:
            FileSystemError: none has.
        """
        if self.mountpoint is None:
            raise FileSystemError(f"{self.entry.path} is in no mount")
        return Path(self.mountpoint, *self.entry.parts)


# -- looking ---------------------------------------------------------------------------------------------------------


def spooled(root: Path) -> list[Spooled]:
    """Return all new files of a spool, the oldest first; none where there is no spool, or none of this user's own."""
    found = [each for path in folders(root) for each in _in_folder(path)]
    return sorted(found, key=lambda each: (each.entry.created, each.entry.id))


def _in_folder(path: Path) -> Iterator[Spooled]:
    held, owner = is_held(path), owner_of(path)
    for entry in peek(path):
        if entry.is_removed:
            continue
        try:
            fd = open_bytes(path, entry)
        except (FileSystemError, ConfigError):
            continue  # it has become an artifact just now, and perhaps its mount is gone, too
        size = os.fstat(fd).st_size
        os.close(fd)
        yield Spooled(entry if held else as_found(entry, size), path, owner, held, size)


def short_ids(files: list[Spooled]) -> dict[str, str]:
    """Return for each id a beginning that no other one has."""
    ids = sorted(each.entry.id for each in files)
    short = {}
    for number, id in enumerate(ids):
        beside = ids[max(number - 1, 0) : number] + ids[number + 1 : number + 2]
        enough = (end for end in range(SHORTEST, len(id)) if not any(other.startswith(id[:end]) for other in beside))
        short[id] = id[: next(enough, len(id))]
    return short


def find(files: list[Spooled], id: str) -> Spooled:
    """Return the new file whose id begins so.

    Raises:
        ConfigError: there is none, or more than one.
    """
    found = [each for each in files if id and each.entry.id.startswith(id.lower())]
    if not found:
        raise ConfigError(f"no new file has the id {id}: ivcapfs uploads list shows them")
    if len(found) > 1:
        raise ConfigError(f"several new files have ids that begin with {id}: give more of it")
    return found[0]


# -- of a mount that runs --------------------------------------------------------------------------------------------


def ask_retry(file: Spooled) -> None:
    """Have the mount that has a file send it after all (setxattr(2)).

    Raises:
        FileSystemError: the mount does not do it.
    """
    with _asking(file):
        os.setxattr(file.path, UPLOAD, b"retry")


def await_outcome(
    file: Spooled, tell: Tell, *, pause: Callable[[float], None] = time.sleep, clock: Callable[[], float] = now
) -> str:
    """Wait until a file that a mount sends is an artifact; return its URN.

    Args:
        tell: called again and again with where it stands.

    Raises:
        FileSystemError: it failed, with the reason; or it gets no further; or it is not at its path any more.
    """
    before, since = "", clock()
    while True:
        try:
            state = os.getxattr(file.path, UPLOAD).decode()
        except OSError as exc:
            if exc.errno != errno.ENODATA:
                raise FileSystemError(f"{file.path} does not tell how it does: {exc.strerror}") from exc
            with _explained(file):
                return os.getxattr(file.path, URN).decode()  # it is an artifact
        if state.startswith(("failed", "interrupted", "local")):
            raise FileSystemError(f"{file.path} was not sent: {state}")
        if state != before:
            before, since = state, clock()
        elif clock() > since + STILL_SECONDS:
            raise FileSystemError(f"{file.path} gets no further ({state}): it is not waited for, the mount goes on")
        tell(state)
        pause(POLL_SECONDS)


def _remove_there(file: Spooled) -> None:
    with _asking(file):
        os.setxattr(file.path, UPLOAD, b"discard")  # also one that is an artifact, whose aspects were refused
        file.path.unlink()


@contextlib.contextmanager
def _asking(file: Spooled) -> Iterator[None]:
    """See that the path is that file's, and not a newer one's."""
    with _explained(file):
        if file.path.stat().st_ino != inode_of_text(f"draft/{file.entry.id}"):
            raise NoSuchEntry(f"{file.path} is another file now: look again (ivcapfs uploads list)")
        yield


@contextlib.contextmanager
def _explained(file: Spooled) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise FileSystemError(f"the mount at {file.mountpoint} refuses {file.entry.path}: {exc.strerror}") from exc


# -- of nobody -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def taken(file: Spooled) -> Iterator[Folder]:
    """Hold the folder of a file that no mount has.

    Raises:
        FileSystemError: somebody has it, or it is another machine's.
    """
    if file.is_elsewhere:
        raise FileSystemError(f"{file.entry.path} was written on another machine: look after it there")
    folder = take_over(file.folder)
    if folder is None:
        raise FileSystemError(f"{file.entry.path} is in use just now: look again (ivcapfs uploads list)")
    try:
        yield folder
    finally:
        folder.close()


def entry_in(folder: Folder, file: Spooled) -> Entry:
    """Return the entry of a file, as the journal has it now.

    Raises:
        NoSuchEntry: there is none any more.
    """
    for entry in folder.entries():
        if entry.id == file.entry.id:
            return entry
    raise NoSuchEntry(f"{file.entry.path} is not in the spool any more")


# -- either way ------------------------------------------------------------------------------------------------------


def discard(file: Spooled) -> None:
    """Give a new file up: its bytes are gone then.

    Raises:
        FileSystemError: the mount that has it refuses; or another machine wrote it.
    """
    if file.is_held:
        _remove_there(file)
        return
    with taken(file) as folder:
        folder.remove(entry_in(folder, file))


def export(file: Spooled, target: Path, *, force: bool = False, tell: Callable[[int], None] = never) -> Path:
    """Copy the bytes of a new file, as they are now, out of the spool; it stays there.

    Args:
        target: a new file, or a folder for it.
        force: replace a file that is there.
        tell: called again and again with the bytes that were copied.

    Returns:
        The copy.

    Raises:
        AlreadyThere: there is a file.
        FileSystemError: it cannot be read, or not be written.
    """
    if target.is_dir():
        target = target / file.entry.parts[-1]
    source = open_bytes(file.folder, file.entry)
    try:
        if force:
            localfiles.save(_chunks(source, tell), target)
        else:
            _save_new(_chunks(source, tell), target)
        os.utime(target, ns=(file.entry.mtime_ns, file.entry.mtime_ns))
    except FileExistsError as exc:
        raise AlreadyThere(f"{target} is there already: choose another name, or --force replaces it") from exc
    except OSError as exc:
        raise FileSystemError(f"{target} cannot be written: {exc.strerror}") from exc
    finally:
        os.close(source)
    return target


def _save_new(chunks: Iterator[bytes], target: Path) -> None:
    """Write a file that was not there; none is left where that fails."""
    with target.open("xb") as file:
        try:
            file.writelines(chunks)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def _chunks(source: int, tell: Callable[[int], None]) -> Iterator[bytes]:
    done = 0
    while chunk := os.pread(source, MIB, done):
        yield chunk
        done += len(chunk)
        tell(done)


def wanted(entry: Entry, size: int) -> Entry:
    """Return an entry as one that is to be sent, whatever became of it before.

    Args:
        size: the bytes that the disk has; of one that waits anyway, the rest may be on the server.
    """
    if entry.state is State.CLOSED:
        return entry
    return replace(entry, state=State.CLOSED, reason="", size=size)
