"""What is shown of transfers while they run: bars on a terminal, and lines for what is done or failed.

Used by ``ivcapfs put`` and ``get``. Threading: `Shown.file` may be used by any thread, and the rest by the main thread.
`Shown._lock` guards the sum.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.text import Text

from ivcapfs.commands.access import shown

Tell = Callable[[int], None]
NAME_WIDTH = 40


class Shown:
    """See the module. Use it in a ``with``.

    Args:
        total: bytes of all files.
        count: files.

    Attributes:
        failures: how many files failed.
    """

    def __init__(self, total: int, count: int) -> None:
        self.failures = 0
        self._count = count
        self._finished = 0
        self._lock = threading.Lock()
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            redirect_stdout=False,
            redirect_stderr=False,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._all = self._progress.add_task(self._sum(), total=total)

    @contextlib.contextmanager
    def file(self, name: str, size: int | None) -> Iterator[Tell]:
        """Show a file while it is transferred.

        Yields:
            What is to be told how many bytes are there, again and again, from any thread.
        """
        text = shown(name)
        task = self._progress.add_task(text if len(text) <= NAME_WIDTH else "…" + text[1 - NAME_WIDTH :], total=size)
        before = 0

        def tell(done: int) -> None:
            nonlocal before
            with self._lock:
                self._progress.update(task, completed=done)
                self._progress.advance(self._all, done - before)
                before = done

        try:
            yield tell
        finally:
            self._progress.remove_task(task)

    def done(self, line: str) -> None:
        """A file is done: print a line of output."""
        self._one_more()
        if self._console.is_terminal and sys.stdout.isatty():
            self._console.print(Text(line), soft_wrap=True)  # above the bars
        else:
            click.echo(line)

    def failed(self, what: str, reason: str) -> None:
        """A file failed: say so."""
        self.failures += 1
        self._one_more()
        self.say(f"{shown(what)}: {shown(reason)}")

    def say(self, text: str) -> None:
        """Say something on standard error."""
        self._console.print(Text(f"ivcapfs: {text}"), soft_wrap=True)

    def _one_more(self) -> None:
        self._finished += 1
        self._progress.update(self._all, description=self._sum())

    def _sum(self) -> str:
        return f"{self._finished:,} of {self._count:,} files"

    def __enter__(self) -> Shown:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
