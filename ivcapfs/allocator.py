"""How much freed memory each thread of a mount keeps for itself.

Used by `ivcapfs.entry`, before anything else is imported. glibc's malloc(3) keeps freed pieces for each thread, up to
240 kB, and a mount has a hundred threads, few of which ever need theirs again. It can be told so only before a process
begins (the GNU C Library's manual, "Memory Allocation Tunables"), so the process begins once more: the same program,
arguments, process id and descriptors (execve(2)), 20 ms later.

Threading: before any thread exists.
"""

from __future__ import annotations

import os
import sys

TUNABLES = "GLIBC_TUNABLES"
_OURS = "glibc.malloc.tcache_max=128"
"""Pieces up to so many bytes are kept: what libfuse takes for a request. Python keeps its small objects by itself."""


def keep_little() -> None:
    """Begin this process again with small caches, and return in the new one, whose environment is again the old one.

    Returns at once where that makes no sense: another C library, or one that somebody has tuned already.
    """
    given = os.environ.get(TUNABLES, "")
    if given == _OURS:
        del os.environ[TUNABLES]
    elif given.endswith(":" + _OURS):
        os.environ[TUNABLES] = given.removesuffix(":" + _OURS)
    elif "glibc.malloc.tcache" not in given and sys.executable and _is_glibc():
        wanted = f"{given}:{_OURS}" if given else _OURS
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {TUNABLES: wanted})  # noqa: S606


def _is_glibc() -> bool:
    try:
        return "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (ValueError, OSError):
        return False
