"""The checks of this machine: what a mount needs here, whatever deployment it shows.

Used by `ivcapfs.doctor.rounds`. Each function is one check, changes nothing, and returns one `Result`. Main thread.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

from ivcapfs.config import MIB
from ivcapfs.doctor.result import Result, fail, ok, skip, warn
from ivcapfs.fs.mountpoint import FUSE_CONF, FUSE_DEVICE, others_allowed
from ivcapfs.fs.overview import STALE, overview

OLDEST_KERNEL = (4, 18)
"""The first that lets user namespaces mount FUSE; what a mount itself needs is older."""
GOOD_LIBFUSE = (3, 12)
"""The first whose number of threads can be set: before, ten stalled reads hold up all others."""
LITTLE_ROOM = 1024 * MIB
INSTALL = "apt install fuse3"


def kernel(release: str | None = None) -> Result:
    """The kernel's version, and that it is Linux."""
    name, release = os.uname().sysname, release or os.uname().release
    found = re.match(r"(\d+)\.(\d+)", release)
    if name != "Linux" or found is None:
        return fail("kernel", f"{name} {release} is no Linux", "use Linux")
    if (int(found[1]), int(found[2])) < OLDEST_KERNEL:
        return warn("kernel", f"Linux {release} is old", "Linux 4.18 or newer")
    return ok("kernel", f"Linux {release}")


def device(path: Path = FUSE_DEVICE) -> Result:
    """/dev/fuse is there, and may be opened."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        remedy = "modprobe fuse; in a container, run it with --device /dev/fuse --cap-add SYS_ADMIN"
        return fail("/dev/fuse", "it is not there", remedy)
    except OSError as exc:
        remedy = f"chmod 666 {path}, or membership of its group; in a container, --device /dev/fuse"
        return fail("/dev/fuse", f"it cannot be opened ({exc.strerror})", remedy)
    return ok("/dev/fuse", "can be opened")


def fusermount() -> Result:
    """fusermount3 is installed: ordinary users mount and unmount by it."""
    path = shutil.which("fusermount3")
    if path is None:
        return fail("fusermount3", "it is not on the search path", INSTALL)
    return ok("fusermount3", path)


def setuid_bit(program: str | None = None) -> Result:
    """fusermount3 runs as root, whoever starts it."""
    path = program or shutil.which("fusermount3")
    if path is None:
        return skip("fusermount3 setuid", "there is no fusermount3")
    status = Path(path).stat()
    if status.st_uid == 0 and status.st_mode & stat.S_ISUID:
        return ok("fusermount3 setuid", "it is set")
    said, remedy = f"{path} does not run as root", f"chown root {path} && chmod 4755 {path}"
    if os.geteuid() == 0:
        return warn("fusermount3 setuid", f"{said}: only root can mount", remedy)
    return fail("fusermount3 setuid", said, remedy)


def libfuse() -> Result:
    """libfuse 3 is installed."""
    try:
        from ivcapfs.fs.binding import VERSION
    except OSError:
        return fail("libfuse", "version 3 is not installed", INSTALL)
    version = ".".join(map(str, VERSION))
    if VERSION < (3, 0):
        return fail("libfuse", f"only {version} is installed", INSTALL)
    if VERSION < GOOD_LIBFUSE:
        return warn("libfuse", f"{version}: some stalled reads hold up all others", "libfuse 3.12 or newer")
    return ok("libfuse", version)


def others() -> Result:
    """Whether `allow_other` may be used."""
    check = "user_allow_other"
    if os.geteuid() == 0:
        return ok(check, "root needs no permission for allow_other")
    if others_allowed():
        return ok(check, f"in {FUSE_CONF}: allow_other may be used")
    return warn(check, "only you can look into your mounts", f"a line 'user_allow_other' in {FUSE_CONF}, by root")


def cache_folder(folder: Path) -> Result:
    """Blocks can be written to the cache's folder."""
    check = "cache folder"
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        if there == folder:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(bytes(4096))
                file.flush()
        elif not os.access(there, os.W_OK | os.X_OK):
            return fail(check, f"{folder} cannot be made in {there}", "another cache-dir, or permission to write there")
        free = shutil.disk_usage(there).free
    except OSError as exc:
        remedy = "another cache-dir, or permission and room to write there"
        return fail(check, f"{folder} cannot be written ({exc.strerror})", remedy)
    if free < LITTLE_ROOM:
        return warn(check, f"{folder} has only {free // MIB} MiB of room", "another cache-dir, or more room")
    return ok(check, f"{folder} can be written, {free // MIB} MiB are free")


def stale_mounts() -> Result:
    """No mount is left of a process that died."""
    left = [row.mountpoint for row in overview() if row.state == STALE]
    if left:
        return warn("mounts", f"the process died of {', '.join(left)}", f"ivcapfs umount {left[0]}")
    return ok("mounts", "none is stale")
