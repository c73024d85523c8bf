"""What one mount is made of, put together: blocks, catalog, views, operations; and taken down again, last made first.

Used by `ivcapfs.fs.mount`, which knows how a mount begins and ends. Here is what it consists of, and who asks whom.

Threading: entered and left on the main thread. The pools that are made here run requests; their threads end by
themselves, nobody waits for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from ivcapfs.cache.disk import DiskSettings, DiskTier
from ivcapfs.cache.reader import Reader
from ivcapfs.cache.shelf import Shelf
from ivcapfs.cache.traffic import CountedSource, Traffic
from ivcapfs.catalog.index import Index
from ivcapfs.catalog.store import Store, store_name
from ivcapfs.client import Connection
from ivcapfs.config import MountSettings
from ivcapfs.errors import Closing
from ivcapfs.fs.bindings import Bindings
from ivcapfs.fs.neighbours import Neighbours
from ivcapfs.fs.operations import Operations
from ivcapfs.fs.status import StatusSource, StatusView
from ivcapfs.fs.views import Views
from ivcapfs.fs.writable import Writable
from ivcapfs.fs.writing import WritingOperations
from ivcapfs.places import STATUS_FOLDER
from ivcapfs.waits import Check, submit

CATALOG_WORKERS = 128


@dataclass(frozen=True, slots=True)
class Floors:
    """What stands.

    Attributes:
        operations: answer the kernel.
        writable: what writes; None where the mount does not.
        shrink: gives back memory that is kept of the catalog; waits for nothing.
    """

    operations: Operations
    writable: Writable | None
    shrink: Callable[[], None]


@contextmanager
def floors(
    settings: MountSettings, connection: Connection, forget: Callable[[str], None], check: Check,
    closing: threading.Event,
) -> Iterator[Floors]:  # fmt: skip
    """Put everything together for as long as the block lasts.

    Args:
        forget: makes the kernel drop what it knows of a path.
        check: see `ivcapfs.waits`; asked while a callback waits.
        closing: set when the mount is to end; set here before anything is taken down.

    Raises:
        ConfigError: a folder cannot be used.
    """
    with ExitStack() as stack:
        try:
            yield _build(settings, connection, forget, check, closing, stack)
        finally:
            closing.set()


def _build(
    settings: MountSettings, connection: Connection, forget: Callable[[str], None], check: Check,
    closing: threading.Event, stack: ExitStack,
) -> Floors:  # fmt: skip
    """Make all of it; `stack` learns how each is closed."""
    stopped, bound, refresh = closing.is_set, _bound(settings), settings.view.refresh
    pool, kernel_pool = _pool(stack, CATALOG_WORKERS, "catalog"), _pool(stack, 1, "kernel")
    store = Store(settings.catalog.folder, store_name(connection.origin, connection.identity))
    reconcile = settings.catalog.reconcile
    catalog = Index(
        connection.api, connection.blobs, pool, store, refresh=refresh, reconcile=reconcile, bound=bound
    )
    stack.callback(catalog.close)
    traffic = Traffic()
    reader = _reader(settings, connection, traffic, closing)
    stack.callback(reader.shutdown)
    views = Views(connection.api, catalog, store, pool, refresh=refresh, bound=bound)
    stack.callback(views.close)
    largest = min(settings.cache.block_size, settings.cache.read_ahead)
    neighbours = Neighbours(store.neighbours, reader, largest, stopped)
    stack.callback(neighbours.close)
    status = StatusSource(settings, catalog, reader, traffic)
    status_view = StatusView(status)
    bindings, more_views = Bindings(forget, kernel_pool), {**views.by_name, STATUS_FOLDER: status_view}
    parts = (catalog, reader, bindings, neighbours, settings.view, check, more_views, traffic.counted)
    if settings.write is None:
        return Floors(Operations(*parts), None, _shrinking(store, pool))
    writable = Writable(settings, settings.write, connection, catalog, store, views, forget, stopped)
    stack.callback(writable.close)
    writable.recover()
    status.uploads, writable.hurried = writable.status, status_view.look_again
    place, most = settings.mountpoint, settings.threads
    operations = WritingOperations(*parts, writable=writable, mountpoint=place, most=most)
    return Floors(operations, writable, _shrinking(store, pool))


def _pool(stack: ExitStack, workers: int, name: str) -> Executor:
    pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
    stack.callback(pool.shutdown, wait=False, cancel_futures=True)
    return pool


def _shrinking(store: Store, pool: Executor) -> Callable[[], None]:
    """Return what has the catalog shrunk on the pool, once at a time: where its disk hangs, nothing else may."""
    busy = threading.Lock()

    def work() -> None:
        try:
            store.shrink()
        finally:
            busy.release()

    def shrink() -> None:
        if busy.acquire(blocking=False):
            try:
                submit(pool, work)
            except Closing:
                busy.release()

    return shrink


def _reader(settings: MountSettings, connection: Connection, traffic: Traffic, closing: threading.Event) -> Reader:
    """Return what reads contents, over the blocks in memory and on disk."""
    cache = settings.cache
    tier = DiskTier(DiskSettings(cache.folder, cache.folder_size)) if cache.folder is not None else None
    shelf = Shelf(tier, cache.block_size, connection.origin, connection.identity) if tier else None
    source = CountedSource(connection.blobs, traffic)
    return Reader(source, cache, shelf=shelf, bound=_bound(settings), stopped=closing.is_set)


def _bound(settings: MountSettings) -> float:
    """Return the seconds that one wait lasts at most without anything coming."""
    return settings.client.limits.total + settings.client.limits.idle
