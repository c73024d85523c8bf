"""A network that breaks while files are written: what the server has is not sent again, and nothing is there twice."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ivcap_client.ivcap import IVCAP as SDK

from ivcapfs.server.runner import Platform
from tests.fakes import Background
from tests.mount.conftest import Faults, Mounter, eventually
from tests.mount.cutting import Cutting
from tests.mount.writing import MIB, UPLOAD, arrived, made, once, upload_state, writing_mount

SIZE = 20 * MIB


@pytest.fixture
def network(platform: Platform) -> Iterator[Cutting]:
    """The network between a mount and the platform."""
    network = Cutting(platform.url)
    yield network
    network.close()


@pytest.mark.parametrize("percent", [1, 50, 99])
def test_the_network_breaks_and_returns(
    platform: Platform, mounter: Mounter, sdk: SDK, network: Cutting, percent: int
) -> None:
    mount = mounter(network.url, "write", settle=0.25)
    content = os.urandom(SIZE)
    began = network.up
    network.cut_at = began + SIZE * percent // 100

    def write() -> None:
        with (mount.artifacts / "data.bin").open("wb") as file:
            file.write(content)

    writing = Background(write)
    eventually(lambda: network.is_cut, "it is cut")
    time.sleep(0.5)
    network.mend()
    writing.result()
    arrived(mount)
    assert once(sdk) == {"data.bin": content}
    again = network.up - began - SIZE
    assert again < MIB, f"{again} bytes more than the file has: requests, and what was in a socket when it broke"


def test_the_network_stays_away_longer_than_a_deadline(
    platform: Platform, mounter: Mounter, sdk: SDK, network: Cutting
) -> None:
    mount = mounter(network.url, "write", settle=0.25, timeout=1)
    content = os.urandom(SIZE)
    began = network.up
    network.cut_at = began + SIZE // 2
    with pytest.raises(OSError) as caught, (mount.artifacts / "data.bin").open("wb") as file:
        file.write(content)
    assert caught.value.errno in (errno.EIO, errno.ETIMEDOUT)
    eventually(lambda: upload_state(mount.artifacts / "data.bin").startswith("failed"), "it is kept")
    assert made(sdk) == {}
    network.mend()
    os.setxattr(mount.artifacts / "data.bin", UPLOAD, b"retry")
    arrived(mount)
    assert once(sdk) == {"data.bin": content}
    assert network.up - began - SIZE < MIB, "what the server had was not sent again"


@pytest.mark.parametrize("what", ["POST", "PATCH", "last PATCH"])
@pytest.mark.parametrize("content", [b"", b"content" * 10_000], ids=["empty", "full"])
def test_a_lost_answer_makes_no_second_artifact(
    platform: Platform, mounter: Mounter, sdk: SDK, faults: Faults, what: str, content: bytes
) -> None:
    """The server did what it was asked, but the answer does not come."""
    mount = writing_mount(platform, mounter)
    lost = threading.Event()

    def rule(scope: dict[str, Any]) -> Any:
        is_last = any(name.lower() == b"upload-length" for name, _ in scope["headers"]) and scope["method"] == "PATCH"
        if lost.is_set() or (scope["method"] != what and not (is_last and what == "last PATCH")):
            return None

        async def lose(scope: Any, receive: Any, send: Any) -> None:
            async def drop(message: Any) -> None:
                """The answer goes nowhere."""

            lost.set()
            await faults.app(scope, receive, drop)
            raise ConnectionError("the network broke")

        return lose

    faults.rule = rule
    (mount.artifacts / "it's.bin").write_bytes(content)
    arrived(mount)
    assert once(sdk) == {"it's.bin": content}
    assert lost.is_set() == (bool(content) or what == "POST")
    assert "Traceback" not in mount.logged()
