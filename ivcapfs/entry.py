"""Where the program ``ivcapfs`` begins.

Used by the console script and by ``python -m ivcapfs``. Main thread. Little is imported before `stand_aside`, so that a
container that is stopped while it starts does stop.
"""

from __future__ import annotations

from ivcapfs.firstprocess import stand_aside


def main() -> None:
    """Run the command that the arguments name, and exit."""
    stand_aside()
    from ivcapfs.cli import main as commands

    commands(prog_name="ivcapfs")
