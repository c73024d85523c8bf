"""The place where a mount goes: is it fit, is it taken, and how it is taken down.

Used by `ivcapfs.fs.mount` and by the command line. Reads /proc/self/mountinfo (proc_pid_mountinfo(5)); holds no state.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from ivcapfs.errors import MountError

FUSE_DEVICE = Path("/dev/fuse")
FUSE_CONF = Path("/etc/fuse.conf")
CONNECTIONS = Path("/sys/fs/fuse/connections")
UNMOUNT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo; `device` is `major:minor`."""

    mountpoint: str
    kind: str
    source: str
    device: str


def mounts() -> list[Mount]:
    """Return all mounts that this process sees, in the order in which they were made."""
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.split() for line in file]
    found = []
    for fields in lines:
        kind, source = fields[fields.index("-") + 1 :][:2]
        found.append(Mount(_unescape(fields[4]), kind, _unescape(source), fields[2]))
    return found


def mount_at(path: Path) -> Mount | None:
    """Return what is mounted at an absolute path, the topmost, or None."""
    return next((mount for mount in reversed(mounts()) if mount.mountpoint == str(path)), None)


def check_mountpoint(path: Path) -> None:
    """See whether something can be mounted at an absolute path.

    Raises:
        MountError: it is missing, no folder, not empty, taken, or a stale mount; the message says what to do.
    """
    try:
        mode = path.stat().st_mode
        empty = stat.S_ISDIR(mode) and not any(path.iterdir())
    except FileNotFoundError:
        raise MountError(f"the mount point {path} does not exist: mkdir -p {path}") from None
    except OSError as exc:
        if exc.errno in (errno.ENOTCONN, errno.EIO):
            message = f"a mount whose process died is still at {path}: ivcapfs umount {path}"
            raise MountError(message) from exc
        raise MountError(f"the mount point {path} cannot be used: {exc.strerror}") from exc
    if not stat.S_ISDIR(mode):
        raise MountError(f"the mount point {path} is no folder: choose an empty folder")
    taken = mount_at(path)
    if taken is not None and taken.kind.startswith("fuse"):
        raise MountError(f"{taken.source} is already mounted at {path}: ivcapfs umount {path}")
    if not empty:
        raise MountError(f"the mount point {path} is not empty, and a mount would hide what is in it: choose another")
    if not os.access(path, os.W_OK):
        raise MountError(f"the mount point {path} must be writable for who mounts: choose one of your own folders")


def check_machine(*, others: bool) -> None:
    """See whether this machine can mount with FUSE.

    Args:
        others: whether other users shall see the mount.

    Raises:
        MountError: /dev/fuse, fusermount3 or its permission for `others` is missing.
    """
    if not FUSE_DEVICE.exists():
        raise MountError(
            "there is no /dev/fuse: load the kernel module (modprobe fuse); in a container, run it with "
            "--device /dev/fuse --cap-add SYS_ADMIN"
        )
    if os.geteuid() == 0:
        return
    if not os.access(FUSE_DEVICE, os.R_OK | os.W_OK):
        raise MountError("no permission to open /dev/fuse: ask for membership of its group")
    if shutil.which("fusermount3") is None:
        raise MountError("the program fusermount3 is missing: apt install fuse3")
    if others and not _others_allowed():
        raise MountError(f"allow_other and allow_root need a line 'user_allow_other' in {FUSE_CONF}")


def unmount(path: Path) -> None:
    """Take down the ivcapfs mount at an absolute path (fusermount3(1), umount(8)).

    Raises:
        MountError: there is none, or it is busy.
    """
    mount = mount_at(path)
    if mount is None or mount.kind != "fuse.ivcapfs":
        raise MountError(f"no ivcapfs is mounted at {path}" + (f", but {mount.kind}" if mount else ""))
    result = _run_unmount(path)
    if result.returncode != 0:
        reason = (result.stderr.strip() or f"exit code {result.returncode}").splitlines()[-1]
        advice = ": a program has a file or its working folder there" if "busy" in reason else ""
        raise MountError(f"{path} cannot be unmounted{advice} ({reason})")
    _await_end(mount)


def _await_end(mount: Mount) -> None:
    """Wait, within a bound, until the mount's process has let go of its connection: its work is done then."""
    connection = CONNECTIONS / mount.device.rpartition(":")[2]
    end = time.monotonic() + UNMOUNT_SECONDS
    while connection.exists() and time.monotonic() < end:
        time.sleep(0.02)


def unmount_lazily(path: Path) -> None:
    """Take a mount away from the tree at once, whoever uses it; for the last resort and for clean-up."""
    if mount_at(path) is not None:
        _run_unmount(path, lazily=True)


def _run_unmount(path: Path, *, lazily: bool = False) -> subprocess.CompletedProcess[str]:
    helper = shutil.which("fusermount3") or shutil.which("fusermount")
    if os.geteuid() == 0 or helper is None:
        command = ["umount", *(["-l"] if lazily else []), "--", str(path)]
    else:
        command = [helper, "-u", *(["-z"] if lazily else []), "--", str(path)]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=UNMOUNT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise MountError(f"{path} cannot be unmounted: {exc}") from exc


def _others_allowed() -> bool:
    try:
        lines = FUSE_CONF.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def _unescape(field: str) -> str:
    r"""Undo mountinfo's octal escapes (``\040`` for a blank)."""
    parts = field.split("\\")
    return parts[0] + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts[1:])
