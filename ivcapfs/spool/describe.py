"""What is told of a new file: in its attribute `UPLOAD`, in the status, and by the commands.

Used by `ivcapfs.fs` and the commands. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ivcapfs.spool.draft import Draft
from ivcapfs.spool.entry import Entry, State

UPLOAD = "user.ivcap.upload"
"""Where a new file stands. Set to ``retry`` a failed one is sent after all; set to ``now`` on the status file, what is
closed settles no longer."""


def upload_state(entry: Entry, sent: int, size: int) -> str:
    """Return where a new file stands: ``writing``, ``pending``, ``uploading 42%``, ``failed: …``, ``local`` …

    Args:
        sent, size: bytes that the server has, and all.
    """
    if entry.is_hidden:
        return "local"
    if entry.state is State.FAILED:
        return f"failed: {entry.reason}"
    if entry.state is State.INTERRUPTED:
        return f"interrupted: {entry.reason}"
    if 0 < sent < size:
        return f"uploading {100 * sent // size}%"
    return "pending" if entry.state is State.CLOSED else "writing"


def draft_state(draft: Draft) -> str:
    """Return where a new file of this process stands."""
    with draft.lock:
        return upload_state(draft.entry, draft.sent, draft.size)


MOST_TOLD = 100
"""Files that a status names."""


@dataclass(frozen=True, slots=True)
class FileStatus:
    """One new file; sizes in bytes."""

    path: str
    state: str
    size: int
    sent: int


@dataclass(frozen=True, slots=True)
class UploadsStatus:
    """The new files of a mount.

    Attributes:
        open: being written.
        pending: closed, and still to become artifacts.
        failed, interrupted: kept until somebody decides; see `State`.
        local: hidden ones, which stay.
        bytes_left: of those that are pending, not sent yet.
        files: some of them, those that are pending first.
    """

    open: int
    pending: int
    failed: int
    interrupted: int
    local: int
    bytes_left: int
    files: tuple[FileStatus, ...]


def uploads_status(drafts: Iterable[Draft]) -> UploadsStatus:
    """Return how the new files of a mount do."""
    counts = dict.fromkeys(("open", "pending", "failed", "interrupted", "local"), 0)
    left, files = 0, []
    for draft in drafts:
        with draft.lock:
            entry, size, sent, is_open = draft.entry, draft.size, draft.sent, draft.writers > 0
        kind = _kind(entry, is_open=is_open)
        counts[kind] += 1
        left += max(size - sent, 0) if kind == "pending" else 0
        files.append((kind != "pending", FileStatus(entry.path, upload_state(entry, sent, size), size, sent)))
    files.sort(key=lambda each: (each[0], each[1].path))
    return UploadsStatus(**counts, bytes_left=left, files=tuple(file for _, file in files[:MOST_TOLD]))


def _kind(entry: Entry, *, is_open: bool) -> str:
    if is_open:
        return "open"
    if entry.is_hidden:
        return "local"
    return {State.FAILED: "failed", State.INTERRUPTED: "interrupted"}.get(entry.state, "pending")
