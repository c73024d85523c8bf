"""A catalog over a fake server, on disk or in memory, that can be closed and begun again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from ivcapfs.catalog.index import Index
from ivcapfs.catalog.listing import StoredListing
from ivcapfs.catalog.store import Store
from ivcapfs.models import ArtifactRecord
from ivcapfs.waits import never
from tests.fakes import PATIENCE, START, FakeApi, FakeClock, FakeSource, artifact

REFRESH = 30.0
DAY = 86_400.0


MADE: list[Store] = []
"""The stores that the test under way has made by itself; see conftest.py."""


class Mounted:
    """One process's catalog.

    Args:
        folder: where its file is; None: in memory.
    """

    def __init__(
        self, api: FakeApi, pool: ThreadPoolExecutor, clock: FakeClock, folder: Path | None, reconcile: float = 0.0
    ) -> None:
        self.store = Store(folder, "catalog")
        self.index = Index(
            api, FakeSource(), pool, self.store,  # type: ignore[arg-type]
            refresh=REFRESH, reconcile=reconcile, bound=PATIENCE, clock=clock, wall=clock,
        )  # fmt: skip

    def names(self) -> list[str]:
        """List everything, by name."""
        return sorted(names_in(self.index.everything(never), self.store))


class World:
    """A server with artifacts a minute apart, and catalogs of it."""

    def __init__(self, pool: ThreadPoolExecutor, folder: Path | None) -> None:
        self.api, self.clock = FakeApi(now=START), FakeClock()
        self._pool, self._folder = pool, folder
        self._mounted: list[Mounted] = []

    def add(self, count: int, *, age: float = 3600.0, apart: float = 60.0, prefix: str = "n") -> list[ArtifactRecord]:
        """Register so many artifacts, the youngest of that age, each older than the next."""
        records = [artifact(f"{prefix}{number}", age=age + apart * number) for number in range(count)]
        self.api.add(*records)
        return records

    def mount(self, reconcile: float = 0.0) -> Mounted:
        """Begin with what is in the folder."""
        mounted = Mounted(self.api, self._pool, self.clock, self._folder, reconcile)
        self._mounted.append(mounted)
        return mounted

    def advance(self, seconds: float = REFRESH) -> None:
        """Let time pass, here and on the server."""
        self.clock.advance(seconds)
        if self.api.now is not None:
            self.api.now += timedelta(seconds=seconds)

    def close(self) -> None:
        """Close everything."""
        self.api.gate.set()
        for mounted in self._mounted:
            mounted.index.close()


def names_in(listing: StoredListing, store: Store) -> list[str]:
    """Return the names of the artifacts in a listing of all of them."""
    records = [store.record(uuid) for uuid, _, _ in listing.entries(0)]
    return [record.name or "" for record in records if record is not None]
