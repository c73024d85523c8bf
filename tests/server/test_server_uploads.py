"""Uploads by TUS and by PUT, also those that break off."""

from __future__ import annotations

import base64
import hashlib
import http.client
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ivcapfs.server.records import MAX_UPLOAD
from ivcapfs.server.runner import Platform

TUS = {"Tus-Resumable": "1.0.0"}
CONTENT = bytes(range(251)) * 12_000  # 3 MB


def create(http: httpx.Client, length: int | None, **headers: str) -> str:
    announced = {"X-Content-Length": str(-1 if length is None else length)}
    reply = http.post("/1/artifacts", headers=TUS | announced | headers)
    assert reply.status_code == 201, reply.text
    return str(reply.json()["id"])


def blob(artifact: str) -> str:
    return f"/1/artifacts/{artifact}/blob"


def patch(http: httpx.Client, artifact: str, offset: int, data: bytes, **headers: str) -> httpx.Response:
    fixed = TUS | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
    return http.patch(blob(artifact), content=data, headers=fixed | headers)


def status(http: httpx.Client, artifact: str) -> str:
    return str(http.get(f"/1/artifacts/{artifact}").json()["status"])


def offset(http: httpx.Client, artifact: str) -> int:
    reply = http.head(blob(artifact), headers=TUS)
    assert reply.status_code == 200
    return int(reply.headers["Upload-Offset"])


def test_the_record_that_is_made(http: httpx.Client, platform: Platform) -> None:
    name = "ünïcode / name"
    headers = TUS | {
        "X-Name": base64.b64encode(name.encode()).decode(),
        "X-Content-Type": "text/csv",
        "X-Content-Length": "5",
        "X-Policy": "urn:ivcap:policy:mine",
        "X-Collection": "urn:ivcap:collection:c",
    }
    reply = http.post("/1/artifacts", headers=headers)
    record = reply.json()
    assert reply.status_code == 201
    assert (reply.headers["Tus-Resumable"], reply.headers["Upload-Offset"]) == ("1.0.0", "0")
    assert reply.headers["Location"] == f"{platform.url}/1/artifacts/{record['id']}"
    assert record["data-href"] == f"{platform.url}{blob(record['id'])}"
    wanted = {"name": name, "mime-type": "text/csv", "size": 5, "status": "pending"}
    assert record | wanted | {"policy": "urn:ivcap:policy:mine"} == record
    members = http.get("/1/aspects", params={"entity": "urn:ivcap:collection:c", "include-content": "true"}).json()
    assert members["items"][0]["schema"] == "urn:ivcap:schema:collection-item.1"
    assert members["items"][0]["content"]["item"] == record["id"]


def test_chunks_become_an_artifact(http: httpx.Client) -> None:
    artifact = create(http, len(CONTENT))
    assert status(http, artifact) == "pending"
    for start in range(0, len(CONTENT), 1_100_000):
        reply = patch(http, artifact, start, CONTENT[start : start + 1_100_000])
        assert reply.status_code == 204
        assert int(reply.headers["Upload-Offset"]) == min(len(CONTENT), start + 1_100_000)
        assert status(http, artifact) == ("ready" if start + 1_100_000 >= len(CONTENT) else "partial")
    read = http.get(blob(artifact))
    assert read.content == CONTENT
    assert read.headers["ETag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    assert http.get(f"/1/artifacts/{artifact}").json()["etag"] == hashlib.sha256(CONTENT).hexdigest()


def test_a_wrong_offset_is_refused(http: httpx.Client) -> None:
    artifact = create(http, 10)
    assert patch(http, artifact, 0, b"12345").status_code == 204
    for wrong in (0, 4, 6):
        reply = patch(http, artifact, wrong, b"x")
        assert reply.status_code == 409
        assert reply.headers["Upload-Offset"] == "5"
    assert patch(http, artifact, 5, b"67890").status_code == 204
    assert http.get(blob(artifact)).content == b"1234567890"


def test_content_that_is_ready_never_changes(http: httpx.Client) -> None:
    artifact = create(http, 3)
    patch(http, artifact, 0, b"abc")
    assert patch(http, artifact, 3, b"d").status_code == 409
    assert patch(http, artifact, 0, b"xyz").status_code == 409
    assert http.put(blob(artifact), content=b"xyz").status_code == 409
    assert http.post(blob(artifact), headers=TUS | {"Upload-Defer-Length": "1"}).status_code == 409
    assert http.get(blob(artifact)).content == b"abc"
    head = http.head(blob(artifact), headers=TUS)
    assert (head.headers["Upload-Offset"], head.headers["Upload-Length"]) == ("3", "3")


def test_more_than_was_announced_is_refused(http: httpx.Client) -> None:
    artifact = create(http, 3)
    assert patch(http, artifact, 0, b"abcd").status_code == 413

    def unknown_length() -> Iterator[bytes]:
        yield b"ab"
        yield b"cd"

    headers = TUS | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    assert http.patch(blob(artifact), content=unknown_length(), headers=headers).status_code == 413
    assert status(http, artifact) != "ready"


def test_the_limit_of_size(http: httpx.Client) -> None:
    assert http.post("/1/artifacts", headers=TUS | {"X-Content-Length": str(MAX_UPLOAD + 1)}).status_code == 413
    assert http.post("/1/artifacts", headers=TUS | {"Upload-Length": str(MAX_UPLOAD + 1)}).status_code == 413
    assert create(http, MAX_UPLOAD)
    artifact = create(http, None)
    reply = patch(http, artifact, 0, b"", **{"Upload-Length": str(MAX_UPLOAD + 1)})
    assert reply.status_code == 413


def test_deferred_as_the_sdk_does(http: httpx.Client, platform: Platform) -> None:
    artifact = create(http, None)
    reply = http.post(blob(artifact), headers=TUS | {"Upload-Defer-Length": "1"})
    assert (reply.status_code, reply.headers["Location"]) == (201, f"{platform.url}{blob(artifact)}")
    patch(http, artifact, 0, b"abc")
    assert status(http, artifact) == "partial"
    assert http.head(blob(artifact), headers=TUS).headers["Upload-Defer-Length"] == "1"
    assert patch(http, artifact, 3, b"de", **{"Upload-Length": "5"}).status_code == 204
    assert (status(http, artifact), http.get(blob(artifact)).content) == ("ready", b"abcde")


def test_deferred_as_the_cli_does(http: httpx.Client) -> None:
    artifact = create(http, None)
    for start, data in ((0, b"abc"), (3, b"de")):
        assert patch(http, artifact, start, data, **{"Upload-Defer-Length": "1"}).status_code == 204
        assert status(http, artifact) == "partial"
    assert patch(http, artifact, 5, b"", **{"Upload-Length": "5"}).status_code == 204
    assert (status(http, artifact), http.get(blob(artifact)).content) == ("ready", b"abcde")


def test_lengths_that_contradict(http: httpx.Client) -> None:
    artifact = create(http, 5)
    assert patch(http, artifact, 0, b"a", **{"Upload-Length": "6"}).status_code == 400
    other = create(http, None)
    patch(http, other, 0, b"abc", **{"Upload-Defer-Length": "1"})
    assert patch(http, other, 3, b"", **{"Upload-Length": "2"}).status_code in (400, 413)
    assert http.post("/1/artifacts", headers={"X-Content-Length": "1", "Upload-Length": "2"}).status_code == 400


def test_one_request_of_unknown_length_is_the_whole(http: httpx.Client) -> None:
    artifact = create(http, None)
    assert patch(http, artifact, 0, CONTENT).status_code == 204
    assert (status(http, artifact), http.get(blob(artifact)).content) == ("ready", CONTENT)


def break_off(platform: Platform, artifact: str, sent: bytes, announced: int) -> None:
    """Send the beginning of a PATCH and close the connection."""
    address = httpx.URL(platform.url)
    connection = http.client.HTTPConnection(address.host, address.port)
    connection.putrequest("PATCH", blob(artifact))
    headers = TUS | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    for name, value in (headers | {"Content-Length": str(announced)}).items():
        connection.putheader(name, value)
    connection.putheader("Authorization", "Bearer a-token-for-tests")
    connection.endheaders()
    connection.send(sent)
    time.sleep(0.2)
    connection.close()


@pytest.mark.parametrize("known", [True, False])
def test_what_arrived_before_the_break_is_kept(http: httpx.Client, platform: Platform, known: bool) -> None:
    artifact = create(http, len(CONTENT) if known else None)
    break_off(platform, artifact, CONTENT[:2_000_000], len(CONTENT))
    deadline = time.monotonic() + 5
    while (arrived := offset(http, artifact)) == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    arrived = offset(http, artifact)
    assert 1_000_000 < arrived <= 2_000_000
    assert status(http, artifact) == "partial"
    assert patch(http, artifact, arrived, CONTENT[arrived:]).status_code == 204
    read = http.get(blob(artifact))
    assert read.content == CONTENT
    assert read.headers["ETag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'


def test_an_upload_goes_on_after_a_restart(http: httpx.Client, platform: Platform, tmp_path: Path) -> None:
    artifact = create(http, len(CONTENT))
    patch(http, artifact, 0, CONTENT[:999_999])
    platform.close()
    with Platform(tmp_path / "data") as again, httpx.Client(base_url=again.url) as client:
        assert offset(client, artifact) == 999_999
        assert patch(client, artifact, 999_999, CONTENT[999_999:]).status_code == 204
        read = client.get(blob(artifact))
        assert read.content == CONTENT
        assert read.headers["ETag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'


def test_an_upload_whose_last_byte_came_just_before_the_end(platform: Platform, tmp_path: Path) -> None:
    artifact = platform.store.add_artifact(content=b"all of it", status="partial")
    platform.store.artifacts.set_length(artifact, 9)
    platform.close()
    with Platform(tmp_path / "data") as again, httpx.Client(base_url=again.url) as client:
        assert client.get(blob(artifact)).content == b"all of it"


def test_two_writers_at_a_time(http: httpx.Client, platform: Platform) -> None:
    artifact = create(http, 10)
    address = httpx.URL(platform.url)
    slow = http_connection(address, artifact)
    try:
        time.sleep(0.2)
        reply = patch(http, artifact, 0, b"12345")
        assert reply.status_code == 409
        assert "another request" in reply.json()["message"]
    finally:
        slow.close()
    time.sleep(0.2)
    assert patch(http, artifact, 2, b"34567890").status_code == 204
    assert http.get(blob(artifact)).content == b"1234567890"


def http_connection(address: httpx.URL, artifact: str) -> http.client.HTTPConnection:
    """Begin a PATCH of 10 bytes, of which 2 are sent."""
    connection = http.client.HTTPConnection(address.host, address.port)
    connection.putrequest("PATCH", blob(artifact))
    headers = {
        "Content-Type": "application/offset+octet-stream",
        "Upload-Offset": "0",
        "Content-Length": "10",
    }
    for name, value in (TUS | headers).items():
        connection.putheader(name, value)
    connection.putheader("Authorization", "Bearer a-token-for-tests")
    connection.endheaders()
    connection.send(b"12")
    return connection


def test_put(http: httpx.Client) -> None:
    artifact = create(http, None)
    reply = http.put(blob(artifact), content=b"whole")
    assert reply.status_code == 204
    assert (status(http, artifact), http.get(blob(artifact)).content) == ("ready", b"whole")
    other = create(http, 3)
    assert http.put(blob(other), content=b"four").status_code == 400
    assert status(http, other) == "pending"
    assert http.put(blob(other), content=b"fou").status_code == 204


def test_put_has_a_limit(http: httpx.Client, platform: Platform) -> None:
    limit = 16 * 1024 * 1024
    artifact = create(http, None)
    assert http.put(blob(artifact), content=bytes(limit + 1)).status_code == 413
    assert http.put(blob(artifact), content=(bytes(limit) for _ in range(2))).status_code == 413
    assert status(http, artifact) == "pending"
    assert not list(platform.store.files.path(artifact).parent.glob("*.put"))
    assert http.put(blob(artifact), content=bytes(limit)).status_code == 204


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Tus-Resumable": "0.2.0"}, 412),
        ({"Content-Type": "text/plain"}, 415),
        ({"Upload-Offset": "x"}, 400),
        ({"Upload-Offset": "-1"}, 400),
        ({"Upload-Offset": ""}, 400),
    ],
)
def test_patches_that_are_no_tus(http: httpx.Client, headers: dict[str, str], code: int) -> None:
    artifact = create(http, 5)
    reply = patch(http, artifact, 0, b"abc", **headers)
    assert reply.status_code == code
    assert reply.json()["message"]
    assert offset(http, artifact) == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Name": "no base64!"},
        {"X-Name": base64.b64encode(b"\xff\xfe").decode()},
        {"X-Content-Length": "-2"},
        {"X-Content-Length": "many"},
        {"X-Collection": "no-urn"},
        {"X-Policy": "no-urn"},
    ],
)
def test_records_that_are_refused(http: httpx.Client, headers: dict[str, str]) -> None:
    reply = http.post("/1/artifacts", headers=headers)
    assert reply.status_code == 400
    assert set(reply.json()) == {"message"}


def test_a_record_with_a_body_is_refused(http: httpx.Client) -> None:
    assert http.post("/1/artifacts", content=b"data").status_code == 400
    assert http.get("/1/artifacts").json()["items"] == []
