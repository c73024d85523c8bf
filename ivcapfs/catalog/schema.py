"""The tables of the catalog, and how a record lies in them.

Used by `database`, `placement` and `store`. Pure: any thread.

A ready artifact has a place: its folder, its leaf (the last component of its plain path) and how it is shown there;
any other has none. Times are microseconds since the epoch, exactly as the server told them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from ivcapfs.models import EPOCH, ArtifactRecord, ArtifactStatus, uuid_text

APPLICATION_ID = 0x69766366  # "ivcf"
VERSION = 2
SHORT_DIGITS = 8
ROOT = 1
"""The folder `artifacts/` itself."""

PLAIN, SHORT, WHOLE = 1, 2, 3
"""How an artifact is shown in its folder: by its plain name, by its @id form, by the one with the whole uuid."""

NAME_IS_LEAF = 1
"""In the column `name`: the name is the leaf. Most are, and need not be stored twice."""

TABLES = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE folder (
  id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, name TEXT NOT NULL, newest INTEGER NOT NULL DEFAULT 0,
  UNIQUE (parent, name)
);
INSERT INTO folder (id, parent, name) VALUES ({ROOT}, 0, '');
CREATE TABLE artifact (
  id INTEGER PRIMARY KEY, uuid BLOB NOT NULL, name, status TEXT NOT NULL, mime TEXT, size INTEGER,
  created INTEGER NOT NULL, folder INTEGER, leaf TEXT, place INTEGER
);
CREATE UNIQUE INDEX artifact_uuid ON artifact (uuid);
CREATE INDEX artifact_folder ON artifact (folder) WHERE folder IS NOT NULL;
CREATE INDEX artifact_leaf ON artifact (folder, leaf, created) WHERE folder IS NOT NULL;
CREATE TABLE pending (
  id INTEGER PRIMARY KEY, since REAL NOT NULL, next REAL NOT NULL
);
CREATE INDEX pending_next ON pending (next);
CREATE TABLE kept_time (
  id INTEGER PRIMARY KEY, uuid BLOB NOT NULL UNIQUE, time INTEGER NOT NULL
);
INSERT INTO meta (key, value) VALUES ('files', 0), ('blocks', 0);
"""

RECORD = "uuid, name, status, mime, size, created, leaf"
"""The columns that make a record; see `record_of`."""

_MICROSECOND = timedelta(microseconds=1)
BLOCK = 4096


def microseconds(moment: datetime) -> int:
    """Return microseconds since the epoch, exactly."""
    return (moment - EPOCH) // _MICROSECOND


def nanoseconds(moment: datetime) -> int:
    """Return nanoseconds since the epoch, exactly (a float has no room for them)."""
    return microseconds(moment) * 1000


def blocks_of(size: int | None) -> int:
    """Return the blocks that statvfs(3) counts for a size in bytes."""
    return -(-(size or 0) // BLOCK)


def stored_name(name: str | None) -> str | bytes | None:
    """Return a name as a value of SQLite, which takes no lone surrogates in a text."""
    if name is None:
        return None
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogatepass")
    return name


def name_of(stored: str | bytes | int | None, leaf: str | None) -> str | None:
    """Return the name in a row."""
    if isinstance(stored, bytes):
        return stored.decode("utf-8", "surrogatepass")
    return leaf if isinstance(stored, int) else stored


def record_of(row: tuple[Any, ...]) -> ArtifactRecord:
    """Return the record in a row of the columns `RECORD`."""
    uuid, name, status, mime, size, created, leaf = row
    return ArtifactRecord(
        uuid_text(uuid), name_of(name, leaf), ArtifactStatus(status), mime, size, EPOCH + created * _MICROSECOND
    )
