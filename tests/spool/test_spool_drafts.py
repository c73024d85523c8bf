"""The new files by their paths, against a plain model: a dictionary of files, and a set of folders."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ivcapfs.errors import AlreadyThere, NotEmpty
from ivcapfs.spool.drafts import Drafts, Made
from ivcapfs.spool.entry import Entry

PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(lambda names: ("artifacts", *names))
Parts = tuple[str, ...]


def draft_at(parts: Parts) -> Any:
    """Return what `Drafts` needs of a draft."""
    return SimpleNamespace(entry=Entry(parts))


class DraftsMachine(RuleBasedStateMachine):
    """Files and folders come, go and move; no file is put where there is a folder, as the kernel sees to that."""

    def __init__(self) -> None:
        super().__init__()
        self.drafts = Drafts()
        self.files: dict[Parts, Any] = {}
        self.made: set[Parts] = set()

    def folders(self) -> set[Parts]:
        """Return all folders that there are."""
        paths = [*self.files, *self.made]
        return self.made | {path[:depth] for path in paths for depth in range(1, len(path))}

    def fits(self, path: Parts) -> bool:
        """Return whether a file may be at a path."""
        return path not in self.folders() and not any(path[:depth] in self.files for depth in range(1, len(path)))

    @rule(path=PATHS)
    def put(self, path: Parts) -> None:
        """A new file, or one in place of another."""
        if self.fits(path):
            self.files[path] = draft_at(path)
            self.drafts.put(self.files[path])

    @rule(path=PATHS)
    def take_away(self, path: Parts) -> None:
        """A file goes."""
        draft = self.files.pop(path, None)
        assert not self.drafts.take_away(draft_at(path))
        if draft is not None:
            assert self.drafts.take_away(draft)
            assert not self.drafts.take_away(draft)

    @rule(old=PATHS, new=PATHS)
    def move(self, old: Parts, new: Parts) -> None:
        """A file gets another path, perhaps of another file."""
        if old in self.files and old != new and self.fits(new):
            draft = self.files[new] = self.files.pop(old)
            draft.entry = replace(draft.entry, parts=new)
            self.drafts.moved(draft, old)

    @rule(path=PATHS)
    def make_folder(self, path: Parts) -> None:
        """A folder is made."""
        if path in self.made or path in self.files:
            with pytest.raises(AlreadyThere):
                self.drafts.make_folder(path)
        elif self.fits(path):
            self.drafts.make_folder(path)
            self.made.add(path)

    @rule(path=PATHS)
    def remove_folder(self, path: Parts) -> None:
        """A folder is removed, if it is empty."""
        if any(other[: len(path)] == path and other != path for other in [*self.files, *self.made]):
            with pytest.raises(NotEmpty):
                self.drafts.remove_folder(path)
        else:
            assert self.drafts.remove_folder(path) == (path in self.made)
            self.made.discard(path)

    @rule(old=PATHS, new=PATHS)
    def move_folder(self, old: Parts, new: Parts) -> None:
        """A folder gets another path, with all that is in it."""
        is_free = new not in self.files and self.fits(new)
        if old not in self.made or not is_free or new[: len(old)] == old:
            return
        moved = self.drafts.move_folder(old, new)
        assert {draft.entry.parts for draft in moved} == {path for path in self.files if path[: len(old)] == old}
        for draft in moved:
            before = draft.entry.parts
            draft.entry = replace(draft.entry, parts=new + before[len(old) :])
            self.drafts.moved(draft, before)
        self.files = {draft.entry.parts: draft for draft in self.files.values()}
        self.made = {new + path[len(old) :] if path[: len(old)] == old else path for path in self.made}

    @invariant()
    def same(self) -> None:
        """Compare all that can be asked."""
        folders = self.folders()
        for path, draft in self.files.items():
            assert self.drafts.at(path) is draft
        for path in folders - {("artifacts",)}:
            found = self.drafts.at(path)
            assert isinstance(found, Made)
            assert found.is_made == (path in self.made)
        for folder in folders | {("artifacts",), ("artifacts", "nothing")}:
            names = {path[len(folder)] for path in [*self.files, *self.made] if path[: len(folder)] == folder != path}
            assert [name for name, _ in self.drafts.within(folder)] == sorted(names)
        assert self.drafts.at(("artifacts", "nothing")) is None
        assert len(self.drafts) == len(self.files)
        assert {id(draft) for draft in self.drafts.all()} == {id(draft) for draft in self.files.values()}


TestDrafts = DraftsMachine.TestCase
