"""The manual page ivcapfs(1), made of the same texts as ``--help``.

Used by ``scripts/man``, which writes it to docs/ivcapfs.1, and by a test that it is current. Pure. The page is in
man(7)'s language, and carries no date, so that it is the same whenever it is made.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from ivcapfs import __version__
from ivcapfs.options import OPTIONS

FILES = {
    "/etc/ivcapfs/token": "the token (mode 0600) of mounts by mount(8) whose source is an address",
    "/run/ivcapfs, $XDG_RUNTIME_DIR/ivcapfs": "a file for each mount that runs; ivcapfs list reads them",
    "~/.local/state/ivcapfs, /var/log/ivcapfs": "logs of background mounts, where there is neither journal nor syslog",
}
SIGNALS = {
    "SIGTERM, SIGINT, SIGHUP": "unmount, and end",
    "SIGUSR1": "switch debug on or off",
}
STATUSES = {"0": "done", "1": "could not; one line on standard error says why", "2": "wrong usage", "130": "Ctrl-C"}
EXAMPLES = (
    "ivcapfs mount https://api.example.org ~/ivcap",
    "ivcapfs umount ~/ivcap",
    "ivcapfs doctor https://api.example.org",
)


def page(group: click.Group) -> str:
    """Return the manual page of a command and its subcommands."""
    lines = [
        '.\\" made by scripts/man from the texts of --help: not to be edited',
        f'.TH IVCAPFS 1 "" "ivcapfs {__version__}" "User Commands"',
        ".SH NAME",
        "ivcapfs \\- mount the artifacts of an IVCAP deployment as files",
        ".SH SYNOPSIS",
        ".B ivcapfs",
        "COMMAND [OPTION]... [ARGUMENT]...",
        ".SH DESCRIPTION",
        *_paragraphs(group.help or ""),
        ".SH COMMANDS",
    ]
    for words, command in commands(group, ("ivcapfs",)):
        lines += _command(words, command)
    lines += [".SH MOUNT OPTIONS", *_terms(OPTIONS)]
    for heading, terms in (("SIGNALS", SIGNALS), ("FILES", FILES), ("EXIT STATUS", STATUSES)):
        lines += [f".SH {heading}", *_terms(terms)]
    lines += [".SH EXAMPLES", ".nf", *map(_plain, EXAMPLES), ".fi"]
    lines += [".SH SEE ALSO", ".BR fusermount3 (1),", ".BR fstab (5),", ".BR mount (8)"]
    return "\n".join(lines) + "\n"


def commands(group: click.Group, before: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield each command that does something, with the words that call it, in the order of the alphabet."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))
        elif not command.hidden:
            yield (*before, name), command


def _command(words: tuple[str, ...], command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=" ".join(words))
    yield f".SS {_plain(' '.join((*words, *command.collect_usage_pieces(context))))}"
    yield from _paragraphs(inspect.cleandoc(command.help or ""))
    records = (each.get_help_record(context) for each in command.params if isinstance(each, click.Option))
    yield from _terms(dict(record for record in records if record is not None))


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the lines of a help text; a paragraph that begins with click's mark stays as it is."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        kept = paragraph.startswith("\b\n")
        if number:
            yield ".PP"
        if kept:
            yield from (".nf", *map(_plain, paragraph.splitlines()[1:]), ".fi")
        else:
            yield _plain(" ".join(paragraph.split()))


def _terms(terms: dict[str, str]) -> Iterator[str]:
    for term, text in terms.items():
        yield from (".TP", f"\\fB{_plain(term)}\\fR", _plain(text))


def _plain(text: str) -> str:
    """Return a text in which nothing means anything to man(7)."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...").replace("~", "\\(ti")
    return "\\&" + text if text.startswith((".", "'")) else text
