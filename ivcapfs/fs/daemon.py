"""From the command to the background: the parent returns when the mount serves, or says why it does not.

Used by the command line. Forks before any thread, connection or lock exists; the child reports through a pipe.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

from ivcapfs.config import MountSettings
from ivcapfs.errors import IvcapfsError, MountError
from ivcapfs.fs import coredumps
from ivcapfs.fs.logs import start_log
from ivcapfs.fs.mount import MountedFileSystem
from ivcapfs.fs.mountpoint import check_inherited, check_machine, check_mountpoint, inherited
from ivcapfs.fs.servicemanager import tell_ready
from ivcapfs.fs.unmounting import clear_stale

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
    check(settings)
    os.chdir("/")  # as libfuse would later; a token command runs in the same folder the first time and the last
    if settings.foreground:

        def ready() -> None:
            announce()
            tell_ready(settings.mountpoint)

        MountedFileSystem(settings, ready, start_log(settings)).serve()
    else:
        _in_background(settings)


def check(settings: MountSettings) -> None:
    """See whether a mount can begin here, and clear a stale one where that is asked for.

    Raises:
        MountError: it cannot; the message says what to do.
    """
    descriptor = inherited(settings.mountpoint)
    if descriptor is not None:
        check_inherited(descriptor)
        return
    check_machine(others=settings.allow_other or settings.allow_root)
    if settings.replace:
        clear_stale(settings.mountpoint)
    check_mountpoint(settings.mountpoint)


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
        _close_others(keep={writing, inherited(settings.mountpoint)})
        where = start_log(settings)
        MountedFileSystem(settings, lambda: report.send(READY), where).serve()
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


def _close_others(keep: set[int | None]) -> None:
    """Close what was inherited: a pipe held open would let whoever reads from it wait as long as the mount is there."""
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if descriptor > 2 and descriptor not in keep:
            with contextlib.suppress(OSError):
                os.close(descriptor)
