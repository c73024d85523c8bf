"""The platform's database: one SQLite file, its tables, and who may use it when.

Used by the tables (:mod:`ivcapfs.server.artifacts`, :mod:`ivcapfs.server.aspects`) and by the store. May be
used from any thread: one connection behind one lock, each use a short transaction. Commits survive the end of
the process; SQLite's ``synchronous=NORMAL`` means that a power cut may lose the last ones.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ivcapfs.server.jsonpath import parse_path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS artifacts (
    id TEXT PRIMARY KEY,
    name TEXT,
    mime_type TEXT,
    size INTEGER,               -- of the content; before it is ready: as announced, if at all
    status TEXT NOT NULL,
    etag TEXT,
    policy TEXT NOT NULL,
    account TEXT NOT NULL,
    deferred INTEGER NOT NULL DEFAULT 0,    -- the client promised to tell the length at the end
    created_at INTEGER NOT NULL,            -- times: microseconds since 1970
    last_modified_at INTEGER NOT NULL,
    partial_at INTEGER,                     -- when the first byte came
    ready_at INTEGER                        -- when the content was complete
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS artifacts_by_time ON artifacts (created_at, id);
CREATE INDEX IF NOT EXISTS artifacts_by_name ON artifacts (name);
CREATE TABLE IF NOT EXISTS aspects (
    id TEXT PRIMARY KEY,
    entity TEXT NOT NULL,
    schema TEXT NOT NULL,
    content TEXT NOT NULL,
    content_type TEXT NOT NULL,
    policy TEXT NOT NULL,
    account TEXT NOT NULL,
    asserter TEXT NOT NULL,
    retracter TEXT,
    replaces TEXT,
    valid_from INTEGER NOT NULL,
    valid_to INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS aspects_by_time ON aspects (valid_from, id);
CREATE INDEX IF NOT EXISTS aspects_by_entity ON aspects (entity, schema, valid_from);
CREATE INDEX IF NOT EXISTS aspects_by_schema ON aspects (schema, valid_from);
"""


def connect(path: Path | str) -> sqlite3.Connection:
    """Open an SQLite database in which conditions mean what they mean everywhere here; for any thread, one at a time.

    Args:
        path: the file, created when absent, or ``:memory:``.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "case_sensitive_like=ON"):
        connection.execute(f"PRAGMA {pragma}")
    connection.create_function("content_matches", 2, _content_matches, deterministic=True)
    return connection


class Database:
    """The open database.

    Args:
        path: the file; created when absent.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._depth = 0  # guarded by _lock; INVARIANT: a transaction is open when it is not 0
        self._connection = connect(path)  # guarded by _lock
        self._connection.executescript(_SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the database for writing; what is done within takes effect as a whole or not at all.

        Within another transaction of the same thread it becomes part of that one.
        """
        with self._lock:
            if self._depth == 0:
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield self._connection
            except BaseException:
                self._depth -= 1
                if self._depth == 0:
                    self._connection.execute("ROLLBACK")
                raise
            self._depth -= 1
            if self._depth == 0:
                self._connection.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Hold the database for one statement that only reads."""
        with self._lock:
            yield self._connection

    def close(self) -> None:
        """Close the database; it cannot be used any more."""
        with self._lock:
            self._connection.close()


def _content_matches(path: str, content: str) -> bool:
    """The SQL function behind ``content-path``."""
    try:
        value = json.loads(content)
    except ValueError:
        return False  # where a filter says what the content is, SQLite may try that instead of what is stored
    return parse_path(path).matches(value)
