"""From the command to the background: the parent returns when the mount serves, or says why it does not.

Used by the command line. Forks before any thread, connection or lock exists; the child reports through a pipe.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable
from logging.handlers import WatchedFileHandler
from pathlib import Path

from ivcapfs.config import MountSettings
from ivcapfs.errors import IvcapfsError, MountError
from ivcapfs.fs import coredumps
from ivcapfs.fs.mount import MountedFileSystem
from ivcapfs.fs.mountpoint import check_machine, check_mountpoint

log = logging.getLogger(__name__)

READY = b"ready"


def mount(settings: MountSettings, announce: Callable[[], None]) -> None:
    """Mount, in the foreground until the end, or in the background and return once it serves.

    Args:
        announce: called in the foreground once the mount serves.

    Raises:
        MountError: the mount did not begin.
    """
    coredumps.forbid()
    check_machine(others=settings.allow_other or settings.allow_root)
    check_mountpoint(settings.mountpoint)
    if settings.foreground:
        start_log(settings)
        MountedFileSystem(settings, announce).serve()
    else:
        _in_background(settings)


def start_log(settings: MountSettings) -> None:
    """Send the log to the file that was asked for, else to standard error (foreground) or nowhere."""
    handler: logging.Handler
    if settings.log_file is not None:
        handler = WatchedFileHandler(_private(settings.log_file))
    elif settings.foreground:
        handler = logging.StreamHandler()
    else:
        handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("ivcapfs")
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if settings.debug else logging.INFO)


def _private(path: Path) -> Path:
    """Make a log file that only its owner reads, where there is none."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
    except OSError as exc:
        raise MountError(f"the log file {path} cannot be written: {exc.strerror}") from exc
    return path


def _in_background(settings: MountSettings) -> None:
    reading, writing = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a Ctrl-C must not come between the two
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(reading)
        _run_child(settings, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            report = pipe.read()
        except KeyboardInterrupt:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            raise
    if report != READY:
        os.waitpid(child, 0)
        raise MountError(report.decode("utf-8", "replace") or "the mount process died before it could say why")


def _run_child(settings: MountSettings, writing: int) -> None:
    """Serve as a daemon (daemon(7)), report once, and never return."""
    report = _Report(writing)
    code = 1
    try:
        os.setsid()
        _to_null()
        start_log(settings)
        MountedFileSystem(settings, lambda: report.send(READY)).serve()
        code = 0
    except IvcapfsError as exc:
        report.send(str(exc).encode())
    except Exception as exc:
        log.exception("unexpected error")
        report.send(f"unexpected error: {exc!r}".encode())
    finally:
        logging.shutdown()
        os._exit(code)  # transfers that are stalled must not hold the process


class _Report:
    """What the child tells the parent, once."""

    def __init__(self, writing: int) -> None:
        self._writing: int | None = writing

    def send(self, message: bytes) -> None:
        """Tell the parent, unless it was told already; it may be gone by now."""
        writing, self._writing = self._writing, None
        if writing is not None:
            with contextlib.suppress(OSError):
                os.write(writing, message)
                os.close(writing)


def _to_null() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    os.chdir("/")
