"""The new files by their paths, and the folders made for them: what the mount shows besides what the platform has.

Used by `ivcapfs.fs`, which asks what is at a path, and by `uploader`, which takes files away once they are artifacts.
A folder made here lives as long as the mount; there is none on the platform but by the names of what is in it.

Threading: any thread may call anything. `Drafts._lock` guards the tables; nothing is read or written under it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ivcapfs.catalog.names import Parts
from ivcapfs.errors import AlreadyThere, NotEmpty
from ivcapfs.spool.draft import Draft


@dataclass(frozen=True, slots=True)
class Made:
    """A folder that is only here: made by mkdir(2), or because a new file is below it.

    Attributes:
        time_ns: since when, in nanoseconds since the epoch.
        is_made: whether it was made by mkdir(2).
    """

    time_ns: int
    is_made: bool = False


class Drafts:
    """See the module."""

    def __init__(self) -> None:
        self._started_ns = time.time_ns()
        self._lock = threading.Lock()
        self._files: dict[Parts, Draft] = {}  # guarded by _lock
        self._made: dict[Parts, Made] = {}  # guarded by _lock
        self._below: dict[Parts, Counter[str]] = {}  # what is in each folder, and how often; guarded by _lock

    def __len__(self) -> int:
        return len(self._files)

    def at(self, parts: Parts) -> Draft | Made | None:
        """Return what is at a path; None where there is nothing of ours."""
        if not self._files and not self._made:  # the common case; as good as a moment earlier, under the lock
            return None
        with self._lock:
            found = self._files.get(parts) or self._made.get(parts)
            if found is None and parts in self._below:
                return Made(self._started_ns)
            return found

    def within(self, parts: Parts) -> list[tuple[str, Draft | Made]]:
        """Return what is in a folder, by name."""
        if not self._below:
            return []
        with self._lock:
            names = sorted(self._below.get(parts, ()))
            found = [(name, (*parts, name)) for name in names]
            return [
                (name, self._files.get(path) or self._made.get(path) or Made(self._started_ns)) for name, path in found
            ]

    def all(self) -> list[Draft]:
        """Return all new files."""
        with self._lock:
            return list(self._files.values())

    def put(self, draft: Draft) -> None:
        """Show a new file at its path, in place of another one that may be there."""
        parts = draft.entry.parts
        with self._lock:
            if parts not in self._files:
                self._link(parts)
            self._files[parts] = draft

    def take_away(self, draft: Draft) -> bool:
        """Show a new file no more; return whether it was shown. A folder that only it made goes with it."""
        with self._lock:
            parts = draft.entry.parts
            if self._files.get(parts) is not draft:
                return False
            del self._files[parts]
            self._unlink(parts)
            return True

    def make_folder(self, parts: Parts) -> None:
        """Make a folder.

        Raises:
            AlreadyThere: something is at the path.
        """
        with self._lock:
            if parts in self._files or parts in self._made:
                raise AlreadyThere(f"{'/'.join(parts)} is there already")
            self._made[parts] = Made(time.time_ns(), is_made=True)
            self._link(parts)

    def remove_folder(self, parts: Parts) -> bool:
        """Remove a folder that was made here; return whether it was.

        Raises:
            NotEmpty: something is in it.
        """
        with self._lock:
            if self._below.get(parts):
                raise NotEmpty(f"{'/'.join(parts)} is not empty")
            if self._made.pop(parts, None) is None:
                return False
            self._unlink(parts)
            return True

    def move_folder(self, old: Parts, new: Parts) -> list[Draft]:
        """Give a folder that was made here, and all folders in it, another path.

        Returns:
            The new files in it, which are still to be moved one by one (`moved`).
        """
        with self._lock:
            folders = {path: made for path, made in self._made.items() if path[: len(old)] == old}
            for path, made in folders.items():
                self._unlink(path)
                del self._made[path]
                moved = new + path[len(old) :]
                self._made[moved] = made
                self._link(moved)
            return [draft for path, draft in self._files.items() if path[: len(old)] == old]

    def moved(self, draft: Draft, old: Parts) -> None:
        """A new file, shown at a path so far, has another one now; what was there is shown no more."""
        with self._lock:
            if self._files.get(old) is draft:
                del self._files[old]
                self._unlink(old)
            if draft.entry.parts not in self._files:
                self._link(draft.entry.parts)
            self._files[draft.entry.parts] = draft

    # -- folders -------------------------------------------------------------------------------------------------

    def _link(self, parts: Parts) -> None:
        for folder, name in _steps(parts):
            self._below.setdefault(folder, Counter())[name] += 1

    def _unlink(self, parts: Parts) -> None:
        for folder, name in _steps(parts):
            names = self._below[folder]
            names[name] -= 1
            if not names[name]:
                del names[name]
            if not names:
                del self._below[folder]


def _steps(parts: Parts) -> Iterator[tuple[Parts, str]]:
    """Iterate (folder, name in it) from a path up to its view."""
    for depth in range(len(parts) - 1, 0, -1):
        yield parts[:depth], parts[depth]
