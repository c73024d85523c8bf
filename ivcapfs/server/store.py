"""All that a platform keeps, in one data directory: records in SQLite, contents in plain files.

    <data dir>/platform.sqlite   records       <data dir>/blobs/<xx>/<uuid>   contents
    <data dir>/lock              held by the process that serves the directory

Used by the ASGI application, and directly by tests and demos to put artifacts in place without HTTP. May be
used from any thread; every call blocks on files, so never on the event loop.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ivcapfs.server.artifacts import ArtifactTable
from ivcapfs.server.aspects import AspectTable
from ivcapfs.server.clock import Clock, to_micros
from ivcapfs.server.database import Database
from ivcapfs.server.errors import DataDirInUse
from ivcapfs.server.fields import ARTIFACT_FIELDS, ASPECT_FIELDS
from ivcapfs.server.mixed import MixedArtifacts, MixedAspects
from ivcapfs.server.paging import Key, ListQuery, cut
from ivcapfs.server.records import Artifact, Aspect, artifact_urn, new_artifact_id
from ivcapfs.server.synthetic import Synthetic
from ivcapfs.server.uploads import BlobFiles, Uploads

STATUSES = frozenset({"pending", "partial", "ready", "error", "unknown", "building"})


class Store:
    """An open data directory.

    Args:
        data_dir: created with mode 0700 when absent.
        synthetic: what there is by formula besides.

    Raises:
        DataDirInUse: another store has it open.
        OSError: it cannot be made or read.
    """

    def __init__(self, data_dir: Path, synthetic: Synthetic | None = None) -> None:
        data_dir = Path(data_dir).absolute()
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_fd = _lock(data_dir / "lock")
        self._database = Database(data_dir / "platform.sqlite")
        self.clock = Clock(_newest(self._database, Clock().now()))
        self.artifacts, self.aspects = self._tables(synthetic)
        self.files = BlobFiles(data_dir / "blobs")
        self.uploads = Uploads(self.artifacts, self.files)
        self.uploads.recover()

    def _tables(self, synthetic: Synthetic | None) -> tuple[ArtifactTable, AspectTable]:
        where = self._database, self.clock
        if synthetic is None or not synthetic.count:
            return ArtifactTable(*where), AspectTable(*where)
        return MixedArtifacts(*where, synthetic), MixedAspects(*where, synthetic)

    def add_artifact(
        self,
        *,
        name: str | None = None,
        content: bytes | None = None,
        mime_type: str | None = "application/octet-stream",
        status: str = "ready",
        created_at: datetime | None = None,
        artifact_id: str | None = None,
        policy: str | None = None,
    ) -> str:
        """Put an artifact in place without HTTP.

        Args:
            name: its name, if it has one.
            content: its bytes; ``None`` is none. It need not be whole unless the status is ``ready``.
            mime_type: the type of its content, if known.
            status: one of :data:`STATUSES`.
            created_at: when it is said to have been created and completed, now unless given.
            artifact_id: its URN or uuid, a new one unless given.
            policy: its policy's URN.

        Returns: its URN.

        Raises:
            ValueError: an unknown status, or no artifact's URN.
            sqlite3.IntegrityError: there is such an artifact already.
        """
        urn = new_artifact_id() if artifact_id is None else artifact_urn(artifact_id)
        if urn is None or status not in STATUSES:
            raise ValueError(f"not an artifact's id or status: {artifact_id!r}, {status!r}")
        ready = status == "ready"
        body = content or b""
        if body:
            self.files.prepared(urn).write_bytes(body)
        self.artifacts.insert(
            urn, name, mime_type, size=len(body) if ready else None, status=status, policy=policy,
            etag=hashlib.sha256(body).hexdigest() if ready else None,
            created_at=None if created_at is None else to_micros(created_at),
        )  # fmt: skip
        return urn

    def add_aspect(self, entity: str, schema: str, content: Mapping[str, object]) -> str:
        """Add an aspect without HTTP and return its URN; ``content`` is posted as it is."""
        return self.aspects.add(entity, schema, json.dumps(dict(content)))

    def list_artifacts(self, query: ListQuery) -> tuple[list[Artifact], Key | None]:
        """Return a page of artifacts, and the key to go on from or ``None`` on the last page.

        Raises:
            FilterError: the filter cannot be understood.
            OrderError: the order names an unknown field.
        """
        return cut(query, ARTIFACT_FIELDS, self.artifacts.select(query))

    def list_aspects(self, query: ListQuery) -> tuple[list[Aspect], Key | None]:
        """Return a page of aspects, and the key to go on from or ``None`` on the last page.

        Raises:
            FilterError: the filter cannot be understood.
            PathError: the content path cannot be understood.
            OrderError: the order names an unknown field.
        """
        return cut(query, ASPECT_FIELDS, self.aspects.select(query))

    def open_content(self, artifact: Artifact) -> io.RawIOBase:
        """Open the content of an artifact that is ready, to be read and closed.

        Raises:
            OSError: it cannot be read.
        """
        return self.artifacts.content(artifact) or self.files.path(artifact.id).open("rb", buffering=0)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make this thread's additions within the context one transaction (quick for thousands)."""
        with self._database.transaction():
            yield

    def close(self) -> None:
        """Close the store; it cannot be used any more. Closing twice is closing once."""
        self.artifacts.close()
        self.aspects.close()
        self._database.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(descriptor)
        raise DataDirInUse(exc.errno, "this data directory is served already", str(path.parent)) from exc
    return descriptor


def _newest(database: Database, now: int) -> int:
    """Return the newest time in the database that is not in the future by more than a minute."""
    with database.reading() as db:
        rows = db.execute(
            "SELECT max(last_modified_at) FROM artifacts WHERE last_modified_at <= ?1"
            " UNION ALL SELECT max(valid_from) FROM aspects WHERE valid_from <= ?1"
            " UNION ALL SELECT max(valid_to) FROM aspects WHERE valid_to <= ?1",
            (now + 60_000_000,),
        ).fetchall()
    return max(row[0] or 0 for row in rows)
