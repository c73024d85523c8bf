"""A hundred thousand fuzzed answers through the real client, the catalog and the views: only our errors, in time.

    python -m tests.faults.fuzz --seed 1 --answers 100000
    python -m tests.faults.fuzz --self-check                 the harness finds what is planted

The answers (`answers`) come over real sockets. Every call of the client is made, and every operation of a mount that
reads records, lists, aspects, collections and contents. Judged is that

* nothing but a class of `ivcapfs.errors` (from the client) or an errno of the table (from an operation) comes out, and
  nothing is logged with a traceback;
* no call takes longer than `SECONDS`;
* the process does not grow by more than 64 MiB once it is warm.

`--self-check` breaks ivcapfs in this process (`PLANTS`: JSON, heads and times without their checks, a call that keeps
what it read) and fails unless each is found. Prints figures as JSON; exit code 1 if anything was wrong.

Threading: the calls are made by one thread; a thread per connection answers, one at a time (`_lock`).
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any
from unittest import mock

from ivcapfs.cache.reader import Reader
from ivcapfs.catalog.index import Index
from ivcapfs.catalog.store import Store
from ivcapfs.client import connect, heads, jsontext, wire
from ivcapfs.client.connection import Connection
from ivcapfs.config import KIB, MIB, CacheSettings, ClientSettings, Limits, Secret, ViewSettings
from ivcapfs.errors import IvcapfsError
from ivcapfs.fs.bindings import Bindings
from ivcapfs.fs.errnos import ERRNOS
from ivcapfs.fs.neighbours import Neighbours
from ivcapfs.fs.operations import Operations
from ivcapfs.fs.views import Views
from ivcapfs.waits import never
from tests.fakes import AtOnce
from tests.faults.answers import ARTIFACT, COLLECTION, SCHEMAS, UUIDS, Answers
from tests.faults.listening import Listening
from tests.faults.worlds import Unexpected, logging_only_to

LIMITS = Limits(
    connect=2.0, idle=2.0, total=3.0, retries=1, backoff=0.0001, backoff_max=0.0002, json_size=MIB, redirects=3
)
SECONDS = 10.0
"""More than any call may take, and less than any that hangs."""
GROWTH = 64 * MIB
WARM = 0.1
"""The share of the answers after which growth counts."""
CALLS_PER_WORLD = 400
DECLARED = frozenset(ERRNOS.values())
MOST_ITEMS = 500


class FuzzServer(Listening):
    """Answers whatever is asked."""

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"
        self._answers = answers
        self._lock = threading.Lock()

    def _serve(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError, ValueError), connected, connected.makefile("rb") as reading:
            while words := reading.readline(100_000).decode("latin-1").split():
                headers = {}
                while (line := reading.readline(100_000).decode("latin-1").strip()):
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                reading.read(int(headers.get("content-length", "0")))
                with self._lock:
                    text, goes_on = self._answers.to(words[0], words[1], headers)
                connected.sendall(text)
                if not goes_on:
                    return


class World:
    """A client, and a mount without a kernel on it, whose catalog finds everything out of date."""

    def __init__(self, url: str) -> None:
        self.connection = connect(ClientSettings(url, Secret("a-token"), limits=LIMITS))
        self._time = 0.0
        self._pool = ThreadPoolExecutor(8)
        api, blobs = self.connection.api, self.connection.blobs
        store = Store(None, "")
        times = {"refresh": 30.0, "bound": 8.0, "clock": self._clock}
        self.index = Index(api, blobs, self._pool, store, wall=self._clock, **times)  # type: ignore[arg-type]
        self._views = Views(api, self.index, store, self._pool, **times)  # type: ignore[arg-type]
        self._reader = Reader(blobs, CacheSettings(block_size=16 * KIB, memory=MIB, workers=4), bound=8.0)
        self.fs = Operations(
            self.index, self._reader, Bindings(lambda path: None, AtOnce()),
            Neighbours(lambda *_: [], self._reader, 0, bool), ViewSettings(), never, self._views.by_name,
        )  # fmt: skip

    def _clock(self) -> float:
        self._time += 7.0
        return self._time

    def close(self) -> None:
        """Take everything down."""
        self.connection.close()
        self._reader.shutdown()
        self.index.close()
        self._views.close()
        self._pool.shutdown(cancel_futures=True)


# -- what is called --------------------------------------------------------------------------------------------------


def client_calls(connection: Connection, chance: random.Random) -> dict[str, Callable[[], object]]:
    """Return the calls of the client."""
    api, blobs, uploads = connection.api, connection.blobs, connection.uploads
    uuid, schema = chance.choice(UUIDS), chance.choice(SCHEMAS)

    def upload() -> None:
        made = uploads.begin(name="n", content_type="text/plain", size=chance.choice((None, 5)))
        uploads.offset_of(made)
        uploads.bring(made, 0, b"12345", bool)
        uploads.finish(made, 5, bool)

    def read() -> int:
        start = chance.randrange(5000)
        stop, size = min(start + chance.choice((1, 4000)), 5120), chance.choice((None, 5120))
        with blobs.open_range(uuid, start, stop, expected=None, size=size) as came:
            return sum(map(len, came))

    return {
        "list": lambda: api.list_artifacts_page(cursor=chance.choice((None, "x"))),
        "list as text": lambda: wire.artifacts_in(api.list_artifacts_text()),
        "all artifacts": lambda: list(islice(api.iter_artifacts(), MOST_ITEMS)),
        "record": lambda: api.read_artifact(uuid),
        "aspects": lambda: list(islice(api.iter_aspects(entity=ARTIFACT + uuid), MOST_ITEMS)),
        "aspect": lambda: api.read_aspect("urn:ivcap:aspect:1"),
        "add": lambda: api.add_aspect(ARTIFACT + uuid, schema, {"a": 1}),
        "update": lambda: api.update_aspect(ARTIFACT + uuid, schema, {"a": 1}),
        "retract": lambda: api.retract_aspect("urn:ivcap:aspect:1"),
        "collections": lambda: list(islice(api.iter_collections(), MOST_ITEMS)),
        "members": lambda: list(islice(api.collection_members(COLLECTION), MOST_ITEMS)),
        "upload": upload,
        "head": lambda: blobs.head(uuid),
        "read": read,
    }


def operations(world: World, chance: random.Random) -> dict[str, Callable[[], object]]:
    """Return the operations of a mount."""
    fs, uuid = world.fs, chance.choice(UUIDS)
    folder = f"/by-id/{uuid}"

    def names(path: str) -> list[str]:
        handle = fs.opendir(path)
        try:
            return [name for name, _, _ in islice(fs.readdir(handle, 0), MOST_ITEMS)]
        finally:
            fs.releasedir(handle)

    def everything(path: str) -> None:
        """Look at all that is listed, and read it."""
        for name in names(path)[2:12]:
            below = f"{path}/{name}"
            fs.getattr(below)
            attributes(below)
            with contextlib.suppress(OSError):
                handle = fs.open(below, os.O_RDONLY).handle
                try:
                    fs.read(handle, 10_000, 0)
                finally:
                    fs.release(handle)

    def attributes(path: str) -> None:
        for name in fs.listxattr(path, 0)[:20]:
            with contextlib.suppress(OSError):
                fs.getxattr(path, name)

    def text(path: str) -> bytes:
        handle = fs.open(path, os.O_RDONLY).handle
        try:
            return fs.read(handle, fs.getattr(path).size, 0)
        finally:
            fs.release(handle)

    return {
        "artifacts/": lambda: everything("/artifacts"),
        "by-id/": lambda: names("/by-id"),
        "by-id/<uuid>/": lambda: everything(folder),
        "artifact.json": lambda: text(f"{folder}/artifact.json"),
        "aspects/": lambda: everything(f"{folder}/aspects"),
        "attributes": lambda: attributes(folder),
        "a name": lambda: fs.getattr(f"/artifacts/{chance.choice(('tide.csv', 'a/b.nc', 'x@00000001'))}"),
        "collections/": lambda: everything("/collections"),
        "search/": lambda: everything("/search/size > 1"),
        "search/aspect:": lambda: everything("/search/aspect:urn:x"),
        "at/": lambda: names("/at/2026-06-20/artifacts"),
        "at/aspects": lambda: everything(f"/at/2026-06-29/by-id/{uuid}/aspects"),
        "statfs": lambda: fs.statfs("/"),
        "status": world.index.status,
    }


# -- a run -----------------------------------------------------------------------------------------------------------


class Judge:
    """Looks at what each call ends with."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.late: list[str] = []
        self.slowest = 0.0
        self.most = 0
        self._warm = 0

    def call(self, name: str, work: Callable[[], object]) -> None:
        """Make a call."""
        began = time.monotonic()
        outcome = "right"
        try:
            work()
        except IvcapfsError as exc:
            outcome = type(exc).__name__
        except OSError as exc:
            outcome = errno.errorcode.get(exc.errno or 0, "no errno")
            if exc.errno not in DECLARED:
                self.unexpected.append(f"{name}: {exc!r}")
        except Exception as exc:  # noqa: BLE001 - that is what is looked for
            outcome = "unexpected"
            self.unexpected.append(f"{name}: {exc!r}"[:300])
        seconds = time.monotonic() - began
        self.slowest = max(self.slowest, seconds)
        self.calls[name] += 1
        self.outcomes[outcome] += 1
        if seconds > SECONDS:
            self.late.append(f"{name}: {seconds:.1f} s")

    def weigh(self, *, is_warm: bool) -> None:
        """Look how large the process is."""
        size = _resident()
        self.most = max(self.most, size)
        if not is_warm:
            self._warm = self.most

    @property
    def growth(self) -> int:
        """Bytes by which the process was larger than when it was warm."""
        return self.most - self._warm


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def _tracebacks() -> Iterator[list[str]]:
    """What is logged with a traceback meanwhile; nothing else is told to anybody."""
    handler = Unexpected()
    with logging_only_to(handler):
        yield handler.seen


def run(seed: int, answers: int) -> dict[str, Any]:
    """Take so many answers; return the figures."""
    given, judge, chance = Answers(seed), Judge(), random.Random(seed)
    began = time.monotonic()
    with _tracebacks() as logged, FuzzServer(given) as server:
        while given.given < answers:
            world = World(server.url)
            try:
                for _ in range(CALLS_PER_WORLD):
                    if chance.random() < 0.5:
                        name, work = chance.choice(list(client_calls(world.connection, chance).items()))
                    else:
                        name, work = chance.choice(list(operations(world, chance).items()))
                    judge.call(name, work)
                    judge.weigh(is_warm=given.given > WARM * answers)
                    if given.given >= answers:
                        break
            finally:
                world.close()
    unexpected = judge.unexpected + logged
    return {
        "seed": seed,
        "answers": given.given,
        "calls": judge.calls.total(),
        "seconds": round(time.monotonic() - began, 1),
        "unexpected": len(unexpected),
        "late": len(judge.late),
        "slowest_s": round(judge.slowest, 2),
        "growth_mib": round(judge.growth / MIB, 1),
        "outcomes": dict(judge.outcomes.most_common()),
        "by_call": dict(judge.calls),
        "examples": sorted(set(unexpected))[:20] + judge.late[:5],
    }


def is_clean(figures: dict[str, Any]) -> bool:
    """Return whether nothing was wrong."""
    return not (figures["unexpected"] or figures["late"]) and figures["growth_mib"] < GROWTH / MIB


# -- what is planted -------------------------------------------------------------------------------------------------


def _lax_parse(body: bytes, *, what: str) -> dict[str, Any]:
    return json.loads(body)  # type: ignore[no-any-return]


def _lax_time(item: Any, name: str) -> Any:
    value = wire._field(item, name)
    return wire.datetime.fromisoformat(value).astimezone(wire.UTC) if value else None


def _lax_head(text: bytes, method: str) -> heads.Head:
    first, *lines = text.split(b"\r\n")
    fields = [tuple(line.split(b": ", 1)) for line in lines]
    named = {name.lower(): value for name, value in fields}  # type: ignore[misc]
    return heads.Head(int(first.split()[1]), fields, int(named[b"content-length"]), False, True)  # type: ignore[arg-type]


_hoard: list[bytes] = []


def _hoarding_parse(body: bytes, *, what: str, parse: Any = jsontext.parse_object) -> dict[str, Any]:
    _hoard.append(bytes(body) + bytes(200_000))
    return parse(body, what=what)  # type: ignore[no-any-return]


PLANTS: dict[str, tuple[Callable[[], Any], str]] = {
    "JSON is read without its checks": (lambda: mock.patch.object(jsontext, "parse_object", _lax_parse), "unexpected"),
    "times are read without their checks": (lambda: mock.patch.object(wire, "_time", _lax_time), "unexpected"),
    "heads are read without their checks": (lambda: mock.patch.object(heads, "parse", _lax_head), "unexpected"),
    "what was read is kept": (lambda: mock.patch.object(jsontext, "parse_object", _hoarding_parse), "growth_mib"),
}
"""What is broken, and as what it must be found."""


def self_check(seed: int, answers: int = 2000) -> dict[str, Any]:
    """Plant each bug; return what was found of it."""
    found = {}
    for name, (plant, where) in PLANTS.items():
        with plant():
            figures = run(seed, answers)
        _hoard.clear()
        found[name] = 0 if is_clean(figures) else figures[where]
    return found


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description="Fuzzed answers through the client and the catalog.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--answers", type=int, default=100_000)
    parser.add_argument("--self-check", action="store_true")
    given = parser.parse_args()
    if given.self_check:
        found = self_check(given.seed)
        print(json.dumps(found, indent=2))
        return 0 if all(found.values()) else 1
    figures = run(given.seed, given.answers)
    print(json.dumps(figures, indent=2))
    return 0 if is_clean(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
