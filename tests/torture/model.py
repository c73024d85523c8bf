"""What a worker of the storm knows of the files that it wrote: what must be at each path, and what becomes of each.

Used by `tests.torture.worker`. Pure.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

UPLOAD = "user.ivcap.upload"
ASPECT = "user.ivcap.aspect.urn:torture:schema:mark"


@dataclass
class Own:
    """A version of a file.

    Attributes:
        is_artifact: whether it is known to be one; False: it may be.
        aspect: the values that its aspect may have, None: it may have none; empty: nobody set one.
    """

    version: int
    size: int
    is_artifact: bool = False
    aspect: list[int | None] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether it has no byte, and so nothing tells its version."""
        return self.size == 0


class OwnFiles:
    """The files of one worker.

    Attributes:
        current: what must be at each path.
        older: what was there before, newest last: artifacts all.
        removed_versions: what must never become an artifact.
    """

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.current: dict[str, Own] = {}
        self.older: dict[str, list[Own]] = {}
        self.removed_versions: list[int] = []
        self._names = 0
        self._versions = 0
        self._fresh: list[str] = []

    def new_name(self, kind: str) -> str:
        """Return a name that was never used."""
        self._names += 1
        return f"{kind}{self._names:05}.bin"

    def next_version(self) -> int:
        """Return a number for a version."""
        self._versions += 1
        return self._versions

    def pick(self, chance: random.Random, *, artifact: bool | None = None) -> str | None:
        """Return a path.

        Args:
            artifact: True: of what is known to be one; False: of what is not known to be.
        """
        if artifact is False:
            self._fresh = [name for name in self._fresh if name in self.current and not self.current[name].is_artifact]
            return chance.choice(self._fresh) if self._fresh else None
        names = list(self.current)
        for _ in range(8):
            if names and (name := chance.choice(names)) and (artifact is None or self.current[name].is_artifact):
                return name
        return None

    def wrote(self, name: str, file: Own) -> None:
        """A path shows a new version now."""
        if name in self.current:
            self.older.setdefault(name, []).append(self.current[name])
        self.current[name] = file
        self._fresh.append(name)

    def removed(self, name: str) -> None:
        """What is at a path is gone; what was there before is there again."""
        file = self._uncover(name)
        self.removed_versions.append(file.version)

    def renamed(self, old: str, new: str) -> None:
        """What was at a path is at another one."""
        self.current[new] = self._uncover(old)
        self._fresh.append(new)

    def _uncover(self, name: str) -> Own:
        file = self.current.pop(name)
        if self.older.get(name):
            self.current[name] = self.older[name].pop()
        return file

    def outcome(self) -> dict[str, Any]:
        """Return what must have become of all of it: (path, version, size, aspect) of every artifact; and what must
        not be one."""
        made = [(name, file) for name, file in self.current.items()]
        made += [(name, file) for name, files in self.older.items() for file in files]
        return {
            "made": [(f"w{self.worker}/{name}", file.version, file.size, file.aspect) for name, file in made],
            "removed": self.removed_versions,
        }
