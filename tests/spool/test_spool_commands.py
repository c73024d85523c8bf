"""``ivcapfs uploads`` without any mount: what it prints, on a terminal and elsewhere, what it asks, which ids fit."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from ivcapfs.cli import main
from ivcapfs.commands import uploads
from ivcapfs.spool.entry import State
from tests.spool.leftovers import URL, SpoolWorld

SECONDS = 60
ONE, TWO = "1" * 32, "12" + "3" * 30


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SpoolWorld]:
    """The usual spool of a user, with two files that no mount has."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    world = SpoolWorld(tmp_path / "state" / "ivcapfs" / "spool")
    world.new("a\x1b[31m.txt", b"12345", State.FAILED, reason="the server\nanswered 403", id=ONE, created=1.0)
    world.new("b.txt", b"1", State.INTERRUPTED, reason="who wrote it was killed", id=TWO, created=2.0)
    yield world
    world.leave()


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["uploads", *map(str, words)])


def on_terminal(*words: object, answer: str = "") -> tuple[int, str]:
    """Return exit code and output of a command on a terminal, where something is typed."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ivcapfs", "uploads", *map(str, words)]
    env = os.environ | {"COLUMNS": "150", "TERM": "xterm"}
    try:
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    finally:
        os.close(theirs)
    os.write(ours, answer.encode())
    said = b""
    try:
        while chunk := os.read(ours, 4096):
            said += chunk
    except OSError:  # the other end was closed
        pass
    finally:
        os.close(ours)
        code = process.wait(SECONDS)
    return code, said.decode()


def test_the_list_elsewhere_than_on_a_terminal(world: SpoolWorld) -> None:
    world.leave()
    first, second = call("list").stdout.splitlines()
    assert first.split()[:3] == ["1" * 8, "5", "B"]
    assert r"artifacts/a\x1b[31m.txt" in first, "nothing that a terminal would take for more than text"
    assert r"failed: the server\nanswered 403" in first
    assert first.endswith("no mount")
    assert second.startswith("12333333  1 B ")


def test_the_list_on_a_terminal(world: SpoolWorld) -> None:
    code, said = on_terminal("list")
    header, first, second = [line for line in said.splitlines() if line.strip()]
    assert code == 0
    assert all(word in header for word in ("id", "size", "age", "file", "state", "mount"))
    assert "\x1b[31m" not in first
    assert "12333333" in second and "interrupted: who wrote it was killed" in second and "/mnt/x" in second


def test_the_list_for_programs(world: SpoolWorld) -> None:
    first, second = json.loads(call("list", "--json").stdout)
    assert (first["state"], first["reason"], first["size"]) == ("failed", "the server\nanswered 403", 5)
    assert (second["path"], second["name"], second["mountpoint"]) == ("artifacts/b.txt", "b.txt", "/mnt/x")
    assert (second["deployment"], second["created"], second["collection"]) == (URL, 2.0, None)


def test_another_spool(world: SpoolWorld, tmp_path: Path) -> None:
    assert call("list", "--spool-dir", tmp_path / "none").stdout == "no new file waits in the spool\n"
    assert call("list", "--json", "--spool-dir", tmp_path / "none").stdout == "[]\n"


def test_giving_up_is_asked_on_a_terminal(world: SpoolWorld) -> None:
    world.leave()
    code, said = on_terminal("discard", "11", answer="n\n")
    assert code == 1
    assert "These files are nowhere else. Give them up? [y/N]" in said
    assert "a\\x1b[31m.txt" in said
    assert len(world.files()) == 2
    assert on_terminal("discard", "11", answer="y\n")[0] == 0
    assert [each.entry.id for each in world.files().values()] == [TWO]
    assert on_terminal("discard", "12", "--yes")[0] == 0
    assert world.files() == {}


def test_wrong_usage(world: SpoolWorld, tmp_path: Path) -> None:
    for words, code, said in (
        (("retry",), 2, "give IDs, or --all"),
        (("retry", "11", "--all"), 2, "give IDs, or --all"),
        (("discard",), 2, "ID"),
        (("discard", "1"), 1, "ivcapfs: several new files have ids that begin with 1: give more of it"),
        (("export", "9", tmp_path / "x"), 1, "ivcapfs: no new file has the id 9: ivcapfs uploads list shows them"),
    ):
        result = call(*words)
        assert result.exit_code == code
        assert said in result.stderr
    assert len(world.files()) == 2


def test_ids_are_completed(world: SpoolWorld) -> None:
    command = main.commands["uploads"].commands["retry"]  # type: ignore[attr-defined]
    context = click.Context(command)

    def completed(begun: str) -> list[str]:
        return [item.value for item in uploads.complete_ids(context, command.params[0], begun)]

    assert completed("") == completed("1") == ["1" * 8, "12333333"]
    assert completed("12") == ["12333333"]
    assert completed("1" * 12) == ["1" * 12]
    assert completed("2") == []
    context.params["spool_dir"] = world.root / "none"
    assert completed("") == []
