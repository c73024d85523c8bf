"""Files of this machine become artifacts: which ones under which names, and sending one so that it can be gone on with.

Used by ``ivcapfs put``. The size of a file is known, so it is announced at the beginning; its bytes are read while they
are sent. Before the last of them go, the file must still be as it was at the beginning: what was changed meanwhile
never becomes an artifact.

A note (`notes`) has the record that was begun, so that the next ``put`` of the same unchanged file goes on from where
the server has got to. Of a file that is complete it is kept until all files of the command are: who repeats a command
of which some files failed sends those alone.

Threading: a `Putter` may be used by any number of threads, a file belongs to one.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ivcapfs.catalog.memberships import Memberships
from ivcapfs.catalog.store import store_name
from ivcapfs.client import Connection, Upload
from ivcapfs.client.exchange import Body, FileSlice
from ivcapfs.client.retry import Stopped, never_stopped
from ivcapfs.client.tus import await_ready
from ivcapfs.config import MIB
from ivcapfs.errors import (
    Closing,
    ConfigError,
    FileSystemError,
    NotFound,
    ProtocolError,
    TooLarge,
    TransportError,
)
from ivcapfs.models import ArtifactRecord, ArtifactStatus
from ivcapfs.spool.draft import LARGEST
from ivcapfs.spool.folder import read_all
from ivcapfs.spool.mime import HEAD, mime_type
from ivcapfs.transfers.notes import Note

CHUNK = 8 * MIB
"""Bytes of a request."""
TAIL = MIB
"""Bytes at the end that are sent last, and read into memory before: only these can still make a file an artifact."""
READY_SECONDS = 60.0

Tell = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Sending:
    """A file that is to become an artifact.

    Attributes:
        path: absolute.
        name: the artifact's.
    """

    path: Path
    name: str


# -- which files -----------------------------------------------------------------------------------------------------


def gather(
    paths: Iterable[Path], *, recursive: bool, name: str | None, skipped: Callable[[Path, str], None]
) -> list[Sending]:
    """Return the files to be sent, each under its name: its own, behind those of the folders that it was found in.

    Args:
        recursive: whether folders are gone through; of what is in them, names that begin with a dot are passed over,
            as are symbolic links to folders, and what is no file.
        name: of the one path given; or, where it ends in a slash, what is put before all names.
        skipped: told what was passed over, and why.

    Raises:
        ConfigError: a path is not there, or is a folder; or two files would have the same name.
    """
    paths = list(paths)
    before = name if name is not None and name.endswith("/") else ""
    if name is not None and not before and len(paths) != 1:
        raise ConfigError("--name names one FILE: end it with a slash to put it before the names of several")
    found: dict[str, Path] = {}
    for path in paths:
        own = name if name is not None and not before else before + path.resolve().name
        for each in _files(path, own, recursive=recursive, skipped=skipped):
            if found.setdefault(each.name, each.path) != each.path:
                raise ConfigError(f"two files would be called {each.name}: {found[each.name]} and {each.path}")
    return [Sending(path, name) for name, path in found.items()]


def _files(
    path: Path, name: str, *, recursive: bool, skipped: Callable[[Path, str], None]
) -> Iterator[Sending]:
    if path.is_file():
        yield Sending(path.resolve(), name)
    elif path.is_dir():
        if not recursive:
            raise ConfigError(f"{path} is a folder: -r sends what is in it")
        yield from _files_below(path.resolve(), name, skipped)
    else:
        raise ConfigError(f"{path} is no file" if os.path.lexists(path) else f"{path} does not exist")


def _files_below(folder: Path, name: str, skipped: Callable[[Path, str], None]) -> Iterator[Sending]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            skipped(path, "its name begins with a dot")
        elif path.is_dir():
            if path.is_symlink():
                skipped(path, "it is a symbolic link to a folder")
            else:
                yield from _files_below(path, f"{name}/{path.name}", skipped)
        elif path.is_file():
            yield Sending(path, f"{name}/{path.name}")
        else:
            skipped(path, "it is no file")


def collection_urn(connection: Connection, text: str) -> str:
    """Return the URN of a collection that was named, or given by its URN.

    Raises:
        ConfigError: there is none of that name, or there are several.
        ApiError, TransportError, ProtocolError: the server did not say.
    """
    if text.startswith("urn:"):
        return text
    found = [each.urn for each in connection.api.iter_collections() if each.name == text]
    if not found:
        raise ConfigError(f"no collection is called {text}: mkdir in the collections of a mount makes one")
    if len(found) > 1:
        raise ConfigError(f"several collections are called {text}: give one by its URN: {', '.join(found)}")
    return found[0]


# -- one file --------------------------------------------------------------------------------------------------------


class Putter:
    """See the module.

    Args:
        notes: the folder of notes.
        policy: URN of the policy of the artifacts; None: the platform's own.
        collection: URN of the collection that they are put into; None: none.
        stopped: asked now and then; True ends everything with `Closing`.
    """

    def __init__(
        self,
        connection: Connection,
        notes: Path,
        *,
        policy: str | None = None,
        collection: str | None = None,
        chunk: int = CHUNK,
        tail: int = TAIL,
        stopped: Stopped = never_stopped,
    ) -> None:
        self._connection = connection
        self._deployment = store_name(connection.origin, connection.identity)
        self._notes = notes
        self._policy = policy
        self._collection = collection
        self._memberships = Memberships(connection.api)
        self._chunk = chunk
        self._tail = tail
        self._stopped = stopped

    def put(self, file: Sending, tell: Tell = lambda done: None) -> ArtifactRecord:
        """Make a file an artifact, or go on where it was left; return the record, which is ready.

        Args:
            tell: called with the bytes that the server has, again and again.

        Raises:
            FileSystemError: the file was changed while it was sent, or another process sends it.
            OSError: it cannot be read.
            ApiError, TransportError, ProtocolError, ConfigError: the server does not take it.
        """
        with self._note(file) as note, file.path.open("rb", buffering=0) as stream:
            fd = stream.fileno()
            state = _state(fd)
            if state["size"] > LARGEST:
                raise TooLarge(f"{file.path} has {state['size']} bytes, and an artifact {LARGEST} at most")
            record = self._taken_up(note, state)
            if record is None or not record.is_ready:
                upload, offset = self._begun(note, file, fd, state, record)
                tell(offset)
                self._send(upload, file, fd, state, offset, tell)
                record = await_ready(self._connection.api, upload.uuid, seconds=READY_SECONDS, pause=self._pause)
            if self._collection is not None:
                self._memberships.add(self._collection, record.uuid)
            tell(state["size"])
        return record

    def forget(self, files: Iterable[Sending]) -> None:
        """All files of a command are artifacts: the same command makes new ones from now on."""
        for file in files:
            with self._note(file) as note:
                note.remove()

    def _note(self, file: Sending) -> Note:
        policy, collection = self._policy or "", self._collection or ""
        return Note(self._notes, "put", self._deployment, str(file.path), file.name, policy, collection)

    def _taken_up(self, note: Note, state: dict[str, int]) -> ArtifactRecord | None:
        """Return the record that was begun for the file as it is; None: there is none."""
        value = note.value
        if value is None or {key: value.get(key) for key in state} != state:
            return None
        try:
            record = self._connection.api.read_artifact(str(value.get("uuid")))
        except (NotFound, ProtocolError):
            return None
        return None if record.status is ArtifactStatus.ERROR else record

    def _begun(
        self, note: Note, file: Sending, fd: int, state: dict[str, int], record: ArtifactRecord | None
    ) -> tuple[Upload, int]:
        """Return the upload, and how many bytes of it the server has."""
        size = state["size"]
        if record is not None and note.value is not None:
            upload = Upload(record.uuid, str(note.value.get("url")), size)
            try:
                offset = self._connection.uploads.offset_of(upload)
            except NotFound:
                offset = -1
            if 0 <= offset <= size:
                return upload, offset
        kind = mime_type(file.name, os.pread(fd, HEAD, 0))
        upload = self._connection.uploads.begin(name=file.name, content_type=kind, size=size, policy=self._policy)
        value: dict[str, Any] = {**state, "path": str(file.path), "uuid": upload.uuid, "url": upload.url}
        note.save(value)
        return upload, 0

    def _send(self, upload: Upload, file: Sending, fd: int, state: dict[str, int], offset: int, tell: Tell) -> None:
        """Send what the server has not. The last bytes are looked at only when all others are there, and go last."""
        size = state["size"]
        body: Body
        while offset < size:
            length = min(self._chunk, max(size - self._tail - offset, 0))
            if length:
                body = FileSlice(fd, offset, length)
            else:
                body = read_all(fd, size - offset, offset)
                length = len(body)
                self._check_unchanged(file, fd, state)
            try:
                self._connection.uploads.bring(upload, offset, body, self._stopped)
            except (OSError, TransportError):
                self._check_unchanged(file, fd, state)  # it may have become shorter
                raise
            offset += length
            tell(offset)

    def _check_unchanged(self, file: Sending, fd: int, state: dict[str, int]) -> None:
        if _state(fd) != state:
            raise FileSystemError(f"{file.path} was changed while it was sent: send it again when it is complete")

    def _pause(self, seconds: float) -> None:
        if self._stopped():
            raise Closing("ended by its caller")
        time.sleep(seconds)


def _state(fd: int) -> dict[str, int]:
    """Return by what a file's change is noticed."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise FileSystemError("only files can be sent")
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "inode": status.st_ino}
