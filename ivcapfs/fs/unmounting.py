"""Taking a mount down, and seeing that it is gone: running ones, stale ones, busy ones.

Used by `ivcapfs.fs.mount` for its last resort, and by the commands. Holds no state. Only what is mounted as ivcapfs is
ever touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from ivcapfs.errors import MountError
from ivcapfs.fs import holders, running
from ivcapfs.fs.mountpoint import KIND, Mount, is_stale, mount_at

CONNECTIONS = Path("/sys/fs/fuse/connections")
UNMOUNT_SECONDS = 20.0
MOST_STALE = 64
"""Stale mounts on top of each other that are cleared at once."""


def unmount(path: Path) -> bool:
    """Take down the ivcapfs mount at an absolute path (fusermount3(1), umount(8)), and await its process's end.

    Returns:
        Whether it was stale: its process had died. A stale one is taken away even while in use: no data can be lost.

    Raises:
        MountError: there is none, or it is busy; then the message says who holds it.
    """
    mount = mount_at(path)
    if mount is None or mount.kind != KIND:
        raise MountError(f"no ivcapfs is mounted at {path}" + (f", but {mount.kind}" if mount else ""))
    with running.found(mount.device) as found:
        stale = found is None and is_stale(path)
        result = _run_unmount(path)
        if result.returncode != 0 and stale:
            result = _run_unmount(path, lazily=True)
        if result.returncode != 0:
            raise MountError(_why(path, result))
        if found is not None:
            found.await_end(UNMOUNT_SECONDS)
        elif not stale:
            _await_connection(mount)
    return stale


def clear_stale(path: Path) -> bool:
    """Take away the stale ivcapfs mounts at an absolute path, if there are any; return whether there were.

    Raises:
        MountError: what is stale there is not ours, or cannot be taken away.
    """
    for cleared in range(MOST_STALE):
        if not is_stale(path):
            return cleared > 0
        unmount(path)
    return True


def unmount_lazily(mount: Mount) -> None:
    """Take a mount away from the tree at once, whoever uses it; for the last resort and for clean-up.

    Nothing is done if another one is on top of it by now, or it is gone.
    """
    path = Path(mount.mountpoint)
    if mount_at(path) == mount:
        _run_unmount(path, lazily=True)


def _why(path: Path, result: subprocess.CompletedProcess[str]) -> str:
    reason = (result.stderr.strip() or f"exit code {result.returncode}").splitlines()[-1]
    if "busy" not in reason:
        return f"{path} cannot be unmounted ({reason})"
    who = holders.in_words(str(path))
    if not who:
        return f"{path} cannot be unmounted: a program has a file or its working folder there ({reason})"
    return f"{path} cannot be unmounted: in use by {who}"


def _await_connection(mount: Mount) -> None:
    """Wait, within a bound, until the mount's process has let go of its connection, where that can be seen."""
    connection = CONNECTIONS / mount.device.rpartition(":")[2]
    end = time.monotonic() + UNMOUNT_SECONDS
    while connection.exists() and time.monotonic() < end:
        time.sleep(0.02)


def _run_unmount(path: Path, *, lazily: bool = False) -> subprocess.CompletedProcess[str]:
    helper = shutil.which("fusermount3") or shutil.which("fusermount")
    if os.geteuid() == 0 or helper is None:
        command = ["umount", *(["-l"] if lazily else []), "--", str(path)]
    else:
        command = [helper, "-u", *(["-z"] if lazily else []), "--", str(path)]
    try:
        return subprocess.run(
            ["env", "LC_ALL=C", *command],  # what it says is looked at
            capture_output=True,
            text=True,
            errors="replace",
            timeout=UNMOUNT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise MountError(f"{path} cannot be unmounted: {exc}") from exc
