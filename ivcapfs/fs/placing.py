"""Where new files may be, and under which names.

Used by `writer` and `renaming`. Threading: any thread may call anything; no state.
"""

from __future__ import annotations

from ivcapfs.catalog.collectionwriter import CollectionWriter
from ivcapfs.catalog.names import MAX_COMPONENT, MAX_PATH, Parts, decode, encode, encode_component
from ivcapfs.errors import AlreadyThere, FileSystemError, Invalid, NameTooLong, ReadOnly
from ivcapfs.spool.entry import ARTIFACTS, COLLECTIONS
from ivcapfs.waits import Check


class Places:
    """See the module."""

    def __init__(self, collections: CollectionWriter, check: Check) -> None:
        self._collections = collections
        self._check = check

    def of(self, parts: Parts) -> tuple[int, str | None]:
        """Return how much of a new file's path, from the end, is its name; and the URN of the collection it goes into.

        Raises:
            ReadOnly: there are no new files.
            NotAllowed: it would be a file beside the collections.
            Invalid, NameTooLong: it cannot be an artifact's name.
        """
        if len(parts) < 2 or parts[0] not in (ARTIFACTS, COLLECTIONS):
            raise ReadOnly(f"no new files in /{'/'.join(parts[:-1])}")
        if parts[0] == ARTIFACTS:
            check_names(parts[1:])
            return len(parts) - 1, None
        urn, rest = self._collections.collection_of(parts[1:], self._check)
        if not rest:
            raise AlreadyThere(f"{'/'.join(parts)} is a collection")
        check_names(rest)
        return len(rest), urn

    def is_in_collection(self, parts: Parts) -> bool:
        """Return whether a path goes into a collection, and not only to one."""
        try:
            return bool(self._collections.collection_of(parts[1:], self._check)[1])
        except FileSystemError:
            return False


def check_names(parts: Parts) -> None:
    """See that a path can be an artifact's.

    Raises:
        Invalid, NameTooLong: it cannot.
    """
    if any(len(part.encode()) > MAX_COMPONENT for part in parts):
        raise NameTooLong(f"a name may have {MAX_COMPONENT} bytes")
    if sum(len(part.encode()) + 1 for part in parts) > MAX_PATH:
        raise NameTooLong(f"a path may have {MAX_PATH} bytes")
    if parts and tuple(map(encode_component, parts)) != encode(decode(parts)):
        raise Invalid(f"{'/'.join(parts)!r} means another name: it has escapes for what a path cannot hold")
