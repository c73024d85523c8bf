"""What the filesystem asks a catalog. The in-memory listing answers it today, a persistent index may tomorrow.

Implemented by `ivcapfs.catalog.listing.Listing`; used by `ivcapfs.fs.tree` and `ivcapfs.fs.xattrs`. Implementations
are safe to use from any thread, and end every wait by the caller's `check` (see `ivcapfs.waits`).
"""

from __future__ import annotations

from typing import Protocol

from ivcapfs.catalog.names import Parts
from ivcapfs.catalog.namespace import Folder, Namespace
from ivcapfs.models import ArtifactRecord, AspectRecord
from ivcapfs.waits import Check


class Catalog(Protocol):
    """What exists, as far as the platform tells."""

    def namespace(self, check: Check) -> Namespace:
        """Return all ready artifacts, with every one that became ready more than `refresh` seconds ago.

        A server that cannot be reached gives the last known state; only where there is none, its error is raised.
        """
        ...

    def known(self) -> Namespace:
        """Return what is known now, without any request or wait."""
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

    def details_known(self, uuid: str) -> tuple[ArtifactRecord, tuple[AspectRecord, ...]] | None:
        """Return whole record and aspects where both are here already; never asks or waits."""
        ...

    def size(self, record: ArtifactRecord, check: Check) -> int:
        """Return the content's size in bytes: from the record, else the whole record, else by HEAD."""
        ...
