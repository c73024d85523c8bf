"""What the filesystem asks a catalog.

Implemented by `ivcapfs.catalog.index.Index`; used by `ivcapfs.fs.tree`, `byid` and `xattrs`. Implementations are safe
to use from any thread, and end every wait by the caller's `check` (see `ivcapfs.waits`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

from ivcapfs.catalog.names import Parts
from ivcapfs.models import ArtifactRecord, AspectRecord
from ivcapfs.waits import Check


class Folder(NamedTuple):
    """A folder below `artifacts/`.

    Attributes:
        id: tells folders of one catalog apart.
        time_ns: when the newest artifact in it, at any depth, was created, in nanoseconds since the epoch; 0: there is
            none.
    """

    id: int
    time_ns: int


class FileEntry(NamedTuple):
    """An artifact in a listing: what stat(2) needs, and no more. A tuple, because a listing makes many.

    Attributes:
        uuid: its 16 bytes.
        size: bytes; None where no record tells.
        time_ns: when it was created, in nanoseconds since the epoch.
    """

    uuid: bytes
    size: int | None
    time_ns: int


Entry = tuple[str, Folder | FileEntry, int]
"""A name in a folder, what it is, and its cookie: greater than those before it, and never 0."""


class Order(Enum):
    """How the files of a folder can follow one another.

    Attributes:
        NAME: by their names' bytes, as a shell's ``*`` has them.
        LISTED: as a listing has them.
    """

    NAME = "name"
    LISTED = "listed"


class Neighbour(NamedTuple):
    """A file that comes after another one: name, uuid, and size in bytes."""

    name: str
    uuid: str
    size: int | None


class Totals(NamedTuple):
    """How many artifacts have a path, and how many blocks of 4096 bytes they take."""

    files: int
    blocks: int


class Listing(Protocol):
    """One reading of a folder: everything that was in it when the reading began."""

    def entries(self, after: int) -> Iterator[Entry]:
        """Iterate the entries behind a cookie; 0: all of them. Holds some hundred entries in memory, never all."""
        ...


@dataclass(frozen=True, slots=True)
class CatalogStatus:
    """How the catalog does.

    Attributes:
        state: ``empty`` (never asked for), ``synchronizing`` (for the first time), ``current``, ``refreshing``,
            ``stale`` (the server cannot be reached; the last known state is shown).
        artifacts: known and ready.
        pages: list pages taken from the server by this process.
        synchronized_pages: of the first synchronization, other processes and earlier mounts included.
        rate: artifacts per second of the synchronization under way; 0 where none is.
        age: seconds since the last complete look at the server began; None before the first.
        failure: why the last attempt failed; None after one that did not.
        path: the database; None: it is in memory.
    """

    state: str
    artifacts: int
    pages: int
    synchronized_pages: int
    rate: float
    age: float | None
    failure: str | None
    path: Path | None


class Catalog(Protocol):
    """What exists, as far as the platform tells."""

    def listing(self, parts: Parts, check: Check) -> Listing:
        """Begin to read a folder below `artifacts/`: all ready artifacts in it, with every one that became ready more
        than `refresh` seconds ago.

        A server that cannot be reached gives the last known state; only where there is none, its error is raised.

        Raises:
            NoSuchEntry, NotAFolder: there is no such folder.
        """
        ...

    def everything(self, check: Check) -> Listing:
        """Begin to read all ready artifacts, each under its uuid; as `listing`."""
        ...

    def root(self, check: Check) -> Folder:
        """Return `artifacts/` itself, as new as the newest artifact; before anything is known, that is asked for."""
        ...

    def totals(self) -> Totals:
        """Return the sums over what is known now, without any request or wait."""
        ...

    def find(self, parts: Parts, check: Check) -> Folder | ArtifactRecord:
        """Return what is at a path below `artifacts/`, asking the server by name before saying no.

        Raises:
            NoSuchEntry: the server says that there is nothing.
            TransportError, ApiError: the server did not say.
        """
        ...

    def record(self, uuid: str, check: Check) -> ArtifactRecord:
        """Return the artifact's record, from the listing or from the server, whatever its status.

        Raises:
            NotFound: the server has no such artifact.
        """
        ...

    def whole_record(self, uuid: str, check: Check) -> ArtifactRecord:
        """Return the artifact's whole record (``GET /1/artifacts/{id}``), at most `refresh` seconds old."""
        ...

    def aspects(self, uuid: str, check: Check) -> tuple[AspectRecord, ...]:
        """Return the aspects that stand, newest first, at most `refresh` seconds old (``GET /1/aspects``)."""
        ...

    def record_and_aspects(self, uuid: str, check: Check) -> tuple[ArtifactRecord, tuple[AspectRecord, ...]]:
        """Return whole record and aspects, asked for at the same time; see `whole_record` and `aspects`."""
        ...

    def details_known(self, uuid: str) -> tuple[ArtifactRecord, tuple[AspectRecord, ...]] | None:
        """Return whole record and aspects where both are here already; never asks or waits."""
        ...

    def size(self, record: ArtifactRecord, check: Check) -> int:
        """Return the content's size in bytes: from the record, else the whole record, else by HEAD."""
        ...
