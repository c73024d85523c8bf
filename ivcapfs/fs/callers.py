"""Who calls: what the kernel does not say about the process behind a flush.

close(2) and the end of a process look the same to a filesystem. But a file whose writer was killed is not complete, and
one that its writer's parent still has open, as in ``(cat a; cat b) > f``, is not closed.

Used by `ivcapfs.fs.writing`. Reads /proc only, never a path inside a mount, so it cannot wait for ourselves; any thread
may call it. Of a process that cannot be looked at (another user's, gone) nothing is assumed.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

_EXITING = 0x4
"""PF_EXITING of the kernel's task flags."""
_PARENT, _FLAGS, _EXIT_CODE = 1, 6, 49
"""Fields of /proc/PID/stat behind the name, from 0; proc_pid_stat(5) counts them from 3."""
MOST_DESCRIPTORS = 256


@dataclass(frozen=True, slots=True)
class Caller:
    """A process.

    Attributes:
        parent: its parent's number; 0 where that is not known.
        is_exiting: whether it is ending, so that what it closes was closed by nobody.
        was_killed: whether a signal ended it.
    """

    pid: int
    parent: int = 0
    is_exiting: bool = False
    was_killed: bool = False

    def holds(self, path: str) -> bool:
        """Return whether the process, or its parent, has a file of a path open."""
        return any(_has_open(pid, path) for pid in (self.pid, self.parent) if pid > 1)


def caller(pid: int) -> Caller:
    """Return what can be known of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        is_exiting = bool(int(fields[_FLAGS]) & _EXITING)
        return Caller(pid, int(fields[_PARENT]), is_exiting, is_exiting and bool(int(fields[_EXIT_CODE]) & 0x7F))
    except (OSError, ValueError, IndexError):
        return Caller(pid)


def _has_open(pid: int, path: str) -> bool:
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        with os.scandir(folder) as found:
            names = [entry.name for entry in islice(found, MOST_DESCRIPTORS)]
        for name in names:
            with contextlib.suppress(OSError):
                if os.readlink(f"{folder}/{name}") == path:  # noqa: PTH115 - not resolved
                    return True
    return False
