"""Who calls: what /proc tells of a process, without waiting for it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivcapfs.fs import callers as module
from ivcapfs.fs.callers import Caller, Callers


@pytest.fixture
def callers() -> Iterator[Callers]:
    callers = Callers(4)
    yield callers
    callers.close()


def test_a_process_that_goes_on(callers: Callers, tmp_path: Path) -> None:
    path = tmp_path / "open"
    with path.open("wb"):
        assert callers.look(os.getpid(), str(path)) == Caller(holds=True)
    assert callers.look(os.getpid(), str(path)) == Caller()
    assert callers.look(os.getpid(), str(path)).has_closed


def test_what_the_parent_has_open_is_held(callers: Callers, tmp_path: Path) -> None:
    path = tmp_path / "open"
    with path.open("wb"), subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert callers.look(child.pid, str(path)) == Caller(holds=True)
        assert not callers.look(child.pid, str(path)).has_closed
        child.communicate(b"\n")


def test_who_has_ended(callers: Callers) -> None:
    """As good as one that is exiting: a process nobody has waited for."""
    killed = subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    ended = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(3)"])
    for process in (killed, ended):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert callers.look(killed.pid, "") == Caller(is_exiting=True, was_killed=True)
    assert callers.look(ended.pid, "") == Caller(is_exiting=True)
    for process in (killed, ended):
        process.wait()
        assert callers.look(process.pid, "") == Caller()


def test_who_cannot_be_looked_at_now_is_in_execve(callers: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(module, "_has_open", lambda *_: over.wait(60))
    monkeypatch.setattr(module, "_waits", lambda thread: not over.is_set() and thread != threading.get_native_id())
    assert callers.look(os.getpid(), "") == Caller(is_executing=True)
    over.set()


def test_who_takes_long_is_waited_for(callers: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with much to do is no reason to take a close for none."""
    over = threading.Event()
    polls: list[int] = []

    def waits(thread: int) -> bool:
        polls.append(thread)
        if len(polls) == 4:
            over.set()
        return len(polls) % 2 == 0

    monkeypatch.setattr(module, "_has_open", lambda *_: not over.wait(60))
    monkeypatch.setattr(module, "_waits", waits)
    assert callers.look(os.getpid(), "") == Caller()
    assert len(polls) >= 4
