"""What is timed: each work makes one peer do one thing once, cold, and returns the samples.

Used by `bench.runner`. Every mount is a fresh one, so that neither the kernel nor the peer knows anything yet; the
server's files are in the page cache. One thread.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import fio
from bench.content import BIG, FOUR, KIB, MANY, MIB, ONE, SMALL
from bench.figures import Sample
from bench.machine import take_memory
from bench.mounts import mounted
from bench.peer import STEP_SECONDS, Fetcher, Mounter, Peer, dd
from bench.processes import Daemon, Finished, StepFailed, run, run_together
from bench.world import Via, World

MOUNTS = ("rclone-off", "rclone-full", "fsspec", "ivcapfs", "ivcapfs-user")
_SPARE = 512 * MIB
"""Bytes of memory made sure of beside what the page cache will take."""
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
_COPIED = re.compile(r"^(\d+) bytes", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Work:
    """Something to time.

    Attributes:
        name: for ``--only``.
        folder: whose files it reads.
        figures: the samples it gives are of these.
        peers: who does it.
        measure: does it once.
    """

    name: str
    folder: str
    figures: tuple[str, ...]
    peers: tuple[str, ...]
    measure: Callable[[World, Peer], list[Sample]]


@dataclass(frozen=True, slots=True)
class Session:
    """A fresh mount, and how programs read from it.

    Attributes:
        place: where the folder's files are.
        reader: the words before the command of a program that reads.
    """

    daemon: Daemon
    place: Path
    reader: tuple[str, ...]

    def run(self, command: Sequence[str]) -> Finished:
        """Run a program that reads from the mount."""
        return run([*self.reader, *command], timeout=STEP_SECONDS)

    def read(self, names: Sequence[str], size: int) -> float:
        """Read whole files at the same time; return the seconds that the slowest took.

        Raises:
            StepFailed: a read failed, or gave another number of bytes than `size`.
        """
        done = run_together([[*self.reader, *dd(self.place / name)] for name in names], timeout=STEP_SECONDS)
        for one in done:
            said = _COPIED.search(one.errors)
            if said is None or int(said[1]) != size:
                raise StepFailed(f"{said[1] if said else 'no'} bytes came instead of {size}")
        return max(one.seconds for one in done)


@contextlib.contextmanager
def session(world: World, peer: Mounter, folder: str, via: Via) -> Iterator[Session]:
    """Mount a folder by a peer, and take the mount down afterwards."""
    with world.scratch(peer.owner) as step:
        log = step / "log"
        try:
            command, env = peer.command(world, folder, via, step), peer.environment(world, via)
            with mounted(command, step / "mnt", log, env) as daemon:
                yield Session(daemon, peer.place(step, folder), peer.reader)
        except StepFailed as exc:
            said = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
            last = next((line.strip() for line in reversed(said) if line.strip()), "")
            raise StepFailed(f"{exc} [{last[:160]}]" if last and last[:60] not in str(exc) else str(exc)) from exc


def read_whole(world: World, peer: Peer, *, figure: str, folder: str, via: Via, again: str = "") -> list[Sample]:
    """Read all files of a folder at the same time, cold; then once more, where `again` names that figure."""
    known = world.folders[folder]
    total = known.size * len(known.files)
    if isinstance(peer, Fetcher):
        take_memory(total + _SPARE)
        fetched = peer.fetch(world, folder, via)
        mine = again if peer.name in ("local", "tmpfs") else figure
        return [_throughput(mine, total, fetched.seconds, fetched.cpu, fetched.memory)]
    assert isinstance(peer, Mounter)
    with session(world, peer, folder, via) as mount:
        take_memory(total + _SPARE)
        before = mount.daemon.cost()
        seconds = mount.read(known.files, known.size)
        after = mount.daemon.cost()
        samples = [_throughput(figure, total, seconds, after.cpu - before.cpu, after.memory)]
        if again:
            samples.append(Sample(again, total / mount.read(known.files, known.size) / 1e6))
    return samples


def read_at_random(world: World, peer: Peer, *, figure: str, block: int) -> list[Sample]:
    """Read blocks at random from a large file, with fio."""
    assert isinstance(peer, Mounter)
    known = world.folders[BIG]
    with session(world, peer, BIG, Via.PLAIN) as mount:
        path = mount.place / known.files[0]
        done = fio.parse(mount.run(fio.command(path, block, known.size, seconds=world.sizes.fio_seconds)).output)
        return [Sample(figure, done.rate, memory=mount.daemon.cost().memory)]


def read_small(world: World, peer: Peer) -> list[Sample]:
    """Read all small files, one after the other, as ``cat *`` does."""
    known = world.folders[SMALL]
    total = known.size * len(known.files)
    if isinstance(peer, Fetcher):
        fetched = peer.fetch(world, SMALL, Via.PLAIN)
        return [Sample("small", fetched.seconds)]
    assert isinstance(peer, Mounter)
    with session(world, peer, SMALL, Via.PLAIN) as mount:
        done = mount.run(["sh", "-c", 'cat -- "$1"/* | wc -c', "sh", str(mount.place)])
        if int(done.output) != total:
            raise StepFailed(f"{done.output.strip()} bytes came instead of {total}")
        return [Sample("small", done.seconds, memory=mount.daemon.cost().memory)]


def list_many(world: World, peer: Peer) -> list[Sample]:
    """List many files right after mounting, and again when the kernel (not the peer) has forgotten them."""
    assert isinstance(peer, Mounter)
    with session(world, peer, MANY, Via.PLAIN) as mount:
        samples = [Sample("ls-first", _listed(world, mount), memory=mount.daemon.cost().memory)]
        if os.geteuid() == 0:
            os.sync()
            with contextlib.suppress(OSError):
                _DROP_CACHES.write_text("2")  # names and attributes, not the contents that nginx serves
                samples.append(Sample("ls", _listed(world, mount), memory=mount.daemon.cost().memory))
        return samples


def _listed(world: World, mount: Session) -> float:
    done = mount.run(["ls", "-l", str(mount.place)])
    if (lines := done.output.count("\n") - 1) != world.sizes.many:
        raise StepFailed(f"ls lists {lines} files instead of {world.sizes.many}")
    return done.seconds


def _throughput(figure: str, size: int, seconds: float, cpu: float, memory: int | None) -> Sample:
    return Sample(figure, size / seconds / 1e6, cpu / size * 1e9, memory)


def _whole(figure: str, folder: str, via: Via, again: str = "") -> Callable[[World, Peer], list[Sample]]:
    return lambda world, peer: read_whole(world, peer, figure=figure, folder=folder, via=via, again=again)


def _random(figure: str, block: int) -> Callable[[World, Peer], list[Sample]]:
    return lambda world, peer: read_at_random(world, peer, figure=figure, block=block)


WORKS = (
    Work(
        "seq-http", ONE, ("seq-http", "reread"), ("curl", "local", "tmpfs", "sdk", *MOUNTS),
        _whole("seq-http", ONE, Via.PLAIN, again="reread"),
    ),
    Work("seq-https", ONE, ("seq-https",), ("curl", "sdk", *MOUNTS), _whole("seq-https", ONE, Via.TLS)),
    Work("parallel", FOUR, ("parallel",), ("curl", *MOUNTS), _whole("parallel", FOUR, Via.PLAIN)),
    Work("random-4k", BIG, ("random-4k",), MOUNTS, _random("random-4k", 4 * KIB)),
    Work("random-128k", BIG, ("random-128k",), MOUNTS, _random("random-128k", 128 * KIB)),
    Work("small", SMALL, ("small",), ("curl", *MOUNTS), read_small),
    Work(
        "shaped", ONE, ("shaped",), ("curl-8", "rclone-off", "rclone-best", "ivcapfs", "ivcapfs-user"),
        _whole("shaped", ONE, Via.SHAPED),
    ),
    Work("ls", MANY, ("ls-first", "ls"), ("rclone-off", "ivcapfs", "ivcapfs-user"), list_many),
)  # fmt: skip
"""In the order in which they are done; listing comes last, since it has the kernel forget other things, too."""
