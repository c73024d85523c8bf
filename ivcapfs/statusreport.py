"""What ``ivcapfs status`` shows: the file that a mount tells of itself, as it is or as a small table.

Used by `ivcapfs.cli`. Runs on the main thread; asks nobody but the mount, and that makes no request for it.
"""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ivcapfs.errors import MountError
from ivcapfs.places import status_file

WATCH_SECONDS = 1.0
MOST_FILES = 10
"""New files that are named."""


def read_status(mountpoint: Path) -> bytes:
    """Return the status of the mount at a path, as JSON.

    Raises:
        MountError: there is none, or it does not answer.
    """
    try:
        return status_file(mountpoint).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise MountError(f"no ivcapfs is mounted at {mountpoint}") from None
    except OSError as exc:
        if exc.errno == errno.ENOTCONN:
            message = f"a mount whose process died is still at {mountpoint}: ivcapfs umount {mountpoint}"
            raise MountError(message) from exc
        raise MountError(f"the mount at {mountpoint} does not tell its status: {exc.strerror}") from exc


def show(mountpoint: Path, *, as_json: bool, watch: bool) -> None:
    """Print the status of the mount at a path, once or until Ctrl-C.

    Raises:
        MountError: see `read_status`.
    """
    console = Console(highlight=False, soft_wrap=True)
    if watch and console.is_terminal and not as_json:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(table(parsed(read_status(mountpoint), mountpoint)), refresh=True)
                time.sleep(WATCH_SECONDS)
    while True:
        text = read_status(mountpoint)
        if as_json:
            console.print(Text(text.decode()), end="")
        elif console.is_terminal:
            console.print(table(parsed(text, mountpoint)))
        else:
            console.print(Text("\n".join(f"{name:<11} {text}" for name, text in rows(parsed(text, mountpoint)))))
        if not watch:
            return
        time.sleep(WATCH_SECONDS)
        console.print()


def parsed(text: bytes, mountpoint: Path) -> dict[str, Any]:
    """Return the status in a text.

    Raises:
        MountError: it is none.
    """
    try:
        status = json.loads(text)
        list(rows(status))
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        raise MountError(f"what is mounted at {mountpoint} tells no status of an ivcapfs that is known here") from exc
    return status  # type: ignore[no-any-return]


def table(status: dict[str, Any]) -> Table:
    """Return a status as a table of two columns."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in rows(status):
        grid.add_row(Text(name, style="bold"), Text(text))
    return grid


def rows(status: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Iterate what is worth showing, by name."""
    catalog, cache, reads = status["catalog"], status["cache"], status["reads"]
    yield "mount", f"{status['mountpoint']}, process {status['pid']}, for {duration(status['uptime'])}"
    yield "deployment", f"{status['url']}, ivcapfs {status['version']}"
    yield "artifacts", f"{catalog['artifacts']:,} known"
    yield "list", _list_line(catalog)
    if catalog["failure"]:
        yield "failure", catalog["failure"]
    yield "catalog", catalog["path"] or "in memory"
    yield "read", f"{size(reads['bytes_read'])} in {reads['reads']:,} reads"
    failed = f", {reads['failures']:,} failed" if reads["failures"] else ""
    under_way = f"{reads['transfers']:,} under way"
    yield "fetched", f"{size(reads['bytes_fetched'])} in {reads['requests']:,} requests{failed}, {under_way}"
    hits = cache["blocks_hit"] / cache["blocks_used"] if cache["blocks_used"] else 0.0
    yield "memory", f"{size(cache['memory_used'])} of {size(cache['memory_limit'])}, {hits:.0%} of blocks were there"
    if status["uploads"] is not None:
        yield "uploads", _uploads_line(status["uploads"])
        for file in status["uploads"]["files"][:MOST_FILES]:
            yield "", f"{file['path']} ({size(file['size'])}): {file['state']}"
    if cache["folder"]:
        yield "disk", f"{cache['folder']}, up to {size(cache['folder_limit'])}"


def _uploads_line(uploads: dict[str, Any]) -> str:
    words = [f"{uploads['pending']:,} pending, {size(uploads['bytes_left'])} to send"]
    words += [f"{uploads[kind]:,} {kind}" for kind in ("open", "failed", "interrupted", "local") if uploads[kind]]
    return ", ".join(words)


def _list_line(catalog: dict[str, Any]) -> str:
    words = [catalog["state"]]
    if catalog["age"] is not None:
        words.append(f"{duration(catalog['age'])} old")
    if catalog["state"] in ("synchronizing", "interrupted"):
        words.append(f"{catalog['synchronized_pages']:,} pages so far")
    if catalog["rate"]:
        words.append(f"{catalog['rate']:,.0f} artifacts a second")
    return ", ".join(words)


def size(count: int) -> str:
    """Return bytes as people read them: ``0 B``, ``1.5 MiB``."""
    amount, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if amount < 1024 or unit == "PiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def duration(seconds: float) -> str:
    """Return a time span as people read it: ``12 s``, ``5 min``, ``3 h 20 min``, ``2 d 4 h``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"
