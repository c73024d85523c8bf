"""Notes of transfers: kept, locked, torn, forgotten."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ivcapfs.errors import ConfigError, InUse
from ivcapfs.transfers.notes import KEPT, Note, forget_old


def test_a_note_is_there_for_the_next_one(tmp_path: Path) -> None:
    with Note(tmp_path / "n", "a", "b") as note:
        assert note.value is None
        note.save({"done": [1, 2, 3]})
        note.save({"done": [4]})
    with Note(tmp_path / "n", "a", "b") as note:
        assert note.value == {"done": [4]}
    with Note(tmp_path / "n", "ab", "") as other:
        assert other.value is None, "another key"
    (file,) = (tmp_path / "n").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_note_that_says_nothing_leaves_no_file(tmp_path: Path) -> None:
    with Note(tmp_path / "n", "a"):
        pass
    with Note(tmp_path / "n", "b") as note:
        note.save({})
        note.remove()
    assert list((tmp_path / "n").iterdir()) == []


def test_one_at_a_time(tmp_path: Path) -> None:
    with Note(tmp_path / "n", "a") as note:
        note.save({"x": 1})
        with pytest.raises(InUse):
            Note(tmp_path / "n", "a")
        with Note(tmp_path / "n", "b"):
            pass


@pytest.mark.parametrize("text", [b"", b"{", b"[1]\n", b"\xff\n", b"[" * 100_000, b'{"x": 1}'[:4] + b"\n" + b'"x": 1}'])
def test_a_torn_note_is_none(tmp_path: Path, text: bytes) -> None:
    with Note(tmp_path / "n", "a") as note:
        note.save({"x": 1})
    (file,) = (tmp_path / "n").iterdir()
    file.write_bytes(text)
    with Note(tmp_path / "n", "a") as note:
        assert note.value is None


def test_what_follows_the_first_line_does_not_count(tmp_path: Path) -> None:
    with Note(tmp_path / "n", "a") as note:
        note.save({"x": 1})
    (file,) = (tmp_path / "n").iterdir()
    with file.open("ab") as stream:
        stream.write(b'an older, longer note"}')
    with Note(tmp_path / "n", "a") as note:
        assert note.value == {"x": 1}


def test_old_notes_are_forgotten(tmp_path: Path) -> None:
    for key in "ab":
        with Note(tmp_path / "n", key) as note:
            note.save({})
    old = sorted((tmp_path / "n").iterdir())[0]
    os.utime(old, (1_000_000, 1_000_000))
    forget_old(tmp_path / "n")
    assert len(list((tmp_path / "n").iterdir())) == 1
    assert not old.exists()
    forget_old(tmp_path / "n", now=1e12 + KEPT)
    assert list((tmp_path / "n").iterdir()) == []
    forget_old(tmp_path / "none")


def test_a_folder_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n").mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        Note(tmp_path / "n", "a")
