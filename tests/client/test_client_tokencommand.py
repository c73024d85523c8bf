"""Asking a program for a token: no shell, bounded in time and output, and nothing that it says gives a token away."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivcapfs.client import tokencommand
from ivcapfs.client.tokencommand import ask
from ivcapfs.errors import Closing, CredentialError

SECRET = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_the_last_line_is_the_token() -> None:
    assert ask(python(f"print('a notice'); print(' {SECRET} '); print()"), time.sleep).reveal() == SECRET


def test_there_is_no_shell() -> None:
    assert ask(("echo", "$HOME;x"), time.sleep).reveal() == "$HOME;x"


def test_it_gets_no_input_and_none_of_our_files(tmp_path: Path) -> None:
    held = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        code = "import os, sys; print(repr(sys.stdin.read()) + ','.join(sorted(os.listdir('/proc/self/fd'))))"
        assert ask(python(code), time.sleep).reveal() == "''0,1,2,3"
    finally:
        os.close(held)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("/does/not/exist",), "exist cannot be run: No such file"),
        (("/etc/passwd",), "passwd cannot be run: Permission denied"),
        (python("import sys; sys.exit('not logged in')"), r"failed \(1\): not logged in"),
        (python("pass"), "must print a token"),
        (python("print('NOT AUTHORISED')"), "must print a token"),
        (python("print('žeton')"), "must print a token"),
        (python("import os; os.write(1, b'\\xff\\x00')"), "must print a token"),
        (python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), r"failed \(-9\)"),
        (python("print('x' * 1_000_000); import time; time.sleep(60)"), "too much"),
        (python("import sys; print('x' * 1_000_000, file=sys.stderr); import time; time.sleep(60)"), "too much"),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(command: tuple[str, ...], words: str) -> None:
    with pytest.raises(CredentialError, match=words) as caught:
        ask(command, time.sleep)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("code", ["import sys; sys.exit('bad token {0}')", "print('{0} {0}')", "print('token={0}', 1)"])
def test_no_message_has_a_token(code: str) -> None:
    with pytest.raises(CredentialError) as caught:
        ask(python(code.format(SECRET)), time.sleep)
    assert "eyJ" not in str(caught.value)


@pytest.mark.parametrize("ignores", [False, True])
def test_a_program_that_hangs_is_ended_with_what_it_started(
    ignores: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokencommand, "_GRACE", 0.3)
    pids = tmp_path / "pids"
    code = f"""
import os, signal, subprocess, sys, time
{"signal.signal(signal.SIGTERM, signal.SIG_IGN)" if ignores else ""}
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open({str(pids)!r} + ".new", "w").write(f"{{os.getpid()}} {{child.pid}}")
os.rename({str(pids)!r} + ".new", {str(pids)!r})
time.sleep(60)
"""

    def pause(seconds: float) -> None:
        time.sleep(seconds)
        if pids.exists():
            raise Closing("closed")

    with pytest.raises(Closing):
        ask(python(code), pause)
    for pid in pids.read_text().split():
        status = Path(f"/proc/{pid}/stat")
        end = time.monotonic() + 20
        while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < end
            time.sleep(0.01)


def test_the_bound_in_time() -> None:
    with pytest.raises(tokencommand.TooSlow, match=r"did not end within 0.2 s"):
        ask(("sleep", "60"), time.sleep, seconds=0.2)


@pytest.fixture
def blocked() -> Iterator[None]:
    """Every signal blocked, as those that end a mount are in its threads."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.usefixtures("blocked")
def test_no_signal_is_blocked_or_ignored_in_the_program() -> None:
    code = "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('Sig{}')))"
    assert int(ask(("env", *python(code.format("Blk"))), time.sleep).reveal(), 16) == 0
    words = ("sh", "-c", "sed -n 's/^SigIgn:.//p' /proc/self/status")
    ignored = int(ask(words, time.sleep).reveal(), 16)
    assert not any(ignored & 1 << (number - 1) for number in (signal.SIGTERM, signal.SIGPIPE))
    assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())  # ours is as it was


@pytest.mark.usefixtures("blocked")
def test_a_program_that_is_ended_may_finish_what_it_writes(tmp_path: Path) -> None:
    code = f"""
import signal, sys, time
def finish(*_):
    open({str(tmp_path / "finished")!r}, "w").close()
    sys.exit()
signal.signal(signal.SIGTERM, finish)
open({str(tmp_path / "begun")!r}, "w").close()
time.sleep(60)
"""

    def pause(seconds: float) -> None:
        time.sleep(seconds)
        if (tmp_path / "begun").exists():
            raise Closing("closed")

    with pytest.raises(Closing):
        ask(python(code), pause)
    assert (tmp_path / "finished").exists()


