"""Child processes: run to their end within a time limit, or kept in the background; what they cost.

Used by every module that starts a program. For one thread. Each child has a session of its own, which is ended as a
whole. Costs come from wait4(2) for what has ended, and from /proc/PID/stat and status for what still runs
(proc_pid_stat(5)).
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_GRACE = 5.0  # seconds between being asked to end and being killed


class StepFailed(Exception):
    """A peer, or a part of the world, could not do its step; the message is what the table shows."""


class Stopped(BaseException):
    """SIGTERM or SIGHUP came: clean up and go."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process and its children have used: CPU in seconds, the peak of their memory in bytes."""

    cpu: float
    memory: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that ended well: how long it took, the CPU seconds it used, what it printed.

    Not its memory: what wait4(2) says of that includes ours, from before the program was loaded.
    """

    seconds: float
    cpu: float
    output: str
    errors: str


@contextlib.contextmanager
def stopping_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into `Stopped`, raised in the main thread, as SIGINT is into KeyboardInterrupt."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Stopped(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a child: ours, in plain C, without what would lead a peer elsewhere."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("IVCAP_", "RCLONE_", "FUSE_LIBRARY_")) and not name.lower().endswith("_proxy")
    }
    return {**kept, "LC_ALL": "C.UTF-8", **(extra or {})}


def run(
    command: Sequence[str | Path],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
) -> Finished:
    """Run one program to its end.

    Raises:
        StepFailed: it could not be started, took too long, or failed.
    """
    return run_together([command], timeout=timeout, env=env)[0]


def run_together(
    commands: Sequence[Sequence[str | Path]],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
) -> list[Finished]:
    """Run programs at the same time; each one's seconds count from the start of the first.

    Raises:
        StepFailed: one of them could not be started, took too long, or failed; the others were ended.
    """
    with contextlib.ExitStack() as stack:
        children: list[tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]] = []
        started = time.perf_counter()
        for command in commands:
            out: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
            err: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
            child = _start(command, out, err, env)
            stack.callback(_end, child, grace=0.0)
            children.append((child, out, err))
        finished = []
        for (child, out, err), command in zip(children, commands, strict=True):
            if not _ends(child.pid, started + timeout - time.perf_counter()):
                raise StepFailed(f"timed out after {timeout:g} s")
            seconds = time.perf_counter() - started
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)  # reaped here: Popen need not wait for it
            output, errors = (_text(stream) for stream in (out, err))
            if child.returncode:
                raise StepFailed(_reason(command, child.returncode, errors or output))
            finished.append(Finished(seconds, usage.ru_utime + usage.ru_stime, output, errors))
        return finished


class Daemon:
    """A program in the background, in a session of its own.

    Args:
        command: the program; it must stay in the foreground.
        log: where its output goes.

    Raises:
        StepFailed: it could not be started.
    """

    def __init__(self, command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None) -> None:
        self._log = log
        self.name = Path(str(command[0])).name
        with log.open("wb") as output:
            self._process = _start([*_dying_with_us(), *command], output, output, env)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def cost(self) -> Cost:
        """Return what it and its descendants have used so far."""
        return cost_of(self.pid)

    def check(self) -> None:
        """See that it still runs.

        Raises:
            StepFailed: it has ended; the message has the end of its log.
        """
        if self._process.poll() is not None:
            raise StepFailed(_reason([self.name], self._process.returncode, self.log()))

    def log(self) -> str:
        """Return what it has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait(self, timeout: float) -> bool:
        """Wait for its end; tell whether it came."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        return self._process.returncode is not None

    def kill(self) -> None:
        """End it and what it started at once."""
        _end(self._process, grace=0.0)

    def stop(self) -> None:
        """End it and what it started, by force if need be."""
        _end(self._process, grace=_GRACE)


def cost_of(pid: int) -> Cost:
    """Return what a running process has used, with its descendants, running or reaped."""
    cpu, memory = 0.0, 0
    for one in _tree(pid):
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = (PROC / str(one) / "stat").read_text().rpartition(")")[2].split()
            cpu += sum(int(field) for field in fields[11:15]) / _TICKS  # utime, stime, cutime, cstime
            memory += peak_memory(one)
    return Cost(cpu, memory)


def peak_memory(pid: int) -> int:
    """Return the most memory, in bytes, that a running process has had at once; 0 for one that has just ended."""
    lines = (PROC / str(pid) / "status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _tree(root: int) -> list[int]:
    """Return a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _start(
    command: Sequence[str | Path], out: IO[bytes], err: IO[bytes], env: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=clean_environment(env),
            cwd="/",
            start_new_session=True,
        )
    except OSError as exc:
        raise StepFailed(f"{command[0]} could not be started: {exc.strerror}") from exc


def _dying_with_us() -> tuple[str, ...]:
    """Return the words before a command that end it even when we are killed (setpriv(1))."""
    return ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()


def _ends(pid: int, within: float) -> bool:
    """Wait for a child's end without reaping it; tell whether it came within so many seconds."""
    descriptor = os.pidfd_open(pid)
    try:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        return bool(waiting.poll(max(within, 0.0) * 1000))
    finally:
        os.close(descriptor)


def _end(child: subprocess.Popen[bytes], *, grace: float) -> None:
    """End a child and its session: politely for so long, then by force.

    A reader that waits for a mount can be killed only once the mount is gone: it is left, and reaped later.
    """
    if child.poll() is None and grace:
        _signal(child, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace)
    if child.returncode is None:
        _signal(child, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE)


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", "replace")


def _reason(command: Sequence[str | Path], code: int, said: str) -> str:
    """Return one line that says why a program failed."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"{Path(str(command[0])).name}: {ended}" + (f", {lines[-1][:200]}" if lines else "")
