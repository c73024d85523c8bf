"""The first synchronization across a sudden end: what had come is not asked for again, whatever became of the files."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ivcapfs.catalog import chain, first
from ivcapfs.catalog.inbox import Inbox, Walk
from ivcapfs.errors import BadRequest, ConnectFailed
from ivcapfs.models import ArtifactRecord, ArtifactStatus, Page
from tests.catalog.catalog_world import World
from tests.fakes import Background, artifact, wait_until

PAGES = 12
MANY = PAGES * chain.PAGE
SUFFIXES = (".inbox-a", ".inbox-b")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ThreadPoolExecutor(8) as pool:
        world = World(pool, tmp_path / "catalog")
        yield world
        world.close()


@pytest.fixture
def batches_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first, "BATCH_PAGES", 3)
    monkeypatch.setattr(first, "MOST_PAGES", 3)


def killed_while(world: World, tmp_path: Path, page: int) -> World:
    """Return a world whose catalog is what a process leaves that is killed while it waits for a page (from 1)."""
    world.add(MANY)
    answer = world.api.list_artifacts_page

    def stall(**query: object) -> Page[ArtifactRecord]:
        if world.api.count("page") == page - 1:
            world.api.gate.clear()
        return answer(**query)  # type: ignore[arg-type]

    world.api.list_artifacts_page = stall  # type: ignore[method-assign,assignment]
    mounted = world.mount()
    listing = Background(mounted.names)
    wait_until(lambda: world.api.count("page") == page)
    stored = (page - 1) // first.BATCH_PAGES * first.BATCH_PAGES
    wait_until(lambda: mounted.store.meta().get("pages", 0) == stored)
    folder = tmp_path / "left"
    shutil.copytree(tmp_path / "catalog", folder)
    world.api.list_artifacts_page = answer  # type: ignore[method-assign]
    world.api.gate.set()
    assert len(listing.result()) == MANY
    world.api.calls.clear()
    left = World(world._pool, folder)
    left.api, left.clock = world.api, world.clock
    return left


@pytest.mark.usefixtures("batches_of_three")
@pytest.mark.parametrize("page", [2, 3, 4, 6, 8, 11, 12])
def test_after_a_kill_no_page_is_asked_for_twice_but_the_last(world: World, tmp_path: Path, page: int) -> None:
    left = killed_while(world, tmp_path, page)
    names = left.mount().names()
    assert len(names) == len(set(names)) == MANY
    asked = left.api.count("page")
    assert asked == PAGES - (page - 1) + 1, "the rest, and one for what is new"
    left.close()


@pytest.mark.parametrize("batch", [3, 100], ids=["some are stored", "none is stored"])
@pytest.mark.parametrize(
    "harm",
    ["cut", "flip", "garbage", "unlink", "large", "fifo", "link", "nonsense", "other walk", "odd head", "odd page"],
)
def test_what_was_kept_and_is_damaged_is_asked_for_again(
    world: World, tmp_path: Path, harm: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first, "BATCH_PAGES", batch)
    monkeypatch.setattr(first, "MOST_PAGES", batch)
    left = killed_while(world, tmp_path, 9)
    for path in inboxes(tmp_path / "left"):
        HARMS[harm](path)
    names = left.mount().names()
    assert len(names) == len(set(names)) == MANY
    assert PAGES - 8 + 1 < left.api.count("page") <= PAGES + 1
    left.close()


@pytest.mark.usefixtures("batches_of_three")
def test_pages_of_another_walk_are_not_taken_for_this_ones(world: World, tmp_path: Path) -> None:
    left = killed_while(world, tmp_path, 9)
    change_meta(tmp_path / "left", "UPDATE meta SET value='another' WHERE key='walk'")
    assert len(left.mount().names()) == MANY
    assert left.api.count("page") == PAGES - 6 + 1, "the two pages that were kept are asked for again"
    left.close()


def test_pages_of_a_walk_of_which_nothing_is_stored_are_not_asked_for_again(world: World, tmp_path: Path) -> None:
    left = killed_while(world, tmp_path, 8)
    assert len(left.mount().names()) == MANY
    assert left.api.count("page") == PAGES - 7 + 1
    left.close()


@pytest.mark.usefixtures("batches_of_three")
def test_a_cursor_behind_kept_pages_that_the_server_has_forgotten_begins_a_new_walk(
    world: World, tmp_path: Path
) -> None:
    left = killed_while(world, tmp_path, 9)
    left.api.failing_pages = {1: BadRequest("no such page", status=410)}
    assert len(left.mount().names()) == MANY
    left.close()


@pytest.mark.usefixtures("batches_of_three")
def test_nothing_is_left_beside_the_catalog_once_it_is_complete(world: World, tmp_path: Path) -> None:
    world.add(MANY)
    world.api.failing_pages = {8: ConnectFailed("gone")}
    with pytest.raises(ConnectFailed):
        world.mount().names()
    assert inboxes(tmp_path / "catalog")
    assert len(world.mount().names()) == MANY
    assert not inboxes(tmp_path / "catalog")


@pytest.mark.usefixtures("batches_of_three")
def test_files_that_cannot_be_made_cost_nothing_but_questions(world: World, tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir(mode=0o700)
    for suffix in SUFFIXES:
        (tmp_path / f"catalog/catalog{suffix}").mkdir()
    world.add(MANY)
    assert len(world.mount().names()) == MANY
    assert world.api.count("page") == PAGES


def test_they_are_this_users_alone(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "catalog.sqlite")
    inbox.begin(Walk())
    inbox.append(Page((artifact("a", age=1),), "cursor"))
    assert {path.stat().st_mode & 0o777 for path in inboxes(tmp_path)} == {0o600}
    inbox.clear()


def test_pages_come_back_as_they_were(tmp_path: Path) -> None:
    records = (
        ArtifactRecord("0" * 8 + "-0000-0000-0000-" + "0" * 12, None, ArtifactStatus.PENDING, None, None,
                       datetime(1, 2, 3, 4, 5, 6, 789, UTC)),
        artifact("odd \ud800\n\x00 name", age=1),
    )  # fmt: skip
    walk = Walk(at=5, begun=6.5)
    inbox = Inbox(tmp_path / "catalog.sqlite")
    inbox.begin(walk)
    pages: list[Page[ArtifactRecord]] = [Page(records, "first"), Page(records[:1], "second"), Page((), None)]
    inbox.append(pages[0])
    inbox.turn()
    for page in pages[1:]:
        inbox.append(page)
    inbox.close()
    assert Inbox(tmp_path / "catalog.sqlite").kept(None) == (walk, pages)
    walk.pages = 2
    assert Inbox(tmp_path / "catalog.sqlite").kept(walk) == (walk, pages[2:])
    walk.pages = 3
    assert Inbox(tmp_path / "catalog.sqlite").kept(walk) is None


def inboxes(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.inbox-*"))


def change_meta(folder: Path, statement: str) -> None:
    conn = sqlite3.connect(next(folder.glob("*.sqlite")))
    with conn:
        conn.execute(statement)
    conn.close()


def line(value: object) -> bytes:
    text = json.dumps(value).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


HEAD = {"format": 1, "walk": "0123", "at": 1, "begun": 1.0}
HARMS: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: os.truncate(path, path.stat().st_size - 7),
    "flip": flip,
    "garbage": lambda path: path.write_bytes(os.urandom(5000)),
    "unlink": Path.unlink,
    "large": lambda path: os.truncate(path, 10**9),
    "fifo": lambda path: replace(path, os.mkfifo),
    "link": lambda path: replace(path, lambda path: path.symlink_to("/etc/passwd")),
    "nonsense": lambda path: path.write_bytes(line([1]) + line(3)),
    "other walk": lambda path: path.write_bytes(line({**HEAD, "walk": []}) + line([7, "cursor", []])),
    "odd head": lambda path: path.write_bytes(line({**HEAD, "begun": None}) + line([7, "cursor", []])),
    "odd page": lambda path: path.write_bytes(line(HEAD) + line([[], {}, 9])),
}
