"""Stand-ins for the platform and for time, shared by the tests that need neither a server nor a kernel.

They behave like the real things where it matters and can be made to misbehave: block, fail, change. All of them may be
used by several threads.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from ivcapfs.cache.readahead import Handle
from ivcapfs.cache.reader import Reader
from ivcapfs.catalog.interface import Entry, FileEntry, Folder, Totals
from ivcapfs.catalog.schema import microseconds
from ivcapfs.client import wire
from ivcapfs.errors import BadRequest, Closing, Conflict, ContentChanged, NoSuchEntry, NotAFolder, NotFound
from ivcapfs.models import ArtifactRecord, ArtifactStatus, AspectRecord, Content, Page, PageText, uuid_bytes
from ivcapfs.waits import Check
from tests.plain_namespace import EPOCH, Namespace
from tests.plain_namespace import Folder as PlainFolder

START = datetime(2026, 6, 1, 10, 0, 0, tzinfo=UTC)
PATIENCE = 20.0
"""Seconds after which a fake, or a test's thread, stops waiting: reached only when something is broken."""

_numbers = itertools.count(1)


def uuid_of(number: int, head: str | None = None) -> str:
    """Return the uuid of a number, with the given first eight digits or those of the number."""
    return f"{head or f'{number:08x}'}-0000-4000-8000-{number:012x}"


def artifact(
    name: str | None = None,
    *,
    uuid: str | None = None,
    size: int | None = 0,
    age: float = 0.0,
    status: ArtifactStatus = ArtifactStatus.READY,
    mime_type: str | None = None,
    **more: Any,
) -> ArtifactRecord:
    """Return a record; `age` in seconds before `START`, so a greater one is older."""
    created_at = START - timedelta(seconds=age)
    return ArtifactRecord(uuid or uuid_of(next(_numbers)), name, status, mime_type, size, created_at, **more)


def aspect(record: ArtifactRecord, schema: str, content: Any, *, age: float = 0.0) -> AspectRecord:
    """Return an aspect of an artifact; `age` in seconds before `START`."""
    id = f"urn:ivcap:aspect:{uuid_of(next(_numbers))}"
    valid_from = START - timedelta(seconds=age)
    return AspectRecord(id, record.urn, schema, content, "application/json", valid_from)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait, within a bound, for what another thread does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


class FakeClock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds


class AtOnce(Executor):
    """A pool that does the work before `submit` returns."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args, **kwargs))
        except Exception as exc:  # noqa: BLE001 - handed on to whoever waits
            future.set_exception(exc)
        return future


class Background:
    """A call on a thread of its own, whose result or exception is asked for later."""

    def __init__(self, work: Callable[..., Any], *args: Any) -> None:
        self.future: Future[Any] = Future()
        self._thread = threading.Thread(target=self._run, args=(work, args), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            self.future.set_result(work(*args))
        except BaseException as exc:  # noqa: BLE001 - handed on to whoever asks
            self.future.set_exception(exc)

    def result(self) -> Any:
        result = self.future.result(timeout=PATIENCE)
        self._thread.join(PATIENCE)
        return result

    def exception(self) -> BaseException | None:
        exc = self.future.exception(timeout=PATIENCE)
        self._thread.join(PATIENCE)
        return exc


@dataclass
class FakeStream:
    """The answer to one ranged request.

    Attributes:
        data: what comes.
        chunk: bytes that come at a time.
        await_more: called with the count of bytes that have come, before more do.
    """

    content: Content
    data: bytes
    chunk: int
    await_more: Callable[[int], None] = lambda _: None
    _given: int = 0

    def readinto(self, view: memoryview) -> int:
        """Put what has come into `view`; 0 at the end, and where there is no room."""
        if self._given < len(self.data) and len(view):
            self.await_more(self._given)
        piece = self.data[self._given : self._given + min(self.chunk, len(view))]
        view[: len(piece)] = piece
        self._given += len(piece)
        return len(piece)


def bytes_of(reader: Reader, handle: Handle, offset: int, size: int, check: Check) -> bytes:
    """Return what a read gives; arguments and errors as of `Reader.read_into`."""
    gathered = bytearray()
    reader.read_into(handle, offset, size, lambda pieces, _: gathered.extend(b"".join(pieces)), check)
    return bytes(gathered)


@dataclass
class FakeSource:
    """Artifacts' contents, given by range like the client's `Blobs`.

    Attributes:
        requests: (uuid, start, stop) of each range asked for.
        gate: closed (cleared), every request waits before its first byte.
        failures: each request takes the first of them, if there is one, and fails with it.
        failing: as long as it is set, every request fails with it.
        heeds: whether `expected` is compared here, as `Blobs` does, or left to whoever asks.
        extra: bytes that come too many; negative: that are missing at the end.
        chunk: bytes that come at a time.
        flow: cleared, every answer stops after its first `chunk` until it is set.
    """

    contents: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    requests: list[tuple[str, int, int]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    failures: list[Exception] = field(default_factory=list)
    failing: Exception | None = None
    heeds: bool = True
    extra: int = 0
    chunk: int = 37
    flow: threading.Event = field(default_factory=threading.Event)
    _flying: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _asked: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.gate.set()
        self.flow.set()

    def put(self, uuid: str, data: bytes, validator: str = '"1"') -> None:
        """Give an artifact its content, or another one."""
        with self._lock:
            self.contents[uuid] = data, validator

    def head(self, uuid: str) -> Content:
        """Return which content an artifact has."""
        self.heads.append(uuid)
        if self.failing is not None:
            raise self.failing
        data, validator = self.contents[uuid]
        return Content(validator, len(data))

    @contextlib.contextmanager
    def open_range(
        self,
        uuid: str,
        start: int,
        stop: int,
        *,
        expected: Content | None,
        size: int | None = None,
        stopped: Callable[[], bool],
    ) -> Iterator[FakeStream]:
        """Ask for the bytes [start, stop) of an artifact."""
        with self._asked:
            self.requests.append((uuid, start, stop))
            self._asked.notify_all()
        with self._under_way(stop - start):
            _wait(self.gate, stopped)
            failure = self._failure()
            if failure is not None:
                raise failure
            with self._lock:
                data, validator = self.contents[uuid]
            content = Content(validator, len(data))
            if self.heeds and expected is not None and expected != content:
                raise ContentChanged(f"artifact {uuid}: now {content}")
            whole = (data[start:stop] + b"?" * self.extra)[: stop - start + self.extra]

            def await_more(given: int) -> None:
                if given:
                    _wait(self.flow, stopped)

            yield FakeStream(content, whole, self.chunk, await_more)

    def await_requests(self, count: int) -> None:
        """Wait until so many ranges have been asked for."""
        with self._asked:
            assert self._asked.wait_for(lambda: len(self.requests) >= count, PATIENCE), self.requests

    def await_idle(self) -> None:
        """Wait until no request is under way."""
        with self._asked:
            assert self._asked.wait_for(lambda: self._flying == 0, PATIENCE)

    def _failure(self) -> Exception | None:
        with self._lock:
            return self.failures.pop(0) if self.failures else self.failing

    @contextlib.contextmanager
    def _under_way(self, size: int) -> Iterator[None]:
        with self._asked:
            self._flying += size
        try:
            yield
        finally:
            with self._asked:
                self._flying -= size
                self._asked.notify_all()


def _wait(event: threading.Event, stopped: Callable[[], bool]) -> None:
    for _ in range(int(PATIENCE / 0.01)):
        if event.wait(0.01):
            return
        if stopped():
            raise Closing("ended by its reader")
    raise AssertionError("nobody opened the gate")


@dataclass
class FakeApi:
    """The platform's lists and records, like the client's `Api`.

    Attributes:
        records: whole records by uuid; lists show what a list item has.
        late: uuids that lists do not show yet; asking by name does.
        aspects: by the artifact's URN.
        calls: (method, detail) of each request.
        failing: as long as it is set, every request fails with it.
        gate: closed (cleared), every request waits for it.
        now: the time that lists are of, and tell; None: they tell none.
        refuses: any of ``order``, ``time``, ``filter``, ``cursor``, ``path``: what is answered with `refusal`, a code.
        keeps_order: whether an order that was asked for is kept.
        failing_pages: the numbers of pages, from 1 on and counted over all, that fail with the exception.
        failing_calls: the exception that every request of a method fails with.
        lost_answers: what the next aspects that are added are answered with, although they are added.
    """

    records: dict[str, ArtifactRecord] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)
    aspects: dict[str, list[AspectRecord]] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    failing: Exception | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    now: datetime | None = None
    refuses: set[str] = field(default_factory=set)
    refusal: int = 400
    keeps_order: bool = True
    failing_pages: dict[int, Exception] = field(default_factory=dict)
    failing_calls: dict[str, Exception] = field(default_factory=dict)
    lost_answers: list[Exception] = field(default_factory=list)
    cursors: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gate.set()

    def add(self, *records: ArtifactRecord) -> None:
        """Register artifacts."""
        self.records.update({record.uuid: record for record in records})

    def count(self, method: str) -> int:
        """Return how many requests of a kind were made."""
        return sum(called == method for called, _ in self.calls)

    def list_artifacts_page(
        self,
        *,
        cursor: str | None = None,
        limit: int = 50,
        filter: str | None = None,
        order_by: str | None = None,
        order_desc: bool | None = None,
        at_time: datetime | None = None,
    ) -> Page[ArtifactRecord]:
        """Return one page, newest first where an order was asked for, as `unordered` has it else."""
        if cursor is None and filter is None:
            self.calls.append(("walk", ""))
        self._request("named" if filter else "page", filter or cursor or "")
        asked = {"order": order_by, "time": at_time, "filter": filter, "cursor": cursor}
        for what in self.refuses & asked.keys():
            if asked[what] is not None:
                raise BadRequest(f"no {what}", status=self.refusal)
        begin, ordered, at = 0, order_by is not None and self.keeps_order, at_time or self.now
        if cursor is not None:
            begin, ordered, at = self.cursors[cursor]
        listed = [
            record
            for record in self._sorted(ordered or filter is not None)
            if (record.uuid not in self.late if filter is None else _is_like(record.name, filter))
            and (at is None or record.created_at <= at)
        ]
        items = tuple(_as_list_item(record) for record in listed[begin : begin + limit])
        following = begin + limit
        return Page(items, self._cursor(following, ordered, at) if following < len(listed) else None, at)

    def list_artifacts_text(self, **query: Any) -> PageText:
        """Return one page as its text; see `list_artifacts_page`."""
        page = self.list_artifacts_page(**query)
        following = [page.cursor] if page.cursor else []
        value = {
            "items": [_as_json(record) for record in page.items],
            "links": [{"rel": "next", "href": "/1/artifacts?" + urlencode({"page": cursor})} for cursor in following],
            "at-time": page.at_time.isoformat() if page.at_time else None,
        }
        return wire.page_text(json.dumps(value).encode())

    def _sorted(self, newest_first: bool) -> list[ArtifactRecord]:
        records = list(self.records.values())
        if newest_first:
            records.sort(key=lambda record: (record.created_at, record.uuid), reverse=True)
        return records

    def _cursor(self, *state: Any) -> str:
        cursor = f"cursor-{state[0]}-{state[1]}-{state[2]}"
        self.cursors[cursor] = state
        return cursor

    def read_artifact(self, uuid: str) -> ArtifactRecord:
        """Return a whole record."""
        self._request("record", uuid)
        if uuid not in self.records:
            raise NotFound(f"no artifact {uuid}", status=404)
        return replace(self.records[uuid], whole=True)

    def iter_aspects(
        self,
        *,
        entity: str | None = None,
        schema: str = "%",
        include_content: bool = True,
        content_path: str | None = None,
        limit: int = 50,
    ) -> Iterator[AspectRecord]:
        """Yield the aspects that stand."""
        assert include_content
        self._request("aspects", entity or schema)
        if content_path is not None and "path" in self.refuses:
            raise BadRequest("no path", status=self.refusal)
        asked = [self.aspects.get(entity, [])] if entity else list(self.aspects.values())
        yield from [
            each
            for aspects in asked
            for each in aspects
            if re.fullmatch(re.escape(schema).replace("%", ".*"), each.schema)
            and (content_path is None or f'"{each.content.get("item")}"' in content_path)
        ]

    def add_aspect(self, entity: str, schema: str, content: Any) -> str:
        """Add an aspect, newer than all others."""
        self._request("add", schema)
        new = self._stand(entity, schema, content)
        self._lose_answer()
        return new.id

    def replace_aspect(self, entity: str, schema: str, content: Any) -> str:
        """Retract the one aspect of a schema, and add another."""
        self._request("replace", schema)
        old = [each for each in self.aspects.get(entity, []) if each.schema == schema]
        if len(old) > 1:
            raise Conflict(f"found {len(old)} matches", status=424)
        self.aspects[entity] = [each for each in self.aspects.get(entity, []) if each not in old]
        return self._stand(entity, schema, content).id

    def retract_aspect(self, id: str) -> None:
        """End an aspect."""
        self._request("retract", id)
        if not any(each.id == id for aspects in self.aspects.values() for each in aspects):
            raise NotFound(f"no aspect {id}", status=404)
        for entity, aspects in self.aspects.items():
            self.aspects[entity] = [each for each in aspects if each.id != id]

    def _stand(self, entity: str, schema: str, content: Any) -> AspectRecord:
        assert json.loads(json.dumps(content, allow_nan=False)) == content
        number = next(_numbers)
        valid_from = START + timedelta(seconds=number)
        id = f"urn:ivcap:aspect:{uuid_of(number)}"
        new = AspectRecord(id, entity, schema, content, "application/json", valid_from)
        self.aspects.setdefault(entity, []).append(new)
        return new

    def _lose_answer(self) -> None:
        if self.lost_answers:
            raise self.lost_answers.pop(0)

    def _request(self, method: str, detail: str) -> None:
        self.calls.append((method, detail))
        assert self.gate.wait(PATIENCE)
        if self.failing is not None:
            raise self.failing
        if method in self.failing_calls:
            raise self.failing_calls[method]
        if method == "page" and self.count("page") in self.failing_pages:
            raise self.failing_pages[self.count("page")]


def _is_like(name: str | None, filter: str) -> bool:
    match = re.fullmatch(r"name ~= '([^'\"\\]*)'", filter, re.DOTALL)
    assert match is not None, f"a server could misread the filter {filter!r}"
    wild = {"_": ".", "%": ".*"}
    pattern = "".join(wild.get(char) or re.escape(char) for char in match[1])
    return name is not None and re.fullmatch(pattern, name, re.DOTALL) is not None


def _as_json(record: ArtifactRecord) -> dict[str, Any]:
    """Return a list item as the platform writes it."""
    return {
        "id": record.urn,
        "name": record.name,
        "status": record.status.value,
        "mime-type": record.mime_type,
        "size": record.size,
        "created-at": record.created_at.isoformat(),
    }


def _as_list_item(record: ArtifactRecord) -> ArtifactRecord:
    return replace(record, etag=None, policy=None, account=None, data_href=None, last_modified_at=None, whole=False)


@dataclass
class FixedListing:
    """One reading of a folder in memory; cookies leave room between them."""

    children: list[tuple[str, Folder | FileEntry]]

    def entries(self, after: int) -> Iterator[Entry]:
        """Iterate what is behind a cookie."""
        for number, (name, child) in enumerate(self.children, 1):
            if number * 10 > after:
                yield name, child, number * 10


def _folder_of(folder: PlainFolder) -> Folder:
    return Folder(id(folder), 0 if folder.newest == EPOCH else microseconds(folder.newest) * 1000)


def _child_of(child: PlainFolder | ArtifactRecord) -> Folder | FileEntry:
    if isinstance(child, PlainFolder):
        return _folder_of(child)
    return FileEntry(uuid_bytes(child.uuid), child.size, microseconds(child.created_at) * 1000)


@dataclass
class MemoryCatalog:
    """`ivcapfs.catalog.interface.Catalog` over two dictionaries.

    Attributes:
        whole: what reading a record tells, where it is more than the list item.
        sizes: what HEAD tells of artifacts whose record has no size.
        requests: what a real catalog would have had to ask for.
        failing: as long as it is set, everything but `root` and `totals` fails with it.
    """

    records: dict[str, ArtifactRecord] = field(default_factory=dict)
    whole: dict[str, ArtifactRecord] = field(default_factory=dict)
    described: dict[str, list[AspectRecord]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    is_detailed: bool = False
    failing: Exception | None = None

    def add(self, *records: ArtifactRecord) -> None:
        """Register artifacts."""
        self.records.update({record.uuid: record for record in records})

    def remove(self, record: ArtifactRecord) -> None:
        """Forget an artifact."""
        del self.records[record.uuid]

    def describe(self, *aspects: AspectRecord) -> None:
        """Add aspects, newest first."""
        for each in aspects:
            self.described.setdefault(each.entity, []).append(each)

    def _namespace(self) -> Namespace:
        return Namespace(record for record in self.records.values() if record.is_ready)

    def root(self, check: Check) -> Folder:
        return _folder_of(self._namespace().root)

    def totals(self) -> Totals:
        ready = list(self._namespace())
        return Totals(len(ready), sum(-(-(record.size or 0) // 4096) for record in ready))

    def listing(self, parts: tuple[str, ...], check: Check) -> FixedListing:
        self._fail()
        found = self._namespace().find(parts)
        if found is None:
            raise NoSuchEntry("/".join(parts))
        if not isinstance(found, PlainFolder):
            raise NotAFolder("/".join(parts))
        return FixedListing([(name, _child_of(child)) for name, child in found.children.items()])

    def everything(self, check: Check) -> FixedListing:
        self._fail()
        return FixedListing([(record.uuid, _child_of(record)) for record in self._namespace()])

    def find(self, parts: tuple[str, ...], check: Check) -> Folder | ArtifactRecord:
        self._fail()
        found = self._namespace().find(parts)
        if found is None:
            raise NoSuchEntry("/".join(parts))
        return _folder_of(found) if isinstance(found, PlainFolder) else found

    def record(self, uuid: str, check: Check) -> ArtifactRecord:
        self._fail()
        if uuid not in self.records:
            raise NotFound(f"no artifact {uuid}", status=404)
        return self.records[uuid]

    def whole_record(self, uuid: str, check: Check) -> ArtifactRecord:
        self._fail()
        self.requests.append(("record", uuid))
        return replace(self.whole.get(uuid) or self.records[uuid], whole=True)

    def aspects(self, uuid: str, check: Check) -> tuple[AspectRecord, ...]:
        self._fail()
        self.requests.append(("aspects", uuid))
        return tuple(self.described.get(self.records[uuid].urn, ()))

    def record_and_aspects(self, uuid: str, check: Check) -> tuple[ArtifactRecord, tuple[AspectRecord, ...]]:
        return self.whole_record(uuid, check), self.aspects(uuid, check)

    def details_known(self, uuid: str) -> tuple[ArtifactRecord, tuple[AspectRecord, ...]] | None:
        if not self.is_detailed:
            return None
        record = self.records[uuid]
        return self.whole.get(uuid) or record, tuple(self.described.get(record.urn, ()))

    def size(self, record: ArtifactRecord, check: Check) -> int:
        if record.size is not None:
            return record.size
        self._fail()
        self.requests.append(("size", record.uuid))
        return self.sizes[record.uuid]

    def _fail(self) -> None:
        if self.failing is not None:
            raise self.failing
