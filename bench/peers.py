"""Who is timed beside ivcapfs: programs that fetch files, and programs that mount. Each knows only how it is started.

Used by `bench.cli`, which asks for all of them. One thread.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import itertools
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.ours import Ivcapfs
from bench.peer import RANGES, STEP_SECONDS, Fetched, Fetcher, Mounter, Peer, dd
from bench.processes import StepFailed, run, run_together
from bench.world import ROOT, Via, World


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
