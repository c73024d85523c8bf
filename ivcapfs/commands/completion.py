"""``ivcapfs completion``: the script that makes a shell complete our commands, options and mount points.

Used by `ivcapfs.cli`, and by packagers at build time. Runs on the main thread. The scripts are click's own, but for
what fish makes of commas: they ask ivcapfs itself at each TAB, so they never grow old.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from ivcapfs.options import OPTIONS
from ivcapfs.places import known_contexts

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
    script = ShellComplete.source(kind(context.find_root().command, {}, "ivcapfs", VARIABLE))
    # fish's would cut off mount options after the first comma
    click.echo(script.replace('(string split "," $completion)', '(string split --max 1 "," $completion)'))


def complete_options(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the last of the mount options in a word with commas."""
    before, comma, last = begun.rpartition(",")
    found = []
    for option, text in OPTIONS.items():
        name = option.partition("=")[0] + ("=" if "=" in option else "")
        if name.startswith(last):
            found.append(CompletionItem(before + comma + name, help=text))
    return found


def complete_sources(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the name of a context; of an address there is nothing to complete."""
    return [CompletionItem(name, help=url) for name, url in known_contexts().items() if name.startswith(begun)]


def complete_words(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete `[SOURCE] MOUNTPOINT`: the first may be a context or a folder, the second is a folder."""
    folders = complete_folders(context, parameter, begun)  # first: bash's script forgets what comes before them
    given = context.params.get(parameter.name or "") or ()
    return folders if given else [*folders, *complete_sources(context, parameter, begun)]


def complete_folders(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Let the shell complete folders."""
    return [CompletionItem(begun, type="dir")]
