"""The mounts that run, as small files: one per mount, made by its process, locked as long as that lives.

Used by `ivcapfs.fs.mount`, which announces itself, and by `ivcapfs umount` and `ivcapfs list`. A file whose lock
(flock(2)) is free was left by a process that was killed; who finds it removes it. The files are in a folder of the
user's own (`ivcapfs.places`), mode 0700. No process id is trusted: ids come again, locks do not.

Threading: an `Announcement` belongs to the process that serves; the functions hold no state.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ivcapfs.errors import ConfigError
from ivcapfs.places import USER_RUNTIMES, runtime_folder
from ivcapfs.privatefolder import open_private_folder

log = logging.getLogger(__name__)

SUFFIX = ".json"
LARGEST = 64 * 1024
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Running:
    """What is told of a running mount.

    Attributes:
        device: `major:minor` of the mount, as in /proc/self/mountinfo; empty where it is not known.
        source: the word that it was mounted by; `url` is the deployment behind it.
        started: when it began to serve, in seconds since the epoch.
        log: where it logs, in words.
    """

    pid: int
    mountpoint: str
    device: str
    source: str
    url: str
    started: float
    log: str


class Announcement:
    """This process's own file. Best effort: a mount without one works, too."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or runtime_folder()
        self._path: Path | None = None

    def publish(self, running: Running) -> None:
        """Make the file; the lock on it is held until the process ends."""
        name = f"{running.pid}-{secrets.token_hex(4)}"
        hidden, path = self._folder / f".{name}", self._folder / f"{name}{SUFFIX}"
        try:
            os.close(open_private_folder(self._folder, "folder of running mounts"))
            descriptor = os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(descriptor, json.dumps(asdict(running)).encode())
            hidden.rename(path)  # it appears whole, and locked
        except (OSError, ConfigError) as exc:
            log.info("ivcapfs list will not know this mount: %s", exc)
        else:
            self._path = path

    def withdraw(self) -> None:
        """Remove the file; who waits for the process's end waits on."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


class Found:
    """A running mount that was found, with its file held open so that its end can be awaited."""

    def __init__(self, running: Running, descriptor: int) -> None:
        self.running = running
        self._descriptor = descriptor

    def await_end(self, seconds: float) -> bool:
        """Return whether the mount's process ends within a bound."""
        end = time.monotonic() + seconds
        while not (ended := _is_free(self._descriptor)) and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        return ended

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


@contextlib.contextmanager
def found(device: str) -> Iterator[Found | None]:
    """The running mount of a device, as far as this user may know; None if there is none.

    A device number comes again as soon as its mount is gone, which the process may survive: of two, the younger has it.
    """
    with all_found() as mounts:
        ours = [mount for mount in mounts if mount.running.device == device]
        yield max(ours, key=lambda mount: mount.running.started, default=None)


@contextlib.contextmanager
def all_found() -> Iterator[list[Found]]:
    """All running mounts of this user; for root, of everybody. Files that nobody holds any more are removed."""
    mounts: list[Found] = []
    try:
        for folder, uid in _folders():
            mounts += _in_folder(folder, uid)
        yield mounts
    finally:
        for mount in mounts:
            mount.close()


def _folders() -> Iterator[tuple[Path, int]]:
    """Yield the folders to look in, each with the user whose it must be."""
    uid = os.geteuid()
    yield runtime_folder(), uid
    if uid == 0:
        for each in USER_RUNTIMES.glob("[0-9]*"):
            if each.name.isdigit():
                yield each / "ivcapfs", int(each.name)
        for each in Path("/tmp").glob("ivcapfs-[0-9]*"):
            if each.name.removeprefix("ivcapfs-").isdigit():
                yield each, int(each.name.removeprefix("ivcapfs-"))


def _in_folder(folder: Path, uid: int) -> Iterator[Found]:
    try:
        status = folder.lstat()
        names = [path.name for path in folder.iterdir() if path.suffix == SUFFIX]
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid:
            return
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(folder / name, flags)
            running = _read(descriptor, uid)
            if running is not None and not _is_free(descriptor):
                yield Found(running, descriptor)
                continue
            os.close(descriptor)
            if uid == os.geteuid():
                (folder / name).unlink(missing_ok=True)


def _read(descriptor: int, uid: int) -> Running | None:
    """Return what a file says; None if it says nothing that makes sense."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != uid:
        return None
    try:
        told = json.loads(os.pread(descriptor, LARGEST, 0))
        values = {field.name: told[field.name] for field in fields(Running)}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    kinds: dict[str, tuple[type, ...]] = {"pid": (int,), "started": (int, float)}
    sound = all(isinstance(value, kinds.get(name, (str,))) for name, value in values.items())
    return Running(**values) if sound else None


def _is_free(descriptor: int) -> bool:
    """Return whether the process that made a file is gone."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True
