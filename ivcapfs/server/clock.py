"""The platform's time: microseconds since 1970, strictly increasing, and its RFC 3339 form.

Used by the tables to date what they write, and by the API to read ``at-time`` and write replies.
:class:`Clock` may be used from any thread; the functions are pure.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock:
    """A clock of which no two ticks are equal, whatever the system's clock does.

    Args:
        last: the newest time handed out in an earlier life, in microseconds since 1970.
    """

    def __init__(self, last: int = 0) -> None:
        self._lock = threading.Lock()
        self._last = last  # guarded by _lock

    def tick(self) -> int:
        """Return a new time in microseconds since 1970, later than all handed out before."""
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1000)
            return self._last

    def now(self) -> int:
        """Return the present in microseconds since 1970, not earlier than the last tick."""
        with self._lock:
            return max(self._last, time.time_ns() // 1000)


def to_micros(moment: datetime) -> int:
    """Return ``moment`` in microseconds since 1970; without a zone it is taken as UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def to_datetime(micros: int) -> datetime:
    """Return the UTC datetime of a time in microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=micros)


def to_rfc3339(micros: int) -> str:
    """Return a time in microseconds since 1970 as RFC 3339 with six sub-second digits and ``Z``."""
    minute, rest = divmod(micros, 60_000_000)
    return f"{_minute(minute)}:{rest / 1e6:09.6f}Z"


@lru_cache(maxsize=1024)  # a list's times are close together
def _minute(minutes: int) -> str:
    return to_datetime(minutes * 60_000_000).isoformat(timespec="minutes").removesuffix("+00:00")


def parse_rfc3339(text: str) -> int:
    """Return microseconds since 1970 of an RFC 3339 time (a date alone is its midnight, UTC).

    Raises:
        ValueError: ``text`` is no time.
    """
    # A '+' that was not percent-encoded in a query arrives as a blank before the zone's offset.
    head, sep, zone = text.strip().rpartition(" ")
    plain = f"{head}+{zone}" if sep and "T" in head else text.strip()
    try:
        micros = to_micros(datetime.fromisoformat(plain))
        to_datetime(micros)  # in the first or last hours of the calendar the zone may lead beyond it
        return micros
    except OverflowError as exc:
        raise ValueError(f"time out of range: {text!r}") from exc
