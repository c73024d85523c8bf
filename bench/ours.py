"""ivcapfs as a peer, mounted by us or by an ordinary user.

Used by `bench.peers`. One thread.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import sysconfig
from pathlib import Path

from bench.mounts import bind, fuse_is_open_to_all, namespace_is_ours
from bench.peer import Mounter
from bench.processes import StepFailed, run
from bench.world import ROOT, Via, World


class Ivcapfs(Mounter):
    """ivcapfs itself.

    Args:
        options: further mount options, as for ``-o``.
        ordinary: mount and read as an ordinary user (nobody), though we are root.
    """

    def __init__(self, options: str = "", *, ordinary: bool = False) -> None:
        self.name = "ivcapfs-user" if ordinary else "ivcapfs"
        self._options = options
        self._ordinary = ordinary
        self._prefix: Path | None = None  # where its Python is, if not where ours is
        if ordinary:
            nobody = pwd.getpwnam("nobody")
            self.owner = nobody.pw_uid
            words = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
            self.reader = (*words, "--inh-caps=-all", "--")

    def missing(self, world: World) -> str | None:
        """See `Peer`."""
        if not self._ordinary:
            return None
        if os.geteuid() != 0:
            return "the whole run is without privileges: 'ivcapfs' is this"
        if not fuse_is_open_to_all():
            return "ordinary users may not open /dev/fuse: chmod 666 /dev/fuse"
        why = self._unable(world, sys.base_prefix)
        if why and namespace_is_ours():
            why = self._reach_python(world) or self._unable(world, str(self._prefix))
        return why

    def command(self, world: World, folder: str, via: Via, step: Path) -> list[str]:
        """See `Mounter`."""
        fresh = f"catalog-dir={step / 'catalog'}"  # no earlier mount's
        options = ",".join(filter(None, (self._options, fresh)))
        words = ("mount", "-f", "-o", options, world.api_url(folder, via), str(step / "mnt"))
        return [*self.reader, self._python(world), "-m", "ivcapfs", *words]

    def environment(self, world: World, via: Via) -> dict[str, str]:
        """See `Mounter`."""
        own = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        if self._ordinary:
            own["HOME"] = "/nonexistent"
        if self._prefix:
            own["PYTHONPATH"] += f":{sysconfig.get_path('purelib')}"
            own["LD_LIBRARY_PATH"] = str(self._prefix / "lib")
        return {**own, **world.trust(via)}

    def place(self, step: Path, folder: str) -> Path:
        """See `Mounter`."""
        return step / "mnt" / "artifacts" / folder

    def _unable(self, world: World, prefix: str) -> str | None:
        """Say why an ordinary user cannot run it with the Python installed at `prefix`; None: that works."""
        # By way of env(1): setpriv keeps root's rights until the program it starts is loaded.
        program = "import sys, ivcapfs.fs.daemon, ivcapfs.fs.binding; print(sys.base_prefix)"
        command = [*self.reader, "env", self._python(world), "-c", program]
        try:
            said = run(command, timeout=60, env=self.environment(world, Via.PLAIN)).output.strip()
        except StepFailed as exc:
            return f"the user nobody cannot run it ({exc})"
        return None if said == prefix else f"the user nobody runs another Python, {said} instead of {prefix}"

    def _reach_python(self, world: World) -> str | None:
        """Let ordinary users reach our interpreter, which may lie in root's home, by a bind mount that only we see.

        Returns: why that cannot be; None: it is done.
        """
        place = world.temp / "python"
        try:
            place.mkdir()
            bind(Path(sys.base_prefix), place)
        except (OSError, subprocess.SubprocessError) as exc:
            return f"the user nobody cannot reach our Python ({exc})"
        self._prefix = place
        return None

    def _python(self, world: World) -> str:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return str(self._prefix / "bin" / version) if self._prefix else world.python
