"""The place where a mount goes: is it fit, is it taken.

Used by `ivcapfs.fs` and by the command line. Reads /proc/self/mountinfo (proc_pid_mountinfo(5)); holds no state.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from ivcapfs.errors import MountError

FUSE_DEVICE = Path("/dev/fuse")
FUSE_CONF = Path("/etc/fuse.conf")
FUSE_NUMBERS = (10, 229)
"""The device's major and minor number (Documentation/admin-guide/devices.txt)."""
DESCRIPTORS = Path("/dev/fd")
KIND = "fuse.ivcapfs"
"""What mountinfo calls our mounts."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo; `device` is `major:minor`, `id` is unique as long as the mount is there."""

    id: int
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
        found.append(Mount(int(fields[0]), _unescape(fields[4]), kind, _unescape(source), fields[2]))
    return found


def mount_at(path: Path) -> Mount | None:
    """Return what is mounted at an absolute path, the topmost, or None."""
    return next((mount for mount in reversed(mounts()) if mount.mountpoint == str(path)), None)


def inherited(path: Path) -> int | None:
    """Return N where the mount point is `/dev/fd/N`: whoever started us has mounted, and hands us the device."""
    number = path.name
    return int(number) if path.parent == DESCRIPTORS and number.isascii() and number.isdigit() else None


def is_stale(path: Path) -> bool:
    """Return whether the process of what is mounted at a path died: nobody answers there any more (ENOTCONN).

    Asked by statfs(2), which always goes to the process: attributes would still be answered from the kernel's memory.
    Who asks in the moment in which the process ends is told ECONNABORTED.
    """
    try:
        os.statvfs(path)
    except OSError as exc:
        return exc.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def check_inherited(descriptor: int) -> None:
    """See whether a descriptor is an open /dev/fuse.

    Raises:
        MountError: it is not.
    """
    try:
        status = os.fstat(descriptor)
        fits = stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(*FUSE_NUMBERS)
    except (OSError, OverflowError):
        fits = False
    if not fits or descriptor < 3:
        raise MountError(f"{DESCRIPTORS / str(descriptor)} is no open /dev/fuse: open it, mount with it, hand it on")


def check_mountpoint(path: Path) -> None:
    """See whether something can be mounted at an absolute path.

    Raises:
        MountError: it is missing, no folder, not empty, taken, or a stale mount; the message says what to do.
    """
    if is_stale(path):
        raise MountError(f"a mount whose process died is still at {path}: ivcapfs umount {path}")
    try:
        mode = path.stat().st_mode
        empty = stat.S_ISDIR(mode) and not any(path.iterdir())
    except FileNotFoundError:
        raise MountError(f"the mount point {path} does not exist: mkdir -p {path}") from None
    except OSError as exc:
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
    if others and not others_allowed():
        raise MountError(f"allow_other and allow_root need a line 'user_allow_other' in {FUSE_CONF}")


def others_allowed() -> bool:
    """Return whether ordinary users may use allow_other (fuse(8))."""
    try:
        lines = FUSE_CONF.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def _unescape(field: str) -> str:
    r"""Undo mountinfo's octal escapes (``\040`` for a blank)."""
    parts = field.split("\\")
    return parts[0] + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts[1:])
