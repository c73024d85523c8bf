"""The spool on disk: entries that come back as they were, nonsense that is refused, folders that one process has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.errors import ConfigError, FileSystemError, ProtocolError
from ivcapfs.spool.entry import Begun, Entry, State, entry_from_json, entry_json
from ivcapfs.spool.folder import Owner, folders, take_over, this_host
from ivcapfs.spool.looking import owner_of, peek
from ivcapfs.spool.spool import Spool
from tests.spool.spool_world import Spooled, new_folder

OWNER = Owner(this_host(), 1, "/mnt", "https://x")
TEXTS = st.text(max_size=20)
PARTS = st.lists(TEXTS.filter(lambda text: text and "/" not in text), min_size=2, max_size=5).map(tuple)
ENTRIES = st.builds(
    Entry,
    parts=PARTS,
    below=st.just(1),
    state=st.sampled_from(State),
    collection=st.none() | TEXTS,
    reason=TEXTS,
    size=st.integers(0, 2**40),
    mtime_ns=st.integers(-(2**62), 2**62),
    begun=st.none() | st.builds(Begun, TEXTS, TEXTS, st.none() | st.integers(0, 2**40)),
    twins=st.none() | st.lists(TEXTS, max_size=3).map(tuple),
    record=st.none() | TEXTS,
    changes=st.lists(st.dictionaries(TEXTS, TEXTS, max_size=2), max_size=2).map(tuple),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
GOOD = json.loads(entry_json(Entry(("artifacts", "x"))))


@given(ENTRIES)
def test_an_entry_comes_back_as_it_was(entry: Entry) -> None:
    assert entry_from_json(entry_json(entry)) == entry


@given(JSON)
def test_nonsense_is_refused(value: object) -> None:
    with pytest.raises(ProtocolError):
        entry_from_json(json.dumps(value).encode())


@given(st.binary(max_size=50))
def test_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        entry_from_json(text)


@given(st.sampled_from(sorted(GOOD)), JSON)
def test_an_entry_with_one_odd_field_is_refused_or_can_be_used(field: str, value: object) -> None:
    try:
        entry = entry_from_json(json.dumps(GOOD | {field: value}).encode())
    except ProtocolError:
        return
    assert isinstance(entry.name, str)
    assert isinstance(entry.is_hidden, bool)
    assert isinstance(entry.path, str)
    assert entry_from_json(entry_json(entry)) == entry
    assert "/" not in entry.id
    assert len(entry.id) == 32


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"id": "../../etc/passwd"}, {"parts": ["artifacts", "a/b"]}, {"parts": ["x"]}, {"below": 0}],
    ids=repr,
)
def test_what_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        entry_from_json(json.dumps(GOOD | change).encode())


def test_an_entry_that_cannot_be_read_is_left_where_it_is(spooled: Spooled, caplog: pytest.LogCaptureFixture) -> None:
    good = spooled.draft(b"x").entry
    for name, text in {"0.json": b"{", "1.json": b"", "2.json": entry_json(Entry(("artifacts", "no-data")))}.items():
        (spooled.folder.path / name).write_bytes(text)
    assert [entry.id for entry in spooled.folder.entries()] == [good.id]
    assert caplog.text.count("cannot be taken up") == 3
    assert {"0.json", "1.json", "2.json"} <= set(os.listdir(spooled.folder.path))


def test_a_journal_is_replaced_at_once_or_not_at_all(spooled: Spooled, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = spooled.draft(b"x")
    before = (spooled.folder.path / f"{draft.entry.id}.json").read_bytes()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(FileSystemError, match="full"):
            draft.note(lambda entry: replace(entry, reason="other"))
    assert (spooled.folder.path / f"{draft.entry.id}.json").read_bytes() == before
    assert draft.entry.reason == ""
    assert not [name for name in os.listdir(spooled.folder.path) if name.endswith(".tmp")]


def test_folders_are_of_this_user_alone(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "spool")
    for path in (tmp_path / "spool", folder.path.parent, folder.path):
        assert path.stat().st_mode & 0o777 == 0o700
    folder.close()
    assert not folder.path.exists(), "an empty one goes"
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(ConfigError):
        new_folder(tmp_path / "open")


def test_one_process_has_a_folder_until_it_dies(tmp_path: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from ivcapfs.spool.entry import Entry
from tests.spool.spool_world import new_folder
folder = new_folder(Path(sys.argv[1]))
entry = Entry(("artifacts", "x"))
folder.create(entry)
print(folder.path, flush=True)
time.sleep(60)
"""
    words = [sys.executable, "-c", script, str(tmp_path / "spool")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        path = Path(other.stdout.readline().strip())
        assert list(folders(tmp_path / "spool", "deployment")) == [path]
        assert take_over(path) is None
        assert owner_of(path) == OWNER
        assert [entry.path for entry in peek(path)] == ["artifacts/x"]
        other.send_signal(signal.SIGKILL)
    taken = take_over(path)
    assert taken is not None
    assert take_over(path) is None, "it is ours now"
    assert [entry.path for entry in taken.entries()] == ["artifacts/x"]
    taken.close()
    assert path.exists(), "something is left in it"


def test_another_machines_folder_is_left_alone(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "spool")
    folder.create(Entry(("artifacts", "x")))
    folder.close()
    text = json.loads((folder.path / "owner").read_bytes())
    (folder.path / "owner").write_text(json.dumps(text | {"host": "another"}))
    assert take_over(folder.path) is None
    (folder.path / "owner").write_text("nonsense")
    assert take_over(folder.path) is None
    assert owner_of(folder.path) is None
    assert take_over(tmp_path / "nothing") is None


def test_what_an_earlier_mount_left(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", "deployment", OWNER)
    states = {
        "closed": (State.CLOSED, 4), "short": (State.CLOSED, 5), "sent": (State.CLOSED, 5), "open": (State.WRITING, 0),
        "failed": (State.FAILED, 4), ".hidden": (State.WRITING, 0),
    }  # fmt: skip
    for name, (state, size) in states.items():
        begun = None if name == "short" else Begun("u", "https://x/u", None)
        draft = spool.new(Entry(("artifacts", name), begun=begun))
        draft.acquire()
        draft.write(b"data", 0)
        draft.note(lambda entry, state=state, size=size: replace(entry, state=state, size=size))
        draft.release()
    spool.close()
    again = Spool(tmp_path / "spool", "deployment", OWNER)
    found = {draft.entry.parts[-1]: draft.entry for draft in again.recover()}
    assert {name: entry.state for name, entry in found.items()} == {
        "closed": State.CLOSED, "short": State.FAILED, "sent": State.CLOSED, "open": State.INTERRUPTED,
        "failed": State.FAILED, ".hidden": State.CLOSED,
    }  # fmt: skip
    assert found["closed"].begun is not None
    assert found["sent"].begun is not None, "what the disk lost, the server may have"
    assert found["open"].begun is None, "what the server has need not be its beginning"
    assert "4" in found["short"].reason
    third = Spool(tmp_path / "spool", "deployment", OWNER)
    assert list(third.recover()) == [], "they are taken"
    third.close()
    again.close()
