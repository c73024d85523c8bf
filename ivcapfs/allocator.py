"""What becomes of memory that was freed: it is not kept for ever by who once needed much.

`keep_little` is used by `ivcapfs.entry`, before anything else is imported. glibc malloc(3) keeps freed pieces for each
thread, up to 240 kB, and a mount has a hundred threads, few of which ever need theirs again. It can be told so only
before a process begins (the GNU C Library's manual, "Memory Allocation Tunables"), so the process begins once more: the
same program, arguments, process id and descriptors (execve(2)), 20 ms later.

`give_back` is used by a mount, now and then. Many answers at once raise the heap, and pieces between them that stay
keep it from being lowered (malloc_trim(3)): without it, the most that was ever needed at one moment stays taken.

Threading: `keep_little` before any thread exists; any thread may call `give_back`.
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


def give_back() -> None:
    """Give free memory back to the system. A few milliseconds; does nothing where the C library does not know how."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _is_glibc() -> bool:
    try:
        return "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (ValueError, OSError):
        return False
