"""Who calls: what the kernel does not say about the process behind a flush.

close(2) and the end of a process look the same to a filesystem. But a file whose writer was killed is not complete, and
one that its writer's parent still has open, as in ``(cat a; cat b) > f``, is not closed.

Used by `ivcapfs.fs.writing`. Reads /proc only, never a path inside a mount, and still it may have to wait for
ourselves: execve(2) closes descriptors on its way, and the process's files in /proc wait until execve is over. So a
thread of ours looks, and when the kernel lets it wait, that is the answer: the caller is in execve.

Threading: any thread may call anything. At most as many threads look as there are flushes under way.
"""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

_EXITING = 0x4
"""PF_EXITING of the kernel's task flags."""
_STATE, _PARENT, _FLAGS, _EXIT_CODE = 0, 1, 6, 49
"""Fields of /proc/PID/stat behind the name, from 0; proc_pid_stat(5) counts them from 3."""
MOST_DESCRIPTORS = 256
POLL_SECONDS = 0.05
MOST_POLLS = 200
STUCK = 2
"""So often in a row a thread was seen to wait inside the kernel."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A process that has let go of a descriptor. Of one that cannot be looked at (another user's, gone) nothing is
    assumed.

    Attributes:
        is_exiting: whether it is ending, so that what it closes was closed by nobody.
        was_killed: whether a signal ended it.
        is_executing: whether it is in execve(2), so that the same holds.
        holds: whether it, or its parent, has the file open still.
    """

    is_exiting: bool = False
    was_killed: bool = False
    is_executing: bool = False
    holds: bool = False

    @property
    def has_closed(self) -> bool:
        """Whether this is close(2), and of the last descriptor that it and its parent had."""
        return not (self.is_exiting or self.is_executing or self.holds)


class Callers:
    """Looks at processes.

    Args:
        most: flushes at a time.
    """

    def __init__(self, most: int) -> None:
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="callers")

    def look(self, pid: int, path: str) -> Caller:
        """Return what can be known of a process that has let go of a file at a path."""
        looking: list[int] = []  # the thread that looks
        answer = self._pool.submit(_look, pid, path, looking)
        stuck = 0
        for _ in range(MOST_POLLS):
            with contextlib.suppress(TimeoutError):
                return answer.result(POLL_SECONDS)
            stuck = stuck + 1 if looking and _waits(looking[0]) else 0
            if stuck == STUCK:
                break
        return Caller(is_executing=True)

    def close(self) -> None:
        """Look at nothing any more."""
        self._pool.shutdown(wait=False)


def _look(pid: int, path: str, looking: list[int]) -> Caller:
    """As `Callers.look`; it may take as long as the caller's execve(2)."""
    looking.append(threading.get_native_id())
    try:
        fields = _stat(f"/proc/{pid}/stat")
        parent = int(fields[_PARENT])
        is_exiting = bool(int(fields[_FLAGS]) & _EXITING)
        was_killed = is_exiting and bool(int(fields[_EXIT_CODE]) & 0x7F)
    except (OSError, ValueError, IndexError):
        return Caller()
    if is_exiting:
        return Caller(is_exiting, was_killed)
    return Caller(holds=any(_has_open(each, path) for each in (pid, parent) if each > 1))


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


def _waits(thread: int) -> bool:
    """Return whether a thread of ours waits inside the kernel (state D)."""
    try:
        return _stat(f"/proc/self/task/{thread}/stat")[_STATE] == "D"
    except (OSError, IndexError):
        return False


def _stat(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
