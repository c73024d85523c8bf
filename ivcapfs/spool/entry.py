"""What the journal says of one new file: where it is to appear, what happened to it, what the server has of it.

Used by all of `ivcapfs.spool`, and by the commands that show it. Frozen values: any thread may hold them.
"""

from __future__ import annotations

import enum
import json
import time
import uuid
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ivcapfs.catalog.names import Parts, decode
from ivcapfs.errors import ProtocolError

VERSION = 1
ARTIFACTS = "artifacts"
COLLECTIONS = "collections"
_REMOVED = ".fuse_hidden"


class State(enum.StrEnum):
    """What became of a new file.

    Attributes:
        WRITING: open for writing; in a spool whose mount died it was never closed.
        CLOSED: close(2) returned 0: it becomes an artifact, whatever happens.
        FAILED: close(2) returned an error, or the server refused it for good; sent only when told to.
        INTERRUPTED: who wrote it was killed, or the mount was, before it was closed; sent only when told to.
    """

    WRITING = "writing"
    CLOSED = "closed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Begun:
    """The record that was made on the server for a file.

    Attributes:
        uuid: of the artifact.
        url: where its content goes; may be signed, and is told to nobody.
        announced: its size in bytes, where that was told; None: it is told with the end.
    """

    uuid: str
    url: str
    announced: int | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One new file.

    Attributes:
        id: of its files in the spool.
        parts: its path in the mount.
        below: how many of them, from the end, make its name; the rest is the view, and the collection.
        collection: the URN of the collection that it goes into.
        reason: why it failed, or was interrupted.
        size: bytes; true once it is closed.
        mtime_ns: when it was written last, or the time that was set, in nanoseconds since the epoch.
        created: when it was made, in seconds since the epoch.
        begun: its record on the server, if what that has is the beginning of the content.
        twins: of an empty file, those of its name that there were before: see `sender`.
        record: set once the artifact is complete, for what is still to be done then: its uuid.
        changes: aspects to be set on the artifact, as `ivcapfs.fs` journals them.
    """

    parts: Parts
    below: int = 1
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    state: State = State.WRITING
    collection: str | None = None
    reason: str = ""
    size: int = 0
    mtime_ns: int = field(default_factory=time.time_ns)
    created: float = field(default_factory=time.time)
    begun: Begun | None = None
    twins: tuple[str, ...] | None = None
    record: str | None = None
    changes: tuple[dict[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """The artifact's name."""
        return decode(self.parts[-self.below :])

    @property
    def is_hidden(self) -> bool:
        """Whether it stays here: a name that begins with a dot never becomes an artifact's."""
        return any(part.startswith(".") for part in self.parts[-self.below :])

    @property
    def is_removed(self) -> bool:
        """Whether it was removed, and lives on for those who have it open."""
        return is_removed(self.parts[-1])

    @property
    def is_perhaps_complete(self) -> bool:
        """Whether the server may have completed it, as far as the journal tells, or has."""
        asked = self.begun is not None or self.twins is not None
        return self.record is not None or (asked and self.state is State.CLOSED)

    @property
    def path(self) -> str:
        """Its path in the mount, as text."""
        return "/".join(self.parts)


def is_removed(name: str) -> bool:
    """Return whether a name is one of those that libfuse gives to files that were removed while they are open."""
    return name.startswith(_REMOVED)


def entry_json(entry: Entry) -> bytes:
    """Return an entry as the journal holds it."""
    return json.dumps({"version": VERSION, **asdict(entry)}).encode()


def entry_from_json(text: bytes) -> Entry:
    """Return the entry in a journal's file.

    Raises:
        ProtocolError: it is none, or of a newer ivcapfs.
    """
    try:
        value = json.loads(text)
        version = value.pop("version")
        if version != VERSION:
            raise ProtocolError(f"it is of another version ({version}) of ivcapfs")
        begun = value.pop("begun")
        twins = value.pop("twins")
        entry = Entry(
            **value
            | {
                "parts": tuple(value["parts"]),
                "state": State(value["state"]),
                "begun": Begun(**begun) if begun else None,
                "twins": None if twins is None else tuple(twins),
                "changes": tuple(value["changes"]),
            }
        )
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ProtocolError(f"it makes no sense: {exc}") from exc
    return _checked(entry)


def _checked(entry: Entry) -> Entry:
    sound = (
        all(isinstance(text, str) for text in (*entry.parts, *(entry.twins or ()), entry.id, entry.reason))
        and all(isinstance(number, int) for number in (entry.below, entry.size, entry.mtime_ns))
        and all(text is None or isinstance(text, str) for text in (entry.collection, entry.record))
        and isinstance(entry.created, int | float)
        and all(isinstance(change, dict) for change in entry.changes)
        and (entry.begun is None or _is_sound(entry.begun))
        and len(entry.id) == 32
        and entry.id.isalnum()
        and 1 <= entry.below < len(entry.parts)
        and all(part and "/" not in part for part in entry.parts)
    )
    if not sound:
        raise ProtocolError("it makes no sense: a field has an impossible value")
    return entry


def _is_sound(begun: Begun) -> bool:
    announced = begun.announced is None or isinstance(begun.announced, int)
    return isinstance(begun.uuid, str) and isinstance(begun.url, str) and announced


def restarted(entry: Entry) -> Entry:
    """Return an entry whose record on the server is given up: it stays pending there, and is never listed."""
    return replace(entry, begun=None)
