"""One mount, put together: client, cache, catalog, operations, kernel; its signals and its end.

Used by the command line, in the process that serves (see `ivcapfs.fs.daemon` for how that one is made).

Threading: `serve` runs on the main thread and stays there. No thread and no connection exists before it is called. INT,
TERM and HUP are blocked in all threads and awaited by one of ours (signal handlers in Python never run inside libfuse's
loop); it ends all waits, then the loop.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ivcapfs.cache.disk import DiskSettings, DiskTier
from ivcapfs.cache.reader import Reader
from ivcapfs.cache.shelf import Shelf
from ivcapfs.cache.traffic import CountedSource, Traffic
from ivcapfs.catalog.index import Index
from ivcapfs.catalog.store import Store, store_name
from ivcapfs.client import Connection, connect
from ivcapfs.config import CacheSettings, MountSettings
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
from ivcapfs.fs.bindings import Bindings
from ivcapfs.fs.keptstderr import KeptStderr
from ivcapfs.fs.kernelreadahead import raise_read_ahead
from ivcapfs.fs.mountpoint import unmount_lazily
from ivcapfs.fs.neighbours import Neighbours
from ivcapfs.fs.operations import Operations
from ivcapfs.fs.status import FOLDER, StatusSource, StatusView
from ivcapfs.fs.views import Views

if TYPE_CHECKING:
    from ivcapfs.fs.binding import Kernel

log = logging.getLogger(__name__)

ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
WAKE = signal.SIGUSR2
"""Wakes the main thread inside libfuse's loop; its handler does nothing."""
WAKE_SECONDS = 0.05
END_SECONDS = 30.0
"""After this, a mount that does not end by itself is taken away from the tree, and the process exits."""
CATALOG_WORKERS = 128


class MountedFileSystem:
    """One mount of a deployment.

    Args:
        settings: what to mount, and how.
        ready: called once, when the mount serves.
    """

    def __init__(self, settings: MountSettings, ready: Callable[[], None]) -> None:
        self._settings = settings
        self._ready = ready
        self._closing = threading.Event()
        self._ended = threading.Event()

    def serve(self) -> None:
        """Mount, serve until unmounted or told to end by INT, TERM or HUP, and clean up.

        Raises:
            MountError: the mount cannot begin.
        """
        kernel_class, interrupted = _load_binding()
        coredumps.forbid()
        signal.signal(WAKE, lambda *_: None)
        connection = connect(self._settings.client)  # may wait for a token; there is no thread yet, any signal ends it
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        kernel = kernel_class(self._settings)
        threading.Thread(
            target=self._await_signal, args=(kernel, connection), name="signals", daemon=True
        ).start()
        try:
            check_deployment(connection)
            self._serve(kernel, connection, interrupted)
        finally:
            self._closing.set()
            self._ended.set()
            connection.close()

    def _serve(self, kernel: Kernel, connection: Connection, interrupted: Callable[[], bool]) -> None:
        """Build the floors, and stay in libfuse's loop."""

        def check() -> None:
            if interrupted():
                raise Interrupted("the caller got a signal")
            if self._closing.is_set() or kernel.is_over():
                raise Closing("the mount is being taken down")

        limits = self._settings.client.limits
        bound = limits.total + limits.idle
        pool = ThreadPoolExecutor(CATALOG_WORKERS, thread_name_prefix="catalog")
        kernel_pool = ThreadPoolExecutor(1, thread_name_prefix="kernel")
        store = Store(self._settings.catalog.folder, store_name(connection.origin, connection.identity))
        catalog = Index(
            connection.api,
            connection.blobs,
            pool,
            store,
            refresh=self._settings.view.refresh,
            reconcile=self._settings.catalog.reconcile,
            bound=bound,
        )
        tier = _tier(self._settings.cache)
        shelf = Shelf(tier, self._settings.cache.block_size, connection.origin, connection.identity) if tier else None
        traffic = Traffic()
        source = CountedSource(connection.blobs, traffic)
        reader = Reader(source, self._settings.cache, shelf=shelf, bound=bound, stopped=self._closing.is_set)
        bindings = Bindings(kernel.forget, kernel_pool)
        views = Views(connection.api, catalog, store, pool, refresh=self._settings.view.refresh, bound=bound)
        status = StatusView(StatusSource(self._settings, catalog, reader, traffic))
        largest = min(self._settings.cache.block_size, self._settings.cache.read_ahead)
        neighbours = Neighbours(store.neighbours, reader, largest, self._closing.is_set)
        more_views = {**views.by_name, FOLDER: status}
        operations = Operations(
            catalog, reader, bindings, neighbours, self._settings.view, check, more_views, traffic.count_read
        )
        try:
            self._loop(kernel, operations)
        finally:
            self._closing.set()
            neighbours.close()
            reader.shutdown()
            catalog.close()
            views.close()
            for executor in (pool, kernel_pool):
                executor.shutdown(wait=False, cancel_futures=True)

    def _loop(self, kernel: Kernel, operations: Operations) -> None:
        """Mount and answer callbacks, until the end."""
        with KeptStderr() as words:

            def on_ready() -> None:
                words.restore()
                log.info("serving %s at %s", self._settings.client.url, self._settings.mountpoint)
                raise_read_ahead(self._settings.mountpoint, self._settings.read_ahead_kib)
                self._ready()

            try:
                kernel.serve(operations, on_ready)
            except RuntimeError as exc:
                if not kernel.was_ready:
                    said = words.last_line() or f"libfuse's code is {exc}"
                    message = f"cannot mount at {self._settings.mountpoint}: {said}"
                    raise MountError(message) from exc

    def _await_signal(self, kernel: Kernel, connection: Connection) -> None:
        """End the mount when a signal says so; runs on a thread of its own."""
        received = signal.sigwait(ENDING)
        log.info("got %s: unmounting", signal.Signals(received).name)
        self._closing.set()
        connection.close()
        if not kernel.was_ready:
            os._exit(128 + received)
        kernel.exit()
        main = threading.main_thread().ident
        assert main is not None
        waited = 0.0
        while not self._ended.wait(WAKE_SECONDS):
            signal.pthread_kill(main, WAKE)
            waited += WAKE_SECONDS
            if waited > END_SECONDS:
                log.error("the mount does not end by itself: taking it away")
                unmount_lazily(self._settings.mountpoint)
                os._exit(1)


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


def _tier(cache: CacheSettings) -> DiskTier | None:
    """Return the tier on disk, where one is asked for.

    Raises:
        ConfigError: its folder cannot be used.
    """
    return DiskTier(DiskSettings(cache.folder, cache.folder_size)) if cache.folder is not None else None


def _load_binding() -> tuple[type[Kernel], Callable[[], bool]]:
    """Load the FUSE library, late: only a process that mounts needs it."""
    try:
        from ivcapfs.fs.binding import VERSION, Kernel, interrupted
    except OSError as exc:
        raise MountError("libfuse 3 is missing: apt install fuse3") from exc
    if VERSION < (3, 0):
        raise MountError(f"libfuse {VERSION[0]}.{VERSION[1]} is too old: apt install fuse3")
    return Kernel, interrupted
