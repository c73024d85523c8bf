"""Paths in the catalog's tables: what is at one of them now.

Used by `store` and `past`. Stateless; runs on whatever thread has the connection.
"""

from __future__ import annotations

import sqlite3

from ivcapfs.catalog.interface import Folder
from ivcapfs.catalog.names import Parts, id_in, id_path
from ivcapfs.catalog.schema import PLAIN, RECORD, ROOT, record_of
from ivcapfs.models import ArtifactRecord

Found = Folder | ArtifactRecord | None

EVER = 2**63 - 1
"""Microseconds since the epoch: later than anything."""

_OWNER = (
    f"SELECT {RECORD}, place FROM artifact WHERE folder=? AND leaf=? ORDER BY created DESC, uuid DESC LIMIT 1"
)


def find(conn: sqlite3.Connection, parts: Parts, above: int | None) -> Found:
    """Return what is at a path; `above` is the row of the folder that it is in, None where there is none."""
    if not parts:
        id, newest = conn.execute("SELECT id, newest FROM folder WHERE id=?", (ROOT,)).fetchone()
        return Folder(id, newest * 1000)
    if above is None:
        return None
    return find_plain(conn, parts, above) or find_by_id(conn, parts, above)


def find_folder(conn: sqlite3.Connection, parts: Parts) -> tuple[int, int] | None:
    """Return (row, newest) of a folder."""
    id, newest = conn.execute("SELECT id, newest FROM folder WHERE id=?", (ROOT,)).fetchone()
    for part in parts:
        row = conn.execute("SELECT id, newest FROM folder WHERE parent=? AND name=?", (id, part)).fetchone()
        if row is None:
            return None
        id, newest = row
    return id, newest


def find_plain(conn: sqlite3.Connection, parts: Parts, above: int) -> Found:
    row = conn.execute("SELECT id, newest FROM folder WHERE parent=? AND name=?", (above, parts[-1])).fetchone()
    if row is not None:
        return Folder(row[0], row[1] * 1000)
    row = conn.execute(_OWNER, (above, parts[-1])).fetchone()
    return record_of(row[:-1]) if row and row[-1] == PLAIN else None


def find_by_id(conn: sqlite3.Connection, parts: Parts, above: int, until: int = EVER) -> ArtifactRecord | None:
    """Return the one artifact, of those created up to a time, whose @id form with as many digits is the path.

    Args:
        above: the row of the folder that it is in.
    """
    digits = id_in(parts[-1])
    if digits is None:
        return None
    bare = digits.replace("-", "")
    low, high = bytes.fromhex(bare.ljust(32, "0")[:32]), bytes.fromhex(bare.ljust(32, "f")[:32])
    statement = (
        f"SELECT {RECORD} FROM artifact INDEXED BY artifact_uuid WHERE uuid BETWEEN ? AND ? AND folder=? AND created<=?"
    )
    found = None
    for row in conn.execute(statement, (low, high, above, until)):
        record = record_of(row)
        if id_path(record, len(digits)) == parts:
            if found is not None:
                return None
            found = record
    return found
