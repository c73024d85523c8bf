"""Several files at a time: runs the transfers of a command, and ends them in order.

Used by ``ivcapfs put`` and ``ivcapfs get``.

Threading: `run_all` is called by the main thread, which waits, and alone tells what became of each file; transfers run
on a pool of fixed size.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from ivcapfs.client import Connection
from ivcapfs.errors import IvcapfsError

T = TypeVar("T")
V = TypeVar("V")

POLL_SECONDS = 0.2
"""How soon Ctrl-C is acted upon."""


def run_all(
    items: Iterable[T],
    work: Callable[[T], V],
    *,
    jobs: int,
    connection: Connection,
    stop: threading.Event,
    done: Callable[[T, V], None],
    failed: Callable[[T, Exception], None],
) -> None:
    """Do something with each item, some at the same time.

    Args:
        jobs: items at a time.
        connection: closed when the caller is interrupted, so that no transfer is waited for.
        stop: set then.
        done, failed: told how each went.

    Raises:
        whatever `done` and `failed` raise, and KeyboardInterrupt: once nothing is under way any more.
    """
    with ThreadPoolExecutor(jobs, thread_name_prefix="transfer") as pool:
        waiting: dict[Future[V], T] = {}
        rest = iter(items)
        try:
            while True:
                while len(waiting) < 2 * jobs and (item := next(rest, None)) is not None:
                    waiting[pool.submit(work, item)] = item
                if not waiting:
                    return
                for future in wait(waiting, POLL_SECONDS, FIRST_COMPLETED).done:
                    _tell(future, waiting.pop(future), done, failed)
        except BaseException:
            stop.set()
            connection.close()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _tell(future: Future[V], item: T, done: Callable[[T, V], None], failed: Callable[[T, Exception], None]) -> None:
    try:
        outcome = future.result()
    except (IvcapfsError, OSError) as exc:
        failed(item, exc)
    else:
        done(item, outcome)
