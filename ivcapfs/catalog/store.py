"""The catalog's tables as the rest of the package sees them: paths to artifacts, folders to entries, records in.

Used by `sync`, which writes, and by `index`, which reads. Knows no server and no clock.

Threading: any thread may call anything; see `database`. A listing holds no cursor between two batches.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from cachetools import LRUCache

from ivcapfs.catalog.database import Database
from ivcapfs.catalog.interface import Entry, FileEntry, Folder, Neighbour, Order, Totals
from ivcapfs.catalog.names import Parts, encode_component, id_leaf
from ivcapfs.catalog.opened import Work
from ivcapfs.catalog.paths import EVER, Found, find, find_folder, find_plain
from ivcapfs.catalog.placement import Listed, Placement
from ivcapfs.catalog.schema import PLAIN, RECORD, ROOT, SHORT, SHORT_DIGITS, name_of, record_of
from ivcapfs.models import ArtifactRecord, uuid_bytes, uuid_text

V = TypeVar("V")

BATCH = 1000
"""Rows that a listing takes from the database at a time."""
FILES = 1 << 40
"""Cookies of artifacts begin here; those of folders are below."""
WHOLE_DIGITS = 36
PATHS = 4096
"""What is at so many paths is remembered until somebody writes."""

_ENTRIES = (
    "SELECT id, uuid, leaf, place, size, created, CASE WHEN place > 1 THEN name END FROM artifact "
    "WHERE folder=? AND id > ? AND id <= ? ORDER BY id LIMIT ?"
)
_FOLDERS = "SELECT id, name, newest FROM folder WHERE parent=? AND id > ? AND id <= ? ORDER BY id LIMIT ?"
_PLAIN_ROW = f"SELECT id FROM artifact WHERE folder=? AND leaf=? AND place={PLAIN}"
_AFTER = {
    Order.NAME: "SELECT leaf, uuid, size FROM artifact INDEXED BY artifact_leaf "
    f"WHERE folder=:folder AND leaf > :leaf AND place={PLAIN} ORDER BY leaf LIMIT :count",
    Order.LISTED: "SELECT leaf, uuid, size FROM artifact INDEXED BY artifact_folder "
    f"WHERE folder=:folder AND id > :row AND place={PLAIN} ORDER BY id LIMIT :count",
}


def store_name(origin: str, identity: str) -> str:
    """Return the name of a deployment's catalog for one account: a hash, in which neither can be read."""
    text = "".join(f"{len(each)}:{each}" for each in (origin, identity))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=28, person=b"ivcapfs catalog")
    return digest.hexdigest()


class Store:
    """What is known, on disk or in memory.

    Args:
        folder, name: see `Database`.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self._database = Database(folder, name)
        self._placement = Placement()
        self._written: tuple[sqlite3.Connection, int] | None = None  # used within write transactions alone
        self._lock = threading.Lock()
        self._version = 0  # of what is known, as far as this process knows; guarded by _lock
        self._found: LRUCache[Parts, Found] = LRUCache(PATHS)  # guarded by _lock
        self._parents: LRUCache[Parts, int] = LRUCache(PATHS)  # rows of folders; guarded by _lock

    @property
    def path(self) -> Path | None:
        """The database's file; None: it is in memory."""
        return self._database.path

    @property
    def losses(self) -> int:
        """See `Database.losses`."""
        return self._database.losses

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def shrink(self) -> None:
        """Give back what is kept in memory and can be read again."""
        self._database.shrink()

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, work: Callable[[Transaction], V]) -> V:
        """Return what `work` does in one transaction; see `Database.write`."""

        def run(conn: sqlite3.Connection) -> V:
            (version,) = conn.execute("PRAGMA data_version").fetchone()
            mark = (conn, version)
            self._placement.begin(conn, remember=self._written == mark)
            self._written = None
            result = work(Transaction(conn, self._placement))
            self._placement.end()
            self._written = mark
            return result

        try:
            return self._database.write(run)
        finally:
            self.look_again()

    def look_again(self) -> None:
        """Forget what is remembered of paths: this process, or another one, wrote."""
        with self._lock:
            self._version += 1
            self._found.clear()
            self._parents.clear()

    # -- reading -------------------------------------------------------------------------------------------------

    def read(self, work: Work[V]) -> V:
        """Return what `work` makes of a connection; see `Database.read`. For the catalog's other questions."""
        return self._database.read(work)

    def meta(self) -> dict[str, Any]:
        """Return all notes (`Transaction.note`)."""
        return self._database.read(lambda conn: dict(conn.execute("SELECT key, value FROM meta").fetchall()))

    def totals(self) -> Totals:
        """Return how many artifacts have a path, and how much they take."""
        meta = self.meta()
        return Totals(meta["files"], meta["blocks"])

    def record(self, uuid: str) -> ArtifactRecord | None:
        """Return a record, whatever its status, or None if it is not known."""
        statement = f"SELECT {RECORD} FROM artifact WHERE uuid=?"
        row = self._database.read(lambda conn: conn.execute(statement, (uuid_bytes(uuid),)).fetchone())
        return record_of(row) if row else None

    def find(self, parts: Parts) -> Found:
        """Return what is at a path: a plain one, one of the @id form, or one with a name's own `@` in it."""
        with self._lock:
            version, found = self._version, self._found.get(parts)
            parent = self._parents.get(parts[:-1])
        if found is not None:
            return found

        def run(conn: sqlite3.Connection) -> tuple[Found, int | None]:
            folder = find_folder(conn, parts[:-1]) if parent is None and parts else None
            above = parent if folder is None else folder[0]
            found = find(conn, parts, above)
            if found is None:
                escaped = tuple(encode_component(part) for part in parts)
                folder = find_folder(conn, escaped[:-1]) if escaped != parts else None
                found = find_plain(conn, escaped, folder[0]) if folder else None
            return found, above

        found, parent = self._database.read(run)
        with self._lock:
            if self._version == version:
                if found is not None:
                    self._found[parts] = found
                if parent is not None and parts:
                    self._parents[parts[:-1]] = parent
        return found

    def last_row(self) -> tuple[int, int]:
        """Return the last row of folders and of artifacts: what comes later is no part of a listing begun now."""
        statement = "SELECT ifnull((SELECT max(id) FROM folder), 0), ifnull((SELECT max(id) FROM artifact), 0)"
        return self._database.read(lambda conn: tuple(conn.execute(statement).fetchone()))

    def folder_batch(self, folder: int, after: int, last: tuple[int, int]) -> list[Entry]:
        """Return the next entries of a folder, at most `BATCH`; none at the end.

        Args:
            after: the cookie of the last entry that is not wanted any more; 0 at the beginning.
            last: see `last_row`.
        """

        def run(conn: sqlite3.Connection) -> list[Entry]:
            entries: list[Entry] = []
            if after < FILES:
                rows = conn.execute(_FOLDERS, (folder, after, last[0], BATCH)).fetchall()
                entries = [(name, Folder(id, newest * 1000), id) for id, name, newest in rows]
            if len(entries) < BATCH:
                values = (folder, max(after - FILES, 0), last[1], BATCH - len(entries))
                entries += [_entry(row) for row in conn.execute(_ENTRIES, values).fetchall()]
            return entries

        return self._database.read(run)

    def all_batch(self, after: int, last: tuple[int, int]) -> list[Entry]:
        """Return the next of all ready artifacts, each under its uuid; as `folder_batch`."""
        statement = (
            "SELECT id, uuid, size, created FROM artifact NOT INDEXED "
            "WHERE folder IS NOT NULL AND id > ? AND id <= ? ORDER BY id LIMIT ?"
        )

        def run(conn: sqlite3.Connection) -> list[Entry]:
            rows = conn.execute(statement, (max(after - FILES, 0), last[1], BATCH)).fetchall()
            return [
                (uuid_text(uuid), FileEntry(uuid, size, created * 1000), FILES + id) for id, uuid, size, created in rows
            ]

        return self._database.read(run)

    def neighbours(self, folder: Parts, name: str, order: Order, count: int) -> list[Neighbour]:
        """Return the files that come after one in a folder, those alone that have their plain names; none where the
        one has not.
        """

        def run(conn: sqlite3.Connection) -> list[Neighbour]:
            found = find_folder(conn, folder)
            row = conn.execute(_PLAIN_ROW, (found[0], name)).fetchone() if found else None
            if found is None or row is None:
                return []
            values = {"folder": found[0], "leaf": name, "row": row[0], "count": count}
            rows = conn.execute(_AFTER[order], values).fetchall()
            return [Neighbour(leaf, uuid_text(uuid), size) for leaf, uuid, size in rows]

        return self._database.read(run)

    def root(self) -> Folder:
        """Return the top folder."""
        statement = "SELECT id, newest FROM folder WHERE id=?"
        id, newest = self._database.read(lambda conn: conn.execute(statement, (ROOT,)).fetchone())
        return Folder(id, newest * 1000)

    def due(self, moment: float, limit: int) -> list[tuple[str, float]]:
        """Return the (uuid, first seen) of unready artifacts that it is time to ask about, the longest due first."""
        statement = (
            "SELECT artifact.uuid, since FROM pending JOIN artifact USING (id) WHERE next <= ? ORDER BY next LIMIT ?"
        )
        rows = self._database.read(lambda conn: conn.execute(statement, (moment, limit)).fetchall())
        return [(uuid_text(uuid), since) for uuid, since in rows]

    def rows(self, after: int, created_until: int | None, limit: int) -> list[int]:
        """Return rows of artifacts in order, for the reconcile.

        Args:
            created_until: only those created up to then, in microseconds; None: all.
        """
        statement = "SELECT id FROM artifact WHERE id > ? AND created <= ? ORDER BY id LIMIT ?"
        until = EVER if created_until is None else created_until
        return self._database.read(
            lambda conn: [id for (id,) in conn.execute(statement, (after, until, limit)).fetchall()]
        )


class Transaction:
    """What may be done within `Store.write`."""

    def __init__(self, conn: sqlite3.Connection, placement: Placement) -> None:
        self._conn = conn
        self._placement = placement

    def put(self, records: Iterable[Listed]) -> dict[str, tuple[int, bool]]:
        """Store records; see `Placement.put`."""
        return self._placement.put(records)

    def remove(self, ids: Iterable[int]) -> int:
        """Forget artifacts by their rows; return how many there were."""
        return self._placement.remove(ids)

    def meta(self) -> dict[str, Any]:
        """Return all notes, as they are within the transaction."""
        return dict(self._conn.execute("SELECT key, value FROM meta").fetchall())

    def note(self, **values: str | int | float | bytes | None) -> None:
        """Keep values under names; None takes a name away."""
        for key, value in values.items():
            if value is None:
                self._conn.execute("DELETE FROM meta WHERE key=?", (key,))
            else:
                self._conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?,?)", (key, value))

    def await_ready(self, id: int, since: float, next: float | None) -> None:
        """Ask about an unready artifact at a time, unless one is set already; None: no more."""
        if next is None:
            self._conn.execute("DELETE FROM pending WHERE id=?", (id,))
        else:
            self._conn.execute(
                "INSERT INTO pending (id, since, next) VALUES (?,?,?) ON CONFLICT DO UPDATE SET next=excluded.next",
                (id, since, next),
            )

    def keep_time(self, uuid: bytes, time_ns: int, most: int) -> None:
        """Keep a time for an artifact, and only the last `most` of all."""
        self._conn.execute("INSERT OR REPLACE INTO kept_time (uuid, time) VALUES (?, ?)", (uuid, time_ns))
        self._conn.execute("DELETE FROM kept_time WHERE id <= (SELECT max(id) FROM kept_time) - ?", (most,))

    def row(self, uuid: str) -> int:
        """Return an artifact's row; 0 where it is not known."""
        row = self._conn.execute("SELECT id FROM artifact WHERE uuid=?", (uuid_bytes(uuid),)).fetchone()
        return row[0] if row else 0


def _entry(row: tuple[Any, ...]) -> Entry:
    id, uuid, leaf, place, size, created, name = row
    if place != PLAIN:
        digits = SHORT_DIGITS if place == SHORT else WHOLE_DIGITS
        leaf = id_leaf(leaf, name_of(name, leaf), uuid_text(uuid), digits)
    return leaf, FileEntry(uuid, size, created * 1000), FILES + id
