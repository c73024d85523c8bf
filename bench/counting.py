"""What a peer asks of the server for what it reads: requests and bytes, from nginx's access log.

Used by `bench.runner` after everything was timed. One thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import fio
from bench.content import BIG, KIB, ONE
from bench.figures import Count
from bench.peer import Mounter
from bench.processes import StepFailed
from bench.works import Session, session
from bench.world import Via, World

PEERS = ("rclone-off", "rclone-full", "fsspec", "ivcapfs")
TAIL = 1000
_QUIET = 0.3  # seconds without a new line, after which the log is taken for complete
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What the log says: requests for content and others, and the bytes of content that were sent."""

    requests: int
    other: int
    sent: int


def parse_log(text: str) -> Asked:
    """Return what the lines ``METHOD STATUS BYTES URI`` of an access log come to.

    A GET of a file is a request for content; listings, records and HEADs are others.
    """
    requests = other = sent = 0
    for line in text.splitlines():
        method, _status, size, uri = line.split(" ", 3)
        path = uri.partition("?")[0]
        if method == "GET" and path.startswith(("/files/", "/blobs/")) and not path.endswith("/"):
            requests += 1
            sent += int(size)
        else:
            other += 1
    return Asked(requests, other, sent)


def count_all(world: World, peer: Mounter) -> list[Count]:
    """Count what a peer asks for: reading a file whole, at random, and its last bytes."""
    one, big = world.folders[ONE], world.folders[BIG]

    def whole(mount: Session) -> int:
        mount.read(one.files, one.size)
        return one.size

    def random(mount: Session) -> int:
        path = mount.place / big.files[0]
        return fio.parse(mount.run(fio.command(path, 4 * KIB, big.size, reads=world.sizes.counted_reads)).output).reads

    def tail(mount: Session) -> int:
        mount.run(["tail", "-c", str(TAIL), str(mount.place / big.files[0])])
        return TAIL

    return [
        _count(world, peer, "sequential", ONE, whole),
        _count(world, peer, "random-4k", BIG, random),
        _count(world, peer, "tail", BIG, tail),
    ]


def _count(world: World, peer: Mounter, what: str, folder: str, read: Callable[[Session], int]) -> Count:
    log = world.nginx.access_log
    try:
        _settled(log)
        begin = log.stat().st_size
        with session(world, peer, folder, Via.COUNTED) as mount:
            of = read(mount)
        _settled(log)
        with log.open(encoding="utf-8", errors="replace") as file:
            file.seek(begin)
            asked = parse_log(file.read())
        return Count(peer.name, what, asked.requests, asked.other, asked.sent, of)
    except StepFailed as exc:
        return Count(peer.name, what, failed=str(exc))


def _settled(log: Path) -> None:
    """Wait until nothing is added to the log any more: a request is logged when its connection is done with it."""
    deadline = time.monotonic() + _PATIENCE
    size = -1
    while time.monotonic() < deadline and size != (size := log.stat().st_size):
        time.sleep(_QUIET)
