"""The benchmark's command: options, the run, and its outputs.

Used by `bench.__main__`, started by `scripts/bench`. Exit codes: 0 done (also when a peer failed), 1 could not, 2 wrong
usage, 130 stopped. One thread.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

import click
from rich.console import Console

from bench import machine, markdown, svg
from bench.content import FULL, QUICK
from bench.figures import Report, from_json, to_json
from bench.peer import TITLES
from bench.peers import all_peers
from bench.processes import StepFailed, Stopped, stopping_signals
from bench.runner import WORK_NAMES, Runner
from bench.table import show
from bench.world import World

_WIDE = 132

_FILE = click.Path(path_type=Path, dir_okay=False)


def _names(known: Collection[str]) -> Callable[[click.Context, click.Parameter, str | None], tuple[str, ...]]:
    """Return what turns an option's names, with commas between them, into a tuple; not given: all that are known."""

    def parse(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[str, ...]:
        given = tuple(known) if text is None else tuple(text.split(","))
        for name in given:
            if name not in known:
                raise click.BadParameter(f"{name!r} is none of: {', '.join(known)}")
        return given

    return parse


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--quick", is_flag=True, help="Small sizes and one round: under three minutes.")
@click.option("--only", metavar="WORK,…", callback=_names(WORK_NAMES), help=f"Of: {', '.join(WORK_NAMES)}.")
@click.option("--peers", metavar="PEER,…", callback=_names(TITLES), help=f"Of: {', '.join(TITLES)}.")
@click.option("--repeat", type=click.IntRange(1, 1000), help="Rounds of each work (5; with --quick 1).")
@click.option("-o", "--ivcapfs-options", default="", metavar="OPT[,OPT…]", help="Further mount options of ivcapfs.")
@click.option("--json", "json_file", type=_FILE, help="Write the report here, after every work that is done.")
@click.option("--svg", "svg_file", type=_FILE, help="Write the plot here.")
@click.option("--markdown", "page_file", type=_FILE, help="Write the page (docs/PERFORMANCE.md) here.")
@click.option("--from", "given", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Show the report of this JSON file instead of running.")  # fmt: skip
def main(
    quick: bool,
    only: tuple[str, ...],
    peers: tuple[str, ...],
    repeat: int | None,
    ivcapfs_options: str,
    json_file: Path | None,
    svg_file: Path | None,
    page_file: Path | None,
    given: Path | None,
) -> None:
    """Time ivcapfs beside its peers, on the same bytes.

    scripts/bench --setup, given first, installs what is missing: nginx-light, rclone, fio, curl, libfuse 2 (Debian)
    and fsspec, fusepy, ivcap-client (Python).
    """
    started = time.monotonic()
    try:
        if given is not None:
            report = from_json(given.read_text(encoding="utf-8"))
        else:
            report = Report(settings={"quick": quick, "repeat": repeat or (1 if quick else 5)})
            report.settings["ivcapfs options"] = ivcapfs_options
            _run(report, only, peers, json_file)
    except (StepFailed, ValueError, OSError) as exc:
        click.echo(f"bench: {exc}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, Stopped):
        click.echo("bench: stopped; everything is taken down", err=True)
        sys.exit(130)
    _write(report, json_file, svg_file, page_file)
    console = Console()
    show(report, console if console.is_terminal else Console(width=_WIDE))
    if given is None:
        click.echo(f"bench: done in {time.monotonic() - started:.0f} s", err=True)


def _run(report: Report, only: Collection[str], peers: Collection[str], json_file: Path | None) -> None:
    os.umask(0o022)  # what is made must be readable for the peer that runs as an ordinary user
    begin = time.monotonic()

    def say(line: str) -> None:
        click.echo(f"[{time.monotonic() - begin:6.1f}] {line}", err=True)

    quick, repeat = bool(report.settings["quick"]), int(report.settings["repeat"])
    with stopping_signals():
        report.machine = machine.describe()
        everybody = all_peers(str(report.settings["ivcapfs options"]))
        say("making the files, starting the servers")
        with World(QUICK if quick else FULL, sys.executable) as world:
            runner = Runner(world, {name: everybody[name] for name in everybody if name in peers}, report, say)
            for _work in runner.run(only, repeat):
                _write(report, json_file, None, None)


def _write(report: Report, json_file: Path | None, svg_file: Path | None, page_file: Path | None) -> None:
    if json_file:
        json_file.write_text(to_json(report), encoding="utf-8")
    if svg_file:
        svg_file.write_text(svg.draw(report), encoding="utf-8")
    if page_file:
        plot = os.path.relpath(svg_file, page_file.parent) if svg_file else None
        page_file.write_text(markdown.page(report, plot), encoding="utf-8")
