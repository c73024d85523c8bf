"""The command ``ivcapfs doctor``: what is needed for a mount, looked at one by one.

Used by `ivcapfs.cli`. Runs on the main thread; what it needs is imported when it runs.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import click
import platformdirs

from ivcapfs.commands.access import NOWHERE
from ivcapfs.commands.completion import complete_options, complete_sources
from ivcapfs.commands.oneline import one_line_errors
from ivcapfs.errors import ConfigError


@click.command()
@click.argument("source", required=False, shell_complete=complete_sources)
@click.option(
    "-o", "options", metavar="OPT[,OPT…]", multiple=True, help="The mount's options, as for mount.",
    shell_complete=complete_options,
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@one_line_errors
def doctor(source: str | None, options: tuple[str, ...], as_json: bool) -> None:
    """Check what a mount of SOURCE needs: this machine, the way there, the token, the deployment.

    A line each: ok, warn (it works with a limit) or fail with what to do; skip stands for what could not be tried.
    The exit code is 1 if something fails.
    """
    from ivcapfs.doctor.result import Level
    from ivcapfs.doctor.rounds import rounds
    from ivcapfs.options import mount_settings, parse_options

    parse_options(options)  # a wrong option is wrong usage, not a finding
    client, problem, folder = None, "", None
    try:
        settings = mount_settings(source, NOWHERE, options, foreground=False)
        client, folder = settings.client, settings.cache.folder
    except ConfigError as exc:
        problem = str(exc)
    os.chdir("/")  # where a mount's token command runs
    found = []
    for result in rounds(client, problem, folder or Path(platformdirs.user_cache_dir("ivcapfs"))):
        found.append(result)
        if not as_json:
            click.echo(str(result))
    healthy = all(result.level is not Level.FAIL for result in found)
    if as_json:
        told = {"url": client.url if client else None, "ok": healthy, "checks": [asdict(each) for each in found]}
        click.echo(json.dumps(told, indent=2))
    sys.exit(0 if healthy else 1)
