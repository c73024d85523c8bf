"""The storm: processes read, list, write and set aspects through real mounts while requests fail, against a model.

Two mounts of one platform share a catalog and a cache folder; one writes, one only reads. Caches are on, and so small
that blocks go to the disk and come back all the time. As root the kernel is made to forget paths every minute, as it
does where memory is short: else it remembers each one that the storm ever made, and the mounts with it. Each process
(`tests.torture.worker`) checks every answer; in the end everything is compared with what the platform itself has: each
file that was closed is an artifact, once, with its bytes, its name and its aspect, and nothing else is.

Its self-check plants ``flipped byte``: one read in 300 has one wrong bit (`tests.torture.planted`). The soak's plants
``leak``: every open keeps a descriptor for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ivcapfs.cache.reader import BLOBS
from tests.torture.contents import make_pool, own, shared, shared_name, whose
from tests.torture.model import ASPECT
from tests.torture.worker import Job
from tests.torture.world import ROOT, Difference, Gauge, Mounted, World, wait

MIB = 1024 * 1024
TIMEOUT = 1.0
"""The mounts' option: an operation takes 2.5 times that at most, says docs/SEMANTICS.md."""
BOUND = 2.5 * TIMEOUT
OVERTIME = 90.0
"""Seconds after which a process that should have ended is taken to hang."""
OPTIONS = {
    "timeout": TIMEOUT, "settle": 0.5, "cache_size": 8 * MIB, "read_ahead": 2 * MIB, "cache_dir_size": 24 * MIB,
}  # fmt: skip
WARM = "shared/warm"
FORGET_SECONDS = 60.0
_DROP_CACHES, _PATHS = Path("/proc/sys/vm/drop_caches"), "2"
"""proc_sys_vm(5)"""
MOST_MORE = {"descriptors": 64, "threads": 64, "resident": 96 * MIB}
"""What a mount may have more at the end than in the middle, when all its pools have been in use."""


@dataclass
class Storm:
    """One run: see the module.

    Args:
        warm: whether each mount reads as many contents as it remembers, before anything is measured. Without that, a
            process grows for most of an hour until it has as many, and what grows for ever cannot be told from it.

    Attributes:
        samples: of each mount's process, (seconds since the beginning, what it takes).
    """

    world: World
    seed: int
    workers: int = 12
    shared: int = 600
    warm: bool = False
    samples: dict[str, list[tuple[float, Gauge]]] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    longest: dict[str, float] = field(default_factory=dict)
    metadata: list[float] = field(default_factory=list)
    seconds: float = 0.0
    artifacts: int = 0

    def run(self, tell: Callable[[str], None], operations: int | None = None, seconds: float | None = None) -> None:
        """Let it rage.

        Args:
            operations: of all processes together; None: no bound.
            seconds: how long at most.

        Raises:
            Difference: something is not as the model has it.
        """
        pool = self.world.folder / "pool"
        make_pool(pool, self.seed)
        noise = pool.read_bytes()
        with self.world.platform.store.batch():
            for number in range(self.shared):
                content = bytes(shared(noise, number))
                self.world.platform.store.add_artifact(name=shared_name(number), content=content)
            for name in (f"{number:05}" for number in range(BLOBS if self.warm else 0)):
                self.world.platform.store.add_artifact(name=f"{WARM}/{name}", content=name.encode())
        cache = self.world.folder / "cache"
        writing = self.world.mount("write", cache_dir=cache, **OPTIONS)
        reading = self.world.mount(cache_dir=cache, **OPTIONS)
        if self.warm:
            for mount in (writing, reading):
                self._warm_up(mount, tell)
        for index in range(self.workers):
            (writing.path / f"artifacts/w{index}").mkdir(parents=True)
        each = None if operations is None else -(-operations // self.workers)
        jobs = [
            Job(index, self.workers, self.seed, str(writing.path), str(reading.path), str(pool), self.shared, each,
                seconds)
            for index in range(self.workers)
        ]  # fmt: skip
        found = self._let_work(jobs, {"writing": writing, "reading": reading}, tell)
        self._finish(writing)
        self._check_own(found, noise)
        self._check_aspects(found)
        for mount in (writing, reading):
            self._check_listed(mount, found)
            if "Traceback" in mount.logged():
                raise Difference(f"a traceback in {mount.log}")
            mount.unmount()
        self._check_growth()

    def figures(self) -> dict[str, Any]:
        """Return what happened."""
        order = sorted(self.metadata) or [0.0]
        at = {f"p{part:g}": order[min(int(len(order) * part / 100), len(order) - 1)] for part in (50, 99, 99.9, 100)}
        faults = self.world.faults
        return {
            "operations": self.done.total(), "by kind": dict(self.done), "seconds": round(self.seconds, 1),
            "requests": faults.requests, "faults": faults.injected.total(), "faults by kind": dict(faults.injected),
            "refused": dict(self.refused), "artifacts made": self.artifacts,
            "metadata operations": len(self.metadata),
            "metadata seconds": {name: round(value, 5) for name, value in at.items()},
            "longest seconds": {name: round(value, 2) for name, value in sorted(self.longest.items())},
            "mounts": {name: _marks(samples) for name, samples in self.samples.items()},
            "slope per hour, second half": {name: _slopes(samples) for name, samples in self.samples.items()},
        }  # fmt: skip

    # -- the run -------------------------------------------------------------------------------------------------

    def _warm_up(self, mount: Mounted, tell: Callable[[str], None]) -> None:
        """Read as many contents as a mount remembers."""
        folder = mount.path / "artifacts" / WARM
        names = sorted(os.listdir(folder))
        for name in names:
            if (folder / name).read_bytes() != name.encode():
                raise Difference(f"wrong bytes in {WARM}/{name}")
        tell(f"{mount.path.name} has read {len(names)} contents")

    def _let_work(
        self, jobs: list[Job], mounts: dict[str, Mounted], tell: Callable[[str], None]
    ) -> list[dict[str, Any]]:
        begin = time.monotonic()
        processes, outputs = [], []
        self.world.begin_faults()
        try:
            for job in jobs:
                output = (self.world.folder / f"found{job.index}").open("w+b")
                outputs.append(output)
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.torture.worker"], cwd=ROOT, stdin=subprocess.PIPE, stdout=output,
                    stderr=subprocess.PIPE,
                )  # fmt: skip
                processes.append(process)
                assert process.stdin is not None
                process.stdin.write(json.dumps(asdict(job)).encode())
                process.stdin.close()
                process.stdin = None
            self._watch(processes, mounts, begin, tell, jobs[0].seconds)
            said = [process.communicate()[1].decode() for process in processes]
            self.seconds = time.monotonic() - begin
        finally:
            self.world.end_faults()
            for process in processes:
                process.kill()
                process.wait()
        found = []
        for process, words, output in zip(processes, said, outputs, strict=True):
            with output:
                if process.returncode:
                    raise Difference(f"a process of the storm died: {words[-2000:]}")
                output.seek(0)
                found.append(json.load(output))
        for each in found:
            self.done.update(each["done"])
            self.refused.update(each["refused"])
            self.metadata += each["metadata"]
            for name, value in each["longest"].items():
                self.longest[name] = max(self.longest.get(name, 0.0), value)
        if differences := [each["difference"] for each in found if each["difference"]]:
            raise Difference(f"seed {self.seed}: " + "; ".join(differences))
        return found

    def _watch(
        self, processes: list[subprocess.Popen[bytes]], mounts: dict[str, Mounted], begin: float,
        tell: Callable[[str], None], seconds: float | None,
    ) -> None:  # fmt: skip
        """Take samples until all processes have ended."""
        told, forgot = 0.0, 0.0
        while any(process.poll() is None for process in processes):
            past = time.monotonic() - begin
            for name, mount in mounts.items():
                if not mount.is_alive():
                    raise Difference(f"the {name} mount died: {mount.logged()[-2000:]}")
                self.samples.setdefault(name, []).append((past, mount.gauge()))
            if seconds is not None and past > seconds + OVERTIME:
                raise Difference(f"an operation hangs: no end {OVERTIME:g} s after the time")
            if past > forgot + FORGET_SECONDS:
                forgot = past
                with contextlib.suppress(OSError):  # not root, or in a container
                    _DROP_CACHES.write_text(_PATHS)
            if past > told:
                told = past + 10
                faults = self.world.faults
                tell(f"{past:.0f} s: {faults.requests} requests, {faults.injected.total()} of them failed")
            time.sleep(0.5)

    # -- the end -------------------------------------------------------------------------------------------------

    def _finish(self, mount: Mounted) -> None:
        """Wait until all that was closed is an artifact."""

        def is_idle() -> bool:
            told = json.loads((mount.path / ".ivcapfs/status.json").read_bytes())["uploads"]
            if told["failed"] or told["interrupted"]:
                raise Difference(f"what was closed is not sent: {told['files']}")
            return not told["pending"] and not told["open"]

        wait(is_idle, "all that was closed is an artifact", 120)

    def _check_own(self, found: list[dict[str, Any]], pool: bytes) -> None:
        """Compare the platform's artifacts with what was written."""
        made: dict[tuple[str, int], int] = {}
        empty: Counter[str] = Counter()
        for urn, name, size in self.world.ready():
            if name.startswith("shared/"):
                continue
            self.artifacts += 1
            data = self.world.content(urn)
            if not size:
                empty[name] += 1
                continue
            who = whose(data)
            if who is None or data != own(pool, *who) or not name.startswith(f"w{who[0]}/"):
                raise Difference(f"{name} ({urn}): {len(data)} bytes that nobody wrote")
            made[name, who[1]] = made.get((name, who[1]), 0) + 1
        wanted: Counter[tuple[str, int]] = Counter()
        for each in found:
            for name, version, size, _ in each["own"]["made"]:
                if size:
                    wanted[name, version] += 1
                elif empty.pop(name, 0) != 1:
                    raise Difference(f"{name}, which is empty, is not one artifact")
        if empty:
            raise Difference(f"empty artifacts that should not be: {dict(empty)}")
        if made != dict(wanted):
            few, many = wanted - Counter(made), Counter(made) - wanted
            raise Difference(f"seed {self.seed}: lost: {dict(few)}; too many, or never closed: {dict(many)}")

    def _check_aspects(self, found: list[dict[str, Any]]) -> None:
        """Compare the platform's aspects with what was set."""
        wanted = {(name, 0): values for each in found for name, values in each["aspects"].items()}
        wanted |= {
            (name, version if size else 0): values
            for each in found for name, version, size, values in each["own"]["made"] if values
        }  # fmt: skip
        with contextlib.closing(sqlite3.connect(self.world.folder / "data/platform.sqlite")) as database:
            there: dict[tuple[str, int], list[int]] = {}
            rows = database.execute(
                "SELECT a.name, a.id, s.content FROM aspects s JOIN artifacts a ON a.id = s.entity"
                " WHERE s.schema = ? AND s.valid_to IS NULL AND a.status = 'ready'",
                (ASPECT.removeprefix("user.ivcap.aspect."),),
            )
            for name, urn, content in rows:
                version = (whose(self.world.content(urn)) or (0, 0))[1]
                there.setdefault((name, version), []).append(json.loads(content)["n"])
        for name, allowed in wanted.items():
            values = there.pop(name, [None])  # type: ignore[list-item]
            if len(values) != 1 or (values[0] not in allowed and None not in allowed):
                raise Difference(f"seed {self.seed}: {name} has the aspects {values}, allowed are {allowed}")
        if there:
            raise Difference(f"aspects that nobody set: {there}")

    def _check_listed(self, mount: Mounted, found: list[dict[str, Any]]) -> None:
        """See that a mount comes to list what was written."""
        for index, each in enumerate(found):
            names = {name.partition("/")[2] for name, *_ in each["own"]["made"]}
            folder = mount.path / f"artifacts/w{index}"
            if names:
                wait(
                    lambda folder=folder, names=names: folder.exists()
                    and {name.name for name in folder.iterdir() if "@" not in name.name} == names,
                    f"{folder} lists what was written",
                )

    def _check_growth(self) -> None:
        """See that nothing grew from the middle to the end as a leak does."""
        for which, samples in self.samples.items():
            marks = _marks(samples)
            for name, most in MOST_MORE.items():
                before, after = marks["middle"][name], marks["end"][name]
                if after > before + most:
                    raise Difference(f"the {which} mount's {name} went from {before} to {after}")


def _marks(samples: list[tuple[float, Gauge]]) -> dict[str, dict[str, int]]:
    """Return what a mount took at the start, in the middle and at the end."""
    at = {"start": 0, "middle": len(samples) // 2, "end": -1}
    return {name: asdict(samples[place][1]) for name, place in at.items()}


def _slopes(samples: list[tuple[float, Gauge]]) -> dict[str, float]:
    """Return how much each figure grows in an hour, by least squares."""
    half = samples[len(samples) // 2 :]
    mean_time = sum(at for at, _ in half) / len(half)
    spread = sum((at - mean_time) ** 2 for at, _ in half) or 1.0
    return {
        name: round(3600 * sum((at - mean_time) * getattr(gauge, name) for at, gauge in half) / spread, 1)
        for name in MOST_MORE
    }
