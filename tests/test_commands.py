"""What is made of the commands' own texts: the manual page and the shells' completions; and mount(8)'s words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ivcapfs.cli import main
from ivcapfs.commands import helperlink, manual, mounthelper
from ivcapfs.errors import ConfigError
from ivcapfs.options import OPTIONS

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "ivcapfs.1"


def test_the_manual_page_is_current() -> None:
    assert PAGE.read_text() == manual.page(main), "run scripts/man"


def test_the_manual_page_has_every_command_and_option() -> None:
    text = PAGE.read_text().replace("\\-", "-")
    for words, command in manual.commands(main, ("ivcapfs",)):
        assert f".SS {' '.join(words)} " in text
        assert all(name in text for parameter in command.params for name in parameter.opts if name.startswith("-"))
    assert all(f"\\fB{option}\\fR\n" in text for option in OPTIONS)


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff")
def test_the_manual_page_is_taken_by_man() -> None:
    command = ["groff", "-man", "-Tutf8", "-ww", "-z", str(PAGE)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == ""


def test_a_line_that_would_mean_something_to_man_is_taken_as_it_is() -> None:
    assert manual._plain(".SH a\\b") == "\\&.SH a\\eb"
    assert manual._plain("'quoted'") == "\\&'quoted'"


def complete(*words: str) -> list[str]:
    """Return what a shell is offered for the last word."""
    env = os.environ | {"COMP_WORDS": " ".join(("ivcapfs", *words)), "COMP_CWORD": str(len(words))}
    env["_IVCAPFS_COMPLETE"] = "bash_complete"
    command = [sys.executable, "-c", "from ivcapfs.cli import main; main(prog_name='ivcapfs')"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()


def test_commands_options_and_folders_are_completed() -> None:
    assert complete("um") == ["plain,umount"]
    assert complete("mount", "-o", "refr") == ["plain,refresh="]
    assert complete("mount", "-o", "debug,allow_o") == ["plain,debug,allow_other"]
    assert complete("mount", "x") == ["dir,x"]
    assert complete("completion", "z") == ["plain,zsh"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_take_their_script(shell: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ivcapfs", "completion", shell]
    script = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"_IVCAPFS_COMPLETE={shell}_complete" in script
    (tmp_path / "script").write_text(script)
    if shutil.which(shell):
        subprocess.run([shell, "-n", tmp_path / "script"], check=True)


def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    program = tmp_path / "ivcapfs"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ivcapfs "$@"\n')
    program.chmod(0o755)
    script = (
        f"PATH={tmp_path}:$PATH; source <(ivcapfs completion bash); COMP_WORDS=(ivcapfs docto); COMP_CWORD=1; "
        '_ivcapfs_completion ivcapfs; echo "${COMPREPLY[@]}"'
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True)
    assert result.stdout == "doctor\n"


@pytest.mark.parametrize(
    "words",
    [
        ("https://h", "/mnt", "-o", "rw,refresh=3,noauto"),
        ("-o", "refresh=3", "https://h", "/mnt"),
        ("https://h", "-o", "refresh=3,_netdev,x-systemd.automount,user=ada,comment=a", "/mnt"),
        ("-t", "ivcapfs", "-v", "-n", "https://h", "/mnt", "-o", "refresh=3", "-o", "exec,suid,dev"),
    ],
)
def test_what_mount8_says_is_understood_in_any_order(words: tuple[str, ...]) -> None:
    call = mounthelper.parse(words)
    assert (call.source, call.mountpoint, call.options) == ("https://h", "/mnt", ("refresh=3",))


def test_flags_of_mount8() -> None:
    call = mounthelper.parse(["a", "b", "-sfnv", "-N", "/proc/1/ns/mnt"])
    assert (call.sloppy, call.fake, call.verbose, call.namespace) == (True, True, True, "/proc/1/ns/mnt")


def test_a_remount_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be changed"):
        mounthelper.parse(["a", "b", "-o", "remount,ro"])


def test_the_helper_warns_of_a_python_that_others_can_change(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.touch(mode=0o755)
    os.chmod(tmp_path, 0o777)
    assert helperlink.exposed(program) == [tmp_path]
    os.chmod(tmp_path, 0o755)
    assert helperlink.exposed(program) == ([] if os.geteuid() == 0 else [program])


def test_the_helpers_script_quotes_its_python() -> None:
    assert "exec '/opt/a b/python' -I -m ivcapfs.commands.mounthelper \"$@\"\n" in helperlink.script("/opt/a b/python")
