"""``python -m ivcapfs``: the same as the console script."""

from ivcapfs.cli import main

main(prog_name="ivcapfs")
