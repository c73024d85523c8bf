"""The kernel's own read-ahead of a mount, raised where this process may.

Used by `ivcapfs.fs.mount`. The kernel asks a FUSE filesystem for at most its read-ahead in one request, 128 KiB by
default, whatever the connection allows; root may raise it in sysfs (Documentation/ABI/testing/sysfs-class-bdi). Where
that is refused, things work as before, only slower.

The kernel sets its own value when the connection begins, so ours must come later: in the callback of the first open.
To wait for that by asking something of the mount would be wrong: a process that waits for its own answer when it is
killed never ends, and its mount with it.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ivcapfs.fs.mountpoint import mount_at

log = logging.getLogger(__name__)


def raise_read_ahead(mountpoint: Path, kib: int) -> None:
    """Set a mount's read-ahead. Nothing is asked of the mount itself.

    Args:
        kib: KiB; 0 leaves the kernel's value.
    """
    mount = mount_at(mountpoint) if kib else None
    if mount is None:
        return
    try:
        Path(f"/sys/class/bdi/{mount.device}/read_ahead_kb").write_text(f"{kib}\n")
    except OSError as exc:
        log.debug("the kernel's read-ahead stays as it is: %s", exc)
    else:
        log.debug("the kernel reads %d KiB ahead", kib)
