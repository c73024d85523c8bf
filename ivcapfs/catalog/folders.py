"""The folders of the catalog's tables: made when something comes into them, gone when nothing is left.

Used by `placement`, within the same transactions and under the same threading rule.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

from ivcapfs.catalog.names import Parts
from ivcapfs.catalog.schema import ROOT

REMEMBERED = 50_000


class Folders:
    """Folders by path.

    Args:
        taken: called when a new folder takes a name from the artifacts in its parent.
        freed: called when a folder that is gone leaves its name to them.
    """

    def __init__(self, taken: Callable[[int, str], None], freed: Callable[[int, str], None]) -> None:
        self._taken = taken
        self._freed = freed
        self._conn: sqlite3.Connection
        self._ids: dict[tuple[int, str], int] = {}
        self._newest: dict[int, tuple[int, int]] = {}  # folder -> (parent, newest)
        self._has_folders: dict[int, bool] = {}
        self._stale: set[int] = set()  # folders whose time may be too new

    def begin(self, conn: sqlite3.Connection, *, remember: bool) -> None:
        """A transaction begins; see `Placement.begin`."""
        self._conn = conn
        self._stale.clear()
        if not remember or len(self._ids) + len(self._newest) > REMEMBERED:
            self._ids.clear()
            self._newest.clear()
            self._has_folders.clear()

    def end(self) -> None:
        """The transaction is about to be committed: correct the times of folders that lost something."""
        for folder in sorted(self._stale, key=lambda id: -len(list(self._upwards(id)))):
            self._recompute(folder)

    def enter(self, parts: Parts, created: int) -> int:
        """Return the folder of a path, made where it is not there, and as new as what comes into it."""
        folder = ROOT
        self._touch(ROOT, created)
        for part in parts:
            child = self._ids.get((folder, part))
            if child is None:
                child = self._find(folder, part)
                if child is None:
                    child = self._make(folder, part, created)
                self._ids[folder, part] = child
            self._touch(child, created)
            folder = child
        return folder

    def _find(self, parent: int, name: str) -> int | None:
        row = self._conn.execute("SELECT id FROM folder WHERE parent=? AND name=?", (parent, name)).fetchone()
        return row[0] if row else None

    def _make(self, parent: int, name: str, created: int) -> int:
        """Make a folder; an artifact of that name gives up its plain name."""
        values = (parent, name, max(created, 0))
        id = self._conn.execute("INSERT INTO folder (parent, name, newest) VALUES (?,?,?)", values).lastrowid or 0
        self._has_folders[parent] = True
        self._taken(parent, name)
        return id

    def has(self, parent: int, name: str) -> bool:
        """Return whether there is a folder of that name."""
        return self.has_any(parent) and ((parent, name) in self._ids or self._find(parent, name) is not None)

    def has_any(self, parent: int) -> bool:
        """Return whether there are folders in a folder."""
        has = self._has_folders.get(parent)
        if has is None:
            found = self._conn.execute("SELECT 1 FROM folder WHERE parent=? LIMIT 1", (parent,)).fetchone()
            has = self._has_folders[parent] = found is not None
        return has

    def _touch(self, folder: int, created: int) -> None:
        """A folder is as new as the newest artifact in it."""
        newest = self._kept(folder)[1]
        if created > newest:
            self._conn.execute("UPDATE folder SET newest=? WHERE id=?", (created, folder))
            self._newest[folder] = (self._newest[folder][0], created)

    def _kept(self, folder: int) -> tuple[int, int]:
        kept = self._newest.get(folder)
        if kept is None:
            parent, newest = self._conn.execute("SELECT parent, newest FROM folder WHERE id=?", (folder,)).fetchone()
            kept = self._newest[folder] = (parent, newest)
        return kept

    def leave(self, folder: int, created: int) -> None:
        """An artifact left a folder: correct the times above it, and take away folders that are empty now."""
        for id, parent in list(self._upwards(folder)):
            if id != ROOT and self._is_empty(id):
                (name,) = self._conn.execute("SELECT name FROM folder WHERE id=?", (id,)).fetchone()
                self._conn.execute("DELETE FROM folder WHERE id=?", (id,))
                self._ids.pop((parent, name), None)
                self._newest.pop(id, None)
                self._has_folders.pop(id, None)
                self._has_folders.pop(parent, None)
                self._stale.discard(id)
                self._freed(parent, name)
            elif self._kept(id)[1] <= created:
                self._stale.add(id)

    def _upwards(self, folder: int) -> Iterator[tuple[int, int]]:
        while folder:
            parent = self._kept(folder)[0]
            yield folder, parent
            folder = parent

    def _is_empty(self, folder: int) -> bool:
        statement = (
            "SELECT EXISTS (SELECT 1 FROM artifact WHERE folder=?1) "
            "OR EXISTS (SELECT 1 FROM folder WHERE parent=?1)"
        )
        return not self._conn.execute(statement, (folder,)).fetchone()[0]

    def _recompute(self, folder: int) -> None:
        statement = (
            "SELECT max(0, ifnull((SELECT max(created) FROM artifact WHERE folder=?1), 0), "
            "ifnull((SELECT max(newest) FROM folder WHERE parent=?1), 0))"
        )
        (newest,) = self._conn.execute(statement, (folder,)).fetchone()
        self._conn.execute("UPDATE folder SET newest=? WHERE id=?", (newest, folder))
        self._newest[folder] = (self._kept(folder)[0], newest)
