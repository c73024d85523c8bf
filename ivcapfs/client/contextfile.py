"""The `ivcap` program's file, as a place that several processes write to.

Used by `ivcapfs.client.contextlogin`. Processes of ours take turns by a lock file beside it (flock(2)); the `ivcap`
program knows nothing of that, so each change is made to the file as it is at that moment, and put in place by
rename(2): who reads meanwhile has the old file or the new one, whole.

Threading: one thread at a time, as its user sees to.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ivcapfs import contexts
from ivcapfs.crashing import reach
from ivcapfs.errors import ConfigError, CredentialError

Signature = tuple[int, int, int, int]

_LOCK_SECONDS = 45.0
"""How long another process may take to renew a token."""
_PAUSE = 0.05


def signature(path: Path) -> Signature | None:
    """Return what changes whenever a file is written or replaced; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return _signature_of(found)


def _signature_of(found: os.stat_result) -> Signature:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class ContextFile:
    """The file of one context.

    Args:
        place: the file, and the context's name.
        pause: waits that many seconds; raises when it is all over.
    """

    def __init__(self, place: contexts.ContextPlace, pause: Callable[[float], None]) -> None:
        from ivcapfs.client.contextedit import edit  # it imports YAML, which few mounts need; and now, not in an hour

        self._edit = edit
        self._name = place.name
        self._file = place.file
        self._pause = pause
        self._seen: Signature | None = None

    def has_changed(self) -> bool:
        """Return whether the file looks other than when it was last read."""
        return signature(self._file) != self._seen

    def read(self) -> contexts.Context:
        """Return the context as it stands there now.

        Raises:
            CredentialError: the file is not there or unreadable, or has no such context any more.
        """
        self._seen = signature(self._file)
        try:
            return contexts.read(self._file).find(self._name)
        except ConfigError as exc:
            raise CredentialError(str(exc)) from exc

    def check_writable(self) -> None:
        """See that what is gained can be noted.

        Raises:
            CredentialError: the file, or its folder, cannot be written.
        """
        real = self._real()
        if not (os.access(real, os.W_OK) and os.access(real.parent, os.W_OK | os.X_OK)):
            raise CredentialError(
                f"{self._file} cannot be written, and a new refresh token would be lost: use token-file or "
                "token-command"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes of ours from renewing meanwhile; where there can be no lock file, do without.

        Raises:
            CredentialError: another process holds the lock too long.
        """
        real = self._real()
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                descriptor = os.open(real.with_name(f".{real.name}.lock"), flags, 0o600)
                held.callback(os.close, descriptor)
                self._lock(descriptor)
            yield

    def _lock(self, descriptor: int) -> None:
        end = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as exc:
                if time.monotonic() > end:
                    raise CredentialError("another process has been renewing the token for too long") from exc
            self._pause(_PAUSE)

    def write(self, changes: Mapping[str, str]) -> None:
        """Change values of the context in the file as it is now; mode, owner and all else stay. Call it with the lock.

        Raises:
            ConfigError: the context is no longer there.
            OSError: the file cannot be written; it is as it was.
        """
        real = self._real()
        before = real.stat()
        text = self._edit(contexts.read_text(real), self._name, changes)
        for left_over in real.parent.glob(f".{real.name}.ivcapfs-*"):  # by a process that was killed
            left_over.unlink(missing_ok=True)
        descriptor, name = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.ivcapfs-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text.encode("utf-8"))
                file.flush()
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    with contextlib.suppress(PermissionError):
                        os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), before.st_mode & 0o777)
                os.fsync(file.fileno())
                written = _signature_of(os.fstat(file.fileno()))
            reach("token write-back")
            Path(name).replace(real)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._seen = written
        _sync_folder(real.parent)

    def _real(self) -> Path:
        """Return where the file really is: a symbolic link to it stays one."""
        return Path(os.path.realpath(self._file))


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some filesystems have no such thing
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
