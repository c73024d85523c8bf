"""``python -m tests.torture``: see `tests.torture.cli`."""

from tests.torture.cli import main

main()
