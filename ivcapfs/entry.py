"""Where the programs ``ivcapfs`` and ``mount.ivcapfs`` begin.

Used by the console scripts, by ``python -m ivcapfs`` and by mount(8)'s helper. Main thread. Little is imported before
`stand_aside`, so that a container that is stopped while it starts does stop.
"""

from __future__ import annotations

import sys

from ivcapfs.allocator import keep_little
from ivcapfs.firstprocess import stand_aside


def main() -> None:
    """Run the command that the arguments name, and exit."""
    stand_aside()
    if "mount" in sys.argv:
        keep_little()
    _leave_out()
    from ivcapfs.cli import main as commands

    commands(prog_name="ivcapfs")


def help_mount() -> None:
    """Do what mount(8) asks for, and exit."""
    keep_little()
    _leave_out()
    from ivcapfs.commands.mounthelper import main as mount

    mount()


def _leave_out() -> None:
    """Spare these programs what nobody asks of a library: httpx imports its own command line too, where it can.

    That is half of the time that it takes to import (45 of 75 ms), and 5 MiB of each process. A name without a module
    is one that cannot be imported (Python's reference, "The module cache"), which httpx is prepared for.
    """
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
