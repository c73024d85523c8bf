"""Running the platform: tokens, restarts, shutdown, settings, data directory."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ivcapfs.server.errors import DataDirInUse
from ivcapfs.server.latency import Latency
from ivcapfs.server.runner import Platform
from ivcapfs.server.settings import ServeSettings
from ivcapfs.server.store import Store


def test_no_token_no_entry(platform: Platform) -> None:
    with httpx.Client(base_url=platform.url) as client:
        for path in ("/1/artifacts", "/1/aspects", "/_counters", "/nowhere"):
            for headers in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": "Basic a-token-for-tests"},
            ):
                reply = client.get(path, headers=headers)
                assert (reply.status_code, reply.content) == (401, b"")
        assert client.get("/1/artifacts", headers={"Authorization": "bearer a-token-for-tests"}).is_success
    counts = platform.counters()["requests"]
    assert counts == {"unauthorized": 12, "artifact.list": 1}


def test_unknown_paths_and_methods_have_json_bodies(http: httpx.Client) -> None:
    assert http.get("/nowhere").json() == {"message": "Not Found"}
    reply = http.delete("/1/artifacts")
    assert (reply.status_code, reply.json()) == (405, {"message": "Method Not Allowed"})


def test_stopped_and_started_it_is_the_same(platform: Platform, http: httpx.Client) -> None:
    http.get("/1/artifacts")
    url = platform.url
    platform.stop()
    platform.store.add_artifact(name="meanwhile")
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    platform.start()
    assert platform.url == url
    assert [item["name"] for item in http.get("/1/artifacts").json()["items"]] == ["meanwhile"]
    assert platform.counters()["requests"] == {"artifact.list": 2}


def stalled(platform: Platform, artifact: str) -> socket.socket:
    """A client that asks for content and does not read it."""
    address = httpx.URL(platform.url)
    raw = socket.create_connection((address.host, address.port))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.sendall(f"GET /1/artifacts/{artifact}/blob HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    time.sleep(0.2)
    return raw


@pytest.mark.parametrize(("grace", "most"), [(0.0, 1.0), (0.5, 1.8)])
def test_stalled_clients_do_not_hold_up_the_end(
    tmp_path: Path, grace: float, most: float, caplog: pytest.LogCaptureFixture
) -> None:
    with Platform(tmp_path / "d") as platform:
        artifact = platform.store.add_artifact(content=bytes(64 << 20))
        upload = platform.store.add_artifact(status="pending")
        reader = stalled(platform, artifact)
        address = httpx.URL(platform.url)
        with reader, socket.create_connection((address.host, address.port)) as writer:
            head = (
                f"PATCH /1/artifacts/{upload}/blob HTTP/1.1\r\nHost: h\r\n"
                "Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
                "Content-Type: application/offset+octet-stream\r\nContent-Length: 100\r\n\r\n12345"
            )
            writer.sendall(head.encode())
            time.sleep(0.2)
            begin = time.monotonic()
            platform.stop(grace)
            assert grace <= time.monotonic() - begin < most
        platform.start()
        kept = httpx.head(f"{platform.url}/1/artifacts/{upload}/blob", headers={"Tus-Resumable": "1.0.0"})
        assert kept.headers["Upload-Offset"] == "5"
    assert caplog.records == []


def test_a_port_in_use_is_told_plainly(platform: Platform, tmp_path: Path) -> None:
    port = httpx.URL(platform.url).port
    assert port is not None
    with pytest.raises(OSError, match=f"127.0.0.1:{port}"), Platform(tmp_path / "other", port=port):
        pass


def test_a_data_directory_is_served_once(platform: Platform, tmp_path: Path) -> None:
    with pytest.raises(DataDirInUse, match="served already"):
        Store(tmp_path / "data")


def test_the_data_directory_is_private(platform: Platform, tmp_path: Path) -> None:
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_data_hrefs_may_name_another_host(tmp_path: Path) -> None:
    with Platform(tmp_path / "d", data_href_base="http://10.255.255.1:9") as platform:
        artifact = platform.store.add_artifact(name="x", content=b"123")
        record = httpx.get(f"{platform.url}/1/artifacts/{artifact}").json()
        assert record["data-href"] == f"http://10.255.255.1:9/1/artifacts/{artifact}/blob"
        assert httpx.get(f"{platform.url}/1/artifacts/{artifact}/blob").content == b"123"


def test_middleware_of_a_test_wraps_the_platform(tmp_path: Path) -> None:
    def broken(app: ASGIApp) -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"].endswith("/blob"):
                await send({"type": "http.response.start", "status": 503, "headers": []})
                await send({"type": "http.response.body", "body": b""})
            else:
                await app(scope, receive, send)

        return middleware

    with Platform(tmp_path / "d", wrap=broken) as platform:
        artifact = platform.store.add_artifact(content=b"123")
        assert httpx.get(f"{platform.url}/1/artifacts/{artifact}/blob").status_code == 503
        assert httpx.get(f"{platform.url}/1/artifacts/{artifact}").status_code == 200


def test_requests_are_late_together() -> None:
    """Both have begun to wait before either is let on: they do not wait for one another."""
    answered: list[str] = []
    waits: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        answered.append(f"{scope['path']} after {len(waits)}")

    async def visit() -> None:
        both = asyncio.Barrier(2)

        async def sleep(seconds: float) -> None:
            waits.append(seconds)
            await both.wait()

        late = Latency(app, 0.25, sleep)
        requests = [late({"type": "http", "path": path}, _nothing, _nothing) for path in ("/a", "/b")]
        await asyncio.wait_for(asyncio.gather(*requests), 10)

    asyncio.run(visit())
    assert sorted(answered) == ["/a after 2", "/b after 2"]
    assert waits == [0.25, 0.25]


async def _nothing(*_: object) -> Message:
    raise AssertionError("nobody asks")


@pytest.mark.parametrize("token", [None, "t"])
def test_every_request_is_late(tmp_path: Path, token: str | None) -> None:
    with Platform(tmp_path / "d", token=token, latency=0.1) as platform:
        artifact = platform.store.add_artifact(content=b"123")
        with httpx.Client(base_url=platform.url, headers={"Authorization": "Bearer t"}) as client:
            for path in ("/1/artifacts", f"/1/artifacts/{artifact}/blob", "/nowhere"):
                begin = time.monotonic()
                client.get(path)
                assert time.monotonic() - begin >= 0.1


def test_many_readers_and_writers_at_once(platform: Platform) -> None:
    content = bytes(range(256)) * 4096
    artifact = platform.store.add_artifact(content=content)
    wrong: list[str] = []

    def work(number: int) -> None:
        headers = {"Authorization": "Bearer a-token-for-tests"}
        with httpx.Client(base_url=platform.url, headers=headers) as client:
            for turn in range(5):
                start = (number * 7919 + turn * 104729) % 900_000
                part = {"Range": f"bytes={start}-{start + 99_999}"}
                if (
                    client.get(f"/1/artifacts/{artifact}/blob", headers=part).content
                    != content[start : start + 100_000]
                ):
                    wrong.append(f"{number}/{turn}")
                client.post("/1/aspects", params={"entity": "urn:e:1", "schema": "urn:s:1"}, json={"n": turn})
                client.get("/1/artifacts")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert platform.counters()["blob_bytes_sent"] == 8 * 5 * 100_000


SERVE = """
import sys
from pathlib import Path
from ivcapfs.server.runner import run_forever
from ivcapfs.server.settings import ServeSettings
run_forever(ServeSettings(Path(sys.argv[1]), "127.0.0.1", 0, None), lambda url: print(url, flush=True))
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_forever_ends_by_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "error", "-c", SERVE, str(tmp_path / "d")]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.get(f"{url}/1/artifacts").json()["items"] == []
        begin = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "ended\n", "")
    assert time.monotonic() - begin < 3


def test_settings_do_not_show_the_token(tmp_path: Path) -> None:
    assert "s3cret" not in repr(ServeSettings(tmp_path, "h", 1, "s3cret"))
