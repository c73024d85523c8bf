"""Files become artifacts: under which names, and that an interrupted one goes on and is never a mixture."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ivcapfs.errors import ApiError, Closing, ConfigError, FileSystemError, InUse, TooLarge
from ivcapfs.spool.draft import LARGEST
from ivcapfs.transfers.notes import Note
from ivcapfs.transfers.put import Sending, collection_urn, gather
from tests.transfers.transferworld import MIB, TransferWorld

COLLECTION = "urn:ivcap:collection:3f2a9c1e-7b4d-4e0a-9c58-1d6f0a2b3c4d"


def gathered(*paths: Path, recursive: bool = False, name: str | None = None) -> dict[str, str]:
    """Return name -> last two components of the path."""
    skipped: list[str] = []
    found = gather(paths, recursive=recursive, name=name, skipped=lambda path, why: skipped.append(path.name))
    names = {each.name: "/".join(each.path.parts[-2:]) for each in found}
    return names | ({"skipped": " ".join(skipped)} if skipped else {})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with some of everything."""
    folder = tmp_path / "survey"
    (folder / "raw" / ".git").mkdir(parents=True)
    for name in ("a.txt", "raw/b.txt", "raw/.git/c", ".hidden"):
        (folder / name).write_text(name)
    (folder / "link.txt").symlink_to("a.txt")
    (folder / "loop").symlink_to(".")
    os.mkfifo(folder / "pipe")
    return folder


def test_names_of_files_and_folders(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gathered(tree / "a.txt", tree / "raw" / "b.txt") == {"a.txt": "survey/a.txt", "b.txt": "raw/b.txt"}
    inside = {"a.txt": "survey/a.txt", "link.txt": "survey/link.txt", "raw/b.txt": "raw/b.txt"}
    skipped = {"skipped": ".hidden loop pipe .git"}
    whole = {f"survey/{name}": path for name, path in inside.items()} | skipped
    assert gathered(tree, recursive=True) == whole
    monkeypatch.chdir(tree)
    assert gathered(Path(), recursive=True) == whole, "also by the name ."
    assert gathered(tree, recursive=True, name="x") == {f"x/{name}": path for name, path in inside.items()} | skipped
    assert gathered(tree / "a.txt", name="new/name.txt") == {"new/name.txt": "survey/a.txt"}
    before = gathered(tree / "a.txt", tree / "raw/b.txt", name="x/")
    assert before == {"x/a.txt": "survey/a.txt", "x/b.txt": "raw/b.txt"}
    assert gathered(tree / ".hidden") == {".hidden": "survey/.hidden"}, "what is named is meant"
    assert gathered(tree / "a.txt", tree / "a.txt") == {"a.txt": "survey/a.txt"}


def test_what_cannot_be_sent_is_said_before_anything_is(tree: Path) -> None:
    for paths, name, words in (
        ([tree / "none"], None, "does not exist"),
        ([tree], None, "is a folder: -r"),
        ([tree / "pipe"], None, "is no file"),
        ([tree / "a.txt", tree / "raw/b.txt"], "x", "--name names one FILE"),
    ):
        with pytest.raises(ConfigError, match=words):
            gathered(*paths, name=name)
    (tree / "raw" / "a.txt").write_text("another")
    with pytest.raises(ConfigError, match=r"two files would be called a\.txt"):
        gathered(tree / "a.txt", tree / "raw" / "a.txt")


@pytest.mark.parametrize("size", [0, 1, MIB, 3 * MIB + 5])
def test_a_file_becomes_an_artifact(world: TransferWorld, size: int) -> None:
    content = os.urandom(size)
    told: list[int] = []
    record = world.putter().put(Sending(world.file("tides.csv", content), "survey/tides.csv"), told.append)
    assert (record.name, record.size, record.mime_type) == ("survey/tides.csv", size, "text/csv")
    assert world.content(record.urn) == content
    assert told == sorted(told) and told[-1] == size


def test_an_interrupted_file_goes_on(world: TransferWorld) -> None:
    content = os.urandom(5 * MIB)
    path = world.file("a", content)
    patches = 0

    def third(request: str) -> bool:
        nonlocal patches
        patches += request.startswith("PATCH")
        return patches > 2

    world.refuse = third
    with pytest.raises(ApiError):
        world.put(path)
    world.refuse = lambda request: False
    world.asked.clear()
    told: list[int] = []
    record = world.putter().put(Sending(path, "a"), told.append)
    assert told[0] == 2 * MIB, "the server has two chunks"
    assert sum(request.startswith("POST") for request in world.asked) == 0
    assert world.count("PATCH") == 3
    assert world.content(record.urn) == content
    assert world.artifacts() == [record.urn]


def test_a_stopped_one_goes_on(world: TransferWorld) -> None:
    content = os.urandom(3 * MIB)
    path = world.file("a", content)
    asked = iter([False, True])
    with pytest.raises(Closing):
        world.put(path, stopped=lambda: next(asked))
    assert world.count("PATCH") == 1
    assert world.content(world.put(path)) == content
    assert world.count("PATCH") == 2


def test_a_file_that_changed_between_begins_anew(world: TransferWorld) -> None:
    path = world.file("a", b"x" * 3 * MIB)
    asked = iter([False, True])
    with pytest.raises(Closing):
        world.put(path, stopped=lambda: next(asked))
    path.write_bytes(b"y" * 3 * MIB)
    os.utime(path, ns=(1, 1))
    assert world.content(world.put(path)) == b"y" * 3 * MIB


def test_a_file_that_changes_while_it_is_sent_never_becomes_an_artifact(world: TransferWorld) -> None:
    path = world.file("a", b"x" * 3 * MIB)

    def change(done: int) -> None:
        if done == MIB:
            with path.open("r+b") as file:
                file.write(b"y")
            os.utime(path, ns=(1, 1))

    with pytest.raises(FileSystemError, match="was changed while it was sent"):
        world.putter().put(Sending(path, "a"), change)
    assert world.artifacts() == []
    assert world.content(world.put(path)) == b"y" + b"x" * (3 * MIB - 1)


def test_a_file_that_shrinks_while_it_is_sent(world: TransferWorld) -> None:
    path = world.file("a", b"x" * 3 * MIB)
    with pytest.raises(FileSystemError, match="was changed while it was sent"):
        world.putter().put(Sending(path, "a"), lambda done: os.truncate(path, 10) if done else None)
    assert world.artifacts() == []


def test_what_was_sent_is_not_sent_twice_until_all_of_a_command_is(world: TransferWorld) -> None:
    path, putter = world.file("a", b"content"), world.putter()
    first = putter.put(Sending(path, "a"))
    assert putter.put(Sending(path, "a")).urn == first.urn
    assert putter.put(Sending(path, "b")).urn != first.urn, "another name is another artifact"
    putter.forget([Sending(path, "a")])
    assert putter.put(Sending(path, "a")).urn != first.urn
    assert len(world.artifacts()) == 3


def test_a_record_that_is_gone_is_made_anew(world: TransferWorld) -> None:
    path = world.file("a", b"content")
    asked = iter([True])
    with pytest.raises(Closing):
        world.put(path, stopped=lambda: next(asked))
    (file,) = world.notes.iterdir()
    text = file.read_text()
    uuid = text.partition('"uuid": "')[2][:36]
    file.write_text(text.replace(uuid, "00000000-0000-4000-8000-000000000000"))
    assert world.content(world.put(path)) == b"content"


def test_a_collection_is_filled_also_where_that_failed_first(world: TransferWorld) -> None:
    path = world.file("a", b"content")
    world.refuse = lambda request: request == "POST /1/aspects"
    with pytest.raises(ApiError):
        world.put(path, collection=COLLECTION)
    world.refuse = lambda request: False
    urn = world.put(path, collection=COLLECTION)
    assert world.artifacts() == [urn]
    assert list(world.connection.api.collection_members(COLLECTION)) == [urn]


def test_collections_by_name(world: TransferWorld) -> None:
    api, schema = world.connection.api, "urn:ivcap:schema:collection.1"
    api.add_aspect(COLLECTION, schema, {"$schema": schema, "$entity": COLLECTION, "name": "winter"})
    assert collection_urn(world.connection, "winter") == COLLECTION
    assert collection_urn(world.connection, "urn:x:any") == "urn:x:any"
    with pytest.raises(ConfigError, match="no collection is called summer"):
        collection_urn(world.connection, "summer")
    other = COLLECTION[:-1] + "e"
    api.add_aspect(other, schema, {"$schema": schema, "$entity": other, "name": "winter"})
    with pytest.raises(ConfigError, match="several collections are called winter"):
        collection_urn(world.connection, "winter")


def test_one_process_sends_a_file_at_a_time(world: TransferWorld) -> None:
    path, inside = world.file("a", b"content"), []

    def again(done: int) -> None:
        with pytest.raises(InUse):
            world.put(path)
        inside.append(done)

    world.putter().put(Sending(path, "a"), again)
    assert inside


def test_more_than_an_artifact_can_have_is_not_begun(world: TransferWorld) -> None:
    path = world.file("a", b"")
    os.truncate(path, LARGEST + 1)
    with pytest.raises(TooLarge):
        world.put(path)
    assert world.asked == []
    with pytest.raises(OSError, match="No such file"):
        world.put(path.with_name("none"))


def test_a_note_holds_no_more_than_it_must(world: TransferWorld) -> None:
    path, putter = world.file("a", b"content"), world.putter()
    putter.put(Sending(path, "a"))
    with putter._note(Sending(path, "a")) as note:
        assert isinstance(note, Note)
        assert set(note.value or {}) == {"size", "mtime_ns", "inode", "path", "uuid", "url"}
