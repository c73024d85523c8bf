"""Uploads: chunks, lengths known and not, and going on after an error."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import IO

import pytest

from ivcapfs import errors
from ivcapfs.client import Upload
from ivcapfs.client.tus import await_ready
from ivcapfs.models import ArtifactRecord
from tests.client.fakeorigin import URN, UUID, Asked, Origin, Reply, as_json, client, record

DATA = random.Random(3).randbytes(1000)
Fault = Callable[["Store", Asked], Reply | None]


class Store:
    """A platform that takes one upload; `fault` may answer in its place."""

    def __init__(self, fault: Fault = lambda store, asked: None) -> None:
        self.fault = fault
        self.data = bytearray()
        self.expected: int | None = None
        self.faults = 0
        self.href = f"/1/artifacts/{URN}/blob"

    def __call__(self, asked: Asked) -> Reply:
        if asked.method in ("PATCH", "HEAD"):
            return self.fault(self, asked) or self.take(asked)
        if asked.method == "POST":
            announced = int(asked.headers["x-content-length"])
            self.expected = None if announced < 0 else announced
            return as_json(record(status="pending", size=None, **{"data-href": self.href}), 201)
        ready = len(self.data) == self.expected
        return as_json(record(status="ready" if ready else "partial", size=len(self.data)))

    def take(self, asked: Asked) -> Reply:
        if asked.method == "PATCH":
            if int(asked.headers["upload-offset"]) != len(self.data):
                return Reply(409)
            self.data += asked.body
            if "upload-length" in asked.headers:
                self.expected = int(asked.headers["upload-length"])
        length = {} if self.expected is None else {"Upload-Length": str(self.expected)}
        return Reply(204 if asked.method == "PATCH" else 200, {"Upload-Offset": str(len(self.data)), **length})


def upload(store: Store, source: IO[bytes], size: int | None = None, chunk: int = 300) -> tuple[ArtifactRecord, Origin]:
    """Upload by small chunks."""
    with Origin(store) as origin, client(origin.url) as connection:
        return connection.uploads.upload(source, content_type="a/b", size=size, chunk=chunk), origin


class Trickle(io.RawIOBase):
    """A stream that gives less than is asked for, and cannot seek."""

    def __init__(self, data: bytes) -> None:
        self._left = data

    def read(self, size: int = -1, /) -> bytes:
        part, self._left = self._left[: min(size, 70)], self._left[min(size, 70) :]
        return part


@pytest.mark.parametrize("length", [0, 1, 299, 300, 301, 600, 1000])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("stream", [io.BytesIO, Trickle])
def test_all_sizes(length: int, known: bool, stream: Callable[[bytes], IO[bytes]]) -> None:
    store = Store()
    got, origin = upload(store, stream(DATA[:length]), length if known else None)
    assert bytes(store.data) == DATA[:length] and got.is_ready and got.size == length
    patches = [asked for asked in origin.asked if asked.method == "PATCH"]
    assert all(len(asked.body) <= 300 for asked in patches)
    if known or length < 300:
        assert len(patches) == -(-length // 300)
        assert not any("upload-defer-length" in asked.headers for asked in patches)
    else:
        assert patches[-1].body == b"" and patches[-1].headers["upload-length"] == str(length)
        assert all(asked.headers["upload-defer-length"] == "1" for asked in patches)


def lost_answer(store: Store, asked: Asked) -> Reply | None:
    """Take the bytes, and hang up without an answer."""
    if asked.method != "PATCH" or store.faults >= 2:
        return None
    store.faults += 1
    store.take(asked)
    return Reply(raw=[])


def half_taken(store: Store, asked: Asked) -> Reply | None:
    """Take half of the bytes, and fail."""
    if asked.method != "PATCH" or len(asked.body) < 2:
        return None
    store.data += asked.body[: len(asked.body) // 2]
    return Reply(500)


def unavailable(store: Store, asked: Asked) -> Reply | None:
    store.faults += 1
    return Reply(503) if store.faults in (1, 2, 3, 5, 8) else None


def ahead(store: Store, asked: Asked) -> Reply | None:
    """Be somewhere else than the client thinks, once."""
    if store.faults or asked.method != "PATCH":
        return None
    store.faults += 1
    store.data += asked.body[:10]
    return Reply(409)


@pytest.mark.parametrize("fault", [lost_answer, half_taken, unavailable, ahead])
@pytest.mark.parametrize("size", [1000, None])
def test_an_upload_goes_on_after_an_error(fault: Fault, size: int | None) -> None:
    store = Store(fault)
    got, _ = upload(store, Trickle(DATA), size)
    assert bytes(store.data) == DATA and got.is_ready


def lost_end(store: Store, asked: Asked) -> Reply | None:
    """Take the last word, hang up without an answer, and refuse to hear it again."""
    if "upload-length" not in asked.headers:
        return None
    return Reply(403) if store.expected is not None else lost_answer(store, asked)


def test_the_lost_answer_to_the_last_word() -> None:
    got, _ = upload(Store(lost_end), Trickle(DATA))
    assert got.is_ready


def test_errors_without_end_end() -> None:
    store = Store(lambda store, asked: Reply(500) if asked.method == "PATCH" else None)
    with pytest.raises(errors.ServerFault):
        upload(store, io.BytesIO(DATA), 1000)


@pytest.mark.parametrize(
    ("status", "kind"), [(413, errors.TooLarge), (403, errors.NotPermitted), (501, errors.ServerFault)]
)
def test_what_will_not_get_better_is_not_repeated(status: int, kind: type[errors.ApiError]) -> None:
    tries = []

    def fault(store: Store, asked: Asked) -> Reply:
        tries.append(asked)
        return Reply(status)

    with pytest.raises(kind):
        upload(Store(fault), io.BytesIO(DATA), 1000)
    assert len(tries) == 1


@pytest.mark.parametrize("offset", ["9999", "0", "-1", "x", "²", ""])
def test_a_server_that_is_nowhere(offset: str) -> None:
    def fault(store: Store, asked: Asked) -> Reply | None:
        if asked.method == "PATCH" and not store.data:
            return None
        return Reply(500) if asked.method == "PATCH" else Reply(200, {"Upload-Offset": offset})

    with pytest.raises(errors.ProtocolError):
        upload(Store(fault), io.BytesIO(DATA), 1000)


@pytest.mark.parametrize("source", [io.BytesIO(DATA), io.StringIO("text")])
def test_sources_that_are_not_as_announced(source: IO[bytes]) -> None:
    with pytest.raises(errors.ConfigError):
        upload(Store(), source, 5000)


def test_no_more_than_announced_is_taken() -> None:
    store = Store()
    upload(store, io.BytesIO(DATA), 450)
    assert bytes(store.data) == DATA[:450]


def test_an_upload_elsewhere_goes_without_the_token() -> None:
    store = Store()
    with Origin(store) as other, Origin(store) as origin, client(origin.url) as connection:
        store.href = other.url + "/key?sig=1"
        connection.uploads.upload(io.BytesIO(DATA), content_type="a/b", size=1000, chunk=600)
    assert bytes(store.data) == DATA
    assert [asked.headers.get("authorization") for asked in other.asked] == [None, None]


@pytest.mark.parametrize("href", ["http://169.254.169.254/x", "http://example.invalid/x", None])
def test_an_upload_to_a_refused_address(href: str | None) -> None:
    store = Store()
    store.href = href  # type: ignore[assignment]
    with pytest.raises((errors.OriginRefused, errors.ProtocolError)):
        upload(store, io.BytesIO(DATA), 1000)


def test_stopping_and_going_on_later() -> None:
    store = Store()
    with Origin(store) as origin, client(origin.url) as connection:
        begun = connection.uploads.begin(name=None, content_type="a/b", size=1000)
        with pytest.raises(errors.Closing):
            connection.uploads.send(begun, io.BytesIO(DATA), chunk=300, stopped=lambda: len(store.data) >= 600)
        again = Upload(UUID, begun.url, 1000)
        offset = connection.uploads.offset_of(again)
        assert offset == 600
        connection.uploads.send(again, io.BytesIO(DATA[offset:]), offset=offset, chunk=300)
    assert bytes(store.data) == DATA


def waited(*statuses: str, seconds: float = 10.0) -> list[float]:
    """Wait for an artifact whose status is asked for and is these, one after the other; return the pauses."""
    left, pauses = [*statuses], list[float]()

    def answer(asked: Asked) -> Reply:
        return as_json(record(status=left.pop(0)))

    with Origin(answer) as origin, client(origin.url) as connection:
        await_ready(connection.api, UUID, seconds=seconds, pause=pauses.append, clock=lambda: sum(pauses))
    assert not left
    return pauses


def test_an_artifact_is_waited_for_ever_more_slowly_within_a_bound() -> None:
    assert waited("ready") == []
    assert waited(*["partial"] * 8, "ready") == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]
    with pytest.raises(errors.DeadlineExceeded, match="status is still 'partial'"):
        waited(*["partial"] * 9, seconds=2.0)
    with pytest.raises(errors.ProtocolError, match="in error"):
        waited("partial", "error")
