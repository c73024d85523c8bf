"""``ivcapfs put`` and ``ivcapfs get`` as they are called: what they print, exit codes, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.transfers.transferworld import MIB, TransferWorld

COMMAND = [sys.executable, "-m", "ivcapfs"]
SECONDS = 60


class Caller:
    """Calls ivcapfs with a state folder of its own."""

    def __init__(self, world: TransferWorld) -> None:
        self.world = world
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("IVCAP_")}
        self.env |= {"XDG_STATE_HOME": str(world.folder / "xdg"), "IVCAP_URL": world.platform.url}

    def __call__(self, *words: object) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *map(str, words)]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=SECONDS, check=False)

    def interrupted(self, at: threading.Event, *words: object) -> tuple[int, str]:
        """Return exit code and standard error of a command that gets Ctrl-C once something has happened."""
        command = [*COMMAND, *map(str, words)]
        process = subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert at.wait(SECONDS)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=SECONDS)
            return process.returncode, said
        finally:
            process.kill()
            process.communicate()


@pytest.fixture
def call(world: TransferWorld) -> Caller:
    return Caller(world)


def test_there_and_back(call: Caller, world: TransferWorld, tmp_path: Path) -> None:
    files = {"survey/a.txt": b"a", "survey/raw/b.bin": os.urandom(9 * MIB), "survey/empty": b""}
    for name, content in files.items():
        world.file(name, content)
    result = call("put", "-r", world.folder / "files" / "survey")
    assert (result.returncode, result.stderr) == (0, "")
    printed = dict(line.split("  ") for line in result.stdout.splitlines())
    assert sorted(printed.values()) == sorted(files)
    assert sorted(printed) == sorted(world.artifacts())
    (tmp_path / "back").mkdir()
    result = call("get", "-r", "-j", 2, "survey", tmp_path / "back")
    assert (result.returncode, result.stderr) == (0, "")
    assert sorted(result.stdout.splitlines()) == sorted(str(tmp_path / "back" / name) for name in files)
    assert {name: (tmp_path / "back" / name).read_bytes() for name in files} == files
    again = call("put", "-r", world.folder / "files" / "survey")
    assert not {line.split()[0] for line in again.stdout.splitlines()} & set(printed), "new ones, as asked for"


def test_what_fails_is_told_and_the_rest_is_done(call: Caller, world: TransferWorld, tmp_path: Path) -> None:
    paths = [world.file(name, name.encode()) for name in "abc"]
    refused = iter([True])
    world.refuse = lambda request: request == "POST /1/artifacts" and next(refused, False)
    first = call("put", "-j", 1, *paths)
    assert first.returncode == 1
    assert first.stderr == f"ivcapfs: {paths[0]}: creating an artifact: the server answered 403\n"
    second = call("put", "-j", 1, *paths)
    assert second.returncode == 0
    assert len(world.artifacts()) == 3, "what was sent the first time is not sent again"
    assert set(first.stdout.splitlines()) < set(second.stdout.splitlines())
    (tmp_path / "b").write_text("mine")
    result = call("get", "a", "b", tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith(f"ivcapfs: b: {tmp_path / 'b'} is there already")
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("a", "mine")


def test_wrong_usage(call: Caller, tmp_path: Path) -> None:
    for words, code, said in (
        (("put", tmp_path / "none"), 1, "does not exist"),
        (("put", tmp_path), 1, "is a folder: -r"),
        (("get", "none", tmp_path), 1, "no artifact is called none"),
        (("get", "none", tmp_path / "none"), 1, "is no folder: make it first"),
        (("put", "-j", "0", tmp_path), 2, "0"),
        (("put", tmp_path, "-o", "token-file=/none"), 1, "is a folder"),
    ):
        result = call(*words)
        assert (result.returncode, said in result.stderr, result.stdout) == (code, True, ""), result.stderr


def gated(world: TransferWorld, kind: str, number: int) -> tuple[threading.Event, threading.Event]:
    """Hold the platform up at the n-th request of a kind; return what tells of that, and what lets it go on."""
    reached, released = threading.Event(), threading.Event()
    seen = 0

    def hold(request: str) -> bool:
        nonlocal seen
        seen += request.startswith(kind)
        if seen == number and not reached.is_set():
            reached.set()
            released.wait(SECONDS)
        return False

    world.refuse = hold
    return reached, released


@pytest.mark.parametrize("number", [1, 2])
def test_put_goes_on_after_ctrl_c(call: Caller, world: TransferWorld, number: int) -> None:
    content = os.urandom(20 * MIB)
    path = world.file("big", content)
    reached, released = gated(world, "PATCH", number)
    try:
        code, said = call.interrupted(reached, "put", path)
    finally:
        released.set()
    assert (code, said) == (130, "ivcapfs: interrupted: the same command goes on from there\n")
    world.refuse = lambda request: False
    result = call("put", path)
    assert (result.returncode, result.stderr) == (0, "")
    (urn,) = world.artifacts()
    assert world.content(urn) == content
    assert result.stdout == f"{urn}  big\n"


def test_get_goes_on_after_ctrl_c(call: Caller, world: TransferWorld, tmp_path: Path) -> None:
    content = os.urandom(40 * MIB)
    world.platform.store.add_artifact(name="big", content=content)
    reached, released = gated(world, "GET /1/artifacts/", 4)
    try:
        code, said = call.interrupted(reached, "get", "-j", 1, "big", tmp_path)
    finally:
        released.set()
    assert (code, said) == (130, "ivcapfs: interrupted: the same command goes on from there\n")
    assert (tmp_path / "big.part").exists() and not (tmp_path / "big").exists()
    world.refuse = lambda request: False
    world.platform.reset_counters()
    assert call("get", "big", tmp_path).returncode == 0
    assert (tmp_path / "big").read_bytes() == content
    assert not (tmp_path / "big.part").exists()
    sent = world.platform.counters()["blob_bytes_sent"]
    assert isinstance(sent, int) and sent < len(content), "what was here is not fetched again"


def test_memory_is_bounded(call: Caller, world: TransferWorld, tmp_path: Path) -> None:
    size = 240 * MIB
    path = world.file("big", b"")
    os.truncate(path, size)
    script = (  # not getrusage(2): what that tells begins with the memory of whoever started the process
        "import re, sys; from ivcapfs.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr)"
    )
    for words in (("put", str(path)), ("get", "big", str(tmp_path))):
        command = [sys.executable, "-c", script, *words]
        result = subprocess.run(command, env=call.env, capture_output=True, text=True, timeout=110, check=False)
        assert result.returncode == 0, result.stderr
        assert int(result.stderr.split()[-1]) < 120 * 1024
    assert (tmp_path / "big").stat().st_size == size
