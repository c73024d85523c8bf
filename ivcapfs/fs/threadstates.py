"""Keeping the interpreter's state of libfuse's threads between two callbacks.

Used by `ivcapfs.fs.binding`. For a thread that Python did not start, ctypes makes a state when a callback begins, and
drops it at its end: memory that is mapped and unmapped, which takes as long as a short answer. Held once more
(``PyGILState_Ensure``), it stays as long as the thread. It is never given back; libfuse ends none of its threads before
the mount does (since 3.12, where nobody asks for it).

Threading: any thread may call anything.
"""

from __future__ import annotations

import ctypes
import threading


class _Thread(threading.local):
    """What is known of the calling thread."""

    is_kept = False


_thread = _Thread()
_hold = ctypes.pythonapi.PyGILState_Ensure
_hold.restype, _hold.argtypes = ctypes.c_int, []


def keep() -> None:
    """Keep the state of the calling thread; to be called in a callback, as often as one likes."""
    if not _thread.is_kept:
        _hold()
        _thread.is_kept = True
