"""Artifacts into the catalog's tables, and out again: who owns which name, right after each one that comes or goes.

Used by `ivcapfs.catalog.store`, inside its write transactions. Each artifact costs a few index look-ups, however many
there are. The rules, which `names` explains:

* a plain name belongs to the newest of its namesakes, unless a folder has it, or it was cut and so carries an @id;
* every other is shown by its @id form, with the whole uuid where the short form fits several artifacts.

Threading: one thread at a time, the one that has the write transaction. What is remembered between transactions is
dropped when one fails, or when another process wrote.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ivcapfs.catalog.folders import Folders
from ivcapfs.catalog.names import Parts, id_in, id_leaf, plain_path
from ivcapfs.catalog.schema import (
    NAME_IS_LEAF,
    PLAIN,
    SHORT,
    WHOLE,
    blocks_of,
    microseconds,
    name_of,
    stored_name,
)
from ivcapfs.models import BEFORE_READY, ArtifactRecord, ArtifactStatus, ListedArtifact, uuid_bytes, uuid_text

MANY_RIVALS = 64
SURELY_WHOLE = 61
"""Characters of a leaf that is not cut, nor is its @id form: at most 244 bytes, and 9 for the @id."""
Listed = ArtifactRecord | ListedArtifact
_LOWEST, _HIGHEST = bytes(12), b"\xff" * 12
CHUNK = 250
"""Artifacts that are stored with the same few statements; the interpreter's lock is let go once for each of these."""

_READY = ArtifactStatus.READY.value
_BEFORE_ALL = -(2**63)

_KNOWN = "SELECT uuid, id, name, status, mime, size, created, folder, leaf, place FROM artifact WHERE uuid IN ({})"
_INSERT = (
    "INSERT INTO artifact (uuid, name, status, mime, size, created, folder, leaf, place) VALUES (?,?,?,?,?,?,?,?,?)"
)
_INSERT_SOME = _INSERT.partition("VALUES")[0].replace("(uuid", "(id, uuid") + "VALUES "
_ROW = "(?,?,?,?,?,?,?,?,?,?)"
_TAKEN_NAMES = (
    "WITH asked (folder, leaf) AS (VALUES {}) SELECT folder, leaf FROM asked WHERE EXISTS "
    "(SELECT 1 FROM artifact AS a WHERE a.folder=asked.folder AND a.leaf=asked.leaf)"
)
_FOLDER_NAMES = (
    "WITH asked (folder, leaf) AS (VALUES {}) SELECT folder, leaf FROM asked WHERE EXISTS "
    "(SELECT 1 FROM folder AS f WHERE f.parent=asked.folder AND f.name=asked.leaf)"
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
        self._folders = Folders(self._give_up, self._promote)
        self._files = self._blocks = 0

    def begin(self, conn: sqlite3.Connection, *, remember: bool) -> None:
        """A transaction begins.

        Args:
            remember: whether nobody else wrote since the last one ended.
        """
        self._conn = conn
        self._files = self._blocks = 0
        self._folders.begin(conn, remember=remember)

    def end(self) -> None:
        """The transaction is about to be committed: write the sums."""
        self._folders.end()
        if self._files or self._blocks:
            self._conn.executemany(
                "UPDATE meta SET value = value + ? WHERE key = ?", [(self._files, "files"), (self._blocks, "blocks")]
            )

    # -- artifacts -----------------------------------------------------------------------------------------------

    def put(self, records: Iterable[Listed]) -> dict[str, tuple[int, bool]]:
        """Store records as they are now.

        Many go in in the order of their uuids, so that they come to the same pages of that index together.

        Returns:
            For each uuid its row, and whether it was known before with the same readiness.
        """
        given = {record.uuid: record for record in records}
        outcome: dict[str, tuple[int, bool]] = {}
        if len(given) <= CHUNK:
            self._put_some(given.values(), outcome)
            return outcome
        uuids = sorted(given)
        for at in range(0, len(uuids), CHUNK):
            self._put_some([given[uuid] for uuid in uuids[at : at + CHUNK]], outcome)
        return outcome

    def _put_some(self, records: Iterable[Listed], outcome: dict[str, tuple[int, bool]]) -> None:
        """Store records of different artifacts."""
        given = {uuid_bytes(record.uuid): record for record in records}
        for uuid, row in self._known(list(given)).items():
            record = given.pop(uuid)
            was_placed = row.folder is not None
            after = self._change(row, record)
            outcome[record.uuid] = (after.id, was_placed == (after.folder is not None))
        for record, id in self._insert_all(given):
            outcome[record.uuid] = (id, False)

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
        """Return which of at most `CHUNK` artifacts are known."""
        statement = _KNOWN.format(",".join("?" * len(uuids)))
        return {uuid: _Row(id, uuid, *rest) for uuid, id, *rest in self._conn.execute(statement, uuids)}

    def _change(self, row: _Row, record: Listed) -> _Row:
        """Bring a stored artifact up to date; it stays in its row unless its path may have changed."""
        was_placed = row.folder is not None
        if was_placed and record.status in BEFORE_READY:
            return row  # an answer from before it was ready, as a list that took long: it stays so
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

    def _insert_all(self, given: dict[bytes, Listed]) -> Iterator[tuple[Listed, int]]:
        """Insert artifacts that are not known; iterate each with its row.

        Most have a name of their own, and go in at once. The others follow one by one.
        """
        (last,) = self._conn.execute("SELECT ifnull(max(id), 0) FROM artifact").fetchone()
        rows = self._alone(given, last + 1)
        if rows:
            self._conn.execute(_INSERT_SOME + ",".join([_ROW] * len(rows)), [value for row in rows for value in row])
        self._files += len(rows)
        for id, uuid, _, _, _, size, *_ in rows:
            self._blocks += blocks_of(size)
            yield given.pop(uuid), id
        for record in given.values():
            yield record, self._insert(record).id

    def _alone(self, given: dict[bytes, Listed], first: int) -> list[tuple[Any, ...]]:
        """Return the rows, from the id `first` on, of those that get their plain names and leave everybody else's as
        they are.

        Only namesakes can share an @id form, and names that are cut in it.
        """
        ready = [
            (uuid, record, plain_path(record), microseconds(record.created_at))
            for uuid, record in given.items()
            if record.status is ArtifactStatus.READY
        ]
        if len(ready) < 2:
            return []  # not worth the questions
        newest: dict[Parts, int] = {}
        for _, _, path, created in ready:
            above = path[:-1]
            if created > newest.get(above, _BEFORE_ALL):
                newest[above] = created
        folders = {above: self._folders.enter(above, created) for above, created in newest.items()}
        keys = [(folders[path[:-1]], path[-1]) for _, _, path, _ in ready]
        taken = {key for key, count in Counter(keys).items() if count > 1} | self._matching(_TAKEN_NAMES, keys)
        if any(map(self._folders.has_any, folders.values())):
            taken |= self._matching(_FOLDER_NAMES, keys)
        ids = itertools.count(first)
        return [
            (next(ids), uuid, NAME_IS_LEAF if record.name == key[1] else stored_name(record.name), _READY,
             _text(record.mime_type), record.size, created, *key, PLAIN)
            for (uuid, record, _, created), key in zip(ready, keys, strict=True)
            if key not in taken and len(key[1]) <= SURELY_WHOLE and ("@" not in key[1] or id_in(key[1]) is None)
        ]  # fmt: skip

    def _matching(self, statement: str, pairs: list[tuple[Any, Any]]) -> set[Any]:
        """Return what a statement finds for at most `CHUNK` pairs of values."""
        values = [value for pair in pairs for value in pair]
        return set(self._conn.execute(statement.format(",".join(["(?,?)"] * len(pairs))), values))

    def _insert(self, record: Listed) -> _Row:
        """Insert one artifact, whatever its name does to others."""
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
        # Read again: those changed before it in the same transaction may have given it another place.
        (row.place,) = self._conn.execute("SELECT place FROM artifact WHERE id=?", (row.id,)).fetchone()
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
        self._folders.leave(row.folder, row.created)

    # -- names ---------------------------------------------------------------------------------------------------

    def _place(self, row: _Row, path: Parts) -> None:
        """Give an artifact that is about to be inserted its place."""
        leaf = path[-1]
        folder = self._folders.enter(path[:-1], row.created)
        row.folder, row.leaf = folder, leaf
        rivals = self._rivals(row.uuid, folder, leaf, row.name)
        for id, place in rivals:
            if place == SHORT:
                self._show(id, WHOLE)
        if row.name == leaf:
            row.name = NAME_IS_LEAF
        row.place = WHOLE if rivals else SHORT
        if self._folders.has(folder, leaf) or ("@" in leaf and id_in(leaf) is not None):
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

    def _give_up(self, folder: int, leaf: str) -> None:
        """A folder takes a plain name: its owner is shown by its @id form."""
        owner = self._conn.execute(_NEWEST, (folder, leaf)).fetchone()
        if owner is not None and owner[3] == PLAIN:
            self._show(owner[0], WHOLE if self._rivals(owner[2], folder, leaf, owner[4]) else SHORT)

    def _show(self, id: int, place: int) -> None:
        self._conn.execute("UPDATE artifact SET place=? WHERE id=?", (place, id))

    def _rivals(
        self, uuid: bytes, folder: int, leaf: str, name: str | bytes | int | None, but: int = 0
    ) -> list[tuple[int, int]]:
        """Return (row, place) of the others whose short @id form is the same path."""
        low, high = uuid[:4] + _LOWEST, uuid[:4] + _HIGHEST
        (count,) = self._conn.execute(_COUNT_SAME_DIGITS, (low, high, MANY_RIVALS)).fetchone()
        if not count:
            return []
        condition, values = " AND folder=?", [low, high, folder]
        if count == MANY_RIVALS and len(leaf) <= SURELY_WHOLE:  # uuids that all begin alike: their namesakes are fewer
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


def _short(leaf: str, name: Any, uuid: bytes) -> str:
    return id_leaf(leaf, name_of(name, leaf), uuid_text(uuid))


def _text(value: str | None) -> str | None:
    """Return a text that SQLite takes: a lone surrogate in a MIME type is nothing that anybody needs."""
    return value if value is None or value.isascii() else value.encode("utf-8", "replace").decode()
