"""How much memory this process may use.

Used by `ivcapfs.config` for the size of the cache. Reads /proc and the control groups; any thread may call it.
"""

from __future__ import annotations

import os
from pathlib import Path


def memory_limit(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many bytes of memory this process may use: the machine's, or less where a control group says so.

    Args:
        root: where the control groups are mounted (cgroups(7)); version 2 has `memory.max`, version 1 its `memory`
            controller's `memory.limit_in_bytes`, each for the group and for those above it.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    try:
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        groups = []
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = top / path.lstrip("/")
        above = [folder for folder in (group, *group.parents) if folder.is_relative_to(top)]
        limits += [limit for folder in above if (limit := _number_in(folder / name)) is not None]
    return min(limits)


def _number_in(path: Path) -> int | None:
    """Return the number that a file holds, or None (also for the `max` of a group without a limit)."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
