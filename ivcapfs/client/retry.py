"""How often, and after which waits, an exchange is repeated.

Used by `ivcapfs.client.transport` for small exchanges, by `blobs` and `tus` for transfers. A `Retries`
belongs to one exchange, hence to one thread.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from ivcapfs import errors
from ivcapfs.config import Limits

Sleep = Callable[[float], None]
Clock = Callable[[], float]
Stopped = Callable[[], bool]
"""Asked now and then during a transfer; True ends it with `errors.Closing`."""


def never_stopped() -> bool:
    """The `Stopped` of a transfer that runs to its end."""
    return False


class Retries:
    """Counts the tries of one exchange and waits between them: exponential, with full jitter.

    Args:
        limits: number of retries, first and longest wait.
        sleep: waits that many seconds; ends early, with `errors.Closing`, when the client is closed.
        clock: seconds, monotonic.
        deadline: on that clock; no wait goes beyond it. None: only the number bounds.
    """

    def __init__(self, limits: Limits, *, sleep: Sleep, clock: Clock, deadline: float | None = None) -> None:
        self._limits = limits
        self._sleep = sleep
        self._clock = clock
        self._deadline = deadline
        self._done = 0

    def progressed(self) -> None:
        """Take note that something was gained: the count begins anew."""
        self._done = 0

    def wait(self, error: errors.IvcapfsError) -> None:
        """Wait before the next try.

        Raises:
            IvcapfsError: `error` itself, when there is to be no further try.
        """
        if self._done >= self._limits.retries:
            raise error
        longest = min(self._limits.backoff_max, self._limits.backoff * 2.0**self._done)
        seconds = random.uniform(0, longest)
        if isinstance(error, errors.Unavailable) and error.retry_after is not None:
            seconds += error.retry_after
            if self._deadline is None and seconds > self._limits.total:
                raise error
        if self._deadline is not None and self._clock() + seconds >= self._deadline:
            raise error
        self._done += 1
        self._sleep(seconds)


def worth_repeating(error: errors.IvcapfsError, *, idempotent: bool) -> bool:
    """Return whether a repetition may help and can do no harm.

    Args:
        idempotent: whether asking twice is as good as once. If not, only what surely did not happen is
            repeated.
    """
    match error:
        case errors.OriginRefused():
            return False
        case errors.ConnectFailed():
            return True
        case errors.ConnectionBroken() | errors.DeadlineExceeded():
            return idempotent
        case errors.Unavailable():
            return idempotent or error.status in (408, 429, 503)
    return False
