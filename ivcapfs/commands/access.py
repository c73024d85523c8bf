"""What the commands that talk to a deployment share: its options, and how they show names.

Used by `ivcapfs.commands`. Runs on the main thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ivcapfs.commands.completion import complete_options, complete_sources

if TYPE_CHECKING:
    from ivcapfs.config import ClientSettings

F = TypeVar("F", bound=Callable[..., Any])

NOWHERE = "/nonexistent"
"""Stands for a mount point, where none is needed."""


def access_options(command: F) -> F:
    """Give a command the options that say which deployment is meant, and as whom."""
    options = click.option(
        "-o", "options", metavar="OPT[,OPT…]", multiple=True, shell_complete=complete_options,
        help="As for mount: token-file, token-command, allow-http, timeout.",
    )  # fmt: skip
    source = click.option(
        "--source", metavar="SOURCE", shell_complete=complete_sources,
        help="The deployment: its URL, or a context of the ivcap program, as for mount.",
    )  # fmt: skip
    return source(options(command))


def client_of(source: str | None, options: tuple[str, ...]) -> ClientSettings:
    """Return which deployment is meant, and as whom; see `ivcapfs.options.mount_settings`.

    Raises:
        ConfigError: nothing names a deployment, or an option makes no sense.
    """
    from ivcapfs.options import mount_settings

    return mount_settings(source, NOWHERE, options, foreground=False).client


def shown(text: str) -> str:
    """Return a text as a terminal may have it: what is not printable is escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
