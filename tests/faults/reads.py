"""Reads while the server misbehaves: right bytes or a declared errno, in time.

    python -m tests.faults.reads --seed 1 --faults 10000              the operations, without a kernel
    python -m tests.faults.reads --seed 1 --faults 1000 --mount       a real mount
    python -m tests.faults.reads --self-check                         the harness finds what is planted

Workers read, list and look, each at artifacts of its own, while the answers to them are spoiled: a kind of fault, once,
twice or as long as the operation lasts, chosen by the seed. Judged is every single call:

* **bytes**: all of a read is of one version of the content, and all reads of a handle are of the same; a listing is
  whole; a record, an attribute and an aspect are those of the artifact;
* **errno**: of the table of `ivcapfs.fs.errnos`, and one that the fault explains: no false ENOENT, nothing that was
  logged with a traceback;
* **time**: no call takes longer than the deadline of its world and a second.

`--self-check` breaks ivcapfs in this process (`PLANTS`: no look at Content-Range, at the validator or at the length; an
error without its errno; JSON without its checks; waits beyond the bound) and fails unless each is found.

Prints figures as JSON; exit code 1 if anything was wrong.

Threading: a thread per worker; `Report._lock` guards what was found.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import random
import sys
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from ivcapfs import errors
from ivcapfs.cache import transfer
from ivcapfs.cache.block import Block
from ivcapfs.client import blobs, jsontext, ranges
from ivcapfs.fs import errnos
from ivcapfs.server.runner import Platform
from tests.faults import kinds as catalogue
from tests.faults import worlds
from tests.faults.faultserver import ALWAYS, LISTS, FaultServer
from tests.faults.kinds import ANY, BLOB, JSON, LIST, USUAL, Elsewhere, Kind, other
from tests.faults.worlds import FileSystem, floor, mounted, private_folder
from tests.together import together

T = TypeVar("T")

TOKEN = "canary-token-77aa"
SCHEMA = "urn:ivcap:schema:tides.1"
ARTIFACTS = 64
SIZE = 300_000
SIZES = (1, 4096, 20_000, 65_536, SIZE)
GRACE = 1.0
"""Seconds beyond the deadline after which a call counts as hanging."""
WORKERS = 6
DECLARED = frozenset(errnos.ERRNOS.values())

LASTING = frozenset({errno.ESTALE})
"""What a fault may explain ever after: the first validator that was seen may be that of a fault."""

NEVER_OF_LISTS = frozenset({errno.ENOENT})
"""A server that has lost its lists does not make their entries disappear."""
KEPT = 1000
"""A list or a search that failed is not asked for again at once: so many faults before may explain its errno."""

World = Callable[[str, str, Path], AbstractContextManager[tuple[FileSystem, Callable[[], list[str]]]]]


@dataclass(frozen=True)
class Artifact:
    """One artifact of the platform, and what is in it."""

    uuid: str
    name: str
    data: bytes

    @property
    def path(self) -> str:
        return f"/by-id/{self.uuid}/{self.name}"


@dataclass
class Report:
    """What was found."""

    grace: float = GRACE
    calls: int = 0
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    undeclared: list[str] = field(default_factory=list)
    slowest: float = 0.0
    told: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, outcome: str, seconds: float) -> None:
        """One call has ended."""
        with self._lock:
            self.calls += 1
            self.right += outcome == "right"
            self.told[kind][outcome] += 1
            self.slowest = max(self.slowest, seconds)

    def blame(self, where: list[str], words: str) -> None:
        """Something is not as it should be."""
        with self._lock:
            where.append(words)

    @property
    def is_clean(self) -> bool:
        return not (self.wrong or self.hangs or self.undeclared)


class WrongError(Exception):
    """An answer that is not the artifact's."""


class Worker:
    """One reader, at artifacts of its own."""

    def __init__(
        self, world: FileSystem, server: FaultServer, report: Report, artifacts: list[Artifact], seed: str,
        names: frozenset[str], kinds: tuple[Kind, ...], *, lists: bool,
    ) -> None:  # fmt: skip
        self._world = world
        self._server = server
        self._report = report
        self._artifacts = artifacts
        self._random = random.Random(seed)
        self._names = names
        self._kinds = kinds
        self._lists = lists
        self._kind = kinds[0]
        self._before: dict[str, frozenset[int]] = defaultdict(frozenset)  # what earlier faults still explain
        self._failed: deque[frozenset[int]] = deque(maxlen=KEPT)

    def work(self, enough: Callable[[], bool]) -> None:
        """Go on until there were enough faults."""
        while not enough():
            artifact = self._random.choice(self._artifacts)
            operation = self._random.choice(self._operations())
            scopes = {self._read: (ANY, BLOB), self._list: (ANY, JSON, LIST), self._first: (ANY, JSON, LIST)}
            fitting = [kind for kind in self._kinds if kind.scope in scopes.get(operation, (ANY, JSON))]
            if fitting:
                self._under(self._random.choice(fitting), operation, artifact)
            elif self._lists:
                return  # there is nothing to spoil for this one

    def _operations(self) -> list[Callable[[Artifact], None]]:
        if self._lists:
            return [self._list, self._first]
        return [self._read] * 4 + [self._look, self._describe]

    def _under(self, kind: Kind, operation: Callable[[Artifact], None], artifact: Artifact) -> None:
        key = LISTS if self._lists else artifact.uuid
        self._explained = USUAL | kind.errnos | self._before[key]
        self._failed.append(kind.errnos - NEVER_OF_LISTS)
        self._before[key] = kind.errnos | self._before[key] & LASTING
        if self._lists:
            self._explained -= NEVER_OF_LISTS
            self._before[key] = frozenset().union(*self._failed)
        self._kind = kind
        self._server.arm(key, kind.name, kind.spoil, ALWAYS if kind.lasts else self._random.choice((1, 2, ALWAYS)))
        try:
            operation(artifact)
        except WrongError as exc:
            self._report.blame(self._report.wrong, f"{kind.name}: {exc}")
        except OSError:
            pass  # judged where it came
        finally:
            self._server.disarm(key)

    def _call(self, what: str, call: Callable[..., T], *args: Any) -> T:
        """Make one call, and judge its errno and its time."""
        began = time.monotonic()
        outcome = "right"
        try:
            return call(*args)
        except OSError as exc:
            outcome = errno.errorcode.get(exc.errno or 0, str(exc.errno))
            if exc.errno not in DECLARED or exc.errno not in self._explained:
                why = exc.__cause__ or exc
                self._report.blame(self._report.undeclared, f"{self._kind.name}: {what}: {outcome}: {why}")
            raise
        except Exception as exc:
            self._report.blame(self._report.undeclared, f"{self._kind.name}: {what}: {exc!r}")
            raise WrongError(f"{what}: {exc!r}") from exc
        finally:
            seconds = time.monotonic() - began
            self._report.note(self._kind.name, outcome, seconds)
            if seconds > self._world.deadline + self._report.grace:
                self._report.blame(self._report.hangs, f"{self._kind.name}: {what}: {outcome} after {seconds:.2f} s")

    # -- what is done --------------------------------------------------------------------------------------------

    def _read(self, artifact: Artifact) -> None:
        handle = self._call("open", self._world.open, artifact.path)
        versions = [artifact.data, other(artifact.data)]
        try:
            for _ in range(self._random.randint(1, 3)):
                size = min(self._random.choice(SIZES), self._world.largest)
                offset = self._random.choice((0, self._random.randrange(SIZE), max(0, SIZE - size)))
                with contextlib.suppress(OSError):
                    got = self._whole(handle, size, offset)
                    versions = [each for each in versions if got == each[offset : offset + size]]
                    if not versions:
                        raise WrongError(f"{len(got)} bytes of {size} at {offset}, of no one version")
        finally:
            self._world.close(handle)

    def _whole(self, handle: int, size: int, offset: int) -> bytes:
        """Read; of a read that fails half-way a kernel tells the first half first, and the error with the next."""
        data = self._call("read", self._world.pread, handle, size, offset)
        while data and len(data) < min(size, SIZE - offset):
            piece = self._call("read on", self._world.pread, handle, size - len(data), offset + len(data))
            if not piece:
                raise WrongError(f"the file ends at {offset + len(data)}")
            data += piece
        return data

    def _look(self, artifact: Artifact) -> None:
        found = self._call("stat", self._world.size, artifact.path)
        _expect(found, SIZE, "size")
        record = f"/by-id/{artifact.uuid}/artifact.json"
        size = self._call("stat", self._world.size, record)
        handle = self._call("open", self._world.open, record)
        try:
            value = json.loads(self._call("read", self._world.pread, handle, size, 0))
        except ValueError as exc:
            raise WrongError("artifact.json is not JSON") from exc
        finally:
            self._world.close(handle)
        _expect((value["name"], value["size"]), (artifact.name, SIZE), "record")

    def _describe(self, artifact: Artifact) -> None:
        listed = self._call("listxattr", self._world.attributes, artifact.path)
        _expect(f"user.ivcap.aspect.{SCHEMA}" in listed, True, "attributes")
        value = self._call("getxattr", self._world.attribute, artifact.path, f"user.ivcap.aspect.{SCHEMA}")
        _expect(json.loads(value)["station"], artifact.name, "aspect")
        policy = self._call("getxattr", self._world.attribute, artifact.path, "user.ivcap.name")
        _expect(policy, artifact.name.encode(), "name")
        aspects = self._call("readdir", self._world.names, f"/by-id/{artifact.uuid}/aspects")
        _expect(aspects, [f"{SCHEMA}.json"], "aspects")

    def _list(self, artifact: Artifact) -> None:
        view = self._random.choice(("/artifacts", "/by-id", "/collections/all", "/search/size > 1"))
        names = self._call(f"readdir {view}", self._world.names, view)
        uuids = frozenset(each.uuid for each in self._artifacts)
        _expect(frozenset(names), uuids if view == "/by-id" else self._names, view)

    def _first(self, artifact: Artifact) -> None:
        names = self._call("first readdir", self._world.first_listing)
        _expect(frozenset(names), self._names, "first listing")


def _expect(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise WrongError(f"{what}: {str(found)[:200]}")


# -- a run -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def platform(folder: Path, seed: int) -> Iterator[tuple[Platform, list[Artifact]]]:
    """The embedded platform with artifacts of random bytes, an aspect on each, and a collection of all."""
    noise = random.Random(seed)
    with Platform(folder / "platform", token=TOKEN) as running:
        made = []
        with running.store.batch():
            collection = "urn:ivcap:collection:3f2a9c1e-7b4d-4e0a-9c58-1d6f0a2b3c4d"
            running.store.add_aspect(collection, "urn:ivcap:schema:collection.1", {"name": "all"})
            for number in range(ARTIFACTS):
                name, data = f"tide-{number:03}.bin", noise.randbytes(SIZE)
                urn = running.store.add_artifact(name=name, content=data)
                running.store.add_aspect(urn, SCHEMA, {"$schema": SCHEMA, "station": name})
                member = {"collection": collection, "item": urn}
                running.store.add_aspect(collection, "urn:ivcap:schema:collection-item.1", member)
                made.append(Artifact(urn[-36:], name, data))
        yield running, made


def run(
    world: World, seed: int, faults: int, seconds: float = 3600.0, only: str = "", grace: float = GRACE
) -> dict[str, Any]:
    """Inject so many faults; return the figures.

    Args:
        seconds: after which no further operation begins.
        only: a part of the names of the kinds that are wanted.
        grace: seconds beyond the deadline after which a call counts as hanging.
    """
    report = Report(grace)
    began = time.monotonic()
    with (
        private_folder() as folder,
        platform(folder, seed) as (running, artifacts),
        Elsewhere() as elsewhere,
        FaultServer(running.url) as server,
        world(server.url, TOKEN, folder) as (filesystem, unexpected),
    ):
        names = frozenset(artifact.name for artifact in artifacts)
        chosen = tuple(kind for kind in catalogue.kinds(elsewhere) if only in kind.name)
        if set(filesystem.names("/artifacts")) != names:
            raise AssertionError("the world does not even work without faults")
        workers = [
            Worker(filesystem, server, report, artifacts[number::WORKERS] if number else artifacts,
                   f"{seed}-{number}", names, chosen, lists=not number)
            for number in range(WORKERS + 1)
        ]  # fmt: skip
        end = time.monotonic() + seconds

        def enough() -> bool:
            return server.total() >= faults or time.monotonic() > end

        with _late_wakes() as late:
            together([lambda worker=worker: worker.work(enough) for worker in workers])
        injected = server.injected()
        report.undeclared += unexpected()
    return {
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "faults": injected.total(),
        "kinds": len(injected),
        "calls": report.calls,
        "right": report.right,
        "errno": dict(sum(report.told.values(), Counter()).most_common()),
        "deadline_s": filesystem.deadline,
        "slowest_s": round(report.slowest, 2),
        "latest_wake_s": round(max(late), 2),
        "wrong": len(report.wrong),
        "hangs": len(report.hangs),
        "undeclared": len(report.undeclared),
        "examples": (report.wrong[:5] + report.hangs[:10] + report.undeclared[:10]),
        "by_kind": {name: {"injected": injected[name], **report.told[name]} for name in sorted(injected)},
    }


@contextlib.contextmanager
def _late_wakes() -> Iterator[list[float]]:
    """How much later than asked for a thread was woken meanwhile, in seconds: what the machine adds to every wait."""
    late, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.is_set():
            began = time.monotonic()
            over.wait(0.05)
            late.append(time.monotonic() - began - 0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield late
    finally:
        over.set()
        watcher.join()


def is_clean(figures: dict[str, Any]) -> bool:
    """Return whether nothing was wrong."""
    return not (figures["wrong"] or figures["hangs"] or figures["undeclared"])


# -- what is planted -------------------------------------------------------------------------------------------------


def _trusting_partial(headers: ranges.Headers, start: int, stop: int, what: str) -> tuple[int, int]:
    found = ranges._RANGE.fullmatch(headers.get("content-range", ""))
    return (int(found[2]) if found else stop - 1), SIZE


def _never_changed(self: transfer.Blob, content: object) -> None:
    self.content = self.content or content  # type: ignore[assignment]


def _lax_parse(body: bytes, *, what: str) -> dict[str, Any]:
    return json.loads(body)  # type: ignore[no-any-return]


def _lazy_wait(self: Block, offset: int, check: Any, seconds: float, what: str, wait: Any = Block.wait) -> bool:
    """As long a wait as the run of a self-check can bear."""
    return bool(wait(self, offset, check, seconds + 4 * GRACE, what))


def _early_end(self: blobs.RangeStream, view: memoryview) -> int:
    """A body that ends early is taken for whole: what is missing is zeros."""
    assert self._stream is not None
    try:
        return self._stream.readinto(view) or len(view)
    except errors.TransportError:
        return len(view)


PLANTS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "Content-Range is not looked at": (
        lambda: mock.patch.object(ranges, "_partial", _trusting_partial), "range", "wrong"),
    "a body that ends early counts as whole": (
        lambda: mock.patch.object(blobs.RangeStream, "_timed_read", _early_end), "short body", "wrong"),
    "the validator is not compared": (
        lambda: _all(
            mock.patch.object(transfer.Blob, "admit", _never_changed),
            mock.patch.object(ranges, "content_of", lambda headers, size: ranges.Content("same", SIZE)),
        ), "its own ETag", "wrong"),
    "an error has no errno": (
        lambda: mock.patch.dict(errnos.ERRNOS, {errors.NotPermitted: errno.EPROTO}), "status 403", "undeclared"),
    "JSON is read without its checks": (
        lambda: mock.patch.object(jsontext, "parse_object", _lax_parse), "JSON", "undeclared"),
    "readers wait beyond their bound": (
        lambda: _all(
            mock.patch.object(Block, "wait", _lazy_wait),
            mock.patch.object(worlds, "LIMITS", replace(worlds.LIMITS, idle=8.0, total=12.0)),
        ), "stall before", "hangs"),
}  # fmt: skip
"""What is broken; among which kinds of faults that must be found; as what."""


@contextlib.contextmanager
def _all(*patches: Any) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


def self_check(seed: int, faults: int = 150, seconds: float = 20.0) -> dict[str, Any]:
    """Plant each bug; return what was found of it."""
    found = {}
    for name, (plant, only, where) in PLANTS.items():
        with plant():
            figures = run(floor, seed, faults, seconds, only)
        found[name] = figures[where]
    return found


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description="Reads while the server misbehaves.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=3600.0, help="begin nothing after so long")
    parser.add_argument("--only", default="", help="a part of the names of the kinds that are wanted")
    parser.add_argument("--mount", action="store_true", help="a real mount")
    parser.add_argument("--self-check", action="store_true")
    given = parser.parse_args()
    if given.self_check:
        found = self_check(given.seed)
        print(json.dumps(found, indent=2))
        return 0 if all(found.values()) else 1
    figures = run(mounted if given.mount else floor, given.seed, given.faults, given.seconds, given.only)
    print(json.dumps(figures, indent=2))
    return 0 if is_clean(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
