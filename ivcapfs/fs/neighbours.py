"""Fetches small files before they are opened, for programs that go through a folder: ``cat *``, ``tar``, ``grep -r``.

Read-ahead ends where a file ends, so that a thousand small files cost a thousand round trips, one after the other.
Here opens are watched: who opens two files that are neighbours, by name or as the folder lists them, will probably open
the next ones, too. They are read into the block cache, a few at first, then ever more, as long as the guess holds.

Used by `ivcapfs.fs.operations`. Nothing here is ever waited for, and no failure is told: whoever opens the file makes
the same request and gets the error.

Threading: any thread may call `Neighbours.opened`; its lock guards the walks. Questions to the catalog and reads run on
a pool, never under the lock.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cachetools import LRUCache

from ivcapfs.cache.reader import Reader
from ivcapfs.catalog.interface import Neighbour, Order
from ivcapfs.catalog.names import Parts
from ivcapfs.errors import Closing, IvcapfsError
from ivcapfs.waits import submit

log = logging.getLogger(__name__)

NEAR = 4
"""A walk may leave out so many neighbours, less one."""
FIRST, MOST = 4, 64
"""Files that are read ahead of a walk: at its beginning, and at most."""
WALKS = 64
"""Folders that are watched."""
WORKERS = 16
SECONDS = 5.0
"""After so long a file is left to the cache's own threads: silent servers do not keep ours."""

Following = Callable[[Parts, str, Order, int], list[Neighbour]]
"""Returns so many files that come after a named one in a folder, as far as known."""


@dataclass(slots=True, eq=False)
class _Walk:
    """How one folder's files are opened. Guarded by `Neighbours._lock`.

    Attributes:
        last: the name opened last.
        order: in which the names follow one another; None: not known.
        ahead: those expected next.
        window: how many to expect.
        asking: whether the catalog is being asked.
        since: names opened meanwhile.
    """

    last: str | None = None
    order: Order | None = None
    ahead: deque[Neighbour] = field(default_factory=deque)
    window: int = FIRST
    asking: bool = False
    since: set[str] = field(default_factory=set)

    def pass_by(self, name: str) -> bool:
        """Note that a name is opened; return whether it was expected."""
        for number in range(min(NEAR, len(self.ahead))):
            if self.ahead[number].name == name:
                for _ in range(number + 1):
                    self.ahead.popleft()
                return True
        return False

    def forget(self) -> None:
        self.order, self.window = None, FIRST
        self.ahead.clear()


class Neighbours:
    """The walks through one mount's folders.

    Args:
        following: asks the catalog.
        largest: bytes of the largest file that is read ahead; 0: none is.
        stopped: whether the mount is going away.
    """

    def __init__(self, following: Following, reader: Reader, largest: int, stopped: Callable[[], bool]) -> None:
        self._following = following
        self._reader = reader
        self._largest = largest
        self._stopped = stopped
        self._pool = ThreadPoolExecutor(WORKERS + 1, thread_name_prefix="neighbour")  # one is left for questions
        self._lock = threading.Lock()
        self._walks: LRUCache[Parts, _Walk] = LRUCache(WALKS)  # guarded by _lock
        self._wanted: deque[Neighbour] = deque()  # to be read, in this order; guarded by _lock
        self._reading = 0  # threads that work it off, or are about to; guarded by _lock

    def opened(self, parts: Parts, size: int) -> None:
        """A file of `artifacts/` is opened for reading; never waits.

        Args:
            size: its bytes.
        """
        if not 0 < size <= self._largest:
            return
        folder, name = parts[:-1], parts[-1]
        with self._lock:
            walk = self._walks.get(folder)
            if walk is None:
                walk = self._walks[folder] = _Walk()
            question = self._question(walk, name)
        if question is not None:
            self._hand_over(self._ask, folder, walk, *question)

    def close(self) -> None:
        """Begin no more. What is under way ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _question(self, walk: _Walk, name: str) -> tuple[str, str, Order | None] | None:
        """Return what to ask the catalog about a walk: (the name before, the name to go on from, the order), or None.

        The lock is held.
        """
        previous, walk.last = walk.last, name
        if walk.asking:
            walk.since.add(name)
            return None
        if walk.order is not None:
            if not walk.pass_by(name):
                walk.forget()
                return None
            if len(walk.ahead) > walk.window // 2:
                return None
            walk.window = min(walk.window * 2, MOST)
        elif previous is None or previous == name:
            return None
        walk.asking = True
        walk.since = {name}
        return previous or name, walk.ahead[-1].name if walk.ahead else name, walk.order

    def _ask(self, folder: Parts, walk: _Walk, previous: str, last: str, order: Order | None) -> None:
        """Ask which files come next, and read those that are small; runs on the pool."""
        found: list[Neighbour] = []
        try:
            order = order or self._order(folder, previous, last)
            if order is not None:
                found = self._following(folder, last, order, walk.window)
        except IvcapfsError as exc:
            log.debug("what follows %r is not known: %s", last, exc)
        with self._lock:
            walk.asking, walk.order = False, order
            expected = [*walk.ahead, *found]
            passed = 1 + max((number for number, each in enumerate(expected) if each.name in walk.since), default=-1)
            found = found[max(0, passed - len(walk.ahead)) :]
            walk.ahead = deque(expected[passed:])
        self._read(each for each in found if 0 < (each.size or 0) <= self._largest)

    def _order(self, folder: Parts, previous: str, name: str) -> Order | None:
        """Return the order in which a name follows another soon."""
        for order in Order:
            if any(each.name == name for each in self._following(folder, previous, order, NEAR)):
                return order
        return None

    def _read(self, wanted: Iterable[Neighbour]) -> None:
        """Have files read into the cache, by further threads: those at work may have to wait for a far server."""
        with self._lock:
            self._wanted.extend(wanted)
            more = min(WORKERS - self._reading, len(self._wanted))
            self._reading += more
        for _ in range(more):
            self._hand_over(self._work_off)

    def _work_off(self) -> None:
        """Read what is wanted, one file after the other; runs on the pool, which has more work for few threads."""
        while True:
            with self._lock:
                if not self._wanted or self._stopped():
                    self._reading -= 1
                    return
                each = self._wanted.popleft()
            self._reader.fetch(self._reader.blob(each.uuid, each.size or 0), SECONDS)

    def _hand_over(self, work: Callable[..., None], *args: object) -> None:
        try:
            submit(self._pool, work, *args)
        except Closing:
            return
