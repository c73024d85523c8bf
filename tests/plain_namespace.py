"""The rules of names, plainly: all artifacts at once, in memory. The catalog must say the same, however they came."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ivcapfs.catalog.names import SHORT_ID, Parts, encode_component, id_in, id_path, plain_path
from ivcapfs.models import ArtifactRecord

EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(slots=True)
class Folder:
    """One folder: names -> artifacts or folders.

    Attributes:
        newest: when the newest artifact in it, at any depth, was created.
    """

    children: dict[str, Folder | ArtifactRecord] = field(default_factory=dict)
    newest: datetime = EPOCH


class Namespace:
    """The paths of a set of artifacts.

    Args:
        records: one per artifact, in any order; all of them get at least one path.
    """

    def __init__(self, records: Iterable[ArtifactRecord]) -> None:
        ordered = sorted(records, key=lambda record: (record.created_at, record.uuid), reverse=True)
        self.root = Folder()
        self._by_uuid = {record.uuid: record for record in ordered}
        self._uuids = sorted(self._by_uuid)
        self._place(ordered)

    def __len__(self) -> int:
        return len(self._by_uuid)

    def __iter__(self) -> Iterator[ArtifactRecord]:
        """Iterate all records, newest first."""
        return iter(self._by_uuid.values())

    def record(self, uuid: str) -> ArtifactRecord | None:
        """Return the artifact's record, or None if the listing did not have it."""
        return self._by_uuid.get(uuid)

    def find(self, parts: Parts) -> Folder | ArtifactRecord | None:
        """Return what is at a path: a plain one, one of the `@id` form, or one with a name's own `@` in it."""
        found = self._walk(parts)
        if found is None and parts:
            found = self._find_by_id(parts)
        if found is None:
            escaped = tuple(encode_component(part) for part in parts)
            found = self._walk(escaped) if escaped != parts else None
        return found

    def _walk(self, parts: Parts) -> Folder | ArtifactRecord | None:
        node: Folder | ArtifactRecord | None = self.root
        for part in parts:
            if not isinstance(node, Folder):
                return None
            node = node.children.get(part)
        return node

    def _find_by_id(self, parts: Parts) -> ArtifactRecord | None:
        digits = id_in(parts[-1])
        if digits is None:
            return None
        found = None
        for index in range(bisect_left(self._uuids, digits), len(self._uuids)):
            if not self._uuids[index].startswith(digits):
                break
            record = self._by_uuid[self._uuids[index]]
            if id_path(record, len(digits)) == parts:
                if found is not None:
                    return None
                found = record
        return found

    def _place(self, ordered: list[ArtifactRecord]) -> None:
        """Give every record a path; `ordered` is newest first, so that the first to ask owns a plain name."""
        paths = [(record, plain_path(record)) for record in ordered]
        folders = {path[:depth] for _, path in paths for depth in range(1, len(path))}
        taken: set[Parts] = set()
        others: list[ArtifactRecord] = []
        for record, path in paths:
            if path in folders or path in taken or (id_in(path[-1]) and path == id_path(record)):
                others.append(record)
            else:
                taken.add(path)
                self._insert(path, record)
        self._place_by_id(others)

    def _place_by_id(self, records: list[ArtifactRecord]) -> None:
        digits = Counter(uuid[:SHORT_ID] for uuid in self._uuids)
        rivals = [record for record in self if digits[record.uuid[:SHORT_ID]] > 1]
        short = Counter(map(id_path, rivals))
        for record in records:
            path = id_path(record)
            self._insert(path if short[path] <= 1 else id_path(record, len(record.uuid)), record)

    def _insert(self, path: Parts, record: ArtifactRecord) -> None:
        folder = self.root
        folder.newest = max(folder.newest, record.created_at)
        for part in path[:-1]:
            child = folder.children.get(part)
            if not isinstance(child, Folder):
                child = folder.children[part] = Folder()
            folder = child
            folder.newest = max(folder.newest, record.created_at)
        folder.children[path[-1]] = record
