"""What the platform has done: requests by kind, and bytes of content sent.

Used by the calls, which count, and by ``/_counters`` and tests, which look. May be used from any thread.
"""

from __future__ import annotations

import threading
from collections import Counter


class Counters:
    """Counts since the start or the last reset."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()  # guarded by _lock
        self._blob_bytes = 0  # guarded by _lock

    def count(self, label: str) -> None:
        """Count a request, under a label like ``artifact.list``."""
        with self._lock:
            self._requests[label] += 1

    def sent(self, size: int) -> None:
        """Count ``size`` bytes of content that were handed to the HTTP server."""
        with self._lock:
            self._blob_bytes += size

    def snapshot(self) -> dict[str, object]:
        """Return ``{"requests": {label: number}, "blob_bytes_sent": bytes}``."""
        with self._lock:
            return {"requests": dict(self._requests), "blob_bytes_sent": self._blob_bytes}

    def reset(self) -> None:
        """Begin from nothing."""
        with self._lock:
            self._requests.clear()
            self._blob_bytes = 0
