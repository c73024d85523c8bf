"""A new file is renamed while the kernel's release(2) of it, and the uploader, come to it as well."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ivcapfs.catalog.names import Parts
from ivcapfs.errors import NoSuchEntry
from ivcapfs.fs.bindings import Bindings
from ivcapfs.fs.nodes import DraftNode, Node
from ivcapfs.fs.overlay import OverlaidTree
from ivcapfs.fs.placing import Places
from ivcapfs.fs.renaming import Names
from ivcapfs.fs.writer import Writer
from ivcapfs.spool.entry import Entry
from ivcapfs.waits import Check, never
from tests.fakes import PATIENCE, AtOnce, Background, wait_until
from tests.spool.conftest import spooled
from tests.spool.spool_world import Spooled
from tests.spool.test_spool_uploader import World, make

__all__ = ["spooled"]  # a fixture
OLD, NEW, REMOVED = ("artifacts", "old.bin"), ("artifacts", "new.bin"), ("artifacts", ".fuse_hidden01")
A_MOMENT = 0.1
"""Seconds that are given to what must not happen."""


class Nothing:
    """What the platform has."""

    def node(self, parts: Parts, check: Check) -> Node:
        """See `Nodes.node`."""
        raise NoSuchEntry("/".join(parts))

    reading: Any = node


class Rules:
    """A world whose files settle at once, and the rules for its names."""

    def __init__(self, world: World) -> None:
        self.world = world
        bindings, collections = Bindings(never, AtOnce()), None
        places = Places(collections, never)  # type: ignore[arg-type]
        self.writer = Writer(None, world.drafts, world.uploader, bindings, places, never)  # type: ignore[arg-type]
        tree = OverlaidTree(Nothing(), world.drafts, DraftNode)
        self.names = Names(
            world.drafts, world.uploader, self.writer, bindings, places, collections, tree, never,  # type: ignore[arg-type]
        )  # fmt: skip
        self.draft = world.written(name=OLD[-1])
        world.uploader.flush(self.draft, is_close=True).result(PATIENCE)  # close(2) has returned, release is to come

    def release(self) -> None:
        """As `WritingOperations.release`."""
        self.writer.closed(self.draft)
        self.writer.drop_hidden(self.draft)


@pytest.fixture
def rules(spooled: Spooled) -> Iterator[Rules]:
    world = make(spooled, 0.0)
    yield Rules(world)
    world.uploader.close()


def test_a_file_is_not_completed_under_the_name_that_it_is_losing(
    rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is slow to take the new name, and the file, released meanwhile, has settled before it has."""
    save, comes, gate = rules.world.spooled.folder.save, threading.Event(), threading.Event()

    def slow(entry: Entry, *, durable: bool = False) -> None:
        if entry.parts == NEW and not comes.is_set():
            comes.set()
            assert gate.wait(PATIENCE)
        save(entry, durable=durable)

    monkeypatch.setattr(rules.world.spooled.folder, "save", slow)
    renaming = Background(rules.names.rename, OLD, NEW, 0)
    assert comes.wait(PATIENCE)
    rules.release()
    wait_until(lambda: rules.draft in rules.world.uploader._busy)
    threading.Event().wait(A_MOMENT)
    assert rules.world.ready() == []
    gate.set()
    renaming.result()
    wait_until(lambda: rules.draft.is_gone and len(rules.world.drafts) == 0)
    assert rules.world.ready() == [(NEW[-1], b"content")]


@pytest.mark.parametrize("is_after", [False, True], ids=["before it is shown", "after it is shown"])
def test_nothing_is_left_of_a_file_that_is_released_while_it_is_removed(
    rules: Rules, monkeypatch: pytest.MonkeyPatch, is_after: bool
) -> None:
    """libfuse gives a file that is open a hidden name, and would unlink it at its release: which comes just now."""
    moved, comes, gate = rules.world.drafts.moved, threading.Event(), threading.Event()

    def slow(*args: Any) -> None:
        if is_after:
            moved(*args)
        comes.set()
        assert gate.wait(PATIENCE)
        if not is_after:
            moved(*args)

    monkeypatch.setattr(rules.world.drafts, "moved", slow)
    renaming = Background(rules.names.rename, OLD, REMOVED, 0)
    assert comes.wait(PATIENCE)
    releasing = Background(rules.release)
    wait_until(lambda: rules.draft.handles == 0)
    threading.Event().wait(A_MOMENT)
    gate.set()
    renaming.result()
    releasing.result()
    assert rules.draft.is_gone
    assert rules.world.drafts.all() == []
    assert list(rules.world.spooled.folder.entries()) == []
    assert rules.world.ready() == []
