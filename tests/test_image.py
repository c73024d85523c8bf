"""The Dockerfile, as far as it can be looked at without building it; scripts/image-test builds it and runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import ivcapfs
from ivcapfs.cli import main
from ivcapfs.options import parse_options

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ENTRY = ROOT / "image" / "ivcapfs"
UNKNOWN = 4711


def instruction(name: str) -> list[str]:
    """Return what stands after each instruction of a name."""
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.M)


def test_the_images_own_command_is_taken() -> None:
    (entry,), (command,) = instruction("ENTRYPOINT"), instruction("CMD")
    assert json.loads(entry) == ["ivcapfs"]
    name, *words = json.loads(command)
    parameters = main.commands[name].make_context(name, words).params
    assert parameters["foreground"]  # or the container would end at once
    assert parse_options(parameters["options"]) == {"allow_other": ""}
    assert f"install -d -m 777 {parameters['words'][-1]} " in DOCKERFILE


def test_the_label_is_of_this_version() -> None:
    assert f"VERSION={ivcapfs.__version__}" in instruction("ARG")


def test_what_is_copied_is_let_in_and_nothing_else() -> None:
    copied = {word.split("/")[0] for line in instruction("COPY") if "--from" not in line for word in line.split()[:-1]}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines and copied == {line[1:] for line in lines if line.startswith("!")}


@pytest.fixture
def entry() -> Iterator[Path]:
    """The entry point, with its paths in a folder that all may enter, and a program that only shows its words."""
    with tempfile.TemporaryDirectory(prefix="ivcapfs-test-") as folder:
        text = ENTRY.read_text().replace("/opt/ivcapfs/bin/ivcapfs", f"{folder}/program")
        script, program = Path(folder, "ivcapfs"), Path(folder, "program")
        script.write_text(text.replace("/var/lib/extrausers", folder))
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$$" "$@"\n')
        for path in (Path(folder), script, program):
            path.chmod(0o755)
        yield script


def test_a_user_with_a_name_is_left_alone(entry: Path) -> None:
    started = subprocess.Popen([entry, "mount", "two words"], stdout=subprocess.PIPE, text=True)
    said = started.communicate(timeout=60)[0].splitlines()
    assert said == [str(started.pid), "mount", "two words"]  # by the same process
    assert not (entry.parent / "passwd").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")
@pytest.mark.parametrize("is_writable", [True, False])
def test_a_user_without_a_name_gets_one(entry: Path, is_writable: bool) -> None:
    names = entry.parent / "passwd"
    names.touch()
    names.chmod(0o666 if is_writable else 0o644)
    result = subprocess.run(
        [entry, "--version"], user=UNKNOWN, group=UNKNOWN, extra_groups=[], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[1:] == ["--version"] and result.stderr == ""
    line = f"user{UNKNOWN}:x:{UNKNOWN}:{UNKNOWN}::/tmp:/usr/sbin/nologin\n"
    assert names.read_text() == (line if is_writable else "")
