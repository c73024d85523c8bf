"""The views over the embedded platform, without a kernel: what is asked is counted, and time passes when told to."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from ivcapfs.cache.reader import Reader
from ivcapfs.catalog.index import Index
from ivcapfs.catalog.moments import moment_text
from ivcapfs.catalog.store import Store
from ivcapfs.client import connect
from ivcapfs.config import CacheSettings, ClientSettings, Limits, ViewSettings
from ivcapfs.fs.bindings import Bindings
from ivcapfs.fs.neighbours import Neighbours
from ivcapfs.fs.nodes import Attributes
from ivcapfs.fs.operations import Operations
from ivcapfs.fs.views import Views
from ivcapfs.models import COLLECTION_ITEM_SCHEMA, COLLECTION_SCHEMA
from ivcapfs.server.clock import to_datetime
from ivcapfs.server.runner import Platform
from ivcapfs.server.synthetic import Synthetic
from ivcapfs.waits import never
from tests.fakes import AtOnce, FakeClock

REFRESH = 30.0
COLLECTION = "urn:ivcap:collection:3f2a9c1e-7b4d-4e0a-9c58-1d6f0a2b3c4d"


def cat(fs: Operations, path: str) -> bytes:
    """Return a file's content, which is as long as stat says."""
    size = fs.getattr(path).size
    handle = fs.open(path, os.O_RDONLY).handle
    try:
        data = fs.read(handle, size + 100, 0)
        assert len(data) == size
        return data
    finally:
        fs.release(handle)


class ViewsWorld:
    """One mount of a platform of its own, without the kernel.

    Args:
        synthetic: what the platform has by formula.
    """

    def __init__(self, folder: Path, synthetic: Synthetic | None = None) -> None:
        self.platform = Platform(folder / "data", synthetic=synthetic)
        self.platform.start()
        self.clock = FakeClock()
        self._pool = ThreadPoolExecutor(16)
        self.connection = connect(ClientSettings(self.platform.url, limits=Limits(connect=1.0, total=3.0, retries=0)))
        api, blobs = self.connection.api, self.connection.blobs
        self.store = Store(folder / "catalog", "catalog")
        self.index = Index(
            api, blobs, self._pool, self.store, refresh=REFRESH, bound=20.0, clock=self.clock, wall=self.clock
        )
        self.views = Views(api, self.index, self.store, self._pool, refresh=REFRESH, bound=20.0, clock=self.clock)
        self.reader = Reader(blobs, CacheSettings(memory=1 << 20, workers=4), bound=20)
        bindings = Bindings(lambda path: None, AtOnce())
        neighbours = Neighbours(lambda *_: [], self.reader, 0, lambda: False)
        self.fs = Operations(
            self.index, self.reader, bindings, neighbours, ViewSettings(), never, self.views.by_name
        )

    def close(self) -> None:
        """Take everything down."""
        self.connection.close()
        self.reader.shutdown()
        self.index.close()
        self.views.close()
        self._pool.shutdown()
        self.platform.close()

    # -- the platform ----------------------------------------------------------------------------------------------

    def add(self, name: str | None, content: bytes = b"", **more: Any) -> str:
        """Put an artifact in place and return its URN."""
        return self.platform.store.add_artifact(name=name, content=content, mime_type="text/plain", **more)

    def describe(self, urn: str, schema: str, **content: Any) -> str:
        """Add an aspect and return its URN."""
        return self.platform.store.add_aspect(urn, schema, content)

    def retract(self, aspect: str) -> None:
        """End an aspect."""
        self.platform.store.aspects.retract(aspect)

    def collect(self, name: str | None, *members: str, urn: str = COLLECTION) -> list[str]:
        """Make a collection and return the aspects that make its members."""
        self.describe(urn, COLLECTION_SCHEMA, **({} if name is None else {"name": name}))
        return [self.member(member, urn) for member in members]

    def member(self, member: str, urn: str = COLLECTION) -> str:
        """Put a member into a collection and return the aspect that does it."""
        return self.describe(urn, COLLECTION_ITEM_SCHEMA, collection=urn, item=member)

    def moment(self) -> str:
        """Return the present, as a folder below `at/`; what comes later is later than that."""
        return moment_text(self.moment_at())

    def moment_at(self) -> datetime:
        """Return the present."""
        return to_datetime(self.platform.store.clock.tick())

    def refresh(self) -> None:
        """Let the refresh time pass."""
        self.clock.advance(REFRESH + 0.1)

    def asked(self) -> Counter[str]:
        """Return what was asked since this was asked last, by the platform's names of its calls."""
        requests = self.platform.counters()["requests"]
        assert isinstance(requests, dict)
        self.platform.reset_counters()
        return Counter({name: count for name, count in requests.items() if count})

    # -- the tree --------------------------------------------------------------------------------------------------

    def entries(self, path: str) -> dict[str, Attributes | None]:
        """Return what readdir tells."""
        handle = self.fs.opendir(path)
        try:
            return {name: found for name, found, _ in self.fs.readdir(handle, 0) if name not in (".", "..")}
        finally:
            self.fs.releasedir(handle)

    def ls(self, path: str) -> list[str]:
        """Return the names in a folder, and see that stat says of each what readdir says."""
        entries = self.entries(path)
        for name, listed in entries.items():
            assert listed in (None, self.fs.getattr(f"{path}/{name}"))
        return sorted(entries)

    def cat(self, path: str) -> bytes:
        """See `cat`."""
        return cat(self.fs, path)

    def attributes(self, path: str) -> dict[str, str]:
        """Return all extended attributes."""
        return {name: self.fs.getxattr(path, name).decode() for name in self.fs.listxattr(path, 0)}
