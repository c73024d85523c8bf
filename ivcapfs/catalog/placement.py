"""Artifacts into the catalog's tables, and out again: who owns which name, right after each one that comes or goes.

Used by `ivcapfs.catalog.store`, inside its write transactions. Each artifact costs a few index look-ups, however many
there are. The rules, which `names` explains:

* a plain name belongs to the newest of its namesakes, unless a folder has it, or it was cut and so carries an @id;
* every other is shown by its @id form, with the whole uuid where the short form fits several artifacts.

Threading: one thread at a time, the one that has the write transaction. What is remembered between transactions is
dropped when one fails, or when another process wrote.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ivcapfs.catalog.names import Parts, id_in, id_leaf, plain_path
from ivcapfs.catalog.schema import (
    NAME_IS_LEAF,
    PLAIN,
    ROOT,
    SHORT,
    WHOLE,
    blocks_of,
    microseconds,
    name_of,
    stored_name,
)
from ivcapfs.models import ArtifactRecord, uuid_bytes, uuid_text

MANY_RIVALS = 64
REMEMBERED = 50_000
CHUNK = 500

_KNOWN = "SELECT uuid, id, name, status, mime, size, created, folder, leaf, place FROM artifact WHERE uuid IN ({})"
_INSERT = (
    "INSERT INTO artifact (uuid, name, status, mime, size, created, folder, leaf, place) VALUES (?,?,?,?,?,?,?,?,?)"
)
_NEWEST = (
    "SELECT id, created, uuid, place, name FROM artifact WHERE folder=? AND leaf=? "
    "ORDER BY created DESC, uuid DESC LIMIT 1"
)
_COUNT_SAME_DIGITS = "SELECT count(*) FROM (SELECT 1 FROM artifact WHERE uuid BETWEEN ? AND ? LIMIT ?)"
_SAME_DIGITS = "SELECT id, uuid, name, leaf, place FROM artifact WHERE uuid BETWEEN ? AND ?"


@dataclass(slots=True)
class _Row:
    """One stored artifact, as the rules need it."""

    id: int
    uuid: bytes
    name: str | bytes | int | None
    status: str
    mime: str | None
    size: int | None
    created: int
    folder: int | None
    leaf: str | None
    place: int | None


class Placement:
    """The writing side of the catalog's tables."""

    def __init__(self) -> None:
        self._conn: sqlite3.Connection
        self._folders: dict[tuple[int, str], int] = {}
        self._newest: dict[int, tuple[int, int]] = {}  # folder -> (parent, newest)
        self._has_folders: dict[int, bool] = {}
        self._stale: set[int] = set()  # folders whose time may be too new
        self._files = self._blocks = 0

    def begin(self, conn: sqlite3.Connection, *, remember: bool) -> None:
        """A transaction begins.

        Args:
            remember: whether nobody else wrote since the last one ended.
        """
        self._conn = conn
        self._files = self._blocks = 0
        self._stale.clear()
        if not remember or len(self._folders) + len(self._newest) > REMEMBERED:
            self._folders.clear()
            self._newest.clear()
            self._has_folders.clear()

    def end(self) -> None:
        """The transaction is about to be committed: write the sums, and the times of folders that lost something."""
        for folder in sorted(self._stale, key=lambda id: -len(list(self._upwards(id)))):
            self._recompute(folder)
        if self._files or self._blocks:
            self._conn.executemany(
                "UPDATE meta SET value = value + ? WHERE key = ?", [(self._files, "files"), (self._blocks, "blocks")]
            )

    # -- artifacts -----------------------------------------------------------------------------------------------

    def put(self, records: Iterable[ArtifactRecord]) -> dict[str, tuple[int, bool]]:
        """Store records as they are now.

        Returns:
            For each uuid its row, and whether it was known before with the same readiness.
        """
        given = list(records)
        known = self._known([uuid_bytes(record.uuid) for record in given])
        outcome: dict[str, tuple[int, bool]] = {}
        for record in given:
            row = known.get(uuid_bytes(record.uuid))
            if row is None:
                known[uuid_bytes(record.uuid)] = row = self._insert(record)
                outcome[record.uuid] = (row.id, False)
            else:
                was_placed = row.folder is not None
                changed = known[row.uuid] = self._change(row, record)
                before = outcome.get(record.uuid, (0, True))[1]
                outcome[record.uuid] = (changed.id, before and was_placed == record.is_ready)
        return outcome

    def remove(self, ids: Iterable[int]) -> int:
        """Forget artifacts by their rows; return how many there were."""
        count = 0
        for id in ids:
            found = self._conn.execute("SELECT uuid FROM artifact WHERE id=?", (id,)).fetchone()
            for row in self._known([found[0]]).values() if found else ():
                self._delete(row)
                count += 1
        return count

    def _known(self, uuids: list[bytes]) -> dict[bytes, _Row]:
        rows: dict[bytes, _Row] = {}
        for at in range(0, len(uuids), CHUNK):
            some = uuids[at : at + CHUNK]
            for uuid, id, *rest in self._conn.execute(_KNOWN.format(",".join("?" * len(some))), some):
                rows[uuid] = _Row(id, uuid, *rest)
        return rows

    def _change(self, row: _Row, record: ArtifactRecord) -> _Row:
        """Bring a stored artifact up to date; it stays in its row unless its path may have changed."""
        was_placed = row.folder is not None
        same_path = name_of(row.name, row.leaf) == record.name and (
            bool(record.name) or row.mime == record.mime_type
        )
        if was_placed != record.is_ready or not same_path or row.created != microseconds(record.created_at):
            self._delete(row)
            return self._insert(record)
        if (row.status, row.mime, row.size) != (record.status, record.mime_type, record.size):
            if was_placed:
                self._blocks += blocks_of(record.size) - blocks_of(row.size)
            self._conn.execute(
                "UPDATE artifact SET status=?, mime=?, size=? WHERE id=?",
                (str(record.status), _text(record.mime_type), record.size, row.id),
            )
            row.status, row.mime, row.size = str(record.status), record.mime_type, record.size
        return row

    def _insert(self, record: ArtifactRecord) -> _Row:
        uuid, created = uuid_bytes(record.uuid), microseconds(record.created_at)
        row = _Row(0, uuid, stored_name(record.name), str(record.status), _text(record.mime_type), record.size,
                   created, None, None, None)  # fmt: skip
        if record.is_ready:
            self._place(row, plain_path(record))
            self._files += 1
            self._blocks += blocks_of(record.size)
        values = (row.uuid, row.name, row.status, row.mime, row.size, created, row.folder, row.leaf, row.place)
        row.id = self._conn.execute(_INSERT, values).lastrowid or 0
        return row

    def _delete(self, row: _Row) -> None:
        self._conn.execute("DELETE FROM artifact WHERE id=?", (row.id,))
        self._conn.execute("DELETE FROM pending WHERE id=?", (row.id,))
        if row.folder is None or row.leaf is None:
            return
        self._files -= 1
        self._blocks -= blocks_of(row.size)
        left = self._rivals(row.uuid, row.folder, row.leaf, row.name)
        if len(left) == 1 and left[0][1] == WHOLE:
            self._show(left[0][0], SHORT)
        if row.place == PLAIN:
            self._promote(row.folder, row.leaf)
        self._tidy(row.folder, row.created)

    # -- names ---------------------------------------------------------------------------------------------------

    def _place(self, row: _Row, path: Parts) -> None:
        """Give an artifact that is about to be inserted its place."""
        leaf = path[-1]
        folder = self._folder(path[:-1], row.created)
        row.folder, row.leaf = folder, leaf
        rivals = self._rivals(row.uuid, folder, leaf, row.name)
        for id, place in rivals:
            if place == SHORT:
                self._show(id, WHOLE)
        if row.name == leaf:
            row.name = NAME_IS_LEAF
        row.place = WHOLE if rivals else SHORT
        if self._is_folder(folder, leaf) or ("@" in leaf and id_in(leaf) is not None):
            return
        newest = self._conn.execute(_NEWEST, (folder, leaf)).fetchone()
        if newest is not None:
            id, created, uuid, place, name = newest
            if (created, uuid) > (row.created, row.uuid):
                return
            if place == PLAIN:
                others = self._rivals(uuid, folder, leaf, name, but=id)
                is_rival = bool(others) or any(id == rival for rival, _ in rivals)
                self._show(id, WHOLE if is_rival else SHORT)
        row.place = PLAIN

    def _promote(self, folder: int, leaf: str) -> None:
        """A plain name is free: give it to the newest of its namesakes."""
        if id_in(leaf) is None:
            newest = self._conn.execute(_NEWEST, (folder, leaf)).fetchone()
            if newest is not None:
                self._show(newest[0], PLAIN)

    def _show(self, id: int, place: int) -> None:
        self._conn.execute("UPDATE artifact SET place=? WHERE id=?", (place, id))

    def _rivals(
        self, uuid: bytes, folder: int, leaf: str, name: str | bytes | int | None, but: int = 0
    ) -> list[tuple[int, int]]:
        """Return (row, place) of the others whose short @id form is the same path."""
        low, high = uuid[:4] + bytes(12), uuid[:4] + b"\xff" * 12
        (count,) = self._conn.execute(_COUNT_SAME_DIGITS, (low, high, MANY_RIVALS)).fetchone()
        if not count:
            return []
        condition, values = " AND folder=?", [low, high, folder]
        if count == MANY_RIVALS and id_in(leaf) is None:  # uuids that all begin alike: their namesakes are fewer
            condition, values = " AND folder=? AND leaf=?", [low, high, folder, leaf]
            statement = _SAME_DIGITS.replace("artifact WHERE", "artifact INDEXED BY artifact_leaf WHERE")
        else:
            statement = _SAME_DIGITS.replace("artifact WHERE", "artifact INDEXED BY artifact_uuid WHERE")
        rivals: list[tuple[int, int]] = []
        own = ""
        for id, other, other_name, other_leaf, place in self._conn.execute(statement + condition, values).fetchall():
            if other == uuid or id == but:
                continue
            own = own or _short(leaf, name, uuid)
            if _short(other_leaf, other_name, other) == own:
                rivals.append((id, place))
        return rivals

    # -- folders -------------------------------------------------------------------------------------------------

    def _folder(self, parts: Parts, created: int) -> int:
        """Return the folder of a path, made where it is not there, and as new as what comes into it."""
        folder = ROOT
        self._touch(ROOT, created)
        for part in parts:
            child = self._folders.get((folder, part))
            if child is None:
                child = self._find_folder(folder, part)
                if child is None:
                    child = self._make_folder(folder, part, created)
                self._folders[folder, part] = child
            self._touch(child, created)
            folder = child
        return folder

    def _find_folder(self, parent: int, name: str) -> int | None:
        row = self._conn.execute("SELECT id FROM folder WHERE parent=? AND name=?", (parent, name)).fetchone()
        return row[0] if row else None

    def _make_folder(self, parent: int, name: str, created: int) -> int:
        """Make a folder; an artifact of that name gives up its plain name."""
        values = (parent, name, max(created, 0))
        id = self._conn.execute("INSERT INTO folder (parent, name, newest) VALUES (?,?,?)", values).lastrowid or 0
        self._has_folders[parent] = True
        owner = self._conn.execute(_NEWEST, (parent, name)).fetchone()
        if owner is not None and owner[3] == PLAIN:
            self._show(owner[0], WHOLE if self._rivals(owner[2], parent, name, owner[4]) else SHORT)
        return id

    def _is_folder(self, parent: int, name: str) -> bool:
        has = self._has_folders.get(parent)
        if has is None:
            found = self._conn.execute("SELECT 1 FROM folder WHERE parent=? LIMIT 1", (parent,)).fetchone()
            has = self._has_folders[parent] = found is not None
        return has and ((parent, name) in self._folders or self._find_folder(parent, name) is not None)

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

    def _tidy(self, folder: int, created: int) -> None:
        """An artifact left a folder: correct the times above it, and take away folders that are empty now."""
        for id, parent in list(self._upwards(folder)):
            if id != ROOT and self._is_empty(id):
                (name,) = self._conn.execute("SELECT name FROM folder WHERE id=?", (id,)).fetchone()
                self._conn.execute("DELETE FROM folder WHERE id=?", (id,))
                self._folders.pop((parent, name), None)
                self._newest.pop(id, None)
                self._has_folders.pop(id, None)
                self._has_folders.pop(parent, None)
                self._stale.discard(id)
                self._promote(parent, name)
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


def _short(leaf: str, name: Any, uuid: bytes) -> str:
    return id_leaf(leaf, name_of(name, leaf), uuid_text(uuid))


def _text(value: str | None) -> str | None:
    """Return a text that SQLite takes: a lone surrogate in a MIME type is nothing that anybody needs."""
    return None if value is None else value.encode("utf-8", "replace").decode()
