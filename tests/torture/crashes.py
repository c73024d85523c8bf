"""Mounts that are killed at named points, and what the next mount makes of it.

After each death: a mount serves again within 30 s, and soon every file whose close(2) returned 0 is an artifact, once,
with its bytes; nothing else that is ready holds anything but the whole content of a file that was being closed; what is
read has the right bytes. The points are those of `ivcapfs.crashing`. Catalog, cache and spool live through all of it.
The writer is `tests/mount/writer.py`; it records each close(2) that returned 0.

Its self-check plants ``early close``: the journal does not hear of a close(2) (`tests.torture.planted`).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ivcapfs.crashing import POINTS
from tests.mount.writer import content
from tests.torture.world import ROOT, Difference, Mounted, World, digest, wait

WRITER = ROOT / "tests/mount/writer.py"
UPLOAD = "user.ivcap.upload"
TOKENS = "token write-back"
KIB, MIB = 1024, 1024 * 1024
SEEDED = 6
"""Artifacts that are read all the time."""
DEATH_SECONDS = 12.0
"""A point that is not reached within this is counted as missed; the mount is killed then, wherever it is."""
OPTIONS = {"settle": 0.05, "timeout": 5, "cache_size": 4 * MIB, "read_ahead": MIB, "cache_dir_size": 16 * MIB}
_WRITE_BACK = """
import sys
from pathlib import Path
from ivcapfs.client.contextfile import ContextFile
from ivcapfs.config import crash_at
from ivcapfs.contexts import ContextPlace
from ivcapfs.crashing import arm
arm(crash_at())
file = ContextFile(ContextPlace(Path(sys.argv[1]), "torture"), lambda seconds: None)
with file.locked():
    file.write({"access-token": "new", "refresh-token": "newer"})
"""


@dataclass
class Crashes:
    """One run: see the module.

    Attributes:
        deaths: how often the mount died at each point.
        missed: how often it was not reached.
        closed: the digest of every file whose close(2) returned 0, by name.
        longest: seconds that a mount took to serve again.
    """

    world: World
    seed: int
    deaths: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    closed: dict[str, str] = field(default_factory=dict)
    begun: dict[str, str] = field(default_factory=dict)
    interrupted: int = 0
    unknown: int = 0
    longest: float = 0.0
    _checked: dict[str, str] = field(default_factory=dict)  # URN -> name
    _seeded: dict[str, bytes] = field(default_factory=dict)
    _added: int = 0

    def add(self) -> None:
        """Put an artifact in place, to be read from now on in place of an older one."""
        number = self._added = self._added + 1
        data = random.Random(f"seeded/{self.seed}/{number}").randbytes(700 * KIB)
        urn = self.world.platform.store.add_artifact(name=f"seeded-{number}", content=data)
        self._checked[urn] = f"seeded-{number}"
        self._seeded[f"seeded-{number}"] = data
        self._seeded.pop(f"seeded-{number - SEEDED}", None)

    def run(
        self, count: int, tell: Callable[[str], None], until: float = float("inf"), *, check_every: int = 1
    ) -> int:
        """Let mounts die so many times, at all points in turn; return how often they did.

        Args:
            check_every: after how many deaths it is looked at what is left; else the next mount, which is to die as
                well, takes up what the last one left.
            until: no further one is begun after this, on the monotonic clock.

        Raises:
            Difference: something is lost, doubled or wrong.
        """
        number = 0
        while number < count and time.monotonic() < until:
            point = POINTS[number % len(POINTS)]
            self.once(number, point)
            number += 1
            if number % check_every == 0:
                self.look(f"after {point}, crash {number}, seed {self.seed}")
            tell(f"{number}: {point}: {len(self.closed)} files closed so far")
        self.look(f"at the end, seed {self.seed}")
        return number

    def once(self, number: int, point: str) -> None:
        """Let a mount die at a point."""
        chance = random.Random(f"{self.seed}/{number}")
        if point == TOKENS:
            write_back_dies(self.world.folder)
            self.deaths[point] += 1
            return
        count = 1 if point in ("mid chunk", "cache write") else chance.randint(1, 8)
        for _ in range(1 if point == "cache write" else SEEDED - self._added):
            self.add()
        mount = self._mount(f"{point}:{count}")
        has_died = self._write_until_it_dies(mount, number, 3 * MIB if point == "mid chunk" else 40 * KIB)
        (self.deaths if has_died else self.missed)[point] += 1
        mount.kill()
        if "Traceback" in mount.logged():
            raise Difference(f"a traceback in {mount.log} (seed {self.seed}, crash {number})")

    def look(self, when: str) -> None:
        """Mount once more, and look at what is left.

        Raises:
            Difference: something is lost, doubled or wrong.
        """
        again = self._mount()
        self.longest = max(self.longest, again.seconds_to_mount)
        self._settle(again)
        self._check(again, when)
        again.unmount()

    def figures(self) -> dict[str, Any]:
        """Return what happened."""
        return {
            "crashes": self.deaths.total(), "by point": dict(self.deaths), "not reached": dict(self.missed),
            "files closed": len(self.closed), "files begun": len(self.begun), "interrupted": self.interrupted,
            "close on its way": self.unknown, "lost": 0, "doubled": 0, "wrong": 0,
            "seconds to mount again, at most": round(self.longest, 2),
        }  # fmt: skip

    # -- one crash -----------------------------------------------------------------------------------------------

    def _mount(self, crash_at: str = "") -> Mounted:
        return self.world.mount("write", crash_at=crash_at, cache_dir=self.world.folder / "cache", **OPTIONS)

    def _write_until_it_dies(self, mount: Mounted, number: int, largest: int) -> bool:
        """Return whether it died by itself."""
        record, seed = self.world.folder / f"record{number}", self.seed * 10_000 + number
        words = [sys.executable, str(WRITER), str(mount.path / "artifacts"), str(record), str(seed), str(largest)]
        end = time.monotonic() + DEATH_SECONDS
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as writer:
            try:
                while mount.is_alive() and time.monotonic() < end:
                    self._read(mount, is_dying=True)
                has_died = not mount.is_alive()
                mount.kill()
                writer.wait(30)
            finally:
                writer.kill()
        for line in record.read_text().splitlines() if record.exists() else ():
            what, name = line.split()
            if what == "begun":
                self.begun[name] = digest(content(name, seed, largest))
            elif what == "closed":
                self.closed[name] = self.begun[name]
        return has_died

    def _read(self, mount: Mounted, *, is_dying: bool) -> None:
        """Read what was there before, and forget it, so that the cache folder is used."""
        for name, data in self._seeded.items():
            try:
                fd = os.open(mount.path / "artifacts" / name, os.O_RDONLY)
                try:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                    got = os.pread(fd, len(data), 0)
                finally:
                    os.close(fd)
            except OSError:
                if is_dying:
                    time.sleep(0.02)
                    return
                raise
            if got != data:
                raise Difference(f"{name}: wrong bytes read")

    def _settle(self, mount: Mounted) -> None:
        """Wait until nothing is left to be completed, and remove what was interrupted."""

        def told() -> dict[str, Any]:
            os.setxattr(mount.path / ".ivcapfs/status.json", UPLOAD, b"now")
            status: dict[str, Any] = json.loads((mount.path / ".ivcapfs/status.json").read_bytes())["uploads"]
            return status

        wait(lambda: not (now := told())["pending"] and not now["open"], "all that was closed is an artifact")
        left = told()
        if left["failed"]:
            raise Difference(f"closed, and failed: {left['files']}")
        for file in left["files"]:
            if file["state"].startswith("interrupted"):
                self.interrupted += 1
                os.unlink(mount.path / file["path"])

    def _check(self, mount: Mounted, when: str) -> None:
        for urn, name, size in self.world.ready():
            if urn in self._checked:
                continue
            data = self.world.content(urn)
            if len(data) != (size or 0) or digest(data) != self.begun.get(name):
                raise Difference(f"{name}: {len(data)} bytes that are not what was written, {when}")
            if name in self._checked.values():
                raise Difference(f"{name} is two artifacts, {when}")
            self._checked[urn] = name
        names = set(self._checked.values())
        if lost := set(self.closed) - names:
            raise Difference(f"closed, and no artifacts: {sorted(lost)}, {when}")
        self.unknown = len(names & set(self.begun) - set(self.closed))
        self._read(mount, is_dying=False)
        if names - set(os.listdir(mount.path / "artifacts")):
            raise Difference(f"not listed: {sorted(names - set(os.listdir(mount.path / 'artifacts')))}, {when}")


def write_back_dies(folder: Path) -> None:
    """Kill a process that writes a new login into the `ivcap` program's file: the old one stands there, whole; the next
    one gets through, and leaves nothing else behind."""
    place = folder / "login"
    place.mkdir(exist_ok=True)
    file = place / "config.yaml"
    old = {"access-token": "old", "refresh-token": "older", "name": "torture", "url": "https://example.org"}
    file.write_text(yaml.safe_dump({"version": "v1", "contexts": [old]}))
    file.chmod(0o600)
    before = file.read_bytes()
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _WRITE_BACK, str(file)]
    died = subprocess.run(command, env=environment | {"IVCAPFS_CRASH_AT": TOKENS}, check=False, timeout=60)
    if died.returncode != -9 or file.read_bytes() != before:
        raise Difference(f"killed at '{TOKENS}' ({died.returncode}), the login is {file.read_bytes()!r}")
    second = "arm(crash_at())\n"
    subprocess.run([*command[:2], _WRITE_BACK.replace(second, ""), str(file)], env=environment, check=True, timeout=60)
    (context,) = yaml.safe_load(file.read_text())["contexts"]
    if context != old | {"access-token": "new", "refresh-token": "newer"} or file.stat().st_mode & 0o77:
        raise Difference(f"after a killed write-back the next one left {context}")
    with contextlib.suppress(FileNotFoundError):
        (place / ".config.yaml.lock").unlink()
    if os.listdir(place) != ["config.yaml"]:
        raise Difference(f"left behind: {os.listdir(place)}")
