"""``ivcapfs install-helper``: puts ``mount.ivcapfs`` where mount(8) looks for it, and takes it away again.

Used by `ivcapfs.cli`. mount(8) looks into /sbin alone, whatever the search path says, and knows nothing of virtual
environments: what is put there is a script of two lines that starts the right Python. Main thread only.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import click

from ivcapfs.commands.oneline import one_line_errors
from ivcapfs.errors import ConfigError

FOLDER = Path("/sbin")
NAMES = ("mount.ivcapfs", "mount.fuse.ivcapfs")
"""For the types `ivcapfs` and `fuse.ivcapfs` of fstab(5)."""
MARK = "# made by: ivcapfs install-helper"
"""What is not marked so is never overwritten or removed."""
_CODE = "from ivcapfs.entry import help_mount; help_mount()"


@click.command("install-helper")
@click.option("--remove", is_flag=True, help="Take it away again.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=FOLDER, show_default=True, help="Where to.")
@one_line_errors
def install_helper(remove: bool, folder: Path) -> None:
    """Make `mount -t ivcapfs` and lines of /etc/fstab work: needs root."""
    paths = [folder / name for name in NAMES]
    foreign = [path for path in paths if _is_there(path) and not is_ours(path)]
    if foreign:
        raise ConfigError(f"{foreign[0]} was not made by ivcapfs install-helper: not touched")
    try:
        for path in paths:
            if remove:
                path.unlink(missing_ok=True)
            else:
                install(path)
            click.echo(f"{path} {'removed' if remove else 'installed'}")
    except OSError as exc:
        raise ConfigError(f"{exc.filename or folder} cannot be written: {exc.strerror}; run it as root") from exc


def install(path: Path) -> None:
    """Write the script that starts this very Python, in one step.

    Raises:
        ConfigError: this Python does not find ivcapfs by itself.
        OSError: it cannot be written.
    """
    for place in exposed(Path(sys.executable)):
        click.echo(f"ivcapfs: warning: {place} can be changed by others than root, who runs it", err=True)
    probe = subprocess.run([sys.executable, "-I", "-c", "import ivcapfs.commands.mounthelper"], check=False,
                           stderr=subprocess.DEVNULL, timeout=60)  # fmt: skip
    if probe.returncode != 0:
        raise ConfigError(f"{sys.executable} does not find ivcapfs by itself: install ivcapfs in a virtual environment")
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o755)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o755)
        file.write(script(sys.executable))
    new.rename(path)


def script(python: str) -> str:
    """Return the script's text. Isolated (-I): neither the folder where mount(8) runs nor PYTHONPATH have a say."""
    return f'#!/bin/sh\n{MARK}\nexec {shlex.quote(python)} -I -c "{_CODE}" "$@"\n'


def is_ours(path: Path) -> bool:
    """Return whether a file was made by this command."""
    try:
        return path.is_file() and not path.is_symlink() and MARK in path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False


def exposed(program: Path) -> list[Path]:
    """Return the first of a program's folders, or itself, that others than root may change; mostly none."""
    for place in (program, *program.parents):
        status = place.stat()
        if status.st_uid != 0 or (status.st_mode & 0o022 and not status.st_mode & 0o1000):
            return [place]
    return []


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()
