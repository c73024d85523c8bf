"""What is told of a new file: in its attribute `user.ivcap.upload`, in the status, and by the commands.

Used by `ivcapfs.fs` and the commands. Pure.
"""

from __future__ import annotations

from ivcapfs.spool.draft import Draft
from ivcapfs.spool.entry import Entry, State


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
