"""No core dumps: this process holds a token in its memory.

Used by `daemon` and `mount`, before anything else. Any thread; doing it twice is the same as once.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource

log = logging.getLogger(__name__)

_PR_SET_DUMPABLE = 4  # <linux/prctl.h>


def forbid() -> None:
    """Have the kernel write no core dump of this process and its forks, not even to a program (core(5)).

    A limit of 0 is enough for files; where ``core_pattern`` names a program, as systemd's, it is not looked at, and
    only prctl(2)'s dumpable flag helps. That also keeps other processes of the same user from reading this one's memory
    and environment in /proc.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        log.warning("core dumps cannot be switched off: %s", os.strerror(ctypes.get_errno()))
