"""Waiting that can be ended: by the result, by a bound, by a signal to the caller, by the end of the mount.

Used by the cache, catalog and filesystem floors. No request is ever made on the thread that answers the kernel: work
runs on a pool, and the answering thread waits here, asking `check` every few milliseconds whether it should give up.
That is what makes Ctrl-C on a waiting ``ls`` return at once (``fuse_req_interrupted(3)``).

Threading: everything here may be called from any thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future, InvalidStateError
from typing import Any, Generic, TypeVar

from ivcapfs.errors import Closing, DeadlineExceeded

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Check = Callable[[], None]
"""Called on the waiting thread; raises `Interrupted` or `Closing` when the wait should end."""

POLL_SECONDS = 0.05


def never(*_: object) -> None:
    """The `Check` of a caller that waits to the end."""


def now() -> float:
    """Return seconds on a clock that only moves forward, also while the machine sleeps (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wait_for(future: Future[V], check: Check, seconds: float, what: str) -> V:
    """Return the future's result, or raise its exception.

    Args:
        check: see `Check`; called about twenty times a second while the result is not there.
        seconds: the bound on the wait.
        what: named in the error when the bound is reached.

    Raises:
        DeadlineExceeded: the bound was reached; the work itself goes on, and ends by its own bounds.
    """
    end = now() + seconds
    while True:
        try:
            return future.result(timeout=POLL_SECONDS)
        except TimeoutError as exc:
            if future.done():
                return future.result()  # it came just now, or its own exception is a TimeoutError
            check()
            if now() > end:
                raise DeadlineExceeded(f"{what}: no answer within {seconds:.0f} s") from exc


def wait_until(condition: Callable[[], bool], check: Check, seconds: float) -> bool:
    """Return whether a condition came to hold within so many seconds; asked again every few milliseconds."""
    end = now() + seconds
    while not condition():
        check()
        if now() > end:
            return False
        time.sleep(POLL_SECONDS / 5)
    return True


def settle(future: Future[V], outcome: V | BaseException) -> None:
    """Give a future its result or exception, unless it has one already."""
    try:
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
    except InvalidStateError:
        return


def submit(pool: Executor, work: Callable[..., object], *args: object) -> None:
    """Hand work to a pool.

    Raises:
        Closing: the pool takes no more work, because the mount is going away.
    """
    try:
        pool.submit(work, *args)
    except RuntimeError as exc:
        if "shutdown" in str(exc):
            raise Closing("the mount is being taken down") from exc
        log.warning("no further thread can be started; the work waits for one that is there: %s", exc)


class SingleFlight(Generic[K, V]):
    """At most one piece of work per key at a time; who asks meanwhile gets the same future."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._flying: dict[K, Future[V]] = {}  # guarded by _lock

    def run(self, key: K, work: Callable[[], V]) -> Future[V]:
        """Return the future of `work`, or of the work already under way for `key`."""
        with self._lock:
            future = self._flying.get(key)
            if future is not None:
                return future
            future = self._flying[key] = Future()
        try:
            submit(self._pool, self._fly, key, work, future)
        except Closing as exc:
            self._land(key, future, exc)
        return future

    def _fly(self, key: K, work: Callable[[], V], future: Future[V]) -> None:
        try:
            outcome: V | BaseException = work()
        except Exception as exc:  # noqa: BLE001 - handed on to whoever waits
            outcome = exc
        self._land(key, future, outcome)

    def _land(self, key: K, future: Future[V], outcome: V | BaseException) -> None:
        with self._lock:
            del self._flying[key]
        settle(future, outcome)


class InTurn(Generic[K]):
    """Changes: for one key piece by piece in the order given, for different keys at the same time.

    Who looks before it writes must not meet another one between the two. As many pieces wait as there are callers.
    """

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        # A key is here exactly while a thread of the pool works for it, or is about to. Guarded by _lock.
        self._waiting: dict[K, deque[tuple[Future[Any], Callable[[], Any]]]] = {}

    def run(self, key: K, work: Callable[[], V]) -> Future[V]:
        """Return the future of `work`; cancelled before its turn comes, the work is not done at all."""
        future: Future[V] = Future()
        with self._lock:
            before = self._waiting.get(key, ())
            waiting = deque((each, its) for each, its in before if not each.cancelled())
            starting = key not in self._waiting
            waiting.append((future, work))
            self._waiting[key] = waiting
        if starting:
            try:
                submit(self._pool, self._work_off, key)
            except Closing as exc:
                self._give_up(key, exc)
        return future

    def wait(self, key: K, work: Callable[[], V], check: Check, seconds: float, what: str) -> V:
        """Return what `work` returns, or raise its exception; see `wait_for`.

        Work that has begun goes on when the wait ends before it; work that has not is not done.
        """
        future = self.run(key, work)
        try:
            return wait_for(future, check, seconds, what)
        finally:
            future.cancel()

    def _work_off(self, key: K) -> None:
        while True:
            with self._lock:
                if not self._waiting[key]:
                    del self._waiting[key]
                    return
                future, work = self._waiting[key].popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                outcome = work()
            except Exception as exc:  # noqa: BLE001 - handed on to whoever waits
                outcome = exc
            settle(future, outcome)

    def _give_up(self, key: K, exc: Closing) -> None:
        with self._lock:
            waiting = self._waiting.pop(key, deque())
        for future, _ in waiting:
            settle(future, exc)
