"""Who is timed: programs that fetch a file, and programs that mount. Each knows only how it is started.

Used by `bench.works` and `bench.counting`. Peers hold no state but their settings; one thread.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import itertools
import json
import os
import pwd
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.mounts import fuse_is_open_to_all
from bench.processes import StepFailed, run, run_together
from bench.world import ROOT, Via, World

STEP_SECONDS = 300.0
RANGES = 8


@dataclass(frozen=True, slots=True)
class Fetched:
    """How long it took to fetch bytes, the CPU seconds it cost, and the peak of the memory where that is known."""

    seconds: float
    cpu: float
    memory: int | None = None


class Peer(ABC):
    """Somebody who is timed."""

    name: str

    @abstractmethod
    def missing(self, world: World) -> str | None:
        """Say why it cannot take part on this machine; None: it can."""


class Fetcher(Peer):
    """A peer that only fetches whole files."""

    @abstractmethod
    def fetch(self, world: World, folder: str, via: Via) -> Fetched:
        """Fetch all files of a folder at the same time.

        Raises:
            StepFailed: it could not, or not all bytes came.
        """


class Mounter(Peer):
    """A peer that mounts a folder; its command stays in the foreground."""

    owner: int | None = None  # who mounts and reads, if not us
    reader: tuple[str, ...] = ()  # the words before the command of a program that reads from the mount

    @abstractmethod
    def command(self, world: World, folder: str, via: Via, step: Path) -> list[str]:
        """Return the command that mounts at ``mnt`` in `step`, where it may also keep what it needs."""

    def environment(self, world: World, via: Via) -> dict[str, str]:
        """Return what the command needs in its environment."""
        return world.trust(via)

    def place(self, step: Path, _folder: str) -> Path:
        """Return where a folder's files are, once mounted."""
        return step / "mnt"


class Curl(Fetcher):
    """curl, one connection a file; or several ranges of one file at the same time."""

    def __init__(self, ranges: int = 1) -> None:
        self.name = "curl" if ranges == 1 else f"curl-{ranges}"
        self._ranges = ranges

    def missing(self, world: World) -> str | None:
        """See `Peer`."""
        return _missing_program("curl")

    def fetch(self, world: World, folder: str, via: Via) -> Fetched:
        """See `Fetcher`. Many files are left to one curl, one after the other over one connection."""
        known = world.folders[folder]
        addresses = [world.files_url(folder, via) + name for name in known.files]
        common = ["curl", "--fail", "--silent", "--show-error", "--write-out", "%{size_download}\n"]
        common += ["--cacert", str(world.nginx.certificate)] if via is Via.TLS else []
        if len(addresses) > 8:
            with world.scratch() as step:
                listed = step / "urls"
                listed.write_text("".join(f'url = "{address}"\noutput = "/dev/null"\n' for address in addresses))
                return _fetched([[*common, "--config", str(listed)]], known.size * len(addresses))
        whole = [*common, "--output", "/dev/null"]
        parts = _ranges(known.size, self._ranges) if self._ranges > 1 else [None]
        commands = [[*whole, *(["--range", part] if part else []), address] for address in addresses for part in parts]
        return _fetched(commands, known.size * len(addresses))


class Sdk(Fetcher):
    """The official SDK's `as_local_file`, into memory."""

    name = "sdk"

    def missing(self, world: World) -> str | None:
        """See `Peer`."""
        if not Path("/dev/shm").is_dir():
            return "there is no /dev/shm"
        return _missing_module("ivcap_client")

    def fetch(self, world: World, folder: str, via: Via) -> Fetched:
        """See `Fetcher`; of the folder's first file only."""
        known = world.folders[folder]
        target = Path(f"/dev/shm/ivcapfs-bench-{os.getpid()}")
        url, urn = world.api_url(folder, via), world.urn(folder, known.files[0])
        try:
            command = [world.python, "-m", "bench.sdk_read", url, urn, str(target)]
            done = run(command, timeout=STEP_SECONDS, env={"PYTHONPATH": str(ROOT), **world.trust(via)})
        finally:
            target.unlink(missing_ok=True)
        said = json.loads(done.output.splitlines()[-1])
        if said["size"] != known.size:
            raise StepFailed(f"{said['size']} bytes came instead of {known.size}")
        return Fetched(said["seconds"], said["cpu"], said["memory"])


class Local(Fetcher):
    """dd of a local file in the page cache: what a second read is held against."""

    name = "local"

    def missing(self, world: World) -> str | None:
        """See `Peer`."""
        return None

    def fetch(self, world: World, folder: str, via: Via) -> Fetched:
        """See `Fetcher`."""
        known = world.folders[folder]
        done = run_together([dd(world.files / folder / name) for name in known.files], timeout=STEP_SECONDS)
        return Fetched(max(one.seconds for one in done), sum(one.cpu for one in done))


class Rclone(Mounter):
    """``rclone mount`` of an http remote.

    Args:
        name: of the peer.
        options: of ``rclone mount``.
    """

    def __init__(self, name: str, *options: str) -> None:
        self.name = name
        self._options = options

    def missing(self, world: World) -> str | None:
        """See `Peer`."""
        return _missing_program("rclone")

    def command(self, world: World, folder: str, via: Via, step: Path) -> list[str]:
        """See `Mounter`."""
        return [
            *("rclone", "mount", ":http:", str(step / "mnt"), "--http-url", world.files_url(folder, via)),
            *("--config", "/dev/null", "--cache-dir", str(step / "cache"), "--read-only", *self._options),
        ]


class FsspecFuse(Mounter):
    """fsspec's FUSE bridge over its HTTP filesystem; it needs libfuse 2."""

    name = "fsspec"

    def missing(self, world: World) -> str | None:
        """See `Peer`."""
        if self._library() is None:
            return "libfuse 2 is missing: scripts/bench --setup"
        return _missing_module("fsspec") or _missing_module("aiohttp") or _missing_module("fuse", "fusepy")

    def command(self, world: World, folder: str, via: Via, step: Path) -> list[str]:
        """See `Mounter`."""
        return [world.python, "-m", "bench.fsspec_mount", world.files_url(folder, via), str(step / "mnt")]

    def environment(self, world: World, via: Via) -> dict[str, str]:
        """See `Mounter`."""
        return {"PYTHONPATH": str(ROOT), "FUSE_LIBRARY_PATH": self._library() or "", **world.trust(via)}

    @staticmethod
    def _library() -> str | None:
        return os.environ.get("FUSE_LIBRARY_PATH") or ctypes.util.find_library("fuse")


class Ivcapfs(Mounter):
    """ivcapfs itself.

    Args:
        options: further mount options, as for ``-o``.
        ordinary: mount and read as an ordinary user (nobody), though we are root.
    """

    def __init__(self, options: str = "", *, ordinary: bool = False) -> None:
        self.name = "ivcapfs-user" if ordinary else "ivcapfs"
        self._options = ["-o", options] if options else []
        self._ordinary = ordinary
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
        try:
            run([*self.reader, world.python, "-c", "import ivcapfs.cli"], timeout=60, env={"PYTHONPATH": str(ROOT)})
        except StepFailed as exc:
            return f"the user nobody cannot run it ({exc})"
        return None

    def command(self, world: World, folder: str, via: Via, step: Path) -> list[str]:
        """See `Mounter`."""
        words = ("mount", "-f", *self._options, world.api_url(folder, via), str(step / "mnt"))
        return [*self.reader, world.python, "-m", "ivcapfs", *words]

    def environment(self, world: World, via: Via) -> dict[str, str]:
        """See `Mounter`."""
        home = {"HOME": "/nonexistent"} if self._ordinary else {}
        return {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **home, **world.trust(via)}

    def place(self, step: Path, folder: str) -> Path:
        """See `Mounter`."""
        return step / "mnt" / "artifacts" / folder


TITLES = {
    "curl": "curl",
    f"curl-{RANGES}": f"curl, {RANGES} ranges at once",
    "local": "a local file in page cache",
    "sdk": "SDK as_local_file",
    "rclone-off": "rclone mount (off)",
    "rclone-full": "rclone mount (full)",
    "rclone-best": "rclone mount (best)",
    "fsspec": "fsspec FUSE",
    "ivcapfs": "ivcapfs",
    "ivcapfs-user": "ivcapfs (user)",
}
"""How the peers are called in print."""


def all_peers(options: str = "") -> dict[str, Peer]:
    """Return every peer by name.

    Args:
        options: further mount options of ivcapfs.
    """
    peers: Sequence[Peer] = [
        Curl(),
        Curl(RANGES),
        Local(),
        Sdk(),
        Rclone("rclone-off", "--vfs-cache-mode", "off"),
        Rclone("rclone-full", "--vfs-cache-mode", "full"),
        Rclone("rclone-best", *best_rclone_options()),
        FsspecFuse(),
        Ivcapfs(options),
        Ivcapfs(options, ordinary=True),
    ]
    return {peer.name: peer for peer in peers}


def best_rclone_options() -> list[str]:
    """Return what makes this rclone fastest over a slow link: parallel chunks where it has them (from 1.68 on)."""
    options = ["--vfs-cache-mode", "full", "--buffer-size", "256M", "--vfs-read-ahead", "512M"]
    try:
        offered = run(["rclone", "mount", "--help"], timeout=30).output if shutil.which("rclone") else ""
    except StepFailed:
        offered = ""
    if "--vfs-read-chunk-streams" in offered:
        options += ["--vfs-read-chunk-streams", str(RANGES), "--vfs-read-chunk-size", "8M"]
    return options


def dd(path: Path) -> list[str]:
    """Return the command that reads a file from its beginning to its end."""
    return ["dd", f"if={path}", "of=/dev/null", "bs=1M"]


def _fetched(commands: list[list[str]], size: int) -> Fetched:
    done = run_together(commands, timeout=STEP_SECONDS)
    came = sum(int(line) for one in done for line in one.output.split())
    if came != size:
        raise StepFailed(f"{came} bytes came instead of {size}")
    return Fetched(max(one.seconds for one in done), sum(one.cpu for one in done))


def _ranges(size: int, number: int) -> list[str]:
    """Return `number` ranges that make up `size` bytes, as curl wants them."""
    edges = [size * part // number for part in range(number + 1)]
    return [f"{first}-{last - 1}" for first, last in itertools.pairwise(edges)]


def _missing_program(name: str) -> str | None:
    return None if shutil.which(name) else f"{name} is missing: scripts/bench --setup"


def _missing_module(name: str, package: str | None = None) -> str | None:
    return None if importlib.util.find_spec(name) else f"{package or name} is missing: scripts/bench --setup"
