"""The last moments of a new file: what comes while it becomes an artifact, and where nobody knows whether it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ivcapfs.errors import ConnectionBroken, NoSpace
from ivcapfs.models import ArtifactRecord
from ivcapfs.spool.draft import Draft
from ivcapfs.spool.entry import Begun, Entry, State
from tests.fakes import wait_until
from tests.spool.spool_world import Fault, Spooled
from tests.spool.test_spool_uploader import World, make

BROKEN = ConnectionBroken("the connection broke")


@pytest.fixture
def settling(spooled: Spooled) -> Iterator[World]:
    """Files do not settle by themselves."""
    world = make(spooled, 10_000.0)
    yield world
    world.uploader.close()


@pytest.mark.parametrize("call", ["finish", "read_artifact"])
def test_what_is_perhaps_complete_is_not_changed_until_that_is_known(settling: World, call: str) -> None:
    draft = settling.closed()
    settling.spooled.deployment.faults[call] = [Fault(BROKEN, done=True)]
    settling.uploader.hurry()
    wait_until(lambda: settling.uploader._waits and not settling.uploader._busy)
    assert draft.is_ending
    assert not draft.opened(writes=True)
    wait_until(lambda: draft.is_gone)
    assert settling.ready() == [("data.bin", b"content")]


def renamed(world: World, draft: Draft) -> None:
    """Give a closed file another name, as rename(2) does: what was sent went under the old one."""
    old = draft.entry.parts
    draft.note(lambda entry: replace(entry, parts=("artifacts", "new.bin"), begun=None))
    draft.stale = True
    world.drafts.moved(draft, old)


@pytest.mark.parametrize("is_overwritten", [False, True], ids=["renamed", "overwritten"])
def test_what_was_sent_anew_and_is_perhaps_complete_neither(settling: World, is_overwritten: bool) -> None:
    """Its length is announced, so that its last byte completes it."""
    draft = settling.closed()
    if is_overwritten:
        assert draft.opened(writes=True)
        draft.write(b"content", 0)
        draft.closed(writes=True)
        settling.uploader.note_closed(draft, draft.size, draft.mtime_ns)
    else:
        renamed(settling, draft)
    settling.spooled.deployment.faults["bring"] = [Fault(BROKEN, done=True)]
    settling.uploader.complete_later(draft, at_once=True)
    wait_until(lambda: settling.uploader._waits and not settling.uploader._busy)
    assert settling.ready() == [(draft.entry.name, b"content")]
    assert draft.is_ending
    wait_until(lambda: draft.is_gone)
    assert settling.ready() == [(draft.entry.name, b"content")]


@pytest.mark.parametrize("content", [b"content", b""], ids=["full", "empty"])
@pytest.mark.parametrize("is_renamed", [False, True], ids=["sent once", "renamed"])
def test_an_artifact_with_which_something_is_still_to_be_done_neither(
    settling: World, content: bytes, is_renamed: bool
) -> None:
    draft = settling.closed(content)
    if is_renamed:
        renamed(settling, draft)
    settling.arrivals.failures = [BROKEN]
    settling.uploader.complete_later(draft, at_once=True)
    wait_until(lambda: settling.uploader._waits and not settling.uploader._busy)
    assert settling.ready() == [(draft.entry.name, content)]
    assert draft.is_ending
    wait_until(lambda: draft.is_gone)


def test_what_was_sent_anew_and_did_not_begin_may_be_changed(settling: World) -> None:
    draft = settling.closed()
    renamed(settling, draft)
    settling.spooled.deployment.faults["begin"] = [Fault(BROKEN, done=True)]
    settling.uploader.complete_later(draft, at_once=True)
    wait_until(lambda: settling.uploader._waits and not settling.uploader._busy)
    assert draft.opened(writes=True)


def test_an_empty_file_that_is_perhaps_made_neither(settling: World) -> None:
    draft = settling.closed(b"")
    settling.spooled.deployment.faults["begin"] = [Fault(BROKEN, done=True)]
    settling.uploader.hurry()
    wait_until(lambda: settling.uploader._waits and not settling.uploader._busy)
    assert draft.is_ending
    wait_until(lambda: draft.is_gone)
    assert settling.ready() == [("data.bin", b"")]


def test_what_was_not_even_begun_may_be_changed(settling: World) -> None:
    draft = settling.written()
    draft.closed(writes=True)
    settling.uploader.fail(draft, State.INTERRUPTED, "killed")
    settling.spooled.deployment.faults["begin"] = [Fault(BROKEN)]
    settling.uploader.retry(draft)
    wait_until(lambda: settling.uploader._waits and not settling.uploader._busy)
    assert draft.opened(writes=True)


def test_what_an_earlier_mount_perhaps_completed_is_not_changed_until_that_is_known(spooled: Spooled) -> None:
    entry = Entry(("artifacts", "data.bin"), state=State.CLOSED)
    assert Draft(spooled.folder, replace(entry, begun=Begun("uuid", "url", None))).is_ending
    assert Draft(spooled.folder, replace(entry, twins=())).is_ending, "it is empty, and may have been made"
    assert Draft(spooled.folder, replace(entry, record="uuid")).is_ending, "it is one, and not all was done with it"
    assert not Draft(spooled.folder, entry).is_ending


def test_what_is_set_while_it_arrives_is_sent_as_well(settling: World, monkeypatch: pytest.MonkeyPatch) -> None:
    draft, sent = settling.closed(), []

    def arrived(draft: Draft, record: ArtifactRecord) -> None:
        sent.append(draft.entry.changes)
        if len(sent) == 1:
            draft.note(lambda entry: replace(entry, changes=({"label": "late"},)))

    monkeypatch.setattr(settling.arrivals, "arrived", arrived)
    settling.uploader.hurry()
    wait_until(lambda: draft.is_gone)
    assert sent == [(), ({"label": "late"},)]


def test_it_arrives_although_the_journal_has_no_room(settling: World, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = settling.closed()

    def save(entry: Entry, *, durable: bool = False) -> None:
        raise NoSpace("the spool is full")

    monkeypatch.setattr(settling.spooled.folder, "save", save)
    settling.uploader.hurry()
    wait_until(lambda: draft.is_gone)
    assert settling.ready() == [("data.bin", b"content")]


def test_room_for_its_beginning_is_waited_for(settling: World, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = settling.written()
    draft.closed(writes=True)
    settling.uploader.note_closed(draft, draft.size, draft.mtime_ns)
    save, tries = settling.spooled.folder.save, []

    def full_once(entry: Entry, *, durable: bool = False) -> None:
        tries.append(entry)
        if len(tries) == 1:
            raise NoSpace("the spool is full")
        save(entry, durable=durable)

    monkeypatch.setattr(settling.spooled.folder, "save", full_once)
    settling.uploader.complete_later(draft, at_once=True)
    wait_until(lambda: draft.is_gone)
    assert settling.ready() == [("data.bin", b"content")]
