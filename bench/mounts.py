"""Mounts of the peers: made, waited for, taken down again, whatever happened meanwhile.

Used by `bench.works` and `bench.counting`. For one thread. A mount that does not go is taken away lazily and its
process killed: every reader in it then gets an error instead of waiting for ever.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.processes import Daemon, StepFailed, clean_environment

MOUNT_SECONDS = 60.0
_UNMOUNT_SECONDS = 15.0
_FUSE_DEVICE = Path("/dev/fuse")


def is_mounted(point: Path) -> bool:
    """Tell whether something is mounted there, without touching it."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    return any(line.split()[4] == str(point) for line in lines)


@contextlib.contextmanager
def mounted(
    command: Sequence[str | Path], point: Path, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[Daemon]:
    """Run a command that mounts at `point` and stays in the foreground; give its process once the mount is there.

    Raises:
        StepFailed: it did not mount.
    """
    daemon = Daemon(command, log, env)
    try:
        deadline = time.monotonic() + MOUNT_SECONDS
        while not is_mounted(point):
            daemon.check()
            if time.monotonic() > deadline:
                raise StepFailed(f"no mount after {MOUNT_SECONDS:g} s")
            time.sleep(0.005)
        yield daemon
        daemon.check()
    except BaseException:
        daemon.kill()  # whoever still waits for it gets an error now
        raise
    finally:
        unmount(point)
        if not daemon.wait(_UNMOUNT_SECONDS):
            daemon.stop()
        unmount(point)  # one that was made after all


def unmount(point: Path) -> None:
    """Take down what is mounted there, lazily where it is busy."""
    helper = shutil.which("fusermount3") or "fusermount"
    polite, lazy = (["umount"], ["umount", "-l"]) if os.geteuid() == 0 else ([helper, "-u"], [helper, "-u", "-z"])
    attempts = [polite, polite, lazy]
    for pause, attempt in enumerate(attempts):
        if not is_mounted(point):
            return
        time.sleep(pause * 0.3)
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [*attempt, str(point)],
                capture_output=True,
                timeout=_UNMOUNT_SECONDS,
                env=clean_environment(),
                check=False,
            )


def fuse_is_open_to_all() -> bool:
    """Tell whether ordinary users may open /dev/fuse."""
    try:
        return bool(_FUSE_DEVICE.stat().st_mode & 0o006 == 0o006)
    except OSError:
        return False


def namespace_is_ours() -> bool:
    """Tell whether nobody but us sees what we mount: `scripts/bench` has made us a mount namespace."""
    return os.environ.get("IVCAPFS_BENCH_NAMESPACE") == "1"


def bind(what: Path, where: Path) -> None:
    """Show `what` at `where`, for reading only, until it is unmounted or our mount namespace ends.

    Raises:
        OSError, subprocess.SubprocessError: it cannot be.
    """
    subprocess.run(["mount", "-o", "bind,ro", str(what), str(where)], check=True, capture_output=True, timeout=10)


def open_fuse_privately(folder: Path) -> None:
    """Let ordinary users open /dev/fuse in our own mount namespace only, as udev does it for all on a usual system.

    Does nothing where it cannot: the peer that needs it is then left out.
    """
    if not namespace_is_ours() or fuse_is_open_to_all() or not _FUSE_DEVICE.exists():
        return
    node = folder / "fuse"
    try:
        os.mknod(node, stat.S_IFCHR | 0o666, _FUSE_DEVICE.stat().st_rdev)
        node.chmod(0o666)
        subprocess.run(["mount", "--bind", str(node), str(_FUSE_DEVICE)], check=False, capture_output=True, timeout=10)
        with contextlib.suppress(OSError):
            os.close(os.open(_FUSE_DEVICE, os.O_RDWR))
            return
        subprocess.run(["umount", str(_FUSE_DEVICE)], check=False, capture_output=True, timeout=10)  # nodev
    except (OSError, subprocess.SubprocessError):
        return
