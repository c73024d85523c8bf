"""One run: who takes part, whether their bytes are right, then every work by every peer in turn, and again.

Used by `bench.cli`. What fails is noted with the peer that failed and does not stop the rest. One thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict

from bench import counting
from bench.content import ONE
from bench.figures import FIGURES, Report, printed
from bench.peer import STEP_SECONDS, Mounter, Peer
from bench.processes import StepFailed, run
from bench.works import WORKS, Work, session
from bench.world import Via, World

COUNTS = "counts"
WORK_NAMES = (*(work.name for work in WORKS), COUNTS)

Say = Callable[[str], None]


class Runner:
    """A run in a world that is there.

    Args:
        world: where.
        peers: who may take part.
        report: what is found out goes here, step by step.
        say: shows one line of progress.
    """

    def __init__(self, world: World, peers: Mapping[str, Peer], report: Report, say: Say) -> None:
        self._world = world
        self._peers = dict(peers)
        self._report = report
        self._say = say
        report.sizes = asdict(world.sizes)

    def run(self, only: Collection[str], repeat: int) -> Iterator[str]:
        """Do the works whose names are given, each so often; give the name of each when it is done."""
        works = [work for work in WORKS if work.name in only]
        self._leave_out_the_missing({name for work in works for name in work.peers})
        self._verify()
        for work in works:
            self._measure(work, repeat)
            yield work.name
        if COUNTS in only:
            self._count()
            yield COUNTS

    def _leave_out_the_missing(self, wanted: set[str]) -> None:
        for name, peer in list(self._peers.items()):
            why = peer.missing(self._world)
            if why is not None or (name not in wanted and name not in counting.PEERS):
                del self._peers[name]
            if why is not None and name in wanted | set(counting.PEERS):
                self._report.left_out[name] = why
                self._say(f"{name} is left out: {why}")

    def _verify(self) -> None:
        """Compare the checksum of a whole file through each mount; who has other bytes is out."""
        known = self._world.folders[ONE]
        source = self._world.files / ONE / known.files[0]
        right = run(["sha256sum", "-b", source], timeout=STEP_SECONDS).output.split()[0]
        for name, peer in list(self._peers.items()):
            if not isinstance(peer, Mounter):
                continue
            try:
                with session(self._world, peer, ONE, Via.PLAIN) as mount:
                    seen = mount.run(["sha256sum", "-b", str(mount.place / known.files[0])]).output.split()[0]
                verdict = "same bytes" if seen == right else "WRONG BYTES"
            except StepFailed as exc:
                verdict = f"failed: {exc}"
            self._report.verified[name] = verdict
            self._say(f"{name}: {verdict}")
            if verdict == "WRONG BYTES":
                del self._peers[name]
                self._report.left_out[name] = verdict

    def _measure(self, work: Work, repeat: int) -> None:
        self._world.warm(work.folder)
        failed: set[str] = set()
        for turn in range(1, repeat + 1):
            for name in work.peers:
                peer = self._peers.get(name)
                if peer is None or name in failed:
                    continue
                where = f"{work.name} {turn}/{repeat} {name}"
                try:
                    samples = work.measure(self._world, peer)
                except StepFailed as exc:
                    failed.add(name)
                    self._report.take(work.figures[0], name).failed = str(exc)
                    self._say(f"{where}: failed: {exc}")
                    continue
                for sample in samples:
                    self._report.take(sample.figure, name).add(sample)
                shown = (f"{printed(one.value, FIGURES[one.figure].unit)} ({one.figure})" for one in samples)
                self._say(f"{where}: {', '.join(shown)}")

    def _count(self) -> None:
        for name in counting.PEERS:
            peer = self._peers.get(name)
            if isinstance(peer, Mounter):
                counts = counting.count_all(self._world, peer)
                self._report.counts.extend(counts)
                for one in counts:
                    asked = f"{one.requests} requests and {one.other} others, {one.sent:,} bytes"
                    self._say(f"{COUNTS} {name} {one.what}: {one.failed or asked}")
