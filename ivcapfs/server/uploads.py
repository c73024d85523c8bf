"""Content on its way in: files that grow, their checksums, and when an artifact becomes ready.

The size of the file is how much has arrived; nothing else is kept about it, so what a broken request (or a
killed process) left behind can be gone on with. Used by the store and by the TUS and PUT calls, which see to
it that an artifact has one writer at a time. All calls block on files: never call them on the event loop.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO

from ivcapfs.server.artifacts import ArtifactTable
from ivcapfs.server.records import Artifact

_CHUNK = 1 << 20
_KEPT_CHECKSUMS = 64

EMPTY_ETAG = hashlib.sha256(b"").hexdigest()
"""The ETag of content of no bytes."""


class BlobFiles:
    """Where the content of artifacts lies.

    Args:
        root: the directory; created when absent.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(exist_ok=True)
        self._made: set[Path] = set()  # folders known to exist; adding to it is atomic

    def path(self, artifact_id: str) -> Path:
        """Return the file of an artifact's content, which need not exist while nothing has arrived."""
        bare = artifact_id.rpartition(":")[2]
        return self._root / hashlib.blake2b(bare.encode(), digest_size=1).hexdigest() / bare

    def prepared(self, artifact_id: str) -> Path:
        """Return the file of an artifact's content, in a folder that exists."""
        path = self.path(artifact_id)
        if path.parent not in self._made:
            path.parent.mkdir(exist_ok=True)
            self._made.add(path.parent)
        return path

    def arrived(self, artifact_id: str) -> int:
        """Return how many bytes have arrived."""
        try:
            return self.path(artifact_id).stat().st_size
        except FileNotFoundError:
            return 0


class Writer:
    """An artifact's content being added to; of one request, in one thread at a time.

    Args:
        path: the file.
        checksum: of what it holds, updated with what is written.
        offset: how many bytes it holds.
    """

    def __init__(self, path: Path, checksum: hashlib._Hash, offset: int) -> None:
        self.offset = offset
        self.checksum = checksum
        self._file: BinaryIO = path.open("r+b" if offset else "wb", buffering=0)
        self._file.seek(offset)

    def write(self, data: bytes | bytearray) -> None:
        """Add bytes.

        Raises:
            OSError: they could not be written; ``offset`` counts those that were.
        """
        view = memoryview(data)
        while view:
            written = self._file.write(view)
            self.checksum.update(view[:written])
            self.offset += written
            view = view[written:]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Uploads:
    """Begins, suspends and completes uploads.

    Args:
        artifacts: the records.
        files: the contents.
    """

    def __init__(self, artifacts: ArtifactTable, files: BlobFiles) -> None:
        self._artifacts = artifacts
        self._files = files
        self._lock = threading.Lock()
        # Of unfinished uploads: how much has arrived, and its checksum so far. Guarded by _lock.
        self._checksums: OrderedDict[str, tuple[int, hashlib._Hash]] = OrderedDict()

    def resume(self, artifact: Artifact) -> Writer:
        """Return a writer that goes on where the content ends."""
        path = self._files.prepared(artifact.id)
        arrived = self._files.arrived(artifact.id)
        with self._lock:
            known, checksum = self._checksums.pop(artifact.id, (0, hashlib.sha256()))
        if known != arrived:
            checksum = _checksum_of(path)
        return Writer(path, checksum, arrived)

    def suspend(self, artifact: Artifact, writer: Writer) -> None:
        """Keep what has arrived for a later request."""
        writer.close()
        if writer.offset:
            self._artifacts.set_partial(artifact.id)
        with self._lock:
            self._checksums[artifact.id] = (writer.offset, writer.checksum)
            while len(self._checksums) > _KEPT_CHECKSUMS:
                self._checksums.popitem(last=False)

    def complete(self, artifact: Artifact, writer: Writer) -> None:
        """Take what has arrived as the whole content: the artifact is ready."""
        writer.close()
        self._artifacts.set_ready(artifact.id, writer.offset, writer.checksum.hexdigest())

    def replacement(self, artifact: Artifact) -> Writer:
        """Return a writer for content that comes whole, beside what may have arrived before."""
        return Writer(self._spare(artifact), hashlib.sha256(), 0)

    def put_in_place(self, artifact: Artifact, writer: Writer) -> None:
        """Make what was written to a :meth:`replacement` the whole content: the artifact is ready."""
        writer.close()
        self._spare(artifact).replace(self._files.path(artifact.id))
        self._artifacts.set_ready(artifact.id, writer.offset, writer.checksum.hexdigest())

    def drop(self, artifact: Artifact, writer: Writer) -> None:
        """Forget a :meth:`replacement`."""
        writer.close()
        self._spare(artifact).unlink(missing_ok=True)

    def recover(self) -> None:
        """Complete the uploads of which the last byte came just before the process was killed."""
        for artifact in self._artifacts.unfinished():
            if artifact.size and self._files.arrived(artifact.id) == artifact.size:
                etag = _checksum_of(self._files.path(artifact.id)).hexdigest()
                self._artifacts.set_ready(artifact.id, artifact.size, etag)

    def _spare(self, artifact: Artifact) -> Path:
        return self._files.prepared(artifact.id).with_suffix(".put")


def _checksum_of(path: Path) -> hashlib._Hash:
    checksum = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                checksum.update(chunk)
    except FileNotFoundError:
        pass  # nothing has arrived
    return checksum
