"""Disks that are full: cache folder, catalog and spool each on a small one, filled to one level after the other.

A fresh mount at each level; at even ones the disks are filled before it is made, at odd ones while it works, and then
nearly or quite to the brim. Readers are unharmed: all is listed, every byte is right, no read fails. Who writes gets
ENOSPC, or an artifact: each file whose close(2) returned 0 becomes one with its bytes, no other does. Nothing hangs.
Once there is room again, a new file goes through. Root only: it mounts tmpfs(5).

Its self-check plants ``silent loss``: what does not fit into the spool is dropped without a word.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.torture.crashes import UPLOAD
from tests.torture.world import Difference, Mounted, World, digest, wait

KIB, MIB = 1024, 1024 * 1024
SIZE = 4 * MIB
"""Of each disk."""
DISKS = ("cache", "catalog", "spool")
HANG_SECONDS = 60.0
SEEDED = 4
FILES = 6
OPTIONS = {"settle": 0.05, "timeout": 5, "cache_size": 2 * MIB, "read_ahead": 512 * KIB, "cache_dir_size": SIZE}


@dataclass
class FullDisks:
    """One run: see the module.

    Attributes:
        written: how many files went through, by the level.
        refused: how often a writer got ENOSPC, by the call.
        no_mount: levels at which there was no room for a spool at all, which the command said.
    """

    world: World
    seed: int
    levels: int = 0
    written: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    no_mount: int = 0
    _seeded: dict[str, bytes] = field(default_factory=dict)
    _expected: dict[str, str] = field(default_factory=dict)

    def run(self, levels: list[int], tell: Callable[[str], None]) -> None:
        """Go through the levels.

        Args:
            levels: in percent.

        Raises:
            Difference: something is lost, wrong, or hangs.
        """
        chance = random.Random(f"full/{self.seed}")
        for number in range(SEEDED):
            name, data = f"seeded-{number}", chance.randbytes(500 * KIB)
            self._expected[self.world.platform.store.add_artifact(name=name, content=data)] = digest(data)
            self._seeded[name] = data
        for level in levels:
            with self._disks(level) as disks:
                self._at(level, disks, random.Random(f"{self.seed}/{level}"))
            self.levels += 1
            tell(f"{level} %: {self.written} files written, {self.refused.total()} refused")

    def figures(self) -> dict[str, Any]:
        """Return what happened."""
        return {
            "levels": self.levels, "disks": list(DISKS), "files written": self.written,
            "ENOSPC": dict(self.refused), "spools without room for a mount": self.no_mount,
            "reads that failed": 0, "lost": 0, "wrong": 0, "hangs": 0,
        }  # fmt: skip

    # -- one level -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _disks(self, level: int) -> Iterator[dict[str, Path]]:
        disks = {name: self.world.folder / f"{name}-{level}" for name in DISKS}
        mounted = []
        try:
            for name, path in disks.items():
                path.mkdir()
                words = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", f"torture-{name}", str(path)]
                subprocess.run(words, check=True, capture_output=True, timeout=30)
                mounted.append(path)
            yield disks
        finally:
            for path in mounted:
                subprocess.run(["umount", "-l", path], check=False, capture_output=True, timeout=30)

    def _at(self, level: int, disks: dict[str, Path], chance: random.Random) -> None:
        is_before = level % 2 == 0
        if is_before:
            for path in disks.values():
                fill(path, level)
        # The cache folder and the spool hold nothing but their own: they are folders on the disks.
        options = {"cache_dir": disks["cache"] / "own", "catalog_dir": disks["catalog"] / "own",
                   "spool_dir": disks["spool"] / "own"}  # fmt: skip
        try:
            mount = self.world.mount("write", **OPTIONS, **options)
        except Difference as exc:
            if "No space left" not in str(exc):
                raise
            self.no_mount += 1
            return
        pool = ThreadPoolExecutor(1)
        try:
            future = pool.submit(self._work, mount, level, disks, chance, is_before)
            try:
                future.result(HANG_SECONDS)
            except TimeoutError:
                raise Difference(f"{level} %: something hangs") from None
            mount.unmount()
        finally:
            mount.kill()
            pool.shutdown(wait=False, cancel_futures=True)
        if "Traceback" in mount.logged():
            raise Difference(f"{level} %: a traceback in {mount.log}")
        self._check(level)

    def _work(self, mount: Mounted, level: int, disks: dict[str, Path], chance: random.Random, is_before: bool) -> None:
        for number in range(FILES):
            if number == FILES // 2 and not is_before:
                for path in disks.values():
                    fill(path, 98 if level % 4 == 1 else 100)
            self._read(mount, level)
            name, data = f"level-{level}-{number}", chance.randbytes(chance.choice((0, 1, 4096, 100_000, 900_000)))
            self._write(mount, name, data)
        self._read(mount, level)
        for path in disks.values():
            (path / "filler").unlink(missing_ok=True)
        self._write(mount, f"level-{level}-last", b"there is room again", must=True)
        self._settle(mount, level)

    def _read(self, mount: Mounted, level: int) -> None:
        names = set(os.listdir(mount.path / "artifacts"))
        if not set(self._seeded) <= names:
            raise Difference(f"{level} %: not listed: {set(self._seeded) - names}")
        for name, data in self._seeded.items():
            try:
                with open(mount.path / "artifacts" / name, "rb", buffering=0) as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    got = file.read()
            except OSError as exc:
                raise Difference(f"{level} %: {name} cannot be read: {exc!r}") from exc
            if got != data:
                raise Difference(f"{level} %: {name} has other bytes")

    def _write(self, mount: Mounted, name: str, data: bytes, *, must: bool = False) -> None:
        """Write a file, which may be refused with ENOSPC; that is then removed, as far as it is there."""
        path, call = mount.path / "artifacts" / name, "open"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            call = "write"
            try:
                for at in range(0, len(data), 65_536):
                    os.pwrite(fd, data[at : at + 65_536], at)
                call = "close"
            finally:
                os.close(fd)
        except OSError as exc:
            if exc.errno != errno.ENOSPC or must:
                raise Difference(f"{name}: {call}: {exc!r}") from exc
            self.refused[call] += 1
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        else:
            self.written += 1
            self._expected[name] = digest(data)

    def _settle(self, mount: Mounted, level: int) -> None:
        def told() -> dict[str, Any]:
            os.setxattr(mount.path / ".ivcapfs/status.json", UPLOAD, b"now")
            uploads: dict[str, Any] = json.loads((mount.path / ".ivcapfs/status.json").read_bytes())["uploads"]
            return uploads

        wait(lambda: not (now := told())["pending"] and not now["open"], f"{level} %: all is sent", HANG_SECONDS / 2)
        if told()["failed"] or told()["interrupted"]:
            raise Difference(f"{level} %: kept, but nobody was told: {told()['files']}")

    def _check(self, level: int) -> None:
        """Compare what the platform has with what went through."""
        found: Counter[str] = Counter()
        for urn, name, size in self.world.ready():
            key = urn if urn in self._expected else name
            data = self.world.content(urn)
            if len(data) != (size or 0) or digest(data) != self._expected.get(key):
                raise Difference(f"{level} %: {name}: {len(data)} bytes, which is not what was written and closed")
            found[key] += 1
        if lost := set(self._expected) - set(found):
            raise Difference(f"{level} %: closed, and no artifacts: {sorted(lost)}")
        if twice := [name for name, count in found.items() if count > 1]:
            raise Difference(f"{level} %: more than once: {twice}")


def fill(disk: Path, level: int) -> None:
    """Fill a disk, up to so many percent of it; what is there counts."""
    told = os.statvfs(disk)
    size = max(told.f_bavail * told.f_frsize - SIZE * (100 - level) // 100, 0)
    with contextlib.suppress(OSError), open(disk / "filler", "ab", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, max(size, 1))
