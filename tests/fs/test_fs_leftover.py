"""Files that a mount left in the spool, sent without one to the embedded platform."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ivcapfs.catalog.kepttimes import KeptTimes
from ivcapfs.catalog.store import Store, store_name
from ivcapfs.client import Connection, connect
from ivcapfs.config import ClientSettings, Limits
from ivcapfs.errors import ConfigError, NotPermitted, TransportError
from ivcapfs.fs.aspectchange import parse
from ivcapfs.fs.leftover import LeftOver
from ivcapfs.models import artifact_uuid, uuid_bytes
from ivcapfs.server.runner import Platform
from ivcapfs.spool.entry import State
from tests.spool.leftovers import SpoolWorld

COLLECTION = "urn:ivcap:collection:3f2a9c1e-7b4d-4e0a-9c58-1d6f0a2b3c4d"
LIMITS = Limits(connect=1, idle=2, total=2, retries=1, backoff=0.01)


class World(SpoolWorld):
    """A spool, and the platform that it is for; `refused` is answered to what is asked first."""

    def __init__(self, folder: Path) -> None:
        self.refused: int | None = None
        self.platform = Platform(folder / "data", wrap=self._wrap)
        self.platform.start()
        super().__init__(folder / "spool", store_name(self.platform.url, "anonymous"), self.platform.url)
        self.catalog = folder / "catalog"

    def connection(self) -> Connection:
        return connect(ClientSettings(self.platform.url, limits=LIMITS))

    def left_over(self) -> LeftOver:
        return LeftOver(self.connection(), catalog=self.catalog, patience=1.0)

    def content(self, urn: str) -> bytes:
        with self.connection() as connection:
            content = connection.blobs.head(str(artifact_uuid(urn)))
            with connection.blobs.open_range(str(artifact_uuid(urn)), 0, content.size, expected=content) as stream:
                return b"".join(stream)

    def _wrap(self, app: Any) -> Any:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and self.refused is not None and scope["method"] in ("POST", "PATCH"):
                await send({"type": "http.response.start", "status": self.refused, "headers": []})
                await send({"type": "http.response.body", "body": b""})
            else:
                await app(scope, receive, send)

        return wrapped


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    try:
        yield world
    finally:
        world.leave()
        world.platform.close()


def test_a_file_becomes_an_artifact_with_all_that_it_had(world: World) -> None:
    change = parse("user.ivcap.aspect.urn:x:note.1", b'{"text": "hello"}').to_json()
    world.new(
        "survey/a.txt", b"content", State.INTERRUPTED, collection=COLLECTION, changes=(change,), mtime_ns=1_234_567_890
    )
    world.leave()
    told: list[str] = []
    with world.left_over() as left_over:
        urn = left_over.send(world.files()["survey/a.txt"], told.append)
    assert world.content(urn) == b"content"
    with world.connection() as connection:
        assert connection.api.read_artifact(str(artifact_uuid(urn))).name == "survey/a.txt"
        assert list(connection.api.collection_members(COLLECTION)) == [urn]
        (aspect,) = connection.api.iter_aspects(entity=urn, schema="urn:x:note.1")
        assert aspect.content["text"] == "hello"
    store = Store(world.catalog, store_name(world.platform.url, "anonymous"))
    assert KeptTimes(store).get(uuid_bytes(str(artifact_uuid(urn)))) == 1_234_567_890
    store.close()
    assert world.files() == {}


def test_what_was_never_closed_is_sent_as_it_is(world: World) -> None:
    world.new("a.txt", b"half of", State.WRITING)
    world.leave()
    with world.left_over() as left_over:
        assert world.content(left_over.send(world.files()["a.txt"])) == b"half of"


def test_a_refused_file_stays_with_the_reason(world: World) -> None:
    world.new("a.txt", b"content", State.INTERRUPTED)
    world.leave()
    world.refused = 403
    with world.left_over() as left_over, pytest.raises(NotPermitted):
        left_over.send(world.files()["a.txt"])
    assert world.files()["a.txt"].state.startswith("failed: creating an artifact: the server answered 403")
    world.refused = None
    with world.left_over() as left_over:
        assert world.content(left_over.send(world.files()["a.txt"])) == b"content"


def test_what_the_network_kept_back_waits_for_the_next_mount(world: World) -> None:
    world.new("a.txt", b"content", State.FAILED, reason="why")
    world.leave()
    world.platform.stop()
    with world.left_over() as left_over, pytest.raises(TransportError):
        left_over.send(world.files()["a.txt"])
    assert world.files()["a.txt"].state == "pending"


def test_another_users_or_deployments_file_is_not_sent(world: World) -> None:
    world.new("a.txt", b"content")
    world.leave()
    other = SpoolWorld(world.root, "another-user", world.platform.url)
    other.new("b.txt", b"b")
    other.leave()
    third = SpoolWorld(world.root, "third", "https://else.where")
    third.new("c.txt", b"c")
    third.leave()
    with world.left_over() as left_over:
        with pytest.raises(ConfigError, match=r"another user .* mounted as gov: name that context"):
            left_over.send(world.files()["b.txt"])
        with pytest.raises(ConfigError, match=r"written for https://else.where, mounted as gov, and not for http"):
            left_over.send(world.files()["c.txt"])
        left_over.send(world.files()["a.txt"])
    assert sorted(world.files()) == ["b.txt", "c.txt"]


def test_a_file_that_is_an_artifact_already_is_not_sent_again(world: World) -> None:
    urn = world.platform.store.add_artifact(name="a.txt", content=b"content")
    world.new("a.txt", b"content", record=artifact_uuid(urn), collection=COLLECTION)
    world.leave()
    with world.left_over() as left_over:
        assert left_over.send(world.files()["a.txt"]) == urn
    with world.connection() as connection:
        assert len(list(connection.api.iter_artifacts())) == 1
        assert list(connection.api.collection_members(COLLECTION)) == [urn]
