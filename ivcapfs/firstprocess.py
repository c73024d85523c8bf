"""The first process of a container (pid_namespaces(7)), which the kernel treats unlike any other.

Used by `ivcapfs.entry`, before anything else is imported. Signals that a process 1 does not handle are dropped, also
SIGTERM, and it inherits the orphans of all others, whose remains only it can remove. So where we are process 1, a child
does the work, as any program's process would, and the parent hands signals on and waits (wait(2)).

Threading: before any thread exists; the parent never has one.
"""

from __future__ import annotations

import contextlib
import os
import signal

_OWN = frozenset({signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU})
"""What is meant for the parent itself."""


def stand_aside() -> None:
    """Return at once, or, where this process is the first one, in its child; the parent exits with the child's code.

    A child that a signal ended has the code 128 and its number, as in a shell.
    """
    if os.getpid() != 1:
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    child = os.fork()
    if child:
        os._exit(_look_after(child))
    # A group of its own: Ctrl-C in a terminal then comes to it alone, not a second time by way of the parent.
    os.setpgid(0, 0)
    with contextlib.suppress(OSError):
        os.tcsetpgrp(0, os.getpid())  # SIGTTOU is still blocked
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _look_after(child: int) -> int:
    """Hand signals on and remove the remains of ended processes, until the child has ended; return its exit code."""
    awaited = signal.valid_signals()
    while True:
        received = signal.sigwait(awaited)
        if received not in _OWN:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, received)
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if not ended:
                break
