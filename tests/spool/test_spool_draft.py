"""One new file: its bytes, what of it may be sent, its journal."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ivcapfs.errors import BadHandle, TooLarge
from ivcapfs.spool.describe import draft_state, uploads_status
from ivcapfs.spool.draft import LARGEST, Draft
from ivcapfs.spool.entry import Entry, State
from tests.spool.spool_world import Spooled, new_folder

CHANGES = st.lists(
    st.tuples(st.sampled_from(["write", "truncate", "send"]), st.integers(0, 50), st.binary(min_size=1, max_size=20)),
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(changes=CHANGES)
def test_what_the_server_has_is_a_beginning_of_the_content_or_known_to_be_stale(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, int, bytes]]
) -> None:
    folder = new_folder(tmp_path_factory.mktemp("draft") / "spool")
    entry = Entry(("artifacts", "x"))
    draft = Draft(folder, entry, folder.create(entry))
    draft.acquire()
    model, server = bytearray(), bytearray()
    for what, offset, data in changes:
        if what == "write":
            draft.write(data, offset)
            model += bytes(max(offset - len(model), 0))
            model[offset : offset + len(data)] = data
        elif what == "truncate":
            draft.truncate(offset)
            del model[offset:]
            model += bytes(offset - len(model))
        elif (claimed := draft.claim(10, whole=False)) is not None:
            start, stop = claimed
            assert start == len(server)
            server += draft.read(stop - start, start)
            draft.reached(stop)
        elif draft.stale:
            draft.begin_anew()
            server.clear()
        assert draft.size == len(model)
        assert draft.stale or model.startswith(server)
    assert draft.read(1000, 0) == model
    draft.release()
    folder.close()


def test_chunks_are_sent_ahead_only_of_what_is_written_in_order(spooled: Spooled) -> None:
    draft = spooled.draft(bytes(100))
    assert draft.claim(60, whole=True) == (0, 60)
    draft.reached(60)
    assert draft.claim(60, whole=True) is None, "not a whole chunk"
    draft.write(b"x", 500)
    assert draft.claim(60, whole=True) is None, "who jumps about may come back"
    assert draft.claim(60, whole=False) == (60, 120)


def test_nothing_is_sent_of_a_file_that_is_gone(spooled: Spooled) -> None:
    draft = spooled.draft(b"x")
    draft.is_gone = True
    assert draft.claim(10, whole=False) is None
    assert not draft.opened(writes=False)


def test_a_change_below_what_is_on_its_way_makes_it_stale(spooled: Spooled) -> None:
    draft = spooled.draft(bytes(100))
    assert draft.claim(50, whole=False) == (0, 50)
    draft.write(b"x", 50)
    assert not draft.stale
    draft.write(b"x", 49)
    assert draft.stale
    assert draft.claim(50, whole=False) is None


def test_the_largest_size(spooled: Spooled) -> None:
    draft = spooled.draft(b"x")
    for work in (lambda: draft.write(b"xy", LARGEST - 1), lambda: draft.truncate(LARGEST + 1)):
        with pytest.raises(TooLarge):
            work()
    draft.truncate(LARGEST)
    draft.truncate(1)
    assert (draft.size, draft.read(10, 0)) == (1, b"x")


def test_a_change_of_a_closed_file_is_journalled_before_it_is_made(spooled: Spooled) -> None:
    draft = spooled.draft(b"x")
    draft.note(lambda entry: replace(entry, state=State.CLOSED, size=1))
    draft.write(b"y", 0)
    (entry,) = spooled.folder.entries()
    assert entry.state is State.WRITING


def test_handles(spooled: Spooled) -> None:
    draft = spooled.draft(b"x")
    draft.release()
    assert draft.opened(writes=True)
    assert draft.opened(writes=True)
    assert draft.opened(writes=False)
    draft.due = 1.0
    assert draft.opened(writes=False)
    assert draft.due == 1.0, "who reads does not hold it up"
    assert [draft.closed(writes=writes) for writes in (True, False, False, True)] == [False, False, False, True]
    draft.is_ending = True
    assert not draft.opened(writes=True)
    assert draft.opened(writes=False)
    draft.closed(writes=False)
    with pytest.raises(BadHandle):
        draft.read(1, 0)


def test_its_state_in_words(spooled: Spooled) -> None:
    draft = spooled.draft(bytes(200))
    assert draft_state(draft) == "writing"
    draft.note(lambda entry: replace(entry, state=State.CLOSED, size=200))
    assert draft_state(draft) == "pending"
    draft.reached(85)
    assert draft_state(draft) == "uploading 42%"
    told = uploads_status([draft])
    assert (told.pending, told.bytes_left, told.files[0].state) == (1, 115, "uploading 42%")
    draft.note(lambda entry: replace(entry, state=State.FAILED, reason="no room"))
    assert draft_state(draft) == "failed: no room"
    draft.note(lambda entry: replace(entry, parts=("artifacts", ".x")))
    assert draft_state(draft) == "local"
    assert (uploads_status([draft]).local, uploads_status([draft]).failed) == (1, 0)


def test_its_bytes_are_in_the_file_that_the_journal_names(spooled: Spooled) -> None:
    draft = spooled.draft(b"content")
    path = spooled.folder.path / f"{draft.entry.id}.data"
    assert path.read_bytes() == b"content"
    assert path.stat().st_mode & 0o777 == 0o600
    draft.sync()
    draft.folder.remove(draft.entry)
    assert os.listdir(spooled.folder.path) == ["owner"]
