"""Servers that stumble, vanish, lie or send their readers elsewhere: readers get right bytes or an honest errno, in
time, and nobody else ever sees the token."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from ivcapfs.server.runner import Platform
from tests.mount.conftest import TOKEN, Faults, Mount, Mounter, daemons, eventually, ivcapfs, process, run

BLOCK = 1024 * 1024
CONTENT = bytes(range(256)) * 4 * 3 * 1024 + b"the end"  # three blocks and a bit


def is_blob(scope: dict[str, Any]) -> bool:
    return scope["path"].endswith("/blob") and scope["method"] == "GET"


def add(platform: Platform, name: str = "data.bin", content: bytes = CONTENT) -> str:
    return platform.store.add_artifact(name=name, content=content, mime_type="application/octet-stream")


class Elsewhere:
    """Another origin that serves CONTENT by range and notes every header that it is sent."""

    def __init__(self) -> None:
        seen = self.seen = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                seen.append((self.path, dict(self.headers)))
                first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
                body = CONTENT[first : last + 1]
                self.send_response(206)
                self.send_header("ETag", '"elsewhere"')
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{len(CONTENT)}")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def saw_no_token(self) -> bool:
        return bool(self.seen) and not any(TOKEN in str(headers) for _, headers in self.seen)


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    other = Elsewhere()
    yield other
    other.close()


@contextmanager
def stalled(faults: Faults, which: Callable[[dict[str, Any]], bool]) -> Iterator[None]:
    """Requests that never get an answer, until the end of the test's block."""
    release = threading.Event()

    async def hang(scope: Any, receive: Any, send: Any) -> None:
        while not release.is_set():
            await anyio.sleep(0.05)
        await PlainTextResponse("late", 503)(scope, receive, send)

    faults.rule = lambda scope: hang if which(scope) else None
    try:
        yield
    finally:
        release.set()
        faults.rule = lambda scope: None


def test_a_server_that_says_503_twice_and_then_works_is_not_noticed(
    platform: Platform, mount: Mount, faults: Faults
) -> None:
    add(platform)
    path = mount.artifacts / "data.bin"
    eventually(path.exists, "it is there")
    failures = [PlainTextResponse("busy", 503, headers={"Retry-After": "0"}) for _ in range(2)]
    faults.rule = lambda scope: failures.pop() if is_blob(scope) and failures else None
    assert path.read_bytes() == CONTENT
    assert not failures


def test_a_server_that_is_gone_and_returns(platform: Platform, mounter: Mounter) -> None:
    mount = mounter(platform.url, timeout=2)
    add(platform, "cached.txt", b"cached")
    add(platform, "cold.bin")
    cached, cold = mount.artifacts / "cached.txt", mount.artifacts / "cold.bin"
    eventually(lambda: cached.exists() and cold.exists(), "both are there")
    assert cached.read_bytes() == b"cached"
    platform.stop(grace=0)
    for _ in range(3):
        assert sorted(os.listdir(mount.artifacts)) == ["cached.txt", "cold.bin"]
    assert run("ls", "-l", mount.artifacts).returncode == 0
    assert cached.read_bytes() == b"cached"
    with pytest.raises(OSError) as error:
        cold.read_bytes()
    assert error.value.errno in (errno.EIO, errno.ETIMEDOUT)
    with pytest.raises(OSError) as error:
        (mount.artifacts / "unknown.txt").open()
    assert error.value.errno in (errno.EIO, errno.ETIMEDOUT), "a false ENOENT"
    platform.start()
    eventually(lambda: _reads(cold), "it can be read again")
    add(platform, "late.txt", b"late")
    eventually(lambda: "late.txt" in os.listdir(mount.artifacts), "new artifacts are listed again")


def test_a_read_that_fails_behind_what_the_kernel_has_gives_that_first_and_then_the_error(
    platform: Platform, mounter: Mounter, faults: Faults
) -> None:
    mount = mounter(platform.url, timeout=1)
    add(platform)
    path, there = mount.artifacts / "data.bin", 128 * 1024
    eventually(path.exists, "it is there")
    with path.open("rb", buffering=0) as file:
        fd = file.fileno()
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # the kernel reads nothing ahead
        assert os.pread(fd, there, 0) == CONTENT[:there]
        faults.rule = lambda scope: PlainTextResponse("broken", 500) if is_blob(scope) else None
        assert os.pread(fd, 100_000, there - 8_000) == CONTENT[there - 8_000 : there], "as read(2) allows"
        with pytest.raises(OSError) as error:
            os.pread(fd, 92_000, there)
        assert error.value.errno == errno.EIO
        faults.rule = lambda scope: None
        assert os.pread(fd, 92_000, there) == CONTENT[there : there + 92_000]


def _reads(path: Path) -> bool:
    try:
        return path.read_bytes() == CONTENT
    except OSError:
        return False


def test_a_hundred_stalled_readers_block_nobody_else(platform: Platform, mount: Mount, faults: Faults) -> None:
    urns = [add(platform, f"stalled-{number}.bin") for number in range(100)]
    other = add(platform, "other.txt", b"other")
    eventually(lambda: len(os.listdir(mount.artifacts)) == 101, "all are listed")
    with stalled(faults, lambda scope: is_blob(scope) and other not in scope["path"]):
        readers = [cat(mount.by_id(urn) / "content") for urn in urns]
        try:
            eventually(lambda: faults.asked(r"GET .*/blob") >= 100, "all of them wait")
            assert len(os.listdir(mount.artifacts)) == 101
            assert (mount.artifacts / "other.txt").read_bytes() == b"other"
            assert all(reader.poll() is None for reader in readers)
        finally:
            for reader in readers:
                reader.kill()
                reader.wait(timeout=10)


def cat(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["cat", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_a_waiting_cat_at_once(
    platform: Platform, mounter: Mounter, faults: Faults, sent: signal.Signals
) -> None:
    mount = mounter(platform.url, timeout=600)
    add(platform)
    eventually((mount.artifacts / "data.bin").exists, "it is there")
    with stalled(faults, is_blob), process("cat", mount.artifacts / "data.bin") as reader:
        eventually(lambda: faults.asked(r"GET .*/blob"), "the reader waits")
        reader.send_signal(sent)
        assert reader.wait(timeout=10) == -sent


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_a_waiting_ls_at_once(
    platform: Platform, mounter: Mounter, faults: Faults, sent: signal.Signals
) -> None:
    mount = mounter(platform.url, timeout=600)
    listed = len(faults.seen)
    with stalled(faults, lambda scope: scope["path"] == "/1/artifacts"), process("ls", mount.artifacts) as reader:
        eventually(lambda: len(faults.seen) > listed, "the list is asked for")
        reader.send_signal(sent)
        assert reader.wait(timeout=10) == -sent


def test_a_mount_whose_reader_was_killed_while_the_server_is_silent_ends_when_it_is_unmounted(
    platform: Platform, mounter: Mounter, faults: Faults
) -> None:
    """Nobody waits any more, but the kernel's own read-ahead does, and is never interrupted."""
    mount = mounter(platform.url, timeout=600)
    add(platform)
    eventually((mount.artifacts / "data.bin").exists, "it is there")
    with stalled(faults, is_blob):
        with process("cat", mount.artifacts / "data.bin"):
            eventually(lambda: faults.asked(r"GET .*/blob"), "the reader waits")
        assert run(*ivcapfs("umount", mount.path)).returncode == 0
        eventually(lambda: not daemons(mount.path), "the process ends")


def test_a_data_href_on_another_origin_works_without_the_token(
    platform: Platform, mount: Mount, faults: Faults, elsewhere: Elsewhere
) -> None:
    urn = add(platform)
    faults.rule = record_with_href(urn, f"{elsewhere.url}/bucket/object?signature=s3cr3t")
    assert (mount.by_id(urn) / "content").read_bytes() == CONTENT
    assert elsewhere.saw_no_token()
    assert {path for path, _ in elsewhere.seen} == {"/bucket/object?signature=s3cr3t"}
    assert "s3cr3t" not in mount.logged()
    assert TOKEN not in mount.logged()


def test_a_redirect_to_another_origin_works_without_the_token(
    platform: Platform, mount: Mount, faults: Faults, elsewhere: Elsewhere
) -> None:
    urn = add(platform)
    faults.rule = lambda scope: RedirectResponse(f"{elsewhere.url}/signed?key=s3cr3t", 302) if is_blob(scope) else None
    assert (mount.by_id(urn) / "content").read_bytes() == CONTENT
    assert elsewhere.saw_no_token()
    assert "s3cr3t" not in mount.logged()


def test_the_platforms_own_path_on_an_unreachable_host_is_asked_at_the_platform_with_its_query(
    platform: Platform, mount: Mount, faults: Faults
) -> None:
    urn = add(platform)
    faults.rule = record_with_href(urn, f"https://api.unreachable.invalid/1/artifacts/{urn}/blob?part=7")
    queries: list[bytes] = []
    inner = faults.rule

    def rule(scope: dict[str, Any]) -> Any:
        if is_blob(scope):
            queries.append(scope["query_string"])
        return inner(scope)

    faults.rule = rule
    assert (mount.by_id(urn) / "content").read_bytes() == CONTENT
    assert set(queries) == {b"part=7"}


def record_with_href(urn: str, href: str) -> Callable[[dict[str, Any]], Any]:
    """A rule that changes the record's data-href."""
    record = {
        "id": urn,
        "name": "data.bin",
        "status": "ready",
        "size": len(CONTENT),
        "created-at": "2026-01-01T00:00:00Z",
        "data-href": href,
    }

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await Response(json.dumps(record), media_type="application/json")(scope, receive, send)

    return lambda scope: answer if scope["path"] == f"/1/artifacts/{urn}" else None


def test_a_server_that_ignores_range_still_gives_right_bytes(
    platform: Platform, mount: Mount, faults: Faults
) -> None:
    urn = add(platform)
    whole = Response(CONTENT, 200, headers={"ETag": '"whole"'}, media_type="application/octet-stream")
    faults.rule = lambda scope: whole if is_blob(scope) else None
    with (mount.by_id(urn) / "content").open("rb") as file:
        file.seek(2 * BLOCK - 5)
        assert file.read(10) == CONTENT[2 * BLOCK - 5 :][:10]
        file.seek(0)
        assert file.read() == CONTENT


@pytest.mark.parametrize("change", ["etag", "size"])
def test_other_content_under_an_open_file_is_estale_and_never_a_mixture(
    platform: Platform, mount: Mount, faults: Faults, change: str
) -> None:
    urn = add(platform)
    path = mount.by_id(urn) / "data.bin"
    other = bytes(len(CONTENT)) if change == "etag" else bytes(len(CONTENT) + 1)

    async def changed(scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        first, last = map(int, headers["range"].removeprefix("bytes=").split("-"))
        body = other[first : last + 1]
        span = f"bytes {first}-{first + len(body) - 1}/{len(other)}"
        await Response(body, 206, headers={"ETag": '"other"', "Content-Range": span})(scope, receive, send)

    with path.open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 10, 0) == CONTENT[:10]
        faults.rule = lambda scope: changed if is_blob(scope) else None
        with pytest.raises(OSError) as error:
            os.pread(file.fileno(), 10, 2 * BLOCK)
        assert error.value.errno == errno.ESTALE
        assert os.pread(file.fileno(), 10, 0) == CONTENT[:10]
        with pytest.raises(OSError) as error:
            path.read_bytes()
        assert error.value.errno == errno.ESTALE
    if change == "etag":
        assert path.read_bytes() == other, "a later open has the new content, and nothing of the old"


def test_a_reader_in_another_process_survives_a_refused_token(
    platform: Platform, mount: Mount, faults: Faults
) -> None:
    urn = add(platform)
    path = mount.by_id(urn) / "data.bin"
    assert path.stat().st_size == len(CONTENT)
    faults.rule = lambda scope: Response(status_code=401) if is_blob(scope) else None
    result = subprocess.run([sys.executable, "-c", f"open({str(path)!r}, 'rb').read()"], capture_output=True, text=True)
    assert "Permission" in result.stderr
    faults.rule = lambda scope: None
    assert path.read_bytes() == CONTENT
