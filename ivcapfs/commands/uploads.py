"""``ivcapfs uploads``: the new files that wait in the spool, or that failed; shown, sent again, given up, copied out.

Used by `ivcapfs.cli`. Runs on the main thread; what a command needs is imported when it runs. What is done is in
`ivcapfs.spool.admin` and `ivcapfs.fs.leftover`.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from ivcapfs.commands.access import access_options, client_of, shown
from ivcapfs.commands.oneline import one_line_errors
from ivcapfs.errors import ConfigError, IvcapfsError

if TYPE_CHECKING:
    from rich.console import Console

    from ivcapfs.config import ClientSettings
    from ivcapfs.fs.leftover import LeftOver
    from ivcapfs.spool.admin import Spooled

Tell = Callable[[str], None]


def complete_ids(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the ids of new files."""
    from ivcapfs.spool.admin import short_ids

    found = _all(context.params.get("spool_dir"))
    short = short_ids(found)
    ids = [(short[each.entry.id], each.entry.path) for each in found if each.entry.id.startswith(begun)]
    return [CompletionItem(begun if begun.startswith(id) else id, help=shown(path)) for id, path in ids]


SPOOL = click.option(
    "--spool-dir", type=click.Path(path_type=Path), is_eager=True, help="The spool, if not the usual one."
)
IDS = click.argument("ids", metavar="ID…", nargs=-1, required=True, shell_complete=complete_ids)


@click.group()
def uploads() -> None:
    """Look after new files that are still to become artifacts.

    They are in the spool of mounts with the option write: waiting, under way, failed or interrupted. An ID may be
    shortened as long as it is unique.
    """


@uploads.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON, one object per file.")
@SPOOL
@one_line_errors
def list_uploads(as_json: bool, spool_dir: Path | None) -> None:
    """Show the new files in the spool, of all deployments and mounts."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ivcapfs.spool.admin import short_ids

    found = _all(spool_dir)
    if as_json:
        click.echo(json.dumps([_as_json(each) for each in found], indent=2))
        return
    if not found:
        click.echo("no new file waits in the spool")
        return
    short, console = short_ids(found), Console(highlight=False)
    rows = [(short[each.entry.id], *_columns(each)) for each in found]
    if not console.is_terminal:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("id", "size", "age", "file", "state", "mount"):
        table.add_column(name, justify="right" if name in ("size", "age") else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


@uploads.command()
@click.argument("ids", metavar="ID…", nargs=-1, shell_complete=complete_ids)
@click.option("--all", "all_", is_flag=True, help="All that failed or were interrupted, and all that no mount has.")
@click.option("--policy", metavar="URN", help="The policy of the artifacts, where no mount sends them.")
@access_options
@SPOOL
@one_line_errors
def retry(
    ids: tuple[str, ...], all_: bool, policy: str | None, source: str | None, options: tuple[str, ...],
    spool_dir: Path | None,
) -> None:  # fmt: skip
    """Send files that failed or were interrupted, and wait until they are artifacts.

    A mount that has a file sends it; Ctrl-C ends the wait, and the mount goes on. What no mount has is sent by this
    command, to the deployment and as the user that it was written for.
    """
    if bool(ids) == all_:
        raise click.UsageError("give IDs, or --all")
    found = _all(spool_dir)
    files = [each for each in found if each.can_be_retried] if all_ else _named(found, ids)
    if not files:
        click.echo("no new file is to be sent again", err=True)
        return
    with _line() as tell, _LeftOvers(source, options, policy) as left_overs:
        refused = _hand_over(files)

        def send(file: Spooled) -> None:
            if file.entry.id in refused:
                raise refused[file.entry.id]
            path = shown(file.entry.path)
            urn = _retry(file, left_overs, lambda state: tell(f"{path}: {state}"))
            click.echo(f"{urn}  {shown(file.entry.name)}")

        done = _each(files, send)
    sys.exit(0 if done else 1)


@uploads.command()
@IDS
@click.option("--yes", is_flag=True, help="Do not ask.")
@SPOOL
@one_line_errors
def discard(ids: tuple[str, ...], yes: bool, spool_dir: Path | None) -> None:
    """Give new files up. Their bytes are gone then: uploads export copies them out before."""
    from ivcapfs.spool import admin

    files = _named(_all(spool_dir), ids)
    if not yes and sys.stdin.isatty():
        for file in files:
            click.echo("  ".join(_columns(file)), err=True)
        click.confirm("These files are nowhere else. Give them up?", abort=True, err=True)
    sys.exit(0 if _each(files, admin.discard) else 1)


@uploads.command()
@click.argument("id", metavar="ID", shell_complete=complete_ids)
@click.argument("dest", metavar="DEST", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@SPOOL
@one_line_errors
def export(id: str, dest: Path, force: bool, spool_dir: Path | None) -> None:
    """Copy the bytes of a new file out of the spool, to DEST or into the folder DEST."""
    from ivcapfs.spool import admin
    from ivcapfs.statusreport import size

    (file,) = _named(_all(spool_dir), (id,))
    with _line() as tell:
        path = admin.export(file, dest, force=force, tell=lambda done: tell(f"{size(done)} of {size(file.size)}"))
    click.echo(str(path))


# -- what they share -------------------------------------------------------------------------------------------------


def _all(spool_dir: Path | None) -> list[Spooled]:
    from ivcapfs.config import spool_folder
    from ivcapfs.spool.admin import spooled

    return spooled(spool_dir or spool_folder())


def _named(found: list[Spooled], ids: tuple[str, ...]) -> list[Spooled]:
    """Return the files of some ids, each once."""
    from ivcapfs.spool.admin import find

    return list({file.entry.id: file for file in (find(found, id) for id in ids)}.values())


def _columns(file: Spooled) -> tuple[str, ...]:
    from ivcapfs.statusreport import duration, size

    age = duration(max(time.time() - file.entry.created, 0.0))
    where = file.mountpoint or ("another machine" if file.is_elsewhere else "no mount")
    return size(file.size), age, shown(file.entry.path), shown(file.state), where


def _as_json(file: Spooled) -> dict[str, object]:
    entry = file.entry
    return {
        "id": entry.id,
        "path": entry.path,
        "name": entry.name,
        "state": str(entry.state) if not entry.is_hidden else "local",
        "reason": entry.reason or None,
        "size": file.size,
        "created": entry.created,
        "collection": entry.collection,
        "deployment": file.owner.url if file.owner else None,
        "mountpoint": file.mountpoint,
    }


def _each(files: list[Spooled], work: Callable[[Spooled], object]) -> bool:
    """Do something with each file, and tell what failed; return whether nothing did."""
    failures = 0
    for file in files:
        try:
            work(file)
        except IvcapfsError as exc:
            failures += 1
            click.echo(f"ivcapfs: {shown(file.entry.path)}: {shown(str(exc))}", err=True)
    return not failures


def _hand_over(files: list[Spooled]) -> dict[str, IvcapfsError]:
    """Have the mounts begin, all at the same time; return what they refused, by the ids of the files."""
    from ivcapfs.spool.admin import ask_retry

    refused = {}
    for file in files:
        if file.is_held and file.can_be_retried:
            try:
                ask_retry(file)
            except IvcapfsError as exc:
                refused[file.entry.id] = exc
    return refused


def _retry(file: Spooled, left_overs: _LeftOvers, tell: Tell) -> str:
    """Return the URN of what a file has become."""
    from ivcapfs.spool.admin import await_outcome

    if file.entry.is_hidden:
        raise ConfigError("names that begin with a dot stay local: rename it in a mount, or export it")
    return await_outcome(file, tell) if file.is_held else left_overs.of(file).send(file, tell)


class _LeftOvers:
    """Who sends what no mount has, one for each deployment and user."""

    def __init__(self, source: str | None, options: tuple[str, ...], policy: str | None) -> None:
        self._source = source
        self._options = options
        self._policy = policy
        self._made: dict[tuple[str, str] | None, LeftOver] = {}

    def of(self, file: Spooled) -> LeftOver:
        """Return who sends a file."""
        from ivcapfs.client import connect
        from ivcapfs.config import catalog_folder
        from ivcapfs.fs.leftover import LeftOver

        key = (file.owner.url, file.owner.source) if file.owner else None
        if key not in self._made:
            settings = self._settings(file)
            patience = settings.limits.total + settings.limits.idle
            self._made[key] = LeftOver(
                connect(settings), policy=self._policy, catalog=catalog_folder(), patience=patience
            )
        return self._made[key]

    def _settings(self, file: Spooled) -> ClientSettings:
        """Return how to reach the deployment that a file is for: as the mount did, as one would now, by its address."""
        owner = file.owner
        if self._source is not None or owner is None:
            return client_of(self._source, self._options)
        for word in {owner.source or None: None, None: None}:
            with contextlib.suppress(ConfigError):
                found = client_of(word, self._options)
                if found.url == owner.url:
                    return found
        return client_of(owner.url, self._options)

    def __enter__(self) -> _LeftOvers:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._made.values():
            each.close()


@contextlib.contextmanager
def _line() -> Iterator[Tell]:
    """Show one line of progress, on a terminal."""
    from rich.console import Console
    from rich.text import Text

    console: Console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status("") as line:
        yield lambda text: line.update(Text(text))
