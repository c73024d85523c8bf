"""What the torture harnesses stand on: a platform that fails as told, and mounts whose processes are our own children.

Nothing outlives the harness: each mount's process dies with its parent (prctl(2)), and each mount is taken away.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ivcapfs.server.runner import Platform
from tests.torture.faulty import FaultyPlatform

ROOT = Path(__file__).parent.parent.parent
TOKEN = "torture-token-77b1"
USABLE_SECONDS = 30.0
"""Within this a mount must serve again, whatever happened to the one before."""
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Difference(Exception):
    """What is found is not what the model allows."""


@dataclass(frozen=True)
class Gauge:
    """What a process takes at a moment: descriptors, threads, resident memory in bytes."""

    descriptors: int
    threads: int
    resident: int


class Mounted:
    """A mount by a child process of ours.

    Args:
        command: the words that start the program, up to the subcommand.
    """

    def __init__(self, path: Path, log: Path, command: list[str], environment: dict[str, str]) -> None:
        self.path = path
        self.log = log
        begin = time.monotonic()
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, start_new_session=True, preexec_fn=_die_with_parent,
        )  # fmt: skip
        try:
            wait(lambda: self._serves() or not self.is_alive(), f"{path} serves", USABLE_SECONDS)
        except BaseException:
            self.kill()
            raise
        self.seconds_to_mount = time.monotonic() - begin

    def is_alive(self) -> bool:
        """Return whether its process runs."""
        return self.process.poll() is None

    def logged(self) -> str:
        """What it has logged."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def gauge(self) -> Gauge:
        """Return what its process takes just now."""
        folder = Path(f"/proc/{self.process.pid}")
        fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        return Gauge(
            len(os.listdir(folder / "fd")), int(fields["Threads"]), int(fields["VmRSS"].split()[0]) * 1024
        )

    def kill(self) -> None:
        """Kill its process, and take away what is left of the mount."""
        if self.is_alive():
            self.process.kill()
        self._reap()

    def unmount(self) -> None:
        """End it as a user would, and see its process end."""
        if self.is_alive():
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(40)
        hung = self.is_alive()
        self.kill()
        if hung:
            raise Difference(f"{self.path}: the process does not end")

    def _reap(self) -> None:
        self.process.wait(30)
        if self.process.stderr is not None:
            self.process.stderr.close()
        while is_mounted(self.path):
            subprocess.run(["umount", "-l", self.path], check=False, capture_output=True, timeout=30)

    def _serves(self) -> bool:
        try:
            return is_mounted(self.path) and bool(os.stat(self.path / ".ivcapfs/status.json"))
        except OSError:
            return False  # it has just died


class World:
    """A platform, and a place for mounts; a context manager.

    Args:
        folder: an empty folder for everything.
        rate: of requests that fail, 0 to 1.
        planted: the name of a bug to plant into the mounts: see `planted`.
    """

    def __init__(
        self, folder: Path, *, rate: float = 0.0, seed: int = 0, stall: float = 3.0, planted: str = ""
    ) -> None:
        self.folder = folder
        self.faults = FaultyPlatform(0.0, seed, stall)
        self.rate = rate
        self.platform = Platform(folder / "data", token=TOKEN, wrap=self.faults.wrap)
        self.spool = folder / "spool"
        self._planted = planted
        self._mounts: list[Mounted] = []
        self._token = folder / "token"

    def __enter__(self) -> Self:
        self._token.write_text(TOKEN + "\n")
        self._token.chmod(0o600)
        logging.getLogger("uvicorn.error").disabled = True  # it would say so of each answer that is lost
        self.platform.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for mount in self._mounts:
            mount.kill()
        self.platform.close()

    def mount(self, *flags: str, crash_at: str = "", **options: object) -> Mounted:
        """Mount the platform; flags and options as in `-o`, with `_` for `-`.

        Args:
            crash_at: where its process is to die: see `ivcapfs.crashing`.
        """
        number = len(self._mounts)
        path, log = self.folder / f"mnt{number}", self.folder / f"log{number}"
        path.mkdir()
        named = {"refresh": 1, "token_file": self._token, "log_file": log, "catalog_dir": self.folder / "catalog"}
        if "write" in flags:
            named["spool_dir"] = self.spool
        words = [*flags, *(f"{name.replace('_', '-')}={value}" for name, value in (named | options).items())]
        program = ["-m", "tests.torture.planted", self._planted] if self._planted else ["-m", "ivcapfs"]
        command = [sys.executable, *program, "mount", "-f", self.platform.url, str(path), "-o", ",".join(words)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("IVCAP")}
        environment |= {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(self.folder / "state")}
        if crash_at:
            environment["IVCAPFS_CRASH_AT"] = crash_at
        mounted = Mounted(path, log, command, environment)
        self._mounts.append(mounted)
        if not mounted.is_alive() and not crash_at:
            said = mounted.process.stderr.read().decode() if mounted.process.stderr else ""
            raise Difference(f"the mount did not begin: {said or mounted.logged()[-2000:]}")
        return mounted

    def begin_faults(self) -> None:
        """From now on requests fail."""
        self.faults.rate = self.rate

    def end_faults(self) -> None:
        """From now on none does."""
        self.faults.rate = 0.0

    def ready(self) -> Iterator[tuple[str, str, int]]:
        """Iterate (URN, name, size) of all artifacts that are ready, as the platform itself has them."""
        with contextlib.closing(sqlite3.connect(self.folder / "data/platform.sqlite")) as database:
            yield from database.execute("SELECT id, name, size FROM artifacts WHERE status = 'ready'").fetchall()

    def content(self, urn: str) -> bytes:
        """Return the content of an artifact, as the platform itself has it; of an empty one it may have no file."""
        with contextlib.suppress(FileNotFoundError):
            return self.platform.store.files.path(urn).read_bytes()
        return b""


def wait(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Return the first true value of `condition`.

    Raises:
        Difference: there is none within a bound.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise Difference(f"not within {seconds:g} s: {what}")


def is_mounted(path: Path) -> bool:
    """Return whether the kernel has a mount at a path, however sick."""
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def digest(data: bytes) -> str:
    """Return what tells contents apart."""
    return hashlib.sha256(data).hexdigest()


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
