"""The life of one mount: how it begins, its signals, and its end. What it consists of is put together in `floors`.

Used by the command line, in the process that serves (see `ivcapfs.fs.daemon` for how that one is made).

Threading: `serve` runs on the main thread and stays there. No thread and no connection exists before it is called. INT,
TERM, HUP and USR1 are blocked in all threads and awaited by one of ours (signal handlers in Python never run inside
libfuse's loop): USR1 switches debug, the others end all waits, then the loop.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ivcapfs.allocator import give_back
from ivcapfs.client import Connection, connect
from ivcapfs.config import MountSettings
from ivcapfs.crashing import arm
from ivcapfs.errors import (
    ApiError,
    Closing,
    ConnectFailed,
    Interrupted,
    MountError,
    NotAuthenticated,
    NotPermitted,
    ProtocolError,
    TransportError,
)
from ivcapfs.fs import coredumps
from ivcapfs.fs.floors import floors
from ivcapfs.fs.keptstderr import KeptStderr
from ivcapfs.fs.kernelreadahead import raise_read_ahead
from ivcapfs.fs.logs import toggle_debug
from ivcapfs.fs.mountpoint import KIND, Mount, mount_at, mounts
from ivcapfs.fs.operations import Operations
from ivcapfs.fs.running import Announcement, Running
from ivcapfs.fs.unmounting import unmount_lazily

if TYPE_CHECKING:
    from ivcapfs.fs.binding import Kernel

log = logging.getLogger(__name__)

ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
DEBUG = signal.SIGUSR1
"""Switches debug on and off."""
WAKE = signal.SIGUSR2
"""Wakes the main thread inside libfuse's loop; its handler does nothing."""
WAKE_SECONDS = 0.05
END_SECONDS = 30.0
"""After this, a mount that does not end by itself is taken away from the tree, and the process exits."""
TIDY_SECONDS = 20.0
"""So often memory that is free is given back: between two times, a busy mount takes some megabytes more."""
ENDED_EARLY = "the mount was ended by a signal before it served"


class MountedFileSystem:
    """One mount of a deployment.

    Args:
        settings: what to mount, and how.
        ready: called once, when the mount serves.
        log_place: where it logs, in words.
    """

    def __init__(self, settings: MountSettings, ready: Callable[[], None], log_place: str = "") -> None:
        self._settings = settings
        self._ready = ready
        self._log_place = log_place
        self._announcement = Announcement()
        self._closing = threading.Event()
        self._ended = threading.Event()
        self._announced = False
        self._shrink: Callable[[], None] = lambda: None  # set once, when there is something
        self._mount: Mount | None = None  # set once, when the mount serves
        self._lock = threading.Lock()
        self._before: frozenset[int] | None = None  # the mounts there were before ours may be; guarded by _lock

    def serve(self) -> None:
        """Mount, serve until unmounted or told to end by INT, TERM or HUP, and clean up.

        Raises:
            MountError: the mount cannot begin.
        """
        kernel_class, interrupted = _load_binding(writes=self._settings.write is not None)
        coredumps.forbid()
        if self._settings.crash_at:
            arm(self._settings.crash_at)
        signal.signal(WAKE, lambda *_: None)
        connection = connect(self._settings.client)  # may wait for a token; there is no thread yet, any signal ends it
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING | {DEBUG})
        kernel = kernel_class(self._settings)
        threading.Thread(
            target=self._await_signal, args=(kernel, connection), name="signals", daemon=True
        ).start()
        try:
            check_deployment(connection)
            self._serve(kernel, connection, interrupted)
        finally:
            self._closing.set()
            self._announcement.withdraw()
            self._ended.set()
            connection.close()

    def _serve(self, kernel: Kernel, connection: Connection, interrupted: Callable[[], bool]) -> None:
        """Put everything together, and stay in libfuse's loop."""

        def check() -> None:
            if interrupted():
                raise Interrupted("the caller got a signal")
            if self._closing.is_set() or kernel.is_over():
                raise Closing("the mount is being taken down")

        with floors(self._settings, connection, kernel.forget, check, self._closing) as built:
            self._shrink = built.shrink
            self._loop(kernel, built.operations)
            if built.writable and not self._closing.is_set():
                built.writable.finish()

    def _loop(self, kernel: Kernel, operations: Operations) -> None:
        """Mount and answer callbacks, until the end."""
        with self._lock:
            self._before = frozenset(mount.id for mount in mounts())
        if self._closing.is_set():
            raise MountError(ENDED_EARLY)
        gc.freeze()  # what is there by now stays to the end, and need not be gone through again and again
        with KeptStderr() as words:

            def on_ready() -> None:
                words.restore()
                self._on_ready()

            try:
                kernel.serve(operations, on_ready, self._on_first_open)
            except RuntimeError as exc:
                if not kernel.was_ready:
                    said = words.last_line() or f"libfuse's code is {exc}"
                    message = f"cannot mount at {self._settings.mountpoint}: {said}"
                    raise MountError(message) from exc
            finally:
                self._announcement.withdraw()  # its device may be another mount's from now on
        if not self._announced:
            raise MountError(ENDED_EARLY)

    def _on_ready(self) -> None:
        """Tell everybody that the mount serves; unless it is already to end."""
        if self._closing.is_set():
            return
        settings = self._settings
        log.info("serving %s at %s", settings.client.url, settings.mountpoint)
        ours = self._mount = self._new_mount()
        self._announcement.publish(
            Running(
                pid=os.getpid(),
                mountpoint=str(settings.mountpoint),
                device=ours.device if ours else "",
                source=settings.source or settings.client.url,
                url=settings.client.url,
                started=time.time(),
                log=self._log_place,
            )
        )
        self._announced = True
        self._ready()

    def _on_first_open(self) -> None:
        """Do what must wait until the connection has begun."""
        raise_read_ahead(self._settings.mountpoint, self._settings.read_ahead_kib)

    def _new_mount(self) -> Mount | None:
        """Return the mount that appeared at our mount point since we began; None if there is none."""
        with self._lock:
            before = self._before
        there = mount_at(self._settings.mountpoint)
        is_new = before is not None and there is not None and there.kind == KIND and there.id not in before
        return there if is_new else None

    def _await_signal(self, kernel: Kernel, connection: Connection) -> None:
        """End the mount when a signal says so; runs on a thread of its own."""
        received = 0
        while received not in ENDING:
            got = signal.sigtimedwait(ENDING | {DEBUG}, TIDY_SECONDS)
            if got is None:
                self._shrink()
                give_back()  # also what was shrunk the time before
            elif (received := got.si_signo) == DEBUG:
                toggle_debug()
        log.info("got %s: unmounting", signal.Signals(received).name)
        self._closing.set()
        connection.close()
        with self._lock:
            if self._before is None:
                os._exit(128 + received)  # whatever the main thread waits for, nothing can be mounted yet
        self._end_loop(kernel)

    def _end_loop(self, kernel: Kernel) -> None:
        """See that libfuse's loop ends, once it has begun; a mount that is on its way is waited for."""
        main = threading.main_thread().ident
        assert main is not None
        waited = 0.0
        while not self._ended.wait(WAKE_SECONDS):
            if kernel.was_ready:
                kernel.exit()
                signal.pthread_kill(main, WAKE)
            waited += WAKE_SECONDS
            if waited > END_SECONDS:
                self._take_away(kernel)
                os._exit(1)

    def _take_away(self, kernel: Kernel) -> None:
        """The last resort: take the mount out of the tree, if what is there is still ours.

        Ids and device numbers come again once a mount is gone; as long as the kernel holds the connection they do not.
        """
        ours = self._mount if kernel.was_ready else self._new_mount()
        if ours is None or (kernel.was_ready and not kernel.is_connected()):
            log.error("the mount is gone, but its process does not end by itself: ending it")
        else:
            log.error("the mount does not end by itself: taking it away")
            unmount_lazily(ours)


def check_deployment(connection: Connection) -> None:
    """Ask the deployment for one list item: is it there, and does it take the token?

    Raises:
        MountError: no; the message says what to do.
    """
    origin = connection.origin
    try:
        connection.api.list_artifacts_page(limit=1)
    except NotAuthenticated as exc:
        raise MountError(f"{origin} refuses the token: get a new one, e.g. ivcap context login ({exc})") from exc
    except NotPermitted as exc:
        raise MountError(f"{origin} does not let this account list artifacts ({exc})") from exc
    except ConnectFailed as exc:
        raise MountError(f"{origin} cannot be reached: check the URL and the network ({exc})") from exc
    except (ApiError, ProtocolError) as exc:
        raise MountError(f"{origin} does not answer like an IVCAP deployment: check the URL ({exc})") from exc
    except TransportError as exc:
        raise MountError(f"{origin} does not answer: {exc}") from exc


def _load_binding(*, writes: bool) -> tuple[type[Kernel], Callable[[], bool]]:
    """Load the FUSE library, late: only a process that mounts needs it."""
    try:
        from ivcapfs.fs.binding import VERSION, Kernel, interrupted
        from ivcapfs.fs.writebinding import WritingKernel
    except OSError as exc:
        raise MountError("libfuse 3 is missing: apt install fuse3") from exc
    if VERSION < (3, 0):
        raise MountError(f"libfuse {VERSION[0]}.{VERSION[1]} is too old: apt install fuse3")
    return WritingKernel if writes else Kernel, interrupted
