"""The first synchronization across a sudden end: what had come is not asked for again, whatever became of the files."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ivcapfs.catalog import chain, first
from ivcapfs.catalog.inbox import Inbox, Walk
from ivcapfs.client import wire
from ivcapfs.errors import BadRequest, ConnectFailed
from ivcapfs.models import PageText
from tests.catalog.catalog_world import World
from tests.fakes import Background, wait_until

PAGES = 12
MANY = PAGES * chain.PAGE
SUFFIXES = (".inbox-a", ".inbox-b")


@pytest.fixture
def batches_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first, "BATCH_PAGES", 3)


@pytest.fixture(autouse=True)
def _batches_by_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is busy, two seconds may pass between any two pages."""
    monkeypatch.setattr(first, "BATCH_SECONDS", 3600.0)


def killed_while(world: World, tmp_path: Path, page: int) -> World:
    """Return a world whose catalog is what a process leaves that is killed while it waits for a page (from 1)."""
    world.add(MANY)
    answer = world.api.list_artifacts_page

    def stall(**query: object) -> object:
        if world.api.count("page") == page - 1:
            world.api.gate.clear()
        return answer(**query)  # type: ignore[arg-type]

    world.api.list_artifacts_page = stall  # type: ignore[method-assign,assignment]
    mounted = world.mount()
    listing = Background(mounted.names)
    wait_until(lambda: world.api.count("page") == page)
    wait_until(lambda: page - 1 - mounted.store.meta().get("pages", 0) < first.BATCH_PAGES)
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
    left = killed_while(world, tmp_path, 9)
    for path in inboxes(tmp_path / "left"):
        HARMS[harm](path)
    names = left.mount().names()
    assert len(names) == len(set(names)) == MANY
    least = PAGES - 8 + (1 if batch == 3 else 2)  # some of the eight are not lost: they are stored
    assert least <= left.api.count("page") <= PAGES + 1
    left.close()


@pytest.mark.usefixtures("batches_of_three")
def test_pages_of_another_walk_are_not_taken_for_this_ones(world: World, tmp_path: Path) -> None:
    left = killed_while(world, tmp_path, 9)
    change_meta(tmp_path / "left", "UPDATE meta SET value='another' WHERE key='walk'")
    mounted = left.mount()
    stored = mounted.store.meta()["pages"]
    assert len(mounted.names()) == MANY
    assert left.api.count("page") == PAGES - stored + 1, "what was kept is asked for again"
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
    inbox.append(page(1))
    assert {path.stat().st_mode & 0o777 for path in inboxes(tmp_path)} == {0o600}
    inbox.clear()


@pytest.mark.parametrize("seed", range(20))
def test_whenever_pages_are_stored_all_others_are_kept_and_little_else(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    inbox, walk = Inbox(tmp_path / "catalog.sqlite"), Walk(at=5, begun=6.5)
    inbox.begin(walk)
    for last in range(1, 60):
        inbox.append(page(last))
        kept = Inbox(tmp_path / "catalog.sqlite").kept(replace(walk))
        assert kept == (walk, [page(number) for number in range(walk.pages + 1, last + 1)])
        if chance.random() < 0.2:
            walk.pages = chance.randint(walk.pages, last - 1)
    walk.pages = 59
    inbox.append(page(60))
    inbox.append(page(61))
    assert sum(path.stat().st_size for path in inboxes(tmp_path)) < 62 * len(page(1).body) / 2
    inbox.close()


def test_a_walk_of_which_nothing_is_stored_is_known_by_its_pages(tmp_path: Path) -> None:
    inbox, walk = Inbox(tmp_path / "catalog.sqlite"), Walk(at=5, begun=6.5)
    inbox.begin(walk)
    for number in (1, 2, 3):
        inbox.append(page(number))
    assert Inbox(tmp_path / "catalog.sqlite").kept(None) == (walk, [page(1), page(2), page(3)])
    walk.pages = 3
    assert Inbox(tmp_path / "catalog.sqlite").kept(walk) is None
    assert Inbox(None).kept(None) is None
    inbox.close()


def page(number: int) -> PageText:
    """Return a page as it comes, line breaks and odd characters in it."""
    body = {"items": [], "links": [{"rel": "next", "href": f"/?page={number}"}], "odd": "\ud800\n" * 100}
    return wire.page_text(json.dumps(body, indent=1).encode())


def inboxes(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.inbox-*"))


def change_meta(folder: Path, statement: str) -> None:
    conn = sqlite3.connect(next(folder.glob("*.sqlite")))
    with conn:
        conn.execute(statement)
    conn.close()


def record(number: int, value: object) -> bytes:
    text = json.dumps(value).encode()
    return struct.pack(">III", number, len(text), zlib.crc32(text)) + text


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def put_instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


HEAD = {"format": 1, "walk": "0123", "at": 1, "begun": 1.0}
HARMS: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: os.truncate(path, path.stat().st_size - 7),
    "flip": flip,
    "garbage": lambda path: path.write_bytes(os.urandom(5000)),
    "unlink": Path.unlink,
    "large": lambda path: os.truncate(path, 10**9),
    "fifo": lambda path: put_instead(path, os.mkfifo),
    "link": lambda path: put_instead(path, lambda path: path.symlink_to("/etc/passwd")),
    "nonsense": lambda path: path.write_bytes(record(0, [1]) + record(7, 3)),
    "other walk": lambda path: path.write_bytes(record(0, {**HEAD, "walk": []}) + record(7, {"items": []})),
    "odd head": lambda path: path.write_bytes(record(0, {**HEAD, "begun": None}) + record(7, {"items": []})),
    "odd page": lambda path: path.write_bytes(record(0, HEAD) + record(1, {"items": 7})),
}
