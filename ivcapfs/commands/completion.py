"""``ivcapfs completion``: the script that makes a shell complete our commands, options and mount points.

Used by `ivcapfs.cli`, and by packagers at build time. Runs on the main thread. The scripts are click's own: they ask
ivcapfs itself at each TAB, so they never grow old.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from ivcapfs.options import OPTIONS

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_IVCAPFS_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    bash: ivcapfs completion bash > ~/.local/share/bash-completion/completions/ivcapfs
    zsh:  ivcapfs completion zsh > DIR/_ivcapfs, where DIR is in $fpath
    fish: ivcapfs completion fish > ~/.config/fish/completions/ivcapfs.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    # ShellComplete's own: bash's would start a bash, to see its version
    click.echo(ShellComplete.source(kind(context.find_root().command, {}, "ivcapfs", VARIABLE)))


def complete_options(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the last of the mount options in a word with commas."""
    before, comma, last = begun.rpartition(",")
    found = []
    for option, text in OPTIONS.items():
        name = option.partition("=")[0] + ("=" if "=" in option else "")
        if name.startswith(last):
            found.append(CompletionItem(before + comma + name, help=text))
    return found


def complete_folders(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Let the shell complete folders."""
    return [CompletionItem(begun, type="dir")]
