"""Runs the program that prints a token, within bounds.

Used by `ivcapfs.client.supplies` and `contextlogin`. No shell is involved. What it prints goes to memory that is nobody
else's (memfd_create(2)), its words on standard error to the log, shortened and without anything that looks like a
token. Any thread.

The threads of a mount block the signals that end it, and a child inherits that: told to end, it would not. So it is
started by posix_spawn(3), which gives it a mask of its own. (To lift ours meanwhile would be wrong: a signal that comes
just then would end the process, and leave its mount behind.)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ivcapfs.client.faults import tidy
from ivcapfs.errors import CredentialError
from ivcapfs.secret import Secret

SECONDS = 30.0
LARGEST = 64 * 1024
_PAUSE = 0.05
_GRACE = 2.0
_DEFAULT = (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ)
"""What the program is not to ignore, whatever this process does."""
_LIKE_A_TOKEN = re.compile(r"\S{40,}|eyJ\S+")


class TooSlow(CredentialError):
    """The program did not end in time."""


def ask(command: Sequence[str], pause: Callable[[float], None], seconds: float = SECONDS) -> Secret:
    """Return the token that a program prints.

    Args:
        command: the program and its arguments.
        pause: waits that many seconds; raises when it is all over, and the program is ended then.

    Raises:
        CredentialError: it cannot be run, fails, takes too long, or prints something else than a token.
    """
    name = Path(command[0]).name
    with _memory("out") as out, _memory("err") as err:
        try:
            started = _start(command, out, err)
        except OSError as exc:
            raise CredentialError(f"the token command {name} cannot be run: {exc.strerror}") from exc
        try:
            _wait(started, (out, err), pause, seconds, name)
        finally:
            _end(started)
        if started.returncode:
            words = _LIKE_A_TOKEN.sub("…", tidy(_last_line(_read(err))))
            raise CredentialError(f"the token command {name} failed ({started.returncode}): {words}")
        text = _last_line(_read(out))
    if not text or len(text.split()) != 1 or not text.isascii() or not text.isprintable():
        raise CredentialError(f"the token command {name} must print a token as its last line, and nothing after it")
    return Secret(text)


class _Program:
    """A child process, which is its session's and group's leader. One thread.

    Attributes:
        returncode: its exit code, minus the signal that ended it; None while it runs.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, None while it runs (wait(2))."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def has_ended_within(self, seconds: float) -> bool:
        """Return whether it has ended, waiting so long at most."""
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            time.sleep(_PAUSE)
        return self.returncode is not None


def _start(command: Sequence[str], out: int, err: int) -> _Program:
    """Start a program with no input, no other files and no blocked signals, in the folder in which we are.

    Raises:
        OSError: it cannot be run.
    """
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, out, 1),
        (os.POSIX_SPAWN_DUP2, err, 2),
        *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable()),
    ]
    words = list(command)
    return _Program(
        os.posix_spawnp(
            words[0], words, os.environ, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULT
        )
    )


def _inheritable() -> Iterator[int]:
    """Yield the files, beyond the standard ones, that a child would get: Python opens none so, other code may have."""
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        with contextlib.suppress(OSError):  # the one by which the folder was read
            if descriptor > 2 and os.get_inheritable(descriptor):
                yield descriptor


def _wait(started: _Program, files: Sequence[int], pause: Callable[[float], None], seconds: float, name: str) -> None:
    end = time.monotonic() + seconds
    while started.poll() is None:
        if time.monotonic() > end:
            raise TooSlow(f"the token command {name} did not end within {seconds:g} s")
        if any(os.fstat(file).st_size > LARGEST for file in files):
            raise CredentialError(f"the token command {name} prints too much for a token")
        pause(_PAUSE)


def _end(started: _Program) -> None:
    """End the program and what it has started, if it still runs: kindly first, it may be writing a file."""
    for last in (signal.SIGTERM, signal.SIGKILL):
        if started.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, last)
        started.has_ended_within(_GRACE)


@contextlib.contextmanager
def _memory(name: str) -> Iterator[int]:
    made = os.memfd_create(f"ivcapfs-{name}", os.MFD_CLOEXEC)
    try:
        descriptor = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, 3)  # the standard ones may be closed
    finally:
        os.close(made)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> str:
    return os.pread(descriptor, LARGEST, 0).decode("utf-8", "replace")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
