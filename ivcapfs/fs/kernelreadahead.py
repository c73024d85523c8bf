"""The kernel's own read-ahead of a mount, raised where this process may.

Used by `ivcapfs.fs.mount`. The kernel asks a FUSE filesystem for at most its read-ahead in one request, 128 KiB by
default, whatever the connection allows; root may raise it in sysfs (Documentation/ABI/testing/sysfs-class-bdi). Where
that is refused, things work as before, only slower.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from ivcapfs.fs.mountpoint import mount_at

log = logging.getLogger(__name__)


def raise_read_ahead(mountpoint: Path, kib: int) -> None:
    """Set a mount's read-ahead, in the background: the kernel sets its own value when the connection begins.

    Args:
        kib: KiB; 0 leaves the kernel's value.
    """
    if kib:
        threading.Thread(target=_raise, args=(mountpoint, kib), name="read-ahead", daemon=True).start()


def _raise(mountpoint: Path, kib: int) -> None:
    mount = mount_at(mountpoint)
    if mount is None:
        return
    try:
        os.statvfs(mountpoint)  # answered only once the connection has begun
        Path(f"/sys/class/bdi/{mount.device}/read_ahead_kb").write_text(f"{kib}\n")
    except OSError as exc:
        log.debug("the kernel's read-ahead stays as it is: %s", exc)
    else:
        log.debug("the kernel reads %d KiB ahead", kib)
