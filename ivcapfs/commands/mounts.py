"""The commands for mounts that are there: ``ivcapfs umount`` and ``ivcapfs list``.

Used by `ivcapfs.cli`. Runs on the main thread; what a command needs is imported when it runs.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from ivcapfs.commands.oneline import one_line_errors


def complete_mounts(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the mount points of what is mounted."""
    from ivcapfs.fs.overview import overview

    return [CompletionItem(row.mountpoint, help=row.source) for row in overview() if row.mountpoint.startswith(begun)]


@click.command()
@click.argument("mountpoint", type=click.Path(path_type=Path), shell_complete=complete_mounts)
@click.option("--now", is_flag=True, help="Do not wait for new files to be sent: the next mount goes on with them.")
@one_line_errors
def umount(mountpoint: Path, now: bool) -> None:
    """Take down the mount at MOUNTPOINT, also one whose process died. Of a busy one it says who holds it.

    New files that were closed are sent first; Ctrl-C ends the wait, and the mount stays.
    """
    from ivcapfs.fs.unmounting import unmount
    from ivcapfs.options import absolute

    where = absolute(mountpoint)
    if not now:
        _await_uploads(where)
    if unmount(where):
        click.echo(f"ivcapfs: the process of the mount at {where} had died; what was left of it is cleared", err=True)


def _await_uploads(mountpoint: Path) -> None:
    """Wait for a mount's uploads; on a terminal a line tells how many are left."""
    from ivcapfs.fs.leaving import await_uploads

    if not sys.stderr.isatty():
        await_uploads(mountpoint, lambda files, left: None)
        return
    from rich.console import Console

    from ivcapfs.statusreport import size

    console = Console(stderr=True, highlight=False)
    with console.status("sending new files …") as line:
        await_uploads(
            mountpoint, lambda files, left: line.update(f"sending new files: {files:,} left, {size(left)} to go")
        )


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON, one object per mount.")
@one_line_errors
def list_mounts(as_json: bool) -> None:
    """Show the mounts that run, and those whose process died. Root sees everybody's."""
    from ivcapfs.fs.overview import overview

    rows = overview()
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    for row in rows:
        about = [row.state]
        if row.pid is not None:
            about.append(f"process {row.pid}")
        if row.started is not None:
            about.append(f"since {datetime.fromtimestamp(row.started, UTC).astimezone():%Y-%m-%d %H:%M}")
        if row.log is not None:
            about.append(f"log: {row.log}")
        if row.state == "stale":
            about.append(f"ivcapfs umount {row.mountpoint}")
        click.echo(f"{row.mountpoint}  {row.source}  ({', '.join(about)})")
