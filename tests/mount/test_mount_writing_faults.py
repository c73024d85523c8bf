"""A server that refuses, stumbles or dies while files are written: whoever writes is told, and nothing is lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from ivcap_client.ivcap import IVCAP as SDK
from starlette.responses import PlainTextResponse

from ivcapfs.server.runner import Platform
from tests.mount.conftest import Faults, Mounter, eventually, run
from tests.mount.writing import MIB, UPLOAD, arrived, journal, made, once, upload_state, uploads, writing_mount


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file to copy."""
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(300_000))
    return path


def answering(status: int, method: str, faults: Faults) -> None:
    """Let every request of a method be refused."""
    answer = PlainTextResponse("the server says no", status, headers={"Retry-After": "0"})
    faults.rule = lambda scope: answer if scope["method"] == method else None


@pytest.mark.parametrize(
    ("method", "status", "words"),
    [
        ("POST", 401, "Permission denied"),
        ("POST", 403, "Permission denied"),
        ("PATCH", 403, "Permission denied"),
        ("PATCH", 413, "File too large"),
        ("POST", 507, "No space left on device"),
        ("PATCH", 507, "No space left on device"),
        ("POST", 500, "Input/output error"),
        ("PATCH", 503, "Input/output error"),
    ],
)
def test_the_server_refuses(
    platform: Platform, mounter: Mounter, sdk: SDK, faults: Faults, source: Path, method: str, status: int, words: str
) -> None:
    mount = writing_mount(platform, mounter, timeout=1)
    answering(status, method, faults)
    target = mount.artifacts / "copy.bin"
    result = run("cp", source, target)
    assert result.returncode == 1
    assert words in result.stderr
    eventually(lambda: upload_state(target).startswith("failed: "), "it is kept")
    faults.rule = lambda scope: None
    assert target.read_bytes() == source.read_bytes()
    assert journal(mounter)["artifacts/copy.bin"]["state"] == "failed"
    assert (uploads(mount)["failed"], made(sdk)) == (1, {})
    os.setxattr(target, UPLOAD, b"retry")
    arrived(mount)
    assert once(sdk) == {"copy.bin": source.read_bytes()}
    assert "Traceback" not in mount.logged()


def test_a_refusal_after_close_is_kept_as_failed(
    platform: Platform, mounter: Mounter, sdk: SDK, faults: Faults, source: Path
) -> None:
    mount = writing_mount(platform, mounter, timeout=1)
    target = mount.artifacts / "copy.bin"

    def rule(scope: dict[str, Any]) -> Any:
        is_last = any(name.lower() == b"upload-length" for name, _ in scope["headers"])
        return PlainTextResponse("no", 403) if scope["method"] == "PATCH" and is_last else None

    faults.rule = rule
    assert run("cp", source, target).returncode == 0
    eventually(lambda: upload_state(target).startswith("failed: "), "it is kept")
    assert target.read_bytes() == source.read_bytes()
    faults.rule = lambda scope: None
    os.setxattr(target, UPLOAD, b"retry")
    arrived(mount)
    assert once(sdk) == {"copy.bin": source.read_bytes()}


def test_the_server_dies_and_what_was_closed_comes_when_it_is_back(
    platform: Platform, mounter: Mounter, sdk: SDK, source: Path
) -> None:
    mount = writing_mount(platform, mounter, timeout=1, settle=0.5)
    assert run("cp", source, mount.artifacts / "before.bin").returncode == 0
    with pytest.raises(OSError) as caught, (mount.artifacts / "meanwhile.bin").open("wb") as file:
        platform.stop(grace=0)
        file.write(source.read_bytes())
    assert caught.value.errno in (errno.EIO, errno.ETIMEDOUT)
    assert run("cp", source, mount.artifacts / "not-begun.bin").returncode == 1
    eventually(lambda: upload_state(mount.artifacts / "meanwhile.bin").startswith("failed"), "it is kept")
    assert (mount.artifacts / "before.bin").read_bytes() == source.read_bytes()
    assert (mount.artifacts / "meanwhile.bin").read_bytes() == source.read_bytes()
    platform.start()
    arrived(mount)
    assert once(sdk) == {"before.bin": source.read_bytes()}
    os.setxattr(mount.artifacts / "meanwhile.bin", UPLOAD, b"retry")
    arrived(mount)
    assert once(sdk) == dict.fromkeys(["before.bin", "meanwhile.bin"], source.read_bytes())


def test_a_server_that_wants_the_length_at_the_beginning(
    platform: Platform, mounter: Mounter, sdk: SDK, faults: Faults, source: Path
) -> None:
    mount = writing_mount(platform, mounter)

    def rule(scope: dict[str, Any]) -> Any:
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        if scope["method"] == "POST" and headers.get("x-content-length", "-1") == "-1":
            return PlainTextResponse("the length is missing", 400)
        if "upload-defer-length" in headers:
            return PlainTextResponse("no deferring", 400)
        return None

    faults.rule = rule
    for name in ("one.bin", "two.bin"):
        assert run("cp", source, mount.artifacts / name).returncode == 0
    (mount.artifacts / "empty").touch()
    arrived(mount)
    assert once(sdk) == {"one.bin": source.read_bytes(), "two.bin": source.read_bytes(), "empty": b""}


def test_an_upload_that_the_server_has_forgotten_begins_anew(
    platform: Platform, mounter: Mounter, sdk: SDK, faults: Faults
) -> None:
    mount = writing_mount(platform, mounter)
    content = os.urandom(3 * MIB)
    with (mount.artifacts / "data.bin").open("wb", buffering=0) as file:
        file.write(content[:MIB])
        os.fsync(file.fileno())
        begun = journal(mounter)["artifacts/data.bin"]["begun"]["uuid"]
        gone = PlainTextResponse("no such upload", 404)
        faults.rule = lambda scope: gone if begun in scope["path"] else None
        file.write(content[MIB:])
    arrived(mount)
    faults.rule = lambda scope: None
    assert once(sdk) == {"data.bin": content}


@pytest.mark.parametrize("what", ["its aspect", "the answer to its last byte"])
def test_what_was_renamed_and_is_an_artifact_is_neither_removed_nor_renamed(
    platform: Platform, mounter: Mounter, sdk: SDK, faults: Faults, source: Path, what: str
) -> None:
    """The server has it under its new name, and fails before all is done that was to be done with it."""
    mount = writing_mount(platform, mounter, timeout=1, settle=0.5)
    refusing = PlainTextResponse("in trouble", 503)

    async def lose(scope: Any, receive: Any, send: Any) -> None:
        async def drop(message: Any) -> None:
            """The answer goes nowhere."""

        faults.rule = lambda scope: refusing if scope["path"].startswith("/1/artifacts/") else None
        await faults.app(scope, receive, drop)
        raise ConnectionError("the network broke")

    def rule(scope: dict[str, Any]) -> Any:
        if what == "its aspect":
            return refusing if scope["path"] == "/1/aspects" and scope["method"] in ("POST", "PUT") else None
        is_deferred = any(name.lower() == b"upload-defer-length" for name, _ in scope["headers"])
        return lose if scope["method"] == "PATCH" and not is_deferred else None

    old, new = mount.artifacts / "old.bin", mount.artifacts / "new.bin"
    old.write_bytes(source.read_bytes())
    faults.rule = rule
    os.setxattr(old, "user.ivcap.aspect.urn:test:schema:mark", b'{"n": 1}')
    old.rename(new)
    eventually(lambda: "waits until it can be sent" in mount.logged(), "the server has failed")
    with pytest.raises(OSError) as caught:
        new.unlink()
    assert caught.value.errno == errno.EBUSY
    with pytest.raises(PermissionError):
        new.rename(mount.artifacts / "another.bin")
    faults.rule = lambda scope: None
    arrived(mount)
    assert once(sdk) == {"new.bin": source.read_bytes()}
    assert os.listdir(mount.artifacts) == ["new.bin"]
    assert "Traceback" not in mount.logged()
