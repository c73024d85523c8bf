"""Sending a new file to a deployment that fails at each call: one artifact, right bytes, nothing sent twice."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ivcapfs.errors import (
    BadRequest,
    Closing,
    ConnectFailed,
    ConnectionBroken,
    NotPermitted,
    ServerFault,
    StorageFull,
    Unavailable,
)
from ivcapfs.spool.draft import Draft
from tests.spool.spool_world import FakeDeployment, Fault, Spooled, new_folder

CONTENT = os.urandom(3_500)
BROKEN = ConnectionBroken("the connection broke")


def send(spooled: Spooled, draft: Draft, **more: float) -> None:
    """Send a file as the uploader does: what there is when it is closed, and the end of it later."""
    sender = spooled.sender(**more)
    if draft.size and draft.entry.begun is None:
        sender.bring(draft)
    sender.complete(draft)


def reopened(spooled: Spooled, draft: Draft) -> Draft:
    """Return a file as the next process finds it."""
    (entry,) = (each for each in spooled.folder.entries() if each.id == draft.entry.id)
    return Draft(spooled.folder, replace(entry, size=draft.size))


@pytest.mark.parametrize("content", [b"", b"x", CONTENT[:1000], CONTENT], ids=len)
def test_a_file_becomes_one_artifact(spooled: Spooled, content: bytes) -> None:
    draft = spooled.draft(content, "folder/data.csv")
    record = spooled.sender().complete(draft)
    assert (record.is_ready, record.name, record.mime_type) == (True, "folder/data.csv", "text/csv")
    assert spooled.deployment.ready() == [("folder/data.csv", content)]
    assert spooled.deployment.received == len(content)


@pytest.mark.parametrize("content", [b"", CONTENT], ids=["empty", "full"])
@pytest.mark.parametrize("call", ["begin", "bring", "offset_of", "finish", "read_artifact", "list"])
@pytest.mark.parametrize("done", [False, True], ids=["lost request", "lost answer"])
@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize("restarts", [False, True], ids=["same process", "next process"])
def test_a_failure_at_each_call(
    spooled: Spooled, content: bytes, call: str, done: bool, number: int, restarts: bool
) -> None:
    """It fails for longer than the patience; then it is tried again, by this process or the next."""
    draft = spooled.draft(content)
    spooled.deployment.faults[call] = [None] * number + [Fault(BROKEN, done)]
    for _ in range(3):
        try:
            send(spooled, draft, patience=-1.0)
            break
        except ConnectionBroken:
            draft = reopened(spooled, draft) if restarts else draft
    assert spooled.deployment.ready() == [("data.bin", content)]
    assert spooled.deployment.received == len(content), "no byte was sent twice"


@pytest.mark.parametrize(
    "error", [BROKEN, ConnectFailed("x"), Unavailable("x", status=503), ServerFault("x", status=500)], ids=repr
)
@pytest.mark.parametrize("done", [False, True], ids=["lost request", "lost answer"])
def test_what_passes_is_waited_for(spooled: Spooled, error: Exception, done: bool) -> None:
    for call in ("begin", "bring", "offset_of"):
        spooled.deployment.faults[call] = [Fault(error, done), Fault(error)]
    send(spooled, spooled.draft(CONTENT))
    assert spooled.deployment.ready() == [("data.bin", CONTENT)]
    assert spooled.deployment.received == len(CONTENT)


@pytest.mark.parametrize("error", [NotPermitted("x", status=403), StorageFull("x", status=507)])
@pytest.mark.parametrize("call", ["begin", "bring", "finish"])
def test_what_does_not_pass_is_told_at_once(spooled: Spooled, error: Exception, call: str) -> None:
    spooled.deployment.faults[call] = [Fault(error)] * 2
    before = spooled.clock()
    with pytest.raises(type(error)):
        send(spooled, spooled.draft(CONTENT))
    assert spooled.clock() == before
    assert spooled.deployment.ready() == []


def test_a_file_is_sent_while_it_is_open_and_goes_on_after_more_was_written(spooled: Spooled) -> None:
    sender, draft = spooled.sender(), spooled.draft(CONTENT[:1500])
    sender.bring(draft)
    assert draft.sent == 1500
    draft.write(CONTENT[1500:], 1500)
    sender.advance(draft)
    assert draft.sent == 3500, "whole chunks alone"
    sender.complete(draft)
    assert spooled.deployment.ready() == [("data.bin", CONTENT)]
    assert spooled.deployment.received == len(CONTENT)
    assert spooled.deployment.count("begin") == 1


def test_what_was_sent_and_then_changed_is_sent_again_under_another_record(spooled: Spooled) -> None:
    sender, draft = spooled.sender(), spooled.draft(CONTENT)
    sender.bring(draft)
    draft.write(b"other", 10)
    assert draft.stale
    sender.complete(draft)
    assert spooled.deployment.ready() == [("data.bin", CONTENT[:10] + b"other" + CONTENT[15:])]
    assert spooled.deployment.count("begin") == 2


def test_changed_while_it_is_sent(spooled: Spooled) -> None:
    sender, draft = spooled.sender(), spooled.draft(CONTENT)
    left = [2500, 3400, 0]
    spooled.deployment.on_bring = lambda: draft.write(b"!", left.pop()) and None if left else None
    sender.complete(draft)
    expected = bytearray(CONTENT)
    for position in (2500, 3400, 0):
        expected[position : position + 1] = b"!"
    assert spooled.deployment.ready() == [("data.bin", bytes(expected))]


def test_a_record_that_is_gone_is_made_again(spooled: Spooled) -> None:
    sender, draft = spooled.sender(), spooled.draft(CONTENT)
    sender.bring(draft)
    spooled.deployment.uploads.clear()
    draft.write(b"more", len(CONTENT))
    sender.complete(draft)
    assert spooled.deployment.ready() == [("data.bin", CONTENT + b"more")]


def test_a_server_that_wants_the_length_at_the_beginning(spooled: Spooled) -> None:
    spooled.deployment.defers = False
    sender, draft = spooled.sender(), spooled.draft(CONTENT)
    sender.bring(draft)
    assert spooled.deployment.received == 0
    sender.complete(draft)
    assert spooled.deployment.ready() == [("data.bin", CONTENT)]
    sender.bring(spooled.draft(b"second"))
    assert spooled.deployment.count("begin") == 2, "it is not asked again"


def test_a_server_in_trouble_is_not_taken_for_one_that_wants_the_length(spooled: Spooled) -> None:
    sender, draft = spooled.sender(patience=-1.0), spooled.draft(CONTENT)
    spooled.deployment.faults["begin"] = [Fault(ServerFault("x", status=500))]
    with pytest.raises(ServerFault):
        sender.bring(draft)
    sender.bring(draft)
    assert spooled.deployment.received == len(CONTENT)


def test_a_refusal_that_was_not_for_the_length_is_not_remembered_as_one(spooled: Spooled) -> None:
    sender, draft = spooled.sender(), spooled.draft(CONTENT)
    spooled.deployment.faults["begin"] = [Fault(BadRequest("the name", status=400))] * 2
    sender.bring(draft)
    with pytest.raises(BadRequest):
        sender.complete(draft)
    other = spooled.draft(CONTENT, "other")
    sender.bring(other)
    assert other.sent == len(CONTENT)


def test_the_end_of_the_mount_ends_a_wait(spooled: Spooled) -> None:
    stopped = [False]

    def sleep(seconds: float) -> None:
        spooled.clock.advance(seconds)
        stopped[0] = True

    spooled.deployment.faults["bring"] = [Fault(BROKEN)] * 100
    with pytest.raises(Closing):
        spooled.sender(stopped=lambda: stopped[0], sleep=sleep).complete(spooled.draft(CONTENT))


def test_an_empty_file_is_not_taken_for_an_older_one_of_its_name(spooled: Spooled) -> None:
    for _ in range(3):
        spooled.sender().complete(spooled.draft(b""))
    assert spooled.deployment.ready() == [("data.bin", b"")] * 3


def test_an_empty_file_is_found_again_among_namesakes_that_fill_pages(spooled: Spooled) -> None:
    for _ in range(120):
        spooled.deployment.begin(name="data.bin", content_type="", size=0, policy=None)
    spooled.deployment.faults["begin"] = [Fault(BROKEN, done=True)]
    sender, draft = spooled.sender(), spooled.draft(b"")
    with pytest.raises(type(BROKEN)):
        sender.complete(draft)
    sender.complete(draft)
    assert len(spooled.deployment.ready()) == 121, "it was made, although the answer was lost"


FAULTS = st.lists(st.none() | st.builds(Fault, st.just(BROKEN), st.booleans()), max_size=4)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=4000),
    faults=st.dictionaries(st.sampled_from(["begin", "bring", "offset_of", "finish", "read_artifact", "list"]), FAULTS),
    restarts=st.lists(st.booleans(), min_size=40, max_size=40),
)
def test_whatever_fails_and_whenever_it_is_started_again(
    tmp_path_factory: pytest.TempPathFactory,
    content: bytes,
    faults: dict[str, list[Fault | None]],
    restarts: list[bool],
) -> None:
    folder = new_folder(tmp_path_factory.mktemp("spool") / "spool")
    spooled = Spooled(folder, FakeDeployment())
    draft = spooled.draft(content)
    spooled.deployment.faults = faults
    for restart in restarts:
        try:
            send(spooled, draft, patience=-1.0)
            break
        except ConnectionBroken:
            draft = reopened(spooled, draft) if restart else draft
    assert spooled.deployment.ready() == [("data.bin", content)]
    assert spooled.deployment.received == len(content)
    folder.close()
