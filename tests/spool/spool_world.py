"""A deployment that takes uploads, in memory, and fails at each call if told to, before or after it did what was asked.

Stands for `ivcapfs.client.Api` and `ivcapfs.client.Uploads` at once. May be used by several threads.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ivcapfs.client.exchange import FileSlice
from ivcapfs.client.tus import Upload
from ivcapfs.errors import BadRequest, Conflict, NotFound
from ivcapfs.models import ArtifactRecord, ArtifactStatus
from ivcapfs.spool.draft import Draft
from ivcapfs.spool.entry import Entry
from ivcapfs.spool.folder import Folder, Owner, open_new, this_host
from ivcapfs.spool.sender import Sender
from tests.fakes import START, FakeClock, artifact


@dataclass
class Fault:
    """What a call fails with; `done`: after it did what was asked, so that only the answer is lost."""

    error: Exception
    done: bool = False


@dataclass
class _Upload:
    name: str
    kind: str
    size: int | None
    data: bytearray = field(default_factory=bytearray)
    is_ready: bool = False


class FakeDeployment:
    """See the module.

    Attributes:
        faults: by the name of the call, those that its next calls meet, in order; None: no fault.
        calls: (call, detail) of each.
        defers: whether a length may be told at the end.
        received: bytes that came, in all.
        on_bring: called before bytes are taken.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.uploads: dict[str, _Upload] = {}
        self.faults: dict[str, list[Fault | None]] = {}
        self.calls: list[tuple[str, Any]] = []
        self.defers = True
        self.received = 0
        self.on_bring: Callable[[], None] = lambda: None

    def ready(self) -> list[tuple[str, bytes]]:
        """Return (name, content) of all artifacts that are ready."""
        return [(each.name, bytes(each.data)) for each in self.uploads.values() if each.is_ready]

    def count(self, call: str) -> int:
        """Return how often a call was made."""
        return sum(name == call for name, _ in self.calls)

    # -- Uploads -------------------------------------------------------------------------------------------------

    def begin(self, *, name: str, content_type: str, size: int | None, policy: str | None) -> Upload:
        """See `Uploads.begin`."""

        def work() -> Upload:
            if size is None and not self.defers:
                raise BadRequest("the length is missing", status=400)
            record = artifact(name)
            self.uploads[record.uuid] = _Upload(name, content_type, size, is_ready=size == 0)
            return Upload(record.uuid, f"https://x/{record.uuid}", size)

        return self._call("begin", (name, size), work)

    def bring(self, upload: Upload, offset: int, chunk: FileSlice, stopped: Callable[[], bool]) -> None:
        """See `Uploads.bring`; here it asks nobody how far it came."""
        self.on_bring()

        def work() -> None:
            found = self._upload(upload.uuid)
            if offset != len(found.data) or found.is_ready:
                raise Conflict(f"at {len(found.data)}, not {offset}", status=409)
            found.data += b"".join(chunk.pieces())
            self.received += len(chunk)
            found.is_ready = len(found.data) == found.size

        self._call("bring", offset, work)

    def offset_of(self, upload: Upload) -> int:
        """See `Uploads.offset_of`."""
        return self._call("offset_of", upload.uuid, lambda: len(self._upload(upload.uuid).data))

    def finish(self, upload: Upload, length: int, stopped: Callable[[], bool]) -> None:
        """See `Uploads.finish`."""

        def work() -> None:
            found = self._upload(upload.uuid)
            if len(found.data) != length or found.is_ready:
                raise Conflict("another length, or complete already", status=409)
            found.size, found.is_ready = length, True

        self._call("finish", length, work)

    # -- Api -----------------------------------------------------------------------------------------------------

    def read_artifact(self, uuid: str) -> ArtifactRecord:
        """See `Api.read_artifact`."""
        return self._call("read_artifact", uuid, lambda: self._record(uuid))

    def iter_artifacts(self, *, filter: str, limit: int) -> Iterator[ArtifactRecord]:
        """See `Api.iter_artifacts`; the filter finds everything, the oldest first."""
        for start in range(0, max(len(self.uploads), 1), limit):
            yield from self._call("list", filter, functools.partial(self._page, start, limit))

    def _page(self, start: int, limit: int) -> list[ArtifactRecord]:
        return [self._record(uuid) for uuid in list(self.uploads)[start : start + limit]]

    def _record(self, uuid: str) -> ArtifactRecord:
        found = self._upload(uuid)
        status = ArtifactStatus.READY if found.is_ready else ArtifactStatus.PENDING
        return ArtifactRecord(uuid, found.name, status, found.kind, len(found.data) if found.is_ready else None, START)

    def _upload(self, uuid: str) -> _Upload:
        if uuid not in self.uploads:
            raise NotFound(f"no artifact {uuid}", status=404)
        return self.uploads[uuid]

    def _call(self, call: str, detail: Any, work: Callable[[], Any]) -> Any:
        with self._lock:
            self.calls.append((call, detail))
            planned = self.faults.get(call)
            fault = planned.pop(0) if planned else None
            if fault is not None and not fault.done:
                raise fault.error
            result = work()
            if fault is not None:
                raise fault.error
            return result


@dataclass
class Spooled:
    """A folder of the spool, and a sender to the deployment whose waits take no time."""

    folder: Folder
    deployment: FakeDeployment
    clock: FakeClock = field(default_factory=FakeClock)

    def draft(self, content: bytes = b"", name: str = "data.bin") -> Draft:
        """Return a new file that is closed."""
        entry = Entry(("artifacts", *name.split("/")), below=name.count("/") + 1)
        draft = Draft(self.folder, entry, self.folder.create(entry))
        draft.acquire()
        if content:
            draft.write(content, 0)
        return draft

    def sender(self, **more: Any) -> Sender:
        """Return a sender with chunks of 1,000 bytes."""
        more = {"chunk": 1000, "patience": 10.0, "clock": self.clock, "sleep": self.clock.advance} | more
        return Sender(self.deployment, self.deployment, **more)


def new_folder(root: Path, deployment: str = "deployment") -> Folder:
    """Make a folder of the spool, locked."""
    return open_new(root, deployment, Owner(this_host(), 1, "/mnt", "https://x"))
