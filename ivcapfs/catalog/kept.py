"""Answers of the server that views are made of: each asked for once at a time, kept for a while, and bounded in all.

Used by `collections`, `search` and `pastcatalog`. An answer that is too old is asked for anew; where that fails, the
old one is shown. What was refused, and a server that cannot be reached, are remembered for some seconds: programs
probe.

Threading: any thread may call anything. Asking happens on the pool only, never under the lock.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from cachetools import LRUCache, TTLCache

from ivcapfs.errors import (
    ApiError,
    Closing,
    DeadlineExceeded,
    IvcapfsError,
    NotAuthenticated,
    NotPermitted,
    ProtocolError,
    ServerFault,
    TransportError,
    Unavailable,
)
from ivcapfs.waits import Check, settle, submit, wait_for

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

PATIENCE_SECONDS = 10.0
"""How long an access that has an older answer waits for a newer one."""
SHORT_PATIENCE_SECONDS = 1.0
"""The same, while the last attempt failed."""
FAILED_SECONDS = 5.0
"""How long after a failure nothing is asked again: about the same, or, if the server cannot be reached, at all."""
REFUSED_SECONDS = 30.0
"""How long what the server does not understand, or does not have, is not asked again."""
FAILURES = 4096
WORTH = 4.0
"""An answer is good for so many times as long as it took to get it, at least: who looks at a search of a minute again
and again shall not keep the server busy all the time."""

_TEMPORARY = (TransportError, Unavailable, ServerFault, ProtocolError, NotAuthenticated, NotPermitted)
"""After these, what was known is shown."""

Progress = Callable[[], None]
"""Called by who asks whenever something came: who waits then goes on waiting."""


@dataclass(slots=True)
class _Answer(Generic[V]):
    """What the server said; `asked_at` is when it was asked, `good_until` when it is too old."""

    value: V
    asked_at: float
    good_until: float
    weight: int

    def is_good(self, time: float, younger: float | None = None) -> bool:
        return time < self.good_until if younger is None else time - self.asked_at < younger


@dataclass(slots=True)
class _Flight(Generic[V]):
    """A question under way; `steps` counts what came, and `begun` is done with the first of it, or with the end."""

    began_at: float
    future: Future[V] = field(default_factory=Future)
    begun: Future[None] = field(default_factory=Future)
    steps: int = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == 1:
            settle(self.begun, None)

    def end(self, outcome: V | Exception) -> None:
        settle(self.future, outcome)
        settle(self.begun, outcome if isinstance(outcome, Exception) else None)


class Kept(Generic[K, V]):
    """See the module.

    Args:
        what: the questions in words, for messages.
        ask: asks the server; runs on the pool.
        keep: seconds that an answer is good, from the question on; see also `WORTH`.
        bound: seconds that one wait lasts at most without anything coming.
        most: the weight of all answers together; those not used for longest go first.
        weigh: an answer's weight, at most `most`.
        clock: seconds, only ever forward.
    """

    def __init__(
        self,
        what: str,
        ask: Callable[[K, Progress], V],
        pool: Executor,
        *,
        keep: float,
        bound: float,
        most: int,
        clock: Callable[[], float],
        weigh: Callable[[V], int] = lambda value: 1,
    ) -> None:
        self._what = what
        self._ask = ask
        self._pool = pool
        self._keep = keep
        self._bound = bound
        self._weigh = weigh
        self._clock = clock
        self._amending = threading.Lock()  # held while an answer is amended, and taken before _lock
        self._lock = threading.Lock()
        self._answers: LRUCache[K, _Answer[V]] = LRUCache(most, lambda answer: answer.weight)  # guarded by _lock
        self._flights: dict[K, _Flight[V]] = {}  # guarded by _lock
        self._refused: TTLCache[K, IvcapfsError] = TTLCache(FAILURES, REFUSED_SECONDS, clock)  # guarded by _lock
        self._failed: TTLCache[K, IvcapfsError] = TTLCache(FAILURES, FAILED_SECONDS, clock)  # guarded by _lock
        self._trouble: tuple[float, TransportError] | None = None  # when the server was not reached; guarded by _lock
        self._is_told = False  # whether the log says that old answers are shown; guarded by _lock

    def get(self, key: K, check: Check, *, younger: float | None = None) -> V:
        """Return the answer to a question.

        Args:
            younger: seconds that it may be old, and an older one does not count even if there will be no other; None:
                `keep`, and an older one is better than none.

        Raises:
            ApiError, TransportError, ProtocolError: the server refused, or did not say, and nothing is known.
        """
        answer, flight, patience = self._look(key, younger)
        if flight is not None:
            return self._await(flight, answer, patience, check)
        assert answer is not None
        return answer.value

    def peek(self, key: K, check: Check) -> V | None:
        """Return an answer that is at hand, good or not, or None once the server has begun to give one.

        Raises:
            ApiError, TransportError, ProtocolError: it refused, or did not say, and nothing is known.
        """
        answer, flight, _ = self._look(key, None)
        if answer is None and flight is not None:
            wait_for(flight.begun, check, self._bound, self._what)
        return None if answer is None else answer.value

    def is_fresh(self, key: K) -> bool:
        """Return whether an answer is at hand that is good."""
        with self._lock:
            answer = self._answers.get(key)
            return answer is not None and answer.is_good(self._clock())

    def amend(self, concerned: Callable[[K], bool], change: Callable[[V], V]) -> None:
        """Change some answers by what was done just now, so that it is shown without asking again.

        A question under way may have been answered before it was done: its answer is for those alone who wait already.

        Args:
            concerned: tells which, by their questions; called under the lock.
            change: returns the changed answer; makes no request. It may find the change in the answer already.
        """
        with self._amending:
            with self._lock:
                self._drop_flights(concerned)
                answers = [(key, answer) for key, answer in self._answers.items() if concerned(key)]
            for key, answer in answers:
                value = change(answer.value)
                weight = self._weigh(value)
                with self._lock:
                    if self._answers.get(key) is answer:  # another one was asked for since, and knows
                        self._answers[key] = replace(answer, value=value, weight=weight)

    def outdate(self, concerned: Callable[[K], bool]) -> None:
        """Ask some questions anew, because of what was done just now; should that fail, the old answers are shown.

        What is under way is treated as in `amend`.

        Args:
            concerned: tells which; called under the lock.
        """
        with self._lock:
            self._drop_flights(concerned)
            for key in [key for key in self._answers if concerned(key)]:
                self._answers[key] = replace(self._answers[key], asked_at=-math.inf, good_until=-math.inf)

    def _drop_flights(self, concerned: Callable[[K], bool]) -> None:
        """Let the answers of some questions under way be for those alone who wait already. The lock is held."""
        for key in [key for key in self._flights if concerned(key)]:
            del self._flights[key]

    def _look(self, key: K, younger: float | None) -> tuple[_Answer[V] | None, _Flight[V] | None, float]:
        """Return an answer, a flight to wait for, or both with the seconds that the flight is worth; see `get`."""
        with self._lock:
            answer, time = self._answers.get(key), self._clock()
            if answer is not None and answer.is_good(time, younger):
                return answer, None, 0.0
            if younger is not None:
                answer = None
            refusal = self._refused.get(key)
            if refusal is not None:
                raise refusal.with_traceback(None)
            failure = self._failed.get(key) or self._trouble_at(time)
            if failure is not None and answer is not None:
                return answer, None, 0.0
            if failure is not None:
                raise failure.with_traceback(None)
            flight = self._flights.get(key)
            starting = flight is None
            if flight is None:
                flight = self._flights[key] = _Flight(time)
            patience = SHORT_PATIENCE_SECONDS if self._trouble is not None else PATIENCE_SECONDS
        if starting:
            self._start(key, flight)
        return answer, flight, patience - (time - flight.began_at)

    def _start(self, key: K, flight: _Flight[V]) -> None:
        try:
            submit(self._pool, self._fly, key, flight)
        except Closing as exc:
            flight.end(self._note_failure(key, flight, exc))

    def _trouble_at(self, time: float) -> TransportError | None:
        """Return why the server was not reached a moment ago. The lock is held."""
        if self._trouble is not None and time - self._trouble[0] < FAILED_SECONDS:
            return self._trouble[1]
        return None

    def _await(self, flight: _Flight[V], older: _Answer[V] | None, patience: float, check: Check) -> V:
        """Wait for an answer, as long as something comes; with an older one at hand, only for so many seconds."""
        while True:
            before = flight.steps
            try:
                return wait_for(flight.future, check, self._bound if older is None else patience, self._what)
            except DeadlineExceeded:
                if older is not None:
                    return older.value
                if flight.future.done() or flight.steps == before:
                    raise
            except _TEMPORARY:
                if older is None:
                    raise
                return older.value

    def _fly(self, key: K, flight: _Flight[V]) -> None:
        """Ask; runs on the pool."""
        try:
            value = self._ask(key, flight.step)
            weight = self._weigh(value)
        except Exception as exc:  # noqa: BLE001 - handed on to whoever waits
            flight.end(self._note_failure(key, flight, exc))
            return
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
                keep = max(self._keep, WORTH * (self._clock() - flight.began_at))
                self._answers[key] = _Answer(value, flight.began_at, flight.began_at + keep, weight)
            self._trouble, self._is_told = None, False
        flight.end(value)

    def _note_failure(self, key: K, flight: _Flight[V], exc: Exception) -> Exception:
        """Remember a failure; return what whoever waits is told."""
        with self._lock:
            counts = self._flights.get(key) is flight
            if counts:
                del self._flights[key]
            is_known = key in self._answers
            if isinstance(exc, TransportError):
                self._trouble = (self._clock(), exc)
            elif not counts:
                pass  # the question is put anew, or was already
            elif isinstance(exc, _TEMPORARY):
                self._failed[key] = exc
            elif isinstance(exc, ApiError):
                self._refused[key] = exc
            tell = is_known and isinstance(exc, _TEMPORARY) and not self._is_told
            self._is_told = self._is_told or tell
        if tell:
            log.warning("%s cannot be refreshed: %s", self._what, exc)
        if not isinstance(exc, IvcapfsError):
            log.error("%s: unexpected error", self._what, exc_info=exc)
            return ProtocolError(f"unexpected: {exc!r}")
        return exc
