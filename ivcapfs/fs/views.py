"""The views that ask questions, put together: `collections/`, `at/`, `search/`, over one set of kept answers; and who
changes what these answers tell.

Used by `ivcapfs.fs.floors`. Threading: made once; the pools here run the requests of these views alone, so that long
searches hold up nobody else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from ivcapfs.catalog.collections import Collections
from ivcapfs.catalog.collectionwriter import CollectionWriter
from ivcapfs.catalog.index import Index
from ivcapfs.catalog.interface import Catalog
from ivcapfs.catalog.members import Members
from ivcapfs.catalog.pastcatalog import PastAspects, PastCatalog, past_aspects
from ivcapfs.catalog.search import Searches
from ivcapfs.catalog.store import Store
from ivcapfs.client import Api
from ivcapfs.errors import Closing
from ivcapfs.fs.aspectwriter import AspectWriter
from ivcapfs.fs.at import AtView
from ivcapfs.fs.collections import CollectionsView
from ivcapfs.fs.nodes import FolderNode
from ivcapfs.fs.search import SearchView
from ivcapfs.fs.tree import View
from ivcapfs.models import COLLECTION_SCHEMA, EPOCH, artifact_uuid
from ivcapfs.waits import now

COLLECTIONS_INODE, AT_INODE, SEARCH_INODE = 4, 5, 6
QUESTIONS = 32
"""Lists and searches under way at the same time."""
MEMBERS = 8
"""Members asked for one by one at the same time."""
CHANGES = 8
"""Entities whose aspects or members are changed at the same time."""


def utc_now() -> datetime:
    """Return the present time of this machine."""
    return datetime.now(UTC)


class Views:
    """The views, and the pools that ask for them.

    Args:
        pool: runs short requests.
        refresh: seconds that an answer is good.
        bound: seconds that one wait lasts at most without anything coming.
        clock: seconds, only ever forward.
        wall: tells the present time.

    Attributes:
        by_name: the views.
        aspects, collections: change the aspects of an entity, and collections; for a mount that writes.
    """

    def __init__(
        self,
        api: Api,
        index: Index,
        store: Store,
        pool: Executor,
        *,
        refresh: float,
        bound: float,
        clock: Callable[[], float] = now,
        wall: Callable[[], datetime] = utc_now,
    ) -> None:
        self._questions = ThreadPoolExecutor(QUESTIONS, thread_name_prefix="questions")
        self._members = ThreadPoolExecutor(MEMBERS, thread_name_prefix="members")
        self._changes = ThreadPoolExecutor(CHANGES, thread_name_prefix="changes")
        self._index = index
        self._store = store
        self._wall = wall
        self._closing = threading.Event()
        members = Members(api, store, self._members, self._check, bound=bound, clock=clock)
        collections = Collections(api, index, members, self._questions, keep=refresh, bound=bound, clock=clock)
        searches = Searches(api, index, members, self._questions, keep=refresh, bound=bound, clock=clock)
        aspects = past_aspects(api, pool, keep=refresh, bound=bound, clock=clock)
        self.by_name = self._views(store, collections, searches, aspects)

        def changed(urn: str, schema: str) -> None:
            uuid = artifact_uuid(urn)
            if uuid is not None:
                index.details.forget(uuid)
            collections.changed(urn, description=schema == COLLECTION_SCHEMA)

        self.aspects = AspectWriter(api, self._changes, bound, changed)
        self.collections = CollectionWriter(api, collections, self._changes, bound)

    def _views(
        self, store: Store, collections: Collections, searches: Searches, aspects: PastAspects
    ) -> dict[str, View]:
        """Return the views by name."""
        index, wall, started_ns = self._index, self._wall, time.time_ns()

        def catalog_at(moment: datetime) -> Catalog:
            return PastCatalog(index, store, aspects, moment, wall)

        def collections_at(catalog: Catalog, base: str, root: FolderNode, moment: datetime) -> CollectionsView:
            return CollectionsView(collections, catalog, base, root, moment)

        def root(inode: int) -> FolderNode:
            return FolderNode(inode, started_ns)

        return {
            "collections": CollectionsView(collections, index, "collections", root(COLLECTIONS_INODE)),
            "at": AtView(catalog_at, collections_at, self._present, root(AT_INODE)),
            "search": SearchView(searches, index, root(SEARCH_INODE)),
        }

    def close(self) -> None:
        """Take no more questions, and end what waits. May be called again."""
        self._closing.set()
        for pool in (self._questions, self._members, self._changes):
            pool.shutdown(wait=False, cancel_futures=True)

    def _check(self) -> None:
        if self._closing.is_set():
            raise Closing("the mount is being taken down")

    def _present(self) -> datetime:
        """Return the present: this machine's time, or the newest artifact's if the server's clock is ahead of ours."""
        return max(self._wall(), EPOCH + timedelta(microseconds=self._store.root().time_ns // 1000))
