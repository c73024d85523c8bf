"""Reading content: ranges, conditions, and what is counted."""

from __future__ import annotations

import hashlib
import socket
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.server.ranges import RangeNotSatisfiable, parse_range
from ivcapfs.server.runner import Platform

CONTENT = bytes(range(256)) * 8192  # 2 MiB
SIZE = len(CONTENT)


@pytest.fixture
def blob(platform: Platform) -> str:
    artifact = platform.store.add_artifact(name="b", content=CONTENT, mime_type="image/x-test")
    return f"/1/artifacts/{artifact}/blob"


def test_the_whole(http: httpx.Client, blob: str) -> None:
    reply = http.get(blob)
    assert reply.status_code == 200
    assert reply.content == CONTENT
    assert reply.headers["ETag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    assert reply.headers["Accept-Ranges"] == "bytes"
    assert reply.headers["Content-Type"] == "image/x-test"
    assert reply.headers["Last-Modified"].endswith("GMT")
    assert http.get(blob.replace("urn:ivcap:artifact:", "")).content == CONTENT
    assert http.get(blob.replace(":", "%3A")).content == CONTENT


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        (f"bytes=1048570-{SIZE + 99}", 1048570, SIZE),
        ("bytes=2000000-", 2000000, SIZE),
        ("bytes=-5", SIZE - 5, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
    ],
)
def test_a_range(http: httpx.Client, blob: str, header: str, start: int, stop: int) -> None:
    reply = http.get(blob, headers={"Range": header})
    assert reply.status_code == 206
    assert reply.content == CONTENT[start:stop]
    assert reply.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert int(reply.headers["Content-Length"]) == stop - start


@pytest.mark.parametrize("header", [f"bytes={SIZE}-", "bytes=-0", f"bytes={SIZE}-{SIZE + 5}"])
def test_a_range_outside(http: httpx.Client, blob: str, header: str) -> None:
    reply = http.get(blob, headers={"Range": header})
    assert reply.status_code == 416
    assert reply.headers["Content-Range"] == f"bytes */{SIZE}"
    assert "message" in reply.json()


@pytest.mark.parametrize("header", ["bytes=0-1,5-6", "bytes=5-4", "bytes=", "bytes=a-b", "lines=0-1", "bytes=-"])
def test_a_range_that_is_ignored(http: httpx.Client, blob: str, header: str) -> None:
    reply = http.get(blob, headers={"Range": header})
    assert (reply.status_code, len(reply.content)) == (200, SIZE)


def test_conditions(http: httpx.Client, blob: str) -> None:
    whole = http.head(blob)
    etag, date = whole.headers["ETag"], whole.headers["Last-Modified"]
    part = {"Range": "bytes=0-9"}
    assert http.get(blob, headers=part | {"If-Range": etag}).status_code == 206
    assert http.get(blob, headers=part | {"If-Range": date}).status_code == 206
    assert http.get(blob, headers=part | {"If-Range": '"other"'}).status_code == 200
    assert http.get(blob, headers={"If-None-Match": f'"x", {etag}'}).status_code == 304
    assert http.head(blob, headers={"If-None-Match": "*"}).status_code == 304
    assert http.get(blob, headers={"If-None-Match": '"x"'}).status_code == 200
    assert http.get(blob, headers=part | {"If-Match": '"x"'}).status_code == 412


def test_head(http: httpx.Client, blob: str) -> None:
    reply = http.head(blob)
    assert reply.status_code == 200
    assert reply.content == b""
    assert int(reply.headers["Content-Length"]) == SIZE
    assert reply.headers["Content-Type"] == "image/x-test"


def test_empty_content(http: httpx.Client, platform: Platform) -> None:
    empty = f"/1/artifacts/{platform.store.add_artifact(content=b'')}/blob"
    reply = http.get(empty)
    assert (reply.status_code, reply.content, reply.headers["Content-Length"]) == (200, b"", "0")
    assert http.get(empty, headers={"Range": "bytes=0-"}).status_code == 416


@pytest.mark.parametrize("status", ["pending", "partial", "error"])
def test_content_that_is_not_ready(http: httpx.Client, platform: Platform, status: str) -> None:
    artifact = platform.store.add_artifact(content=b"123", status=status)
    reply = http.get(f"/1/artifacts/{artifact}/blob")
    assert reply.status_code == 404
    assert reply.json()["id"] == artifact
    assert status in reply.json()["message"]


def test_an_unknown_artifact(http: httpx.Client) -> None:
    for named in ("urn:ivcap:artifact:00000000-0000-0000-0000-000000000000", "nonsense"):
        reply = http.get(f"/1/artifacts/{named}/blob")
        assert (reply.status_code, reply.json()["id"]) == (404, named)


def test_bytes_are_counted_as_they_are_sent(http: httpx.Client, platform: Platform, blob: str) -> None:
    http.get(blob)
    http.get(blob, headers={"Range": "bytes=0-9"})
    http.head(blob)
    http.head(blob, headers={"Tus-Resumable": "1.0.0"})
    counts = http.get("/_counters").json()
    assert counts["blob_bytes_sent"] == SIZE + 10
    assert counts["requests"] == {"blob.get": 2, "blob.head": 1, "tus.head": 1}
    assert http.post("/_counters/reset").status_code == 204
    assert platform.counters() == {"requests": {}, "blob_bytes_sent": 0}


def test_an_aborted_get_counts_only_what_went_out(platform: Platform) -> None:
    big = platform.store.add_artifact(content=bytes(64 << 20))
    address = httpx.URL(platform.url)
    with socket.create_connection((address.host, address.port)) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        head = f"GET /1/artifacts/{big}/blob HTTP/1.1\r\nHost: h\r\n"
        raw.sendall(f"{head}Authorization: Bearer a-token-for-tests\r\n\r\n".encode())
        assert raw.recv(1000).startswith(b"HTTP/1.1 200")
        time.sleep(0.2)
    time.sleep(0.3)
    first = platform.counters()["blob_bytes_sent"]
    time.sleep(0.2)
    assert isinstance(first, int)
    assert 0 < first < 32 << 20
    assert platform.counters()["blob_bytes_sent"] == first


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_ranges_agree_with_slices(size: int, first: int, last: int) -> None:
    content = bytes(range(size))
    headers = {
        f"bytes={first}-{last}": content[first : last + 1] if last >= first else None,
        f"bytes={first}-": content[first:],
        f"bytes=-{last}": content[max(0, size - last) :] if last else b"",
    }
    for header, wanted in headers.items():
        try:
            part = parse_range(header, size)
        except RangeNotSatisfiable as exc:
            assert wanted == b""
            assert str(exc) == f"bytes */{size}"
        else:
            assert wanted != b""
            assert (None if part is None else content[part[0] : part[1]]) == wanted


@given(st.text(max_size=20), st.integers(0, 1000))
def test_no_range_header_breaks_the_parser(text: str, size: int) -> None:
    for header in (text, f"bytes={text}"):
        try:
            part = parse_range(header, size)
        except RangeNotSatisfiable:
            continue
        assert part is None or 0 <= part[0] < part[1] <= size
