"""``python -m ivcapfs``: the same as the console script."""

from ivcapfs.entry import main

main()
