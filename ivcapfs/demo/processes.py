"""The processes of the demo: how they are started, awaited and ended, and the signals that end it all.

Used by `ivcapfs.demo.stage` and `ivcapfs.demo.tour`. Main thread only: signals are taken note of, and looked at between
the steps, so that no step is left half done. Every process runs in a group of its own: Ctrl-C in a terminal reaches the
demo alone, which then ends the others in order.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
POLL_SECONDS = 0.05
IVCAPFS = (sys.executable, "-m", "ivcapfs")
"""The command `ivcapfs`, also where it is not on the path."""


class Stopped(Exception):
    """A signal came: the demo is to end now."""


@dataclass
class Signals:
    """The signal that came, if any."""

    received: int | None = None

    def check(self) -> None:
        """Raise `Stopped` if one came."""
        if self.received is not None:
            raise Stopped


@contextlib.contextmanager
def signals_noted() -> Iterator[Signals]:
    """Take note of INT, TERM and HUP, in the place of what they did before."""
    signals = Signals()

    def note(number: int, _frame: FrameType | None) -> None:
        signals.received = number

    before = {number: signal.signal(number, note) for number in ENDING}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def environment(**more: str) -> dict[str, str]:
    """Return the environment for the demo's processes: what would configure ivcapfs is left out."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("IVCAP_")}
    return kept | {"LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1"} | more


@contextlib.contextmanager
def loopback_without_proxy() -> Iterator[None]:
    """Keep the environment's proxies, if any, away from this machine's own addresses, here and in `environment`."""
    before = os.environ.get("no_proxy")
    others = before or os.environ.get("NO_PROXY", "")
    os.environ["no_proxy"] = f"{others},127.0.0.1" if others else "127.0.0.1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["no_proxy"]
        else:
            os.environ["no_proxy"] = before


def start(command: Sequence[str], output: Path, env: Mapping[str, str], folder: Path | None = None) -> Process:
    """Start a process whose standard output and error go to a file.

    Raises:
        OSError: there is no such program, or no such folder to run it in.
    """
    with output.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=folder,
            process_group=0,
        )
    return Process(process, output)


@dataclass(frozen=True)
class Process:
    """A process that was started."""

    popen: subprocess.Popen[bytes]
    file: Path

    def output(self) -> str:
        """Return what it has written so far."""
        return self.file.read_text(encoding="utf-8", errors="replace")

    def code(self) -> int | None:
        """Return its exit code, None while it runs."""
        return self.popen.poll()

    def wait(self, seconds: float, signals: Signals | None = None) -> int | None:
        """Return its exit code, None if it runs still after so many seconds.

        Raises:
            Stopped: a signal came meanwhile; the process is not touched.
        """
        eventually(lambda: self.code() is not None, seconds, signals)
        return self.code()

    def end(self, seconds: float = 10.0) -> None:
        """See that it is gone, with all of its group: ask it to end, and kill what does not."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.code() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.popen.pid, number)
                self.wait(seconds)


def eventually(condition: Callable[[], object], seconds: float, signals: Signals | None = None) -> bool:
    """Return whether a condition comes true within so many seconds.

    Raises:
        Stopped: a signal came meanwhile.
    """
    end = time.monotonic() + seconds
    while not condition():
        if signals is not None:
            signals.check()
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def tagged(tag: str) -> list[int]:
    """Return the processes whose environment has exactly this `NAME=VALUE`, and so were started with it."""
    wanted = os.fsencode(tag)
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def end_tagged(tag: str, *, patience: float, seconds: float) -> bool:
    """See that no process with a tag is left: wait with patience, then ask each to end, then kill it.

    Args:
        seconds: how long each may take to end, once it is told to.

    Returns:
        Whether all ended by themselves.
    """
    if eventually(lambda: not tagged(tag), patience):
        return True
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in tagged(tag):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
        if eventually(lambda: not tagged(tag), seconds):
            break
    return False
