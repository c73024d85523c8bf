"""A mount that is killed while it writes: what was closed is there after the next mount, once and whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from ivcap_client.ivcap import IVCAP as SDK
from starlette.responses import PlainTextResponse

from ivcapfs.server.runner import Platform
from tests.mount.conftest import Faults, Mounter, eventually, process
from tests.mount.killing import Killing
from tests.mount.writing import MIB, UPLOAD, arrived, journal, kill, made, once, upload_state, uploads, writing_mount


@pytest.mark.parametrize(("seed", "largest"), [(1, 40_000), (2, 20 * MIB)], ids=["small", "large"])
def test_what_was_closed_is_there_once_and_whole(
    platform: Platform, mounter: Mounter, sdk: SDK, tmp_path: Path, seed: int, largest: int
) -> None:
    killing = Killing(platform, mounter, tmp_path, seed, largest)
    for number in range(3):
        killing.once(number)
    figures = killing.check(sdk, killing.finish())
    assert figures["closed"] > 3, "they came too early to prove anything"


@pytest.mark.parametrize("moment", ["POST", "PATCH", "last PATCH", "arrival"])
def test_killed_while_a_closed_file_is_completed(
    platform: Platform, mounter: Mounter, sdk: SDK, faults: Faults, moment: str
) -> None:
    """The server does what it is asked; the mount does not live to hear of it."""
    mount = writing_mount(platform, mounter, settle=0.3)
    content = os.urandom(100_000)
    reached, release = threading.Event(), threading.Event()

    def is_meant(scope: dict[str, Any]) -> bool:
        headers = {name.decode().lower() for name, _ in scope["headers"]}
        what = scope["method"]
        if moment == "last PATCH":
            return what == "PATCH" and "upload-length" in headers
        if moment == "arrival":
            return what == "GET" and scope["path"].count("/") == 3 and "artifact" in scope["path"]
        return what == moment

    def rule(scope: dict[str, Any]) -> Any:
        if not is_meant(scope):
            return None

        async def lose_answer(scope: Any, receive: Any, send: Any) -> None:
            async def drop(message: Any) -> None:
                reached.set()

            await faults.app(scope, receive, drop)
            while not release.is_set():
                await anyio.sleep(0.02)
            await PlainTextResponse("too late", 503)(scope, receive, send)

        return lose_answer

    faults.rule = rule
    with process(sys.executable, "-c", WRITE, mount.artifacts / "data.bin", stdin=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        writer.stdin.write(content)
        writer.stdin.close()
        writer.stdin = None
        assert reached.wait(30)
        kill(mount)
        release.set()
        faults.rule = lambda scope: None
        was_closed = writer.wait(30) == 0
    again = writing_mount(platform, mounter)
    arrived(again)
    assert was_closed == (moment in ("last PATCH", "arrival"))
    if was_closed:
        assert once(sdk) == {"data.bin": content}
    else:
        assert made(sdk) == {}
        assert upload_state(again.artifacts / "data.bin").startswith("interrupted")
        assert (again.artifacts / "data.bin").read_bytes() == content
        os.setxattr(again.artifacts / "data.bin", UPLOAD, b"retry")
        arrived(again)
        assert once(sdk) == {"data.bin": content}
    assert uploads(again)["files"] == []


WRITE = "import sys; f = open(sys.argv[1], 'wb'); f.write(sys.stdin.buffer.read()); f.close()"


def test_changed_after_it_was_sent_and_then_killed(platform: Platform, mounter: Mounter, sdk: SDK) -> None:
    """What the server has is not the beginning of the content any more; the next mount has to know that."""
    mount = writing_mount(platform, mounter, settle=100)
    path = mount.artifacts / "data.bin"
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
for number in range(3):
    os.pwrite(fd, bytes([number]) * 1000, 0)
    os.pwrite(fd, b"tail" * 250, 1000 + 1000 * number)
    os.fsync(fd)
os.pwrite(fd, b"last" * 250, 0)
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", script, path], check=True, timeout=60)
    expected = path.read_bytes()
    assert expected.startswith(b"last" * 250)
    eventually(lambda: upload_state(path) != "writing", "it is closed")
    kill(mount)
    again = writing_mount(platform, mounter)
    arrived(again)
    assert once(sdk) == {"data.bin": expected}


def test_changed_after_it_was_sent_refused_and_then_killed(
    platform: Platform, mounter: Mounter, sdk: SDK, faults: Faults
) -> None:
    mount = writing_mount(platform, mounter, settle=100)
    path = mount.artifacts / "data.bin"
    with path.open("wb", buffering=0) as file:
        file.write(b"first" * 1000)
        os.fsync(file.fileno())
        faults.rule = lambda scope: PlainTextResponse("no", 403) if scope["method"] == "POST" else None
        os.pwrite(file.fileno(), b"other" * 100, 0)
        with pytest.raises(PermissionError):
            file.close()
    eventually(lambda: upload_state(path).startswith("failed"), "it is kept")
    kill(mount)
    faults.rule = lambda scope: None
    again = writing_mount(platform, mounter)
    os.setxattr(again.artifacts / "data.bin", UPLOAD, b"retry")
    arrived(again)
    assert once(sdk) == {"data.bin": b"other" * 100 + b"first" * 900}


def test_a_killed_writer_leaves_an_interrupted_file(platform: Platform, mounter: Mounter, sdk: SDK) -> None:
    mount = writing_mount(platform, mounter)
    path = mount.artifacts / "half.bin"
    script = "import os, sys, time; fd = os.open(sys.argv[1], 65, 0o644); os.write(fd, b'half'); time.sleep(60)"
    with process(sys.executable, "-c", script, path) as writer:
        eventually(lambda: path.exists() and path.stat().st_size == 4, "it writes")
        writer.send_signal(signal.SIGKILL)
        writer.wait(30)
    eventually(lambda: upload_state(path).startswith("interrupted"), "the mount knows")
    assert path.read_bytes() == b"half"
    assert made(sdk) == {}
    kill(mount)
    again = writing_mount(platform, mounter)
    arrived(again)
    assert made(sdk) == {}
    assert journal(mounter)["artifacts/half.bin"]["state"] == "interrupted"
    os.setxattr(again.artifacts / "half.bin", UPLOAD, b"retry")
    arrived(again)
    assert once(sdk) == {"half.bin": b"half"}
