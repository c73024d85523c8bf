"""Kills a mount again and again while files are written into it, and says what became of them.

The small form runs with all other tests, the long one in `tests/long`. What must hold: every file whose close(2)
returned 0 is an artifact, once, with all its bytes; no other content is ready under any name; what was never closed is
interrupted, and in no list.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ivcap_client.ivcap import IVCAP as SDK

from ivcapfs.server.runner import Platform
from tests.mount.conftest import Mount, Mounter, daemons, eventually, ivcapfs, output
from tests.mount.writer import content
from tests.mount.writing import arrived, uploads, writing_mount

WRITER = Path(__file__).with_name("writer.py")
Seen = Callable[[SDK], dict[str, list[tuple[int, str]]]]


@dataclass
class Killing:
    """One run.

    Attributes:
        closed: names of the files whose close(2) returned 0, with the seed of their writer.
        interrupted: how many files the mounts called so.
    """

    platform: Platform
    mounter: Mounter
    folder: Path
    seed: int
    largest: int
    settle: float = 0.05
    closed: dict[str, int] = field(default_factory=dict)
    begun: dict[str, int] = field(default_factory=dict)
    interrupted: int = 0

    def once(self, number: int) -> None:
        """Mount, write, and kill the mount a random moment later."""
        chance = random.Random(f"{self.seed}/{number}")
        mount = writing_mount(self.platform, self.mounter, settle=self.settle, timeout=20)
        record = self.folder / f"record{number}"
        seed = self.seed * 10_000 + number
        words = [sys.executable, str(WRITER), str(mount.artifacts), str(record), str(seed), str(self.largest)]
        with subprocess.Popen(words) as writer:
            try:
                eventually(lambda: record.exists() and b"begun" in record.read_bytes(), "it writes")
                time.sleep(chance.uniform(0, 1.0))
                (daemon,) = daemons(mount.path)
                os.kill(daemon, signal.SIGKILL)
                eventually(lambda: not daemons(mount.path), "the process is gone")
                writer.wait(timeout=60)
            finally:
                writer.kill()
        output(*ivcapfs("umount", mount.path))
        for line in record.read_text().splitlines():
            what, name = line.split()
            if what == "begun":
                self.begun[name] = seed
            elif what == "closed":
                self.closed[name] = seed
        assert "Traceback" not in mount.logged()

    def finish(self) -> Mount:
        """Mount once more, and wait until nothing is left to be done."""
        mount = writing_mount(self.platform, self.mounter, settle=self.settle)
        arrived(mount, 120)
        told = uploads(mount)
        assert (told["failed"], told["open"]) == (0, 0), told["files"]
        self.interrupted = told["interrupted"]
        return mount

    def check(self, sdk: SDK, mount: Mount) -> Counter[str]:
        """Compare what the platform has with what was closed; return some figures."""
        found: dict[str, list[str]] = {}
        for listed in sdk.list_artifacts(limit=None):
            if listed.status == "ready":
                artifact = sdk.get_artifact(listed.id)
                digest = hashlib.sha256()
                for chunk in artifact.as_stream() if artifact.size else ():
                    digest.update(chunk)
                found.setdefault(artifact.name, []).append(digest.hexdigest())
        expected = {name: self.digest(name) for name in self.begun}
        missing = sorted(set(self.closed) - set(found))
        assert not missing, f"closed, and no artifacts: {missing} (seed {self.seed})"
        twice = sorted(name for name, digests in found.items() if len(digests) > 1)
        assert not twice, f"artifacts more than once: {twice} (seed {self.seed})"
        wrong = sorted(name for name, (digest,) in found.items() if digest != expected.get(name))
        assert not wrong, f"wrong bytes: {wrong} (seed {self.seed})"
        # A close(2) that was on its way when the mount died may have been journalled, without the writer knowing.
        unknown = set(found) - set(self.closed)
        listed_here = set(os.listdir(mount.artifacts))
        assert unknown | set(self.closed) <= listed_here
        return Counter(closed=len(self.closed), begun=len(self.begun), interrupted=self.interrupted, more=len(unknown))

    def digest(self, name: str) -> str:
        """Return what the content of a file must be, as SHA-256."""
        return hashlib.sha256(content(name, self.begun[name], self.largest)).hexdigest()
