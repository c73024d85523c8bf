"""Runs the program that prints a token, within bounds.

Used by `ivcapfs.client.supplies` and `contextlogin`. No shell is involved. What it prints goes to memory that is nobody
else's (memfd_create(2)), its words on standard error to the log, shortened and without anything that looks like a
token. Any thread.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
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
            started = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd="/", start_new_session=True
            )
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


def _wait(
    started: subprocess.Popen[bytes], files: Sequence[int], pause: Callable[[float], None], seconds: float, name: str
) -> None:
    end = time.monotonic() + seconds
    while started.poll() is None:
        if time.monotonic() > end:
            raise TooSlow(f"the token command {name} did not end within {seconds:g} s")
        if any(os.fstat(file).st_size > LARGEST for file in files):
            raise CredentialError(f"the token command {name} prints too much for a token")
        pause(_PAUSE)


def _end(started: subprocess.Popen[bytes]) -> None:
    """End the program and what it has started, if it still runs: kindly first, it may be writing a file."""
    for last in (signal.SIGTERM, signal.SIGKILL):
        if started.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, last)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(_GRACE)


@contextlib.contextmanager
def _memory(name: str) -> Iterator[int]:
    descriptor = os.memfd_create(f"ivcapfs-{name}", os.MFD_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> str:
    return os.pread(descriptor, LARGEST, 0).decode("utf-8", "replace")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
