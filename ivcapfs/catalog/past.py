"""Which artifacts there were at a moment, and under which names: asked of the catalog's tables, without any request.

Used by `ivcapfs.catalog.pastcatalog`. An artifact counts from when it was created. What the tables say of the present
saves most of the work, for artifacts only ever come: the others of its name, its folder, the rivals of its @id form
were all fewer then. So who owns a plain name now owned it then, and only the others have to be looked at anew.

Threading: any thread may call anything; see `ivcapfs.catalog.store`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from ivcapfs.catalog.interface import Entry, FileEntry, Folder
from ivcapfs.catalog.listing import StoredListing
from ivcapfs.catalog.names import Parts, encode_component, id_in, id_leaf
from ivcapfs.catalog.paths import find_by_id, find_folder
from ivcapfs.catalog.schema import PLAIN, RECORD, ROOT, SHORT, SHORT_DIGITS, name_of, record_of
from ivcapfs.catalog.store import BATCH, FILES, WHOLE_DIGITS, Store
from ivcapfs.models import ArtifactRecord, uuid_text

_NEWEST = """
WITH RECURSIVE below (id) AS (VALUES (?1) UNION ALL SELECT folder.id FROM folder JOIN below ON folder.parent=below.id)
SELECT max((SELECT max(created) FROM artifact INDEXED BY artifact_leaf WHERE folder=below.id AND created<=?2))
FROM below
"""
_OWNER = (
    f"SELECT {RECORD}, id FROM artifact WHERE folder=? AND leaf=? AND created<=? "
    "ORDER BY created DESC, uuid DESC LIMIT 1"
)
_FOLDERS = "SELECT id, name, newest FROM folder WHERE parent=? AND id > ? AND id <= ? ORDER BY id LIMIT ?"
_FILES = (
    "SELECT id, uuid, leaf, place, size, created, CASE WHEN place > 1 THEN name END FROM artifact "
    "WHERE folder=? AND id > ? AND id <= ? AND created <= ? ORDER BY id LIMIT ?"
)
_ALL = (
    "SELECT id, uuid, size, created FROM artifact NOT INDEXED "
    "WHERE folder IS NOT NULL AND id > ? AND id <= ? AND created <= ? ORDER BY id LIMIT ?"
)
_SAME_DIGITS = (
    "SELECT uuid, name, leaf FROM artifact INDEXED BY artifact_uuid "
    "WHERE uuid BETWEEN ? AND ? AND folder=? AND created<=?"
)


class Past:
    """The names of the artifacts as they were.

    Args:
        until: the moment, in microseconds since the epoch.
    """

    def __init__(self, store: Store, until: int) -> None:
        self._store = store
        self.until = until

    def root(self) -> Folder:
        """Return the top folder, which was there also when it was empty."""
        newest = self._store.read(lambda conn: self._newest(conn, ROOT, self._kept(conn, ROOT)))
        return Folder(ROOT, (newest or 0) * 1000)

    def find(self, parts: Parts) -> Folder | ArtifactRecord | None:
        """Return what was at a path; see `Store.find`."""

        def run(conn: sqlite3.Connection) -> Folder | ArtifactRecord | None:
            found = self._find_plain(conn, parts)
            above = find_folder(conn, parts[:-1]) if found is None and parts else None
            if above is not None:
                found = find_by_id(conn, parts, above[0], self.until)
            if found is None:
                escaped = tuple(encode_component(part) for part in parts)
                found = self._find_plain(conn, escaped) if escaped != parts else None
            return found

        return self._store.read(run)

    def listing(self, folder: int | None) -> PastListing:
        """Begin to read a folder by its row; None: all artifacts by their uuids."""
        return PastListing(self._store, self, folder)

    def folder_batch(self, folder: int, after: int, last: tuple[int, int]) -> list[Entry]:
        """See `Store.folder_batch`."""

        def run(conn: sqlite3.Connection) -> list[Entry]:
            entries: list[Entry] = []
            if after < FILES:
                entries = self._folders(conn, folder, after, last[0])
            if len(entries) < BATCH:
                values = (folder, max(after - FILES, 0), last[1], self.until, BATCH - len(entries))
                entries += [self._entry(conn, folder, row) for row in conn.execute(_FILES, values).fetchall()]
            return entries

        return self._store.read(run)

    def all_batch(self, after: int, last: tuple[int, int]) -> list[Entry]:
        """See `Store.all_batch`."""
        values = (max(after - FILES, 0), last[1], self.until, BATCH)
        rows = self._store.read(lambda conn: conn.execute(_ALL, values).fetchall())
        return [
            (uuid_text(uuid), FileEntry(uuid, size, created * 1000), FILES + id) for id, uuid, size, created in rows
        ]

    # -- folders -------------------------------------------------------------------------------------------------

    def _folders(self, conn: sqlite3.Connection, parent: int, after: int, last: int) -> list[Entry]:
        """Return the next folders that had something in them; fewer than `BATCH` only at their end."""
        entries: list[Entry] = []
        while len(entries) < BATCH:
            rows = conn.execute(_FOLDERS, (parent, after, last, BATCH)).fetchall()
            for id, name, now in rows:
                newest = self._newest(conn, id, now)
                if newest is not None:
                    entries.append((name, Folder(id, newest * 1000), id))
            if len(rows) < BATCH:
                break
            after = rows[-1][0]
        return entries

    def _kept(self, conn: sqlite3.Connection, folder: int) -> int:
        (newest,) = conn.execute("SELECT newest FROM folder WHERE id=?", (folder,)).fetchone()
        return int(newest)

    def _newest(self, conn: sqlite3.Connection, folder: int, now: int) -> int | None:
        """Return when the newest artifact in a folder, at any depth, was created; None: the folder was not there.

        Args:
            now: the same for the present.
        """
        if now <= self.until:
            return now
        (newest,) = conn.execute(_NEWEST, (folder, self.until)).fetchone()
        return None if newest is None else max(0, newest)

    def _folder(self, conn: sqlite3.Connection, parts: Parts) -> Folder | None:
        found = find_folder(conn, parts)
        newest = self._newest(conn, *found) if found else None
        return None if found is None or newest is None else Folder(found[0], newest * 1000)

    # -- artifacts -----------------------------------------------------------------------------------------------

    def _find_plain(self, conn: sqlite3.Connection, parts: Parts) -> Folder | ArtifactRecord | None:
        if not parts:
            return Folder(ROOT, (self._newest(conn, ROOT, self._kept(conn, ROOT)) or 0) * 1000)
        folder = self._folder(conn, parts)
        parent = find_folder(conn, parts[:-1]) if folder is None else None
        if folder is not None or parent is None or id_in(parts[-1]) is not None:
            return folder
        row = conn.execute(_OWNER, (parent[0], parts[-1], self.until)).fetchone()
        return record_of(row[:-1]) if row else None

    def _entry(self, conn: sqlite3.Connection, folder: int, row: tuple[Any, ...]) -> Entry:
        id, uuid, leaf, place, size, created, name = row
        if place != PLAIN and not self._was_plain(conn, folder, leaf, id):
            is_short = place == SHORT or not self._has_rival(conn, folder, leaf, name, uuid)
            leaf = id_leaf(leaf, name_of(name, leaf), uuid_text(uuid), SHORT_DIGITS if is_short else WHOLE_DIGITS)
        return leaf, FileEntry(uuid, size, created * 1000), FILES + id

    def _was_plain(self, conn: sqlite3.Connection, folder: int, leaf: str, id: int) -> bool:
        """Return whether an artifact owned its plain name: it was the newest, and no folder had the name."""
        if id_in(leaf) is not None:
            return False
        row = conn.execute(_OWNER, (folder, leaf, self.until)).fetchone()
        if row is None or row[-1] != id:
            return False
        found = conn.execute("SELECT id, newest FROM folder WHERE parent=? AND name=?", (folder, leaf)).fetchone()
        return found is None or self._newest(conn, *found) is None

    def _has_rival(self, conn: sqlite3.Connection, folder: int, leaf: str, name: Any, uuid: bytes) -> bool:
        """Return whether another artifact had the same short @id form."""
        own = id_leaf(leaf, name_of(name, leaf), uuid_text(uuid))
        low, high = uuid[:4] + bytes(12), uuid[:4] + b"\xff" * 12
        rows: Iterator[tuple[bytes, Any, str]] = conn.execute(_SAME_DIGITS, (low, high, folder, self.until))
        return any(
            other != uuid and id_leaf(other_leaf, name_of(other_name, other_leaf), uuid_text(other)) == own
            for other, other_name, other_leaf in rows
        )


class PastListing(StoredListing):
    """One reading of a folder as it was."""

    def __init__(self, store: Store, past: Past, folder: int | None) -> None:
        super().__init__(store, folder)
        self._past = past

    def _take(self, after: int, last: tuple[int, int]) -> list[Entry]:
        if self._folder is None:
            return self._past.all_batch(after, last)
        return self._past.folder_batch(self._folder, after, last)
