"""Several things at the same time, for tests and harnesses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable


def together(works: Iterable[Callable[[], None]]) -> None:
    """Run all at the same time, on a thread each, to their ends; raise what any of them raised."""
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 - raised again below
            failures.append(exc)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
