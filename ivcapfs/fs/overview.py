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
ELSEWHERE = "elsewhere"
"""Its process lives, but it is not in this tree: in another mount namespace, or unmounted lazily and still in use."""
UNKNOWN = "unknown"
"""It is another user's, or of another machine's or container's process."""


@dataclass(frozen=True, slots=True)
class Row:
    """One mount. What is not known is None.

    Attributes:
        state: serving; stale (its process died); elsewhere; unknown (nothing is told of its process).
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
    """Return all ivcapfs mounts, in the order in which they were made; then those that are not in this tree."""
    with running.all_found() as found:
        known = sorted((each.running for each in found), key=lambda each: each.started)
    by_device = {each.device: each for each in known if each.device}  # of two, the younger has it; see `running.found`
    older = [each for each in known if each.device and each is not by_device[each.device]]
    rows = []
    for mount in mounts():
        if mount.kind != KIND:
            continue
        told = by_device.pop(mount.device, None)
        if told is not None:
            rows.append(_row(told, mount.mountpoint, SERVING))
        else:
            state = STALE if is_stale(Path(mount.mountpoint)) else UNKNOWN
            rows.append(Row(mount.mountpoint, mount.source, state))
    handed = [_row(each, each.mountpoint, SERVING) for each in known if not each.device]  # the device, as /dev/fd/N
    return rows + handed + [_row(each, each.mountpoint, ELSEWHERE) for each in [*older, *by_device.values()]]


def _row(told: running.Running, mountpoint: str, state: str) -> Row:
    return Row(mountpoint, told.source, state, told.url, told.pid, told.started, told.log)
