"""How a command's errors are shown: one line on standard error, and an exit code.

Used by every command. Runs on the main thread.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

import click

from ivcapfs.errors import IvcapfsError

P = ParamSpec("P")


def one_line_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Show an error of ours as one line on standard error, with exit code 1."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except IvcapfsError as exc:
            click.echo(f"ivcapfs: {exc}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)

    return run
