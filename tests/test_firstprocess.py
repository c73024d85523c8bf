"""Process 1 of a namespace: signals reach the work, its exit code is told, and nothing of the dead is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ivcapfs.firstprocess import stand_aside

ROOT = Path(__file__).parent.parent
NEW = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
BEGIN = "import os, signal, subprocess, sys, time; from ivcapfs.firstprocess import stand_aside; stand_aside()\n"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a namespace of its own")


@contextlib.contextmanager
def first(code: str, *before: str, stdout: int = subprocess.PIPE, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """Run code as a namespace's process 1, which stands aside first; `before` is a program that starts all of it."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [*before, *NEW, sys.executable, "-P", "-c", BEGIN + code]
    started = subprocess.Popen(command, stdout=stdout, env=env, text=True, **more)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def children(pid: int) -> list[int]:
    """Return the processes that a process has, ended ones too."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def soon(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_process_that_is_not_the_first_goes_on() -> None:
    before = os.getpid()
    stand_aside()
    assert os.getpid() == before


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143),
        ("assert os.getpid() != 1 and os.getppid() == 1", 0),
        ("assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())", 0),
        ("assert os.getpgrp() == os.getpid()", 0),
    ],
)
def test_the_exit_code_is_that_of_the_work(code: str, status: int) -> None:
    with first(code) as started:
        started.communicate(timeout=60)
        assert started.returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("handled", [False, True])
def test_signals_reach_the_work(number: signal.Signals, handled: bool) -> None:
    handler = "lambda *_: sys.exit(7)" if handled else "signal.SIG_DFL"
    code = f"signal.signal({int(number)}, {handler}); print('ready', flush=True); time.sleep(60)"
    with first(code) as started:
        assert started.stdout is not None and started.stdout.readline() == "ready\n"
        os.kill(children(started.pid)[0], number)
        assert started.wait(60) == (7 if handled else 128 + number)


def test_orphans_leave_nothing_and_the_work_keeps_its_own_children() -> None:
    code = """
for _ in range(5):
    subprocess.run(["sh", "-c", "sleep 0.1 & exit"], check=True)
own = subprocess.Popen(["sh", "-c", "exit 9"])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("ready", flush=True)
signal.sigwait([signal.SIGUSR1])
sys.exit(own.wait())
"""
    with first(code) as started:
        assert started.stdout is not None and started.stdout.readline() == "ready\n"
        one = children(started.pid)[0]
        soon(lambda: len(children(one)) == 1)
        os.kill(one, signal.SIGUSR1)
        assert started.wait(60) == 9
