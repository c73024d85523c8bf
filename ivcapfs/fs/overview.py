"""The ivcapfs mounts of this machine, as this user may know them: what serves, and what is left of dead ones.

Used by `ivcapfs list` and `ivcapfs doctor`. Puts together what the kernel says (mountinfo) and what the mounts say of
themselves (`ivcapfs.fs.running`). A mount whose process lives is never touched: it may be slow to answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ivcapfs.fs import running
from ivcapfs.fs.mountpoint import KIND, is_stale, mounts

SERVING = "serving"
STALE = "stale"
UNKNOWN = "unknown"
"""It is another user's, or of another machine's or container's process."""


@dataclass(frozen=True, slots=True)
class Row:
    """One mount. What is not known is None.

    Attributes:
        state: serving; stale (its process died); unknown (nothing is told of its process).
        started: in seconds since the epoch.
    """

    mountpoint: str
    source: str
    state: str
    url: str | None = None
    pid: int | None = None
    started: float | None = None
    log: str | None = None


def overview() -> list[Row]:
    """Return all ivcapfs mounts, in the order in which they were made; then those whose place is not known."""
    with running.all_found() as found:
        known = [each.running for each in found]
    by_device = {each.device: each for each in known if each.device}
    rows = []
    for mount in mounts():
        if mount.kind != KIND:
            continue
        told = by_device.pop(mount.device, None)
        if told is not None:
            rows.append(_row(told, mount.mountpoint))
        else:
            state = STALE if is_stale(Path(mount.mountpoint)) else UNKNOWN
            rows.append(Row(mount.mountpoint, mount.source, state))
    return rows + [_row(each, each.mountpoint) for each in known if not each.device]


def _row(told: running.Running, mountpoint: str) -> Row:
    return Row(mountpoint, told.source, SERVING, told.url, told.pid, told.started, told.log)
