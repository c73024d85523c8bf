"""What a peer is: somebody who is timed, by fetching files or by mounting them; and how all of them are called.

Implemented in `bench.peers` and, for ivcapfs itself, in `bench.ours`; used by `bench.works` and `bench.counting`. Peers
hold no state but their settings; one thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from bench.world import Via, World

STEP_SECONDS = 300.0
"""How long one read, whatever it is, may take."""
RANGES = 8
"""How many connections make up the yardstick of the slow link."""

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


def dd(path: Path) -> list[str]:
    """Return the command that reads a file from its beginning to its end."""
    return ["dd", f"if={path}", "of=/dev/null", "bs=1M"]
