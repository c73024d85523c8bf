"""Dying at a chosen moment: the torture harness proves by it that nothing is lost then (`scripts/torture --crashes`).

Off unless the environment says ``IVCAPFS_CRASH_AT=point[:count]``, which `ivcapfs.config` reads: then the process kills
itself (SIGKILL) when it gets to that point for the count-th time. Used by whoever has such a point, and by
`ivcapfs.fs.mount`, which arms it. Nothing else may depend on it.

Threading: armed before there is any thread; `reach` may be called by any. `_lock` guards what is left of the count.
"""

from __future__ import annotations

import os
import signal
import threading

from ivcapfs.errors import ConfigError

POINTS = (
    "upload create",  # the record is made, the journal does not know of it yet
    "mid chunk",  # a part of a chunk is on its way
    "chunk sent",  # the server has a chunk, nobody here has noted it
    "before completion",  # all bytes are sent, the end is not told
    "after completion",  # the artifact is ready, the journal does not know of it yet
    "arrival",  # the journal knows; collection, aspects and kept time are still to come
    "removal",  # the journal's entry is gone, the bytes are not
    "journal write",  # the new entry is written, under its temporary name
    "spool rename",  # it has just got its name
    "cache write",  # a block is written, under its temporary name
    "catalog write",  # a transaction is complete but for its commit
    "token write-back",  # the new login is written, under its temporary name
)
"""Where a process can be told to die."""

_lock = threading.Lock()
_point: str | None = None  # written before there is any thread
_left = 0  # guarded by _lock


def arm(text: str) -> None:
    """Die at a point.

    Args:
        text: one of `POINTS`; or that, a colon, and the how-manieth time it is reached.

    Raises:
        ConfigError: it is no such text.
    """
    global _point, _left
    point, _, count = text.partition(":")
    if point not in POINTS or not (count or "1").isdecimal():
        raise ConfigError(f"IVCAPFS_CRASH_AT={text}: this is for ivcapfs's own tests, and there is no such point")
    _point, _left = point, int(count or "1")


def reach(point: str) -> None:
    """Take note that the process is at a point; does not return where it is to die there."""
    global _left
    if _point is None or _point != point:
        return
    with _lock:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()
