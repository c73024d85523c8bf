"""The systemd units of docs/systemd: systemd takes them, and ivcapfs takes what they say."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ivcapfs.cli import main
from ivcapfs.commands.mounthelper import ours
from ivcapfs.options import parse_options

UNITS = Path(__file__).parent.parent / "docs" / "systemd"
SERVICES = [UNITS / "ivcapfs@.service", UNITS / "user" / "ivcapfs@.service"]


def section(path: Path, name: str) -> configparser.SectionProxy:
    """Return a section of a unit."""
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(path)
    return unit[name]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
@pytest.mark.parametrize("path", sorted(UNITS.rglob("*.*")), ids=lambda path: str(path.relative_to(UNITS)))
def test_systemd_takes_the_unit(path: Path, tmp_path: Path) -> None:
    for unit in path.parent.glob("*.*"):
        if unit.is_file():
            text = unit.read_text()
            for program in ("/usr/local/bin/ivcapfs", "%h/.venvs/ivcapfs/bin/ivcapfs"):
                text = text.replace(program, sys.executable)
            (tmp_path / unit.name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / path.name)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in result.stderr.splitlines() if str(tmp_path) in line or path.name in line]
    assert (result.returncode, said) == (0, []), result.stderr


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: str(path.relative_to(UNITS)))
def test_the_service_calls_what_there_is(path: Path) -> None:
    service = section(path, "Service")
    values = {"${OPTIONS}": "allow_other", "${SOURCE}": "https://api.example.org", "${MOUNTPOINT}": "/mnt/ivcap"}
    program, name, *words = [values.get(word, word) for word in shlex.split(service["ExecStart"])]
    assert program.endswith("/ivcapfs")
    context = main.commands[name].make_context(name, words)
    assert context.params["foreground"]
    assert parse_options(context.params["options"]) == {"replace": "", "allow_other": ""}
    assert service["Type"] == "notify"
    namespaces = {"PrivateTmp", "ProtectSystem", "ProtectHome", "PrivateDevices", "PrivateMounts", "ReadOnlyPaths"}
    assert not namespaces & set(service)


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: str(path.relative_to(UNITS)))
def test_the_service_is_stopped_by_an_umount_that_sends_what_was_written(path: Path) -> None:
    service = section(path, "Service")
    program, name, *words = [word.replace("${MOUNTPOINT}", "/mnt/ivcap") for word in shlex.split(service["ExecStop"])]
    assert program.startswith("-"), "somebody may have unmounted it before, and that is no failure"
    assert program.removeprefix("-") == shlex.split(service["ExecStart"])[0]
    context = main.commands[name].make_context(name, words)
    assert (name, context.params) == ("umount", {"mountpoint": Path("/mnt/ivcap"), "now": False})
    assert int(service["TimeoutStopSec"]) >= 120


def test_no_options_at_all_are_taken() -> None:
    assert parse_options(["replace", ""]) == {"replace": ""}


def test_mount_and_automount_are_a_pair() -> None:
    mount, automount = section(UNITS / "mnt-ivcap.mount", "Mount"), section(UNITS / "mnt-ivcap.automount", "Automount")
    assert mount["Where"] == automount["Where"] == "/mnt/ivcap"
    assert set(parse_options(ours(mount["Options"].split(",")))) == {"replace", "allow_other", "token-file"}
