"""A machine of the test's own, for what needs /etc/fstab, /sbin and other users: private namespaces of mounts and
processes, in which those are covered. Nothing of it is seen outside, and all of it is gone with its first process."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ivcapfs

PROJECT = Path(ivcapfs.__file__).resolve().parent.parent
NOBODY = 65534
PREPARE = """
set -eu
mount --make-rprivate /
# folders that only root may enter: empty ones, open to all, with what is needed put back into them
{open_up}
# /sbin and /etc, with what is in them, to be written to
for name in sbin etc; do
  real=$(realpath "/$name") old={work}/old-$name new={work}/new-$name
  mkdir -p "$old" "$new"
  mount --bind "$real" "$old"
  mount -t tmpfs -o mode=755 tmpfs "$new"
  ln -s -t "$new" "$old"/*
  mount --bind "$new" "$real"
done
rm -rf /etc/fstab /etc/ivcapfs /etc/mtab
ln -s /proc/self/mounts /etc/mtab # relative ones lead astray now
cp {work}/fstab /etc/fstab
mkdir /etc/ivcapfs
# the device, open to all, as udev has it
mkdir -p {work}/dev; mount -t tmpfs tmpfs {work}/dev
mknod -m 666 {work}/dev/fuse c 10 229; mount --bind {work}/dev/fuse /dev/fuse
for name in /run /var/log; do mount -t tmpfs -o mode=755 tmpfs $name; done
gone() {{ if findmnt -n {work}/mnt; then return 1; fi; }}
running() {{ pgrep -f 'help_[m]ount' >/dev/null; }}
ended() {{ for i in $(seq 100); do running || return 0; sleep 0.1; done; return 1; }}
python={python}
ivcapfs() {{ {python} -P -m ivcapfs "$@"; }}
mkdir -p /run/user; mkdir -m 700 /run/user/{nobody}; chown {nobody}:{nobody} /run/user/{nobody}
as_nobody() {{
  setpriv --reuid {nobody} --regid {nobody} --clear-groups -- \
    env HOME=/nonexistent XDG_RUNTIME_DIR=/run/user/{nobody} "$@"
}}
cd {work}
"""


def in_a_chroot() -> bool:
    """Return whether the root of the mount namespace is another folder than ours."""
    enter = ["nsenter", "--mount=/proc/self/ns/mnt", "test", "-e", str(PROJECT)]
    return os.geteuid() == 0 and subprocess.run(enter, check=False).returncode != 0


class Machine:
    """Private namespaces around one script after the other; files in `folder` stay between them.

    Attributes:
        folder: a folder that every user can enter, outside of pytest's own.
        mnt: an empty folder of nobody's in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mnt = folder / "mnt"
        self.mnt.mkdir()
        os.chown(self.mnt, NOBODY, NOBODY)
        (folder / "fstab").touch()

    def run(self, script: str, *, fstab: str = "", timeout: float = 90.0) -> subprocess.CompletedProcess[str]:
        """Run a shell script, which ends at the first command that fails, as root.

        Args:
            fstab: the lines of its /etc/fstab.
        """
        (self.folder / "fstab").write_text(fstab)
        prepare = PREPARE.format(
            work=shlex.quote(str(self.folder)),
            python=shlex.quote(sys.executable),
            nobody=NOBODY,
            open_up="\n".join(opened(self.folder)),
        )
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        env = {"PATH": os.defpath + ":/usr/sbin:/sbin", "LC_ALL": "C.UTF-8", "PYTHONPATH": str(PROJECT)}
        return subprocess.run(
            [*namespaces, "bash", "-c", prepare + script],
            capture_output=True,
            text=True,
            env=env,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )

    def succeed(self, script: str, *, fstab: str = "", timeout: float = 90.0) -> str:
        """Run a script that must succeed; return what it printed."""
        result = self.run(script, fstab=fstab, timeout=timeout)
        assert result.returncode == 0, f"{result.returncode}: {result.stdout}{result.stderr}"
        return result.stdout


def opened(work: Path) -> Iterator[str]:
    """Yield the commands that make the project and its Python reachable for every user."""
    needed = {PROJECT, Path(sys.prefix), Path(sys.base_prefix), *map(Path, filter(None, sys.path))}
    needed = {path for path in needed if path.is_dir()}
    closed = {folder for path in needed for folder in path.parents if not folder.stat().st_mode & stat.S_IXOTH}
    for number, top in enumerate(sorted(folder for folder in closed if not closed & set(folder.parents))):
        kept = sorted(path for path in needed if path.is_relative_to(top))
        kept = [path for path in kept if not set(path.parents) & set(kept)]
        places = [f"{work}/kept{number}-{index}" for index in range(len(kept))]
        for path, place in zip(kept, places, strict=True):
            yield f"mkdir -p {shlex.quote(place)}; mount --bind {shlex.quote(str(path))} {shlex.quote(place)}"
        yield f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(top))}"
        for path, place in zip(kept, places, strict=True):
            path_text = shlex.quote(str(path))
            yield f"mkdir -p {path_text}; mount --bind {shlex.quote(place)} {path_text}; chmod a+rx {path_text}"


def made() -> tempfile.TemporaryDirectory[str]:
    """Return a new folder that every user can enter."""
    folder = tempfile.TemporaryDirectory(prefix="ivcapfs-private-")
    Path(folder.name).chmod(0o755)
    return folder
