"""A token that is renewed: shortly before it expires, when the server refuses it, and when its place looks changed.

Used by `ivcapfs.client.login`, for all sources that can give more than one token. Where the tokens come from is a
`Supply`'s business (`supplies`, `contextlogin`); when to ask it, and what to say when it has none, is decided here.

Threading: any thread. `_lock` guards what is said to be; no I/O is done under it. At most one thread asks the supply at
a time, the others wait for it where they cannot go on with the token that there is. Every wait ends with `close`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ivcapfs.client.auth import TokenSource, expiry_of
from ivcapfs.client.retry import Clock
from ivcapfs.errors import Closing, CredentialError
from ivcapfs.secret import Secret
from ivcapfs.waits import now

log = logging.getLogger(__name__)

RETRY = 5.0
"""Seconds between two attempts while nothing helps. A place that looks changed is asked at once."""
LOOK = 1.0
"""Seconds between two looks whether the place has changed, while all is well."""
PAUSE = 0.25
"""Seconds between two renewals, whatever the server refuses: a thread that needs one earlier waits."""
_LEEWAY = 60.0
_SHARE = 0.1
_USELESS = 3
_LONGEST = 120.0


@dataclass(frozen=True, slots=True)
class Token:
    """A token, and when it expires.

    Attributes:
        expires: in seconds since the epoch, by this machine's clock; None: not known.
    """

    secret: Secret
    expires: float | None

    @classmethod
    def of(cls, secret: Secret) -> Token:
        """Return a token that says itself when it expires."""
        return cls(secret, expiry_of(secret))

    def has_expired(self) -> bool:
        """Return whether it is over."""
        return self.expires is not None and time.time() >= self.expires


class Supply(Protocol):
    """Where tokens come from. One thread at a time, except for `has_changed` and `close`."""

    def first(self) -> Token:
        """Return the token to begin with. Raises `CredentialError` where there is none."""

    def has_changed(self) -> bool:
        """Return whether the place looks other than when it was last read. Quick: no network."""

    def look(self, current: Token) -> Token:
        """Return the token that is there now, `current` if there is no better one.

        Raises:
            CredentialError: what is there cannot be used.
        """

    def renew(self, current: Token, *, is_refused: bool) -> Token:
        """Return the token to use instead of `current`, which is refused or about to expire.

        It may be `current` itself, where it will do for a while.

        Raises:
            CredentialError: there is none; the message says what helps.
        """

    def close(self) -> None:
        """End what is under way."""


class RenewedToken(TokenSource):
    """The current token of a supply. Thread-safe.

    Args:
        supply: where tokens come from.
        first: the token to begin with.
        pause: seconds between two renewals, at least.
        retry: seconds between two attempts while nothing helps.
    """

    def __init__(
        self, supply: Supply, first: Token, *, pause: float = PAUSE, retry: float = RETRY, clock: Clock = now
    ) -> None:
        self._supply = supply
        self._pause = pause
        self._retry = retry
        self._clock = clock
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._current = first  # written under _lock
        self._due = _due(first)  # guarded by _lock
        self._flight: threading.Event | None = None  # guarded by _lock
        self._is_proven = False  # whether the server took the present token; guarded by _lock
        self._was_good = False  # whether it took any; before that, who begins is told by an exception; guarded by _lock
        self._useless = 0  # renewals in a row whose token was never taken; guarded by _lock
        self._not_before = 0.0  # no attempt earlier, unless the place has changed; guarded by _lock
        self._not_due_before = 0.0  # the same for renewals because of time alone; guarded by _lock
        self._next_look = clock() + LOOK
        self._renewed_at = 0.0  # guarded by _lock
        self._told: set[bool] = set()  # guarded by _lock

    def token(self) -> Secret:
        """Return the token to send; a better one than before, where it is time and there is one.

        Raises:
            Closing: the client was closed meanwhile.
        """
        current, moment = self._current, self._clock()
        if moment >= self._next_look:
            self._next_look = moment + LOOK
            if self._supply.has_changed():
                self._fly(current, self._supply.look)
        with self._lock:
            current = self._current
            is_due = time.time() >= self._due and moment >= max(self._not_before, self._not_due_before)
        if is_due:
            self._fly(current, self._renew_in_time, wait=current.has_expired())
        return self._current.secret

    def accepted(self, token: Secret) -> None:
        """Take note that the server took `token`; costs nothing, but for the first time."""
        if self._is_proven and not self._useless:
            return
        with self._lock:
            self._useless = 0  # whichever it was: answers come late
            if token is not self._current.secret:
                return
            self._is_proven = self._was_good = True
            was_told, self._told = bool(self._told), set()
        if was_told:
            log.info("there is a good token again: the mount goes on")

    def rejected(self, token: Secret) -> bool:
        """Take note that the server refused `token`, and get another; return whether there is one."""
        for _ in range(2):  # a flight that was waited for may have been a mere look
            current = self._current
            if current.secret != token:
                return True
            with self._lock:
                useless_until = self._renewed_at + self._retry if self._useless >= _USELESS else 0.0
                is_too_early = self._clock() < max(self._not_before, useless_until)
            if is_too_early and not self._supply.has_changed():
                break
            self._fly(current, self._renew_refused)
        return self._current.secret != token

    def expires(self) -> float | None:
        """See `TokenSource.expires`: as the token's place has it, else as it says itself."""
        return self._current.expires

    def close(self) -> None:
        """See `TokenSource.close`."""
        self._closed.set()
        self._supply.close()

    def _renew_in_time(self, current: Token) -> Token:
        found = self._supply.renew(current, is_refused=False)
        with self._lock:
            self._not_due_before = self._clock() + self._retry
        return found

    def _renew_refused(self, current: Token) -> Token:
        return self._supply.renew(current, is_refused=True)

    def _fly(self, seen: Token, work: Callable[[Token], Token], *, wait: bool = True) -> None:
        """Have one thread do the work, unless `seen` is no longer the current token; wait for it if need be."""
        with self._lock:
            if self._current is not seen:
                return
            flight, earliest = self._flight, self._renewed_at + self._pause
            if flight is None:
                mine = self._flight = threading.Event()
        if flight is not None:
            end = time.monotonic() + _LONGEST
            while wait and not flight.wait(PAUSE) and time.monotonic() < end:
                self._check_open()
            return
        try:
            self._sleep(earliest - self._clock())
            self._land(seen, work(seen))
        except CredentialError as exc:
            self._failed(exc)
        finally:
            with self._lock:
                self._flight = None
            mine.set()

    def _land(self, seen: Token, found: Token) -> None:
        """Take the token that was found."""
        if found.secret == seen.secret:
            return
        moment = self._clock()
        with self._lock:
            self._current, self._due = found, _due(found)
            self._is_proven = False
            self._useless += 1
            # By a clock that is wrong, every token has expired: then only what the server says counts.
            self._not_due_before = moment + _LONGEST if time.time() >= self._due else 0.0
            self._not_before = 0.0
            self._renewed_at = moment
        log.info("the token was renewed")

    def _failed(self, exc: CredentialError) -> None:
        """Say once that there is no token, and put off the next attempt."""
        with self._lock:
            self._not_before = self._clock() + self._retry
            is_news = self._was_good and exc.needs_login not in self._told
            if is_news:
                self._told.add(exc.needs_login)
        if is_news:
            after = "the mount then goes on by itself" if exc.needs_login else f"tried again every {self._retry:g} s"
            log.error("%s (%s)", exc, after)

    def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            self._closed.wait(seconds)
        self._check_open()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise Closing("the client is closed")


def _due(token: Token) -> float:
    """Return when a token is to be renewed: a minute before its end, or when a tenth of its time is left."""
    if token.expires is None:
        return float("inf")
    return token.expires - min(_LEEWAY, max(0.0, (token.expires - time.time()) * _SHARE))
