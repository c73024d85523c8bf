"""Who keeps a mount busy: the processes that have a file or their working folder there, and mounts below it.

Used by `ivcapfs.fs.unmounting`, once umount has said that a mount is busy. Reads the links in /proc (proc(5)), as
far as this user may, and never touches the mount itself, which may not answer. Holds no state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ivcapfs.fs.mountpoint import mounts

PROC = Path("/proc")
MOST = 5
"""As many are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class Holder:
    """One process, and how it holds the mount: `working folder`, `open file …`."""

    pid: int
    command: str
    how: str

    def __str__(self) -> str:
        said = f"{self.command} (process {self.pid}, {self.how})"
        return "".join(letter if letter.isprintable() else "?" for letter in said)


def holders(mountpoint: str, proc: Path = PROC) -> list[Holder]:
    """Return the processes that hold what is mounted at an absolute path, by their ids, each once."""
    found = []
    for folder in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            how = next(_uses(folder, mountpoint), None)
            if how is not None:
                found.append(Holder(int(folder.name), _command(folder), how))
    return found


def in_words(mountpoint: str) -> str:
    """Return who holds a mount, in words; nothing if that cannot be seen."""
    below = [f"a mount at {mount.mountpoint}" for mount in mounts() if _inside(mount.mountpoint, mountpoint) == "below"]
    found = [*map(str, holders(mountpoint)), *below]
    more = [f"{len(found) - MOST} more"] if len(found) > MOST else []
    return ", ".join(found[:MOST] + more)


def _uses(folder: Path, mountpoint: str) -> Iterator[str]:
    """Yield how a process uses a mount, most telling first."""
    for name, what in (("cwd", "working folder"), ("root", "root folder")):
        if _inside(_link(folder / name), mountpoint):
            yield what
    yield from (f"open file {path}" for path in map(_link, _descriptors(folder)) if _inside(path, mountpoint))
    with contextlib.suppress(OSError), (folder / "maps").open(errors="surrogateescape") as file:
        for line in file:
            path = line.rstrip("\n").split(maxsplit=5)[5:]
            if path and _inside(path[0], mountpoint):
                yield f"file in memory {path[0]}"


def _descriptors(folder: Path) -> list[Path]:
    try:
        return list((folder / "fd").iterdir())
    except OSError:
        return []


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _inside(path: str, mountpoint: str) -> str:
    """Return `here` for the mount point itself, `below` for what is in it, else nothing."""
    if path == mountpoint:
        return "here"
    return "below" if path.startswith(mountpoint.rstrip("/") + "/") else ""


def _command(folder: Path) -> str:
    return (folder / "comm").read_text(encoding="utf-8", errors="replace").strip()
