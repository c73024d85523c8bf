"""Bindings: an open path stays what it is, and the kernel forgets exactly when it was told something else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.cache.transfer import Blob
from ivcapfs.errors import ContentChanged, Interrupted
from ivcapfs.fs import bindings as module
from ivcapfs.fs.bindings import Bindings
from ivcapfs.fs.directmapped import DirectMapped
from ivcapfs.fs.nodes import FileNode, FolderNode, LinkNode, TextNode, identity
from ivcapfs.waits import never
from tests.fakes import PATIENCE, Background, artifact, wait_until

PATH = "/artifacts/a"


def file(size: int = 1) -> tuple[FileNode, Blob]:
    """Return an artifact's node and content."""
    record = artifact("a", size=size)
    return FileNode(record, size), Blob(record.uuid, size, "o", "i")


def assert_waits(call: Background) -> None:
    """Check that a call has not returned, though it had the time to."""
    with pytest.raises(TimeoutError):
        call.future.result(timeout=0.1)


class World:
    """Bindings whose kernel can be made to take its time."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.begun: list[str] = []
        self.forgotten: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.bindings = Bindings(self._forget, pool)

    def _forget(self, path: str) -> None:
        self.begun.append(path)
        assert self.gate.wait(PATIENCE)
        self.forgotten.append(path)


@pytest.fixture
def world() -> Iterator[World]:
    with ThreadPoolExecutor(1) as pool:
        world = World(pool)
        yield world
        world.gate.set()


@pytest.fixture
def told(world: World) -> Bindings:
    """Bindings where the kernel was told of an old artifact at `PATH`."""
    world.bindings.tell(PATH, file()[0])
    return world.bindings


def test_opening_what_the_kernel_was_told_of_makes_it_forget_nothing(world: World) -> None:
    node, blob = file()
    for _ in range(3):
        assert world.bindings.tell(PATH, node) is node
        world.bindings.pin(PATH, node, blob, never)
        world.bindings.tell(PATH, node)
        world.bindings.unpin(world.bindings._pins[PATH], was_read=True)
    assert world.begun == []


def test_opening_something_else_makes_the_kernel_forget_once(world: World, told: Bindings) -> None:
    node, blob = file()
    for _ in range(3):
        told.pin(PATH, node, blob, never)
        assert world.forgotten == [PATH]
        told.unpin(told._pins[PATH], was_read=False)


def test_an_answer_that_changed_is_forgotten_before_the_open_because_the_kernel_may_have_taken_the_older_last(
    world: World, told: Bindings
) -> None:
    node, blob = file()
    told.tell(PATH, node)
    told.pin(PATH, node, blob, never)
    assert world.begun == [PATH]
    told.unpin(told._pins[PATH], was_read=True)
    told.tell(PATH, node)
    told.pin(PATH, node, blob, never)
    assert world.begun == [PATH]


def test_a_path_of_which_nothing_is_remembered_is_forgotten_to_be_safe(world: World) -> None:
    world.bindings.pin(PATH, *file(), never)
    assert world.forgotten == [PATH]


def test_a_path_whose_place_another_one_took_is_forgotten_to_be_safe(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATHS", 1)
    bindings = Bindings(world._forget, world.bindings._pool)
    (node, blob), other = file(), file()[0]
    bindings.tell(PATH, node)
    bindings.tell("/artifacts/b", other)
    bindings.tell(PATH, node)  # it may not be the first answer for this path
    bindings.unpin(bindings.pin(PATH, node, blob, never), was_read=False)
    assert world.begun == [PATH]
    bindings.unpin(bindings.pin(PATH, node, blob, never), was_read=False)
    assert world.begun == [PATH], "it is remembered again"


@given(st.lists(st.tuples(st.text("ab", max_size=6), st.integers(-(2**63), 2**63 - 1)), max_size=200))
def test_what_is_remembered_of_a_text_is_what_was_noted_last(changes: list[tuple[str, int]]) -> None:
    table, model = DirectMapped(16), dict[str, int]()
    for text, number in changes:
        table.note(text, number)
        model[text] = number
        assert table.get(text) == number == table.get(text, fresh=number ^ 1)
    assert all(table.get(text) in (None, number) for text, number in model.items())
    assert table.get("c") is None


def test_an_open_path_is_bound_to_the_first_until_the_last_close(world: World) -> None:
    (old, old_blob), (new, new_blob) = file(1), file(2)
    bindings = world.bindings
    bindings.tell(PATH, old)
    first = bindings.pin(PATH, old, old_blob, never)
    second = bindings.pin(PATH, new, new_blob, never)
    assert first is second and (second.node, second.content) == (old, old_blob)
    assert bindings.tell(PATH, new) is bindings.pinned(PATH) is old
    bindings.unpin(bindings._pins[PATH], was_read=False)
    assert bindings.tell(PATH, new) is old
    bindings.unpin(bindings._pins[PATH], was_read=False)
    assert bindings.pinned(PATH) is None
    assert world.begun == []
    assert bindings.pin(PATH, new, new_blob, never).node is new
    assert world.forgotten == [PATH]


def test_paths_are_bound_independently(world: World) -> None:
    node, blob = file()
    world.bindings.tell(PATH, node)
    world.bindings.pin(PATH, node, blob, never)
    assert world.bindings.pinned("/artifacts/b") is None
    other = file()[0]
    assert world.bindings.tell("/artifacts/b", other) is other


def test_every_open_waits_until_the_kernel_has_forgotten(world: World, told: Bindings) -> None:
    node, blob = file()
    world.gate.clear()
    opens = [Background(told.pin, PATH, node, blob, never) for _ in range(4)]
    wait_until(lambda: world.begun == [PATH])
    assert not any(each.future.done() for each in opens)
    world.gate.set()
    assert len({id(each.result()) for each in opens}) == 1
    assert world.forgotten == [PATH]


def test_a_second_open_waits_for_the_forgetting_that_the_first_began(world: World, told: Bindings) -> None:
    node, blob = file()
    world.gate.clear()
    first = Background(told.pin, PATH, node, blob, never)
    wait_until(lambda: world.begun == [PATH])
    waited = threading.Event()
    second = Background(told.pin, PATH, node, blob, waited.set)
    assert waited.wait(PATIENCE) and not second.future.done()
    world.gate.set()
    assert first.result() is second.result()


def interrupt() -> None:
    raise Interrupted("a signal")


def test_an_interrupted_wait_unbinds_the_path(world: World, told: Bindings) -> None:
    world.gate.clear()
    with pytest.raises(Interrupted):
        told.pin(PATH, *file(), interrupt)
    assert told.pinned(PATH) is None


def test_one_interrupted_open_does_not_unbind_the_others(world: World, told: Bindings) -> None:
    node, blob = file()
    world.gate.clear()
    first = Background(told.pin, PATH, node, blob, never)
    wait_until(lambda: world.begun == [PATH])
    with pytest.raises(Interrupted):
        told.pin(PATH, node, blob, interrupt)
    world.gate.set()
    assert first.result().count == 1 and told.pinned(PATH) is node


def test_after_an_interrupted_open_the_next_one_makes_sure_that_the_kernel_forgot(
    world: World, told: Bindings
) -> None:
    node, blob = file()
    world.gate.clear()
    with pytest.raises(Interrupted):
        told.pin(PATH, node, blob, interrupt)
    again = Background(told.pin, PATH, node, blob, never)
    try:
        assert_waits(again)
    finally:
        world.gate.set()
    again.result()
    assert world.forgotten


def test_a_kernel_that_never_forgets_is_an_error_and_leaves_nothing_bound(
    world: World, told: Bindings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORGET_SECONDS", 0.1)
    world.gate.clear()
    with pytest.raises(Exception, match="forget"):
        told.pin(PATH, *file(), never)
    assert told.pinned(PATH) is None


# -- pages -------------------------------------------------------------------------------------------------------


def test_pages_are_kept_only_for_the_content_that_the_kernel_read_last(world: World) -> None:
    (old, old_blob), (new, new_blob) = file(), file()
    kept = []
    for node, blob in ((old, old_blob), (old, old_blob), (new, new_blob), (new, new_blob), (old, old_blob)):
        kept.append(world.bindings.pin(PATH, node, blob, never).keep_cache)
        world.bindings.unpin(world.bindings._pins[PATH], was_read=True)
    assert kept == [False, True, False, True, False]


def test_without_a_read_it_is_not_known_whose_pages_the_kernel_has(world: World) -> None:
    node, blob = file()
    for _ in range(2):
        assert not world.bindings.pin(PATH, node, blob, never).keep_cache
        world.bindings.unpin(world.bindings._pins[PATH], was_read=False)


def test_pages_of_changed_content_are_not_kept_though_the_artifact_is_the_same(world: World) -> None:
    node, blob = file()
    world.bindings.pin(PATH, node, blob, never)
    world.bindings.unpin(world.bindings._pins[PATH], was_read=True)
    fresh = Blob(blob.uuid, blob.size, "o", "i")
    assert not world.bindings.pin(PATH, node, fresh, never).keep_cache


# -- closing -----------------------------------------------------------------------------------------------------


def test_a_path_that_is_open_settles_on_what_it_is_bound_to(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RELEASE_SECONDS", 0.05)
    (old, old_blob), (new, _) = file(), file()
    assert world.bindings.settled(PATH, new) is new
    world.bindings.pin(PATH, old, old_blob, never)
    assert world.bindings.settled(PATH, old) is old
    assert world.bindings.settled(PATH, new) is old


def test_a_path_that_is_just_being_closed_settles_on_the_newest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELEASE_SECONDS", 10 * PATIENCE)
    (old, old_blob), (new, _) = file(), file()
    world.bindings.pin(PATH, old, old_blob, never)
    lookup = Background(world.bindings.settled, PATH, new)
    assert_waits(lookup)
    world.bindings.unpin(world.bindings._pins[PATH], was_read=False)
    assert lookup.result() is new


def test_changed_content_is_not_settled_on_once_it_is_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELEASE_SECONDS", 10 * PATIENCE)
    node, blob = file()
    world.bindings.pin(PATH, node, blob, never)
    blob.mark_changed(ContentChanged("other bytes"))
    lookup = Background(world.bindings.settled, PATH, node)
    assert_waits(lookup)
    world.bindings.unpin(world.bindings._pins[PATH], was_read=True)
    assert lookup.result() is node


def test_many_threads_opening_and_closing_never_see_two_bindings_at_once(world: World) -> None:
    files = [file(size) for size in range(1, 5)]
    open_now: list[object] = []
    lock = threading.Lock()

    def go(number: int) -> None:
        for turn in range(100):
            pin = world.bindings.pin(PATH, *files[(number + turn) % len(files)], never)
            with lock:
                open_now.append(pin.content)
                assert len(set(map(id, open_now))) == 1
                assert world.bindings.pinned(PATH) is pin.node
            with lock:
                open_now.remove(pin.content)
            world.bindings.unpin(world.bindings._pins[PATH], was_read=turn % 2 == 0)

    for caller in [Background(go, number) for number in range(6)]:
        caller.result()
    assert world.bindings.pinned(PATH) is None


def test_identities_tell_all_kinds_of_nodes_apart() -> None:
    node = file()[0]
    nodes = [node, FileNode(node.record, 2), file()[0], FolderNode(5, 0), FolderNode(6, 0), TextNode(b"a", 5, 0),
             TextNode(b"b", 5, 0), LinkNode("a", 5, 0), LinkNode("b", 5, 0)]  # fmt: skip
    assert len({identity(each) for each in nodes}) == len(nodes)
    assert identity(TextNode(b"a", 5, 0)) == identity(TextNode(b"a", 5, 9))
