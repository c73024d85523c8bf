"""When new files are sent: settling, tries again, failures for good, hurrying, the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from ivcapfs.errors import Closing, ConnectionBroken, Interrupted, IvcapfsError, NotPermitted
from ivcapfs.models import ArtifactRecord
from ivcapfs.spool.draft import Draft
from ivcapfs.spool.drafts import Drafts
from ivcapfs.spool.entry import State
from ivcapfs.spool.uploader import FIRST_RETRY, LONGEST_RETRY, Uploader
from ivcapfs.waits import never
from tests.fakes import PATIENCE, Background, wait_until
from tests.spool.spool_world import Fault, Spooled

BROKEN = ConnectionBroken("the connection broke")


@dataclass
class Arrivals:
    """Notes what arrives, or fails."""

    names: list[str] = field(default_factory=list)
    seen_names: list[str] = field(default_factory=list)
    failures: list[IvcapfsError] = field(default_factory=list)

    def arrived(self, draft: Draft, record: ArtifactRecord) -> None:
        """See `ivcapfs.spool.uploader.Arrivals`."""
        if self.failures:
            raise self.failures.pop(0)
        self.names.append(draft.entry.name)

    def seen(self, draft: Draft) -> None:
        """See `ivcapfs.spool.uploader.Arrivals`."""
        self.seen_names.append(draft.entry.name)


@dataclass
class World:
    """An uploader to a fake deployment. Its clock is real; waits are short, or longer than any test."""

    spooled: Spooled
    drafts: Drafts
    arrivals: Arrivals
    uploader: Uploader

    def written(self, content: bytes = b"content", name: str = "data.bin") -> Draft:
        """Return a new file that is open for writing."""
        draft = self.spooled.draft(content, name)
        assert draft.opened(writes=True)
        draft.release()
        self.drafts.put(draft)
        return draft

    def close(self, draft: Draft) -> None:
        """Close a file as the kernel does: flush, release."""
        self.uploader.flush(draft, is_close=True).result(PATIENCE)
        draft.closed(writes=True)
        self.uploader.complete_later(draft)

    def closed(self, content: bytes = b"content", name: str = "data.bin") -> Draft:
        """Return a new file that is closed."""
        draft = self.written(content, name)
        self.close(draft)
        return draft

    def ready(self) -> list[tuple[str, bytes]]:
        """Return what the deployment has."""
        return self.spooled.deployment.ready()


def make(spooled: Spooled, settle: float) -> World:
    """Return a world whose files settle for so many seconds."""
    drafts, arrivals = Drafts(), Arrivals()
    return World(spooled, drafts, arrivals, Uploader(drafts, spooled.sender(patience=-1.0), arrivals, settle=settle))


@pytest.fixture
def world(spooled: Spooled) -> Iterator[World]:
    """Files do not settle by themselves."""
    world = make(spooled, 10_000.0)
    yield world
    world.uploader.close()


@pytest.fixture
def quick(spooled: Spooled) -> Iterator[World]:
    """Files settle at once."""
    world = make(spooled, 0.0)
    yield world
    world.uploader.close()


def test_a_closed_file_arrives_and_is_gone_from_the_spool(quick: World) -> None:
    draft = quick.closed()
    wait_until(lambda: quick.arrivals.seen_names == ["data.bin"])
    wait_until(lambda: list(quick.spooled.folder.entries()) == [])
    assert draft.is_gone
    assert (len(quick.drafts), quick.ready()) == (0, [("data.bin", b"content")])


def test_close_sends_but_does_not_complete(world: World) -> None:
    draft = world.closed()
    assert (draft.sent, world.ready(), draft.entry.state) == (7, [], State.CLOSED)
    assert world.uploader.await_idle(0.0) == 1
    world.uploader.hurry()
    wait_until(lambda: world.uploader.await_idle(0.0) == 0)
    assert world.ready() == [("data.bin", b"content")]


def test_hurrying_is_for_what_is_closed_now(world: World) -> None:
    world.uploader.hurry()
    world.closed(name="settles")
    assert world.uploader.await_idle(0.05) == 1
    world.uploader.hurry(for_good=True)
    world.closed(name="not")
    wait_until(lambda: len(world.ready()) == 2)


def test_a_file_that_is_opened_again_is_not_completed(world: World) -> None:
    draft = world.closed()
    assert draft.opened(writes=True)
    world.uploader.hurry()
    draft.write(b"other", 0)
    assert world.uploader.await_idle(0.05) == 0, "it is not closed"
    world.close(draft)
    world.uploader.hurry()
    wait_until(lambda: world.ready() == [("data.bin", b"othernt")])


def test_hidden_files_stay(quick: World) -> None:
    draft = quick.closed(name=".hidden")
    assert quick.uploader.await_idle(0.05) == 0
    assert (draft.entry.state, quick.spooled.deployment.calls) == (State.CLOSED, [])


def test_a_failed_flush_is_told_and_the_next_one_may_succeed(world: World) -> None:
    draft = world.written()
    world.spooled.deployment.faults["begin"] = [Fault(BROKEN)]
    assert world.uploader.flush(draft, is_close=True).exception(PATIENCE) is BROKEN
    assert draft.failure is BROKEN
    assert draft.entry.state is State.WRITING
    world.close(draft)
    assert (draft.failure, draft.entry.state) == (None, State.CLOSED)


def test_a_flush_that_is_no_close_leaves_the_file_open(world: World) -> None:
    draft = world.written()
    world.uploader.flush(draft, is_close=False).result(PATIENCE)
    assert (draft.sent, draft.entry.state) == (7, State.WRITING)


def test_what_passes_is_tried_again_and_again(world: World) -> None:
    draft = world.closed()
    world.spooled.deployment.faults["finish"] = [Fault(BROKEN)]
    world.uploader.hurry()
    wait_until(lambda: world.ready() == [("data.bin", b"content")])
    assert draft.entry.state is State.CLOSED


def test_tries_become_rarer(world: World) -> None:
    draft = world.closed()
    waits = [world.uploader._note_failure(draft, BROKEN) for _ in range(9)]
    assert waits == [min(FIRST_RETRY * 2**n, LONGEST_RETRY) for n in range(9)]


@pytest.mark.parametrize("call", ["finish", "read_artifact"])
def test_what_does_not_pass_is_kept_as_failed_and_sent_on_request(world: World, call: str) -> None:
    draft = world.closed()
    world.spooled.deployment.faults[call] = [Fault(NotPermitted("not you", status=403))]
    world.uploader.hurry()
    wait_until(lambda: draft.entry.state is State.FAILED)
    assert "not you" in draft.entry.reason
    assert [entry.state for entry in world.spooled.folder.entries()] == [State.FAILED]
    world.uploader.retry(draft)
    wait_until(lambda: world.ready() == [("data.bin", b"content")] and draft.is_gone)


def test_what_is_still_to_be_done_after_the_upload_is_tried_again_without_another_upload(world: World) -> None:
    draft = world.closed()
    world.arrivals.failures = [BROKEN]
    world.uploader.hurry()
    wait_until(lambda: world.arrivals.names == ["data.bin"])
    wait_until(lambda: draft.is_gone)
    assert world.ready() == [("data.bin", b"content")]
    assert world.spooled.deployment.count("begin") == 1


def test_an_interrupted_file_is_sent_on_request_as_it_is_now(world: World) -> None:
    draft = world.written()
    draft.closed(writes=True)
    world.uploader.fail(draft, State.INTERRUPTED, "killed")
    world.uploader.hurry()
    assert world.uploader.await_idle(0.0) == 0
    world.uploader.retry(draft)
    wait_until(lambda: world.ready() == [("data.bin", b"content")])


def test_a_stale_upload_is_not_journalled(world: World) -> None:
    draft = world.written()
    world.uploader.flush(draft, is_close=False).result(PATIENCE)
    assert draft.entry.begun is not None
    draft.write(b"other", 0)
    world.uploader.note_closed(draft, draft.size, draft.mtime_ns)
    (entry,) = world.spooled.folder.entries()
    assert (entry.state, entry.begun) == (State.CLOSED, None)
    draft.closed(writes=True)
    world.uploader.complete_later(draft, at_once=True)
    wait_until(lambda: world.ready() == [("data.bin", b"othernt")])


def test_more_files_than_there_are_threads(quick: World) -> None:
    names = [f"file{number:02}" for number in range(40)]
    for name in names:
        quick.closed(name.encode(), name)
    wait_until(lambda: len(quick.arrivals.seen_names) == 40)
    assert sorted(quick.ready()) == [(name, name.encode()) for name in names]


def test_a_large_file_is_sent_while_it_is_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ivcapfs.spool.ahead.AHEAD", 2000)
    draft = world.written(bytes(1500))
    world.uploader.written(draft, never)
    assert draft.sent == 0
    draft.write(bytes(1000), 1500)
    world.uploader.written(draft, never)
    wait_until(lambda: draft.sent == 2000)


def test_who_writes_faster_than_it_is_sent_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ivcapfs.spool.ahead.AHEAD", 2000)
    monkeypatch.setattr("ivcapfs.spool.ahead.BEHIND", 500)
    asked, gate = threading.Event(), threading.Event()

    def slow() -> None:
        asked.set()
        assert gate.wait(PATIENCE)

    monkeypatch.setattr(world.spooled.deployment, "on_bring", slow)
    draft = world.written(bytes(4000))
    waiting = Background(world.uploader.written, draft, never)
    assert asked.wait(PATIENCE)
    assert not waiting.future.done()

    def interrupt() -> None:
        raise Interrupted("the writer got a signal")

    with pytest.raises(Interrupted):
        world.uploader.written(draft, interrupt)
    gate.set()
    waiting.result()
    assert draft.sent == 4000


def test_nobody_waits_for_a_sending_that_failed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ivcapfs.spool.ahead.AHEAD", 2000)
    monkeypatch.setattr("ivcapfs.spool.ahead.BEHIND", 500)
    world.spooled.deployment.faults["bring"] = [Fault(NotPermitted("not you", status=403))]
    draft = world.written(bytes(4000))
    world.uploader.written(draft, never)
    assert draft.sent == 0
    world.uploader.written(draft, never)
    assert draft.sent == 0, "close(2) tries again, and tells"


def test_nothing_begins_after_the_end(world: World) -> None:
    draft = world.written()
    world.uploader.close()
    world.uploader.close()
    assert isinstance(world.uploader.flush(draft, is_close=True).exception(PATIENCE), Closing)
    world.uploader.complete_later(draft, at_once=True)
    assert world.ready() == []


def test_a_file_that_is_due_in_the_last_moments_of_its_completion_is_not_forgotten(world: World) -> None:
    """The failure is noted, and `retry` is asked for, before the thread that completed it has let go of it."""
    draft = world.closed()
    world.spooled.deployment.faults["finish"] = [Fault(NotPermitted("not you", status=403))]
    noted, go_on = threading.Event(), threading.Event()
    fail = world.uploader.fail

    def slow(draft: Draft, state: State, reason: str) -> None:
        fail(draft, state, reason)
        noted.set()
        assert go_on.wait(PATIENCE)

    world.uploader.fail = slow  # type: ignore[method-assign]
    world.uploader.hurry()
    assert noted.wait(PATIENCE)
    world.uploader.retry(draft)
    wait_until(lambda: not world.uploader._due or world.uploader._due[0][0] > world.uploader._clock())
    go_on.set()
    wait_until(lambda: world.ready() == [("data.bin", b"content")])


def test_a_removed_file_is_not_sent(world: World) -> None:
    draft = world.closed()
    with draft.lock:
        draft.is_gone = True
    world.uploader.hurry()
    draft.note(lambda entry: replace(entry, reason="not written"))
    assert world.uploader.await_idle(0.05) == 1
    assert world.ready() == []
