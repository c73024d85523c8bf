"""What is made of the commands' own texts: the manual page and the shells' completions; and mount(8)'s words."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ivcapfs.cli import main
from ivcapfs.commands import helperlink, manual, mounthelper
from ivcapfs.errors import ConfigError
from ivcapfs.options import OPTIONS
from tests.fakes import wait_until
from tests.loginworld import write_contexts

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


class Home:
    """A user who has `ivcapfs` on the path and contexts, and has put the completion script where the shell looks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = folder / "ivcapfs"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m ivcapfs "$@"\n')
        program.chmod(0o755)
        write_contexts(folder / "ivcap-cli" / "config.yaml", "https://gov.example", "a.b.c", "r")
        (folder / "here" / "gone").mkdir(parents=True)
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")} | {
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "PATH": f"{folder}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
        }

    def install(self, shell: str, name: str) -> None:
        """Put the shell's script into a file below the home folder."""
        command = [self.folder / "ivcapfs", "completion", shell]
        script = subprocess.run(command, env=self.env, capture_output=True, text=True, check=True).stdout
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(script)

    def bash(self, line: str) -> set[str]:
        """Return what bash offers for the last word of a line."""
        self.install("bash", "script")
        words = line.split(" ")
        script = (
            f'source {self.folder}/script; COMP_WORDS=("$@"); COMP_CWORD={len(words) - 1}; '
            'compopt() { :; }; _ivcapfs_completion ivcapfs; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        result = subprocess.run(
            ["bash", "--norc", "-c", script, "bash", *words], env=self.env, capture_output=True, text=True, check=True
        )
        return set(result.stdout.splitlines())

    def fish(self, line: str) -> set[str]:
        """Return what fish offers, whose `complete -C` is what TAB shows."""
        self.install("fish", "fish/completions/ivcapfs.fish")
        command = ["fish", "-c", f"complete -C '{line}'"]
        result = subprocess.run(
            command, env=self.env, cwd=self.folder / "here", capture_output=True, text=True, check=True
        )
        assert result.stderr == ""
        return {found.partition("\t")[0] for found in result.stdout.splitlines()}

    def zsh(self, line: str) -> str:
        """Return the line as it is after TAB, in a terminal: zsh completes nowhere else."""
        self.install("zsh", "functions/_ivcapfs")
        (self.folder / ".zshrc").write_text(
            f"""
unset zle_bracketed_paste
fpath=({self.folder}/functions $fpath); autoload -Uz compinit; compinit -u -D
report() {{ print -r -- "$BUFFER" >{self.folder}/line.new; mv {self.folder}/line.new {self.folder}/line; exit }}
zle -N report; bindkey '^X' report; bindkey '^I' expand-or-complete
zle-line-init() {{ print >{self.folder}/begun }}; zle -N zle-line-init
"""
        )
        for name in ("line", "begun"):
            (self.folder / name).unlink(missing_ok=True)
        terminal, inner = os.openpty()
        started = subprocess.Popen(
            ["zsh", "-i"],
            env=self.env | {"ZDOTDIR": str(self.folder), "TERM": "dumb"},
            cwd=self.folder / "here",
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)
        shown = threading.Thread(target=drain, args=(terminal,))
        shown.start()
        try:
            wait_until((self.folder / "begun").exists)
            os.write(terminal, f"{line}\t\x18".encode())
            wait_until((self.folder / "line").exists)
        finally:
            started.kill()
            started.wait()
            shown.join()
            os.close(terminal)
        return (self.folder / "line").read_text().rstrip("\n")


def drain(terminal: int) -> None:
    """Read what a terminal shows until nobody writes there any more."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 4096):
            pass


needs = {
    shell: pytest.mark.skipif(shutil.which(shell) is None, reason=f"there is no {shell}") for shell in ("zsh", "fish")
}

OFFERED = [
    ("ivcapfs mo", {"mount"}),
    ("ivcapfs mount go", {"gov"}),
    ("ivcapfs doctor oth", {"other"}),
    ("ivcapfs mount -o debug,allow_o", {"debug,allow_other"}),
]


@pytest.mark.parametrize(("line", "offered"), OFFERED)
def test_bash_completes_with_the_script(line: str, offered: set[str], tmp_path: Path) -> None:
    assert Home(tmp_path).bash(line) == offered


@needs["fish"]
@pytest.mark.parametrize(("line", "offered"), [*OFFERED, ("ivcapfs mount gov go", {"gone/"})])
def test_fish_completes_with_the_script(line: str, offered: set[str], tmp_path: Path) -> None:
    found = Home(tmp_path).fish(line)
    assert found - {"gone/"} == offered - {"gone/"} and offered <= found


@needs["zsh"]
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("ivcapfs mo", "ivcapfs mount "),
        ("ivcapfs mount gov", "ivcapfs mount gov "),
        ("ivcapfs mount oth", "ivcapfs mount other "),
        ("ivcapfs mount gov go", "ivcapfs mount gov gone/"),
        ("ivcapfs doctor go", "ivcapfs doctor gov "),
        ("ivcapfs mount -o debug,allow_o", "ivcapfs mount -o debug,allow_other "),
    ],
)
def test_zsh_completes_with_the_script(line: str, completed: str, tmp_path: Path) -> None:
    assert Home(tmp_path).zsh(line) == completed


def test_a_file_of_contexts_that_cannot_be_read_offers_none(tmp_path: Path) -> None:
    home = Home(tmp_path)
    (tmp_path / "ivcap-cli" / "config.yaml").write_text("contexts: [")
    assert home.bash("ivcapfs doctor go") == {""}


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
    assert "exec '/opt/a b/python' -I -c \"" in helperlink.script("/opt/a b/python")
