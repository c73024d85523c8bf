"""Collections made, filled and emptied on the embedded platform: shown at once, and what the official SDK reads."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from ivcap_client.ivcap import IVCAP

from ivcapfs.errors import (
    AlreadyThere,
    BadRequest,
    ConnectionBroken,
    Invalid,
    IsAFolder,
    IvcapfsError,
    NoSuchEntry,
    NotAFolder,
    NotAllowed,
    NotEmpty,
    ServerFault,
)
from ivcapfs.models import ARTIFACT_COLLECTION_SCHEMA, COLLECTION_ITEM_SCHEMA, COLLECTION_SCHEMA
from ivcapfs.waits import never
from tests.fakes import Background, uuid_of
from tests.fs.views_world import COLLECTION, ViewsWorld

OLDER = "urn:ivcap:collection:" + uuid_of(7)


class Writer:
    """The writer of the views, with paths as text."""

    def __init__(self, views: ViewsWorld) -> None:
        self._views = views
        self._writer = views.views.collections

    def make(self, path: str) -> str:
        return self._writer.make(parts(path), never)

    def remove(self, path: str) -> None:
        self._writer.remove(parts(path), never)

    def rename(self, source: str, target: str) -> None:
        self._writer.rename(parts(source), parts(target), never)

    def add(self, path: str, urn: str) -> None:
        self._writer.add(parts(path), urn.rpartition(":")[2], never)

    def add_by_urn(self, collection: str, urn: str) -> None:
        self._writer.add_by_urn(collection, urn.rpartition(":")[2])

    def discard(self, path: str) -> None:
        self._writer.discard(parts(path), never)

    def move(self, source: str, target: str) -> None:
        self._writer.move(parts(source), parts(target), never)


def parts(path: str) -> tuple[str, ...]:
    return tuple(path.split("/"))


@pytest.fixture
def write(views: ViewsWorld) -> Writer:
    return Writer(views)


def known_to(sdk: IVCAP) -> dict[str, list[str]]:
    """Return what the SDK says there is: the members of each collection, in order, by its name."""
    listed = list(sdk.list_collections(limit=None))
    assert len({each.urn for each in listed}) == len(listed), "each is described once"
    return {each.name: sorted(item.item for item in each.items(limit=None)) for each in listed}


def contents(views: ViewsWorld, schema: str) -> list[Any]:
    """Return the contents of the aspects of a schema that stand."""
    return [each.content for each in views.connection.api.iter_aspects(schema=schema)]


def test_what_is_made_and_filled_here_is_what_the_sdk_reads(views: ViewsWorld, write: Writer, sdk: IVCAP) -> None:
    one, two = views.add("survey/one.csv", b"1"), views.add("two.csv", b"2")
    assert views.ls("/collections") == []
    urn = write.make("My things")
    assert views.ls("/collections") == ["My things"]
    assert views.ls("/collections/My things") == []
    write.add("My things", one)
    write.add("My things/two.csv", two)
    assert views.ls("/collections/My things") == ["survey", "two.csv"]
    assert views.cat("/collections/My things/survey/one.csv") == b"1"
    assert views.attributes("/collections/My things")["user.ivcap.members"] == "2"
    assert known_to(sdk) == {"My things": sorted([one, two])}
    assert sdk.get_collection(urn).name == "My things"
    write.discard("My things/survey/one.csv")
    assert views.ls("/collections/My things") == ["two.csv"]
    assert known_to(sdk) == {"My things": [two]}
    with pytest.raises(NotEmpty):
        write.remove("My things")
    write.discard("My things/two.csv")
    write.remove("My things")
    assert views.ls("/collections") == []
    assert known_to(sdk) == {}
    assert views.ls("/artifacts") == ["survey", "two.csv"], "the artifacts themselves stay"


def test_our_aspects_are_those_that_the_sdk_writes(views: ViewsWorld, write: Writer, sdk: IVCAP) -> None:
    member = views.add("a")
    ours = write.make("c")
    write.add("c", member)
    sdk.create_collection(COLLECTION, "c")
    sdk.add_to_collection(COLLECTION, member)
    for schema in (COLLECTION_SCHEMA, COLLECTION_ITEM_SCHEMA):
        theirs, own = contents(views, schema)
        assert own == {name: ours if text == COLLECTION else text for name, text in theirs.items()}


def test_what_the_sdk_made_is_filled_and_emptied_here(views: ViewsWorld, write: Writer, sdk: IVCAP) -> None:
    one, two = views.add("one"), views.add("two")
    sdk.create_collection(COLLECTION, "theirs", description="by the SDK")
    sdk.add_to_collection(COLLECTION, one)
    write.add("theirs", one)
    write.add("theirs", two)
    assert known_to(sdk) == {"theirs": sorted([one, two])}
    assert sdk.add_to_collection(COLLECTION, two) is None, "it is in already"
    write.discard("theirs/one")
    assert not sdk.remove_from_collection(COLLECTION, one)
    assert sdk.remove_from_collection(COLLECTION, two)
    write.rename("theirs", "renamed")
    found = sdk.get_collection(COLLECTION)
    assert (found.name, found.description) == ("renamed", "by the SDK")
    write.remove("renamed")
    assert known_to(sdk) == {}


def test_twice_is_once(views: ViewsWorld, write: Writer) -> None:
    member = views.add("a")
    urn = write.make("c")
    assert views.attributes("/collections/c")["user.ivcap.members"] == "0"
    for _ in range(3):
        write.add("c", member)
        write.add_by_urn(urn, member)
    assert len(contents(views, COLLECTION_ITEM_SCHEMA)) == 1
    assert views.attributes("/collections/c")["user.ivcap.members"] == "1"


def test_a_member_that_stands_twice_goes_at_once(views: ViewsWorld, write: Writer) -> None:
    member = views.add("a")
    views.collect("c", member, member, member.replace(member[-36:], member[-36:].upper()))
    write.discard("c/a")
    assert contents(views, COLLECTION_ITEM_SCHEMA) == [
        {"collection": COLLECTION, "item": member.replace(member[-36:], member[-36:].upper())}
    ], "as the server does not find it by the path"
    views.refresh()
    write.discard("c/a")
    assert contents(views, COLLECTION_ITEM_SCHEMA) == []


def test_changes_are_shown_without_asking_again(views: ViewsWorld, write: Writer) -> None:
    members = [views.add(f"n{number}") for number in range(3)]
    views.collect("big", *members[:2])
    views.ls("/artifacts")
    views.ls("/collections/big")
    views.asked()
    write.add("big", members[2])
    write.discard("big/n0")
    assert views.ls("/collections/big") == ["n1", "n2"]
    assert views.asked() == {"aspect.list": 2, "aspect.create": 1, "aspect.retract": 1}
    write.make("small")
    assert "small" in views.ls("/collections")
    assert views.asked() == {"aspect.list": 1, "aspect.create": 1, "aspect.read": 1}
    before = {name: views.fs.getattr(f"/collections/{name}") for name in views.ls("/collections")}
    views.refresh()
    assert views.ls("/collections/big") == ["n1", "n2"]
    after = {name: views.fs.getattr(f"/collections/{name}") for name in views.ls("/collections")}
    assert before == after, "times included"


def test_slashes_make_folders_and_names_come_back(views: ViewsWorld, write: Writer, sdk: IVCAP) -> None:
    views.collect("deep/one")
    for path in ("deep/two", "50% off", "%2E%2E", "new%0Aline", "100%252Fsure", "looks%401a2b3c4d", ".hidden", "ü"):
        write.make(path)
        assert parts(path)[-1] in views.ls("/".join(("/collections", *parts(path)[:-1])))
    assert sorted(known_to(sdk)) == sorted(
        ["deep/one", "deep/two", "50% off", "..", "new\nline", "100%2Fsure", "looks@1a2b3c4d", ".hidden", "ü"]
    )


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("there", AlreadyThere), ("deep", AlreadyThere), ("deep/one", AlreadyThere), ("nowhere/new", NoSuchEntry),
        ("there/new", NotAllowed), ("there/member/new", NotAllowed), ("looks@1a2b3c4d", Invalid), ("a%2Fb", Invalid),
        ("new\nline", Invalid), ("%00", Invalid), ("%ED%A0%80", Invalid), ("n" * 256, Invalid),
    ],
)  # fmt: skip
def test_what_cannot_be_made(views: ViewsWorld, write: Writer, path: str, error: type[Exception]) -> None:
    views.collect("there", views.add("member"))
    views.collect("deep/one", urn=OLDER)
    views.asked()
    with pytest.raises(error):
        write.make(path)
    assert views.asked()["aspect.create"] == 0


def test_a_collection_can_be_called_otherwise(views: ViewsWorld, write: Writer, sdk: IVCAP) -> None:
    member = views.add("a", b"a")
    views.describe(COLLECTION, COLLECTION_SCHEMA, name="oldest")
    views.collect("old", member)
    write.rename("old", "new")
    assert views.ls("/collections") == ["new"]
    assert views.cat("/collections/new/a") == b"a"
    views.refresh()
    assert views.ls("/collections") == ["new"]
    assert sdk.get_collection(COLLECTION).name == "new"
    write.rename("new", "new")
    write.make("other")
    for source, target, error in (
        ("new", "other", AlreadyThere), ("gone", "x", NoSuchEntry), ("new/a", "x", NotAllowed),
        ("new", "other/x", NotAllowed), ("new", "x@12345678", Invalid),
    ):  # fmt: skip
        with pytest.raises(error):
            write.rename(source, target)


def test_what_has_anything_in_it_stays(views: ViewsWorld, write: Writer) -> None:
    views.collect("c", views.add("deep/a"), "urn:ivcap:job:1")
    views.collect("f/one", urn=OLDER)
    for path in ("c", "c/deep", "f"):
        with pytest.raises(NotEmpty):
            write.remove(path)
    with pytest.raises(NotAFolder):
        write.remove("c/deep/a")
    for path in ("gone", "c/gone", "f/gone", "c/deep/gone"):
        with pytest.raises(NoSuchEntry):
            write.remove(path)
    write.discard("c/deep/a")
    assert views.ls("/collections/c") == []
    with pytest.raises(NotEmpty, match="urn:ivcap:job:1"):
        write.remove("c")
    write.remove("f/one")
    assert views.ls("/collections") == ["c"], "an empty folder goes with what was in it"


def test_a_large_collection_is_not_read_to_see_that_it_is_not_empty(views: ViewsWorld, write: Writer) -> None:
    with views.platform.store.batch():
        views.collect("c", *(f"urn:ivcap:job:{number}" for number in range(200)))
    views.ls("/collections")
    views.asked()
    with pytest.raises(NotEmpty):
        write.remove("c")
    assert views.asked() == {"aspect.list": 1}


def test_a_folder_that_went_with_what_was_in_it_can_be_removed_once(views: ViewsWorld, write: Writer) -> None:
    views.collect("f/g/c", views.add("deep/er/a"), views.add("deep/b"))
    with pytest.raises(NotEmpty):
        write.remove("f/g/c/deep/er")
    for member, gone in (("deep/er/a", ["deep/er"]), ("deep/b", ["deep"])):
        write.discard("f/g/c/" + member)
        for folder in gone:
            write.remove("f/g/c/" + folder)
            with pytest.raises(NoSuchEntry):
                write.remove("f/g/c/" + folder)
    for folder in ("f/g/c", "f/g", "f"):
        write.remove(folder)
        with pytest.raises(NoSuchEntry):
            write.remove(folder)
    write.make("f")
    write.remove("f")
    assert views.ls("/collections") == []


def test_a_folder_that_went_by_a_move_can_be_removed(views: ViewsWorld, write: Writer) -> None:
    views.collect("f/c", views.add("deep/a"))
    write.make("to")
    write.move("f/c/deep/a", "to")
    write.remove("f/c/deep")
    write.rename("f/c", "c")
    write.remove("f")
    assert views.ls("/collections") == ["c", "to"]


def test_a_member_that_somebody_else_added_keeps_a_collection(views: ViewsWorld, write: Writer) -> None:
    views.collect("c")
    assert views.ls("/collections/c") == []
    views.member(views.add("new"))
    with pytest.raises(NotEmpty):
        write.remove("c")
    assert views.ls("/collections/c") == ["new"], "and is shown then"


def test_all_descriptions_are_retracted(views: ViewsWorld, write: Writer) -> None:
    for name in ("old", "new"):
        views.describe(COLLECTION, COLLECTION_SCHEMA, name=name)
    views.describe(COLLECTION, ARTIFACT_COLLECTION_SCHEMA, collection=COLLECTION, artifacts=[])
    views.describe("urn:ivcap:service:x", ARTIFACT_COLLECTION_SCHEMA, collection=COLLECTION)
    write.remove("new")
    assert views.ls("/collections") == []
    views.refresh()
    assert views.ls("/collections") == []


def test_the_older_form_is_emptied_and_filled(views: ViewsWorld, write: Writer) -> None:
    one, two, three = (views.add(name) for name in ("one", "two", "three"))
    views.describe("urn:ivcap:service:x", ARTIFACT_COLLECTION_SCHEMA, collection=OLDER, artifacts=[one, two], more=5)
    name = uuid_of(7)
    write.add(name, three)
    write.add(name, one)
    write.discard(f"{name}/one")
    assert views.ls(f"/collections/{name}") == ["three", "two"]
    (content,) = contents(views, ARTIFACT_COLLECTION_SCHEMA)
    assert (content["collection"], content["artifacts"], content["more"]) == (OLDER, [two], 5)
    write.discard(f"{name}/three")
    with pytest.raises(NotEmpty):
        write.remove(name)
    write.discard(f"{name}/two")
    assert views.ls("/collections") == [name], "an empty one is still there"
    write.rename(name, "called")
    assert views.ls("/collections") == ["called"]
    write.remove("called")
    views.refresh()
    assert views.ls("/collections") == []


def test_a_member_is_moved_to_another_collection(views: ViewsWorld, write: Writer, sdk: IVCAP) -> None:
    member = views.add("a")
    views.collect("from", member)
    write.make("to")
    write.move("from/a", "to/a")
    assert (views.ls("/collections/from"), views.ls("/collections/to")) == ([], ["a"])
    assert known_to(sdk) == {"from": [], "to": [member]}
    write.move("to/a", "to")
    write.move("to/a", "to/a")
    for source, target, error in (
        ("to/a", "to/b", NotAllowed), ("to/gone", "from", NoSuchEntry), ("to", "from", IsAFolder),
        ("to/a", "gone/a", NoSuchEntry), ("to/a", "from/b", NotAllowed),
    ):  # fmt: skip
        with pytest.raises(error):
            write.move(source, target)
    assert known_to(sdk) == {"from": [], "to": [member]}


def test_a_move_that_fails_half_way_leaves_the_member_in_both(
    views: ViewsWorld, write: Writer, sdk: IVCAP, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = views.add("a")
    views.collect("from", member)
    write.make("to")
    with monkeypatch.context() as patch:
        patch.setattr(views.connection.api, "retract_aspect", failing(ServerFault("down", status=500)))
        with pytest.raises(ServerFault):
            write.move("from/a", "to/a")
    assert known_to(sdk) == {"from": [member], "to": [member]}
    assert (views.ls("/collections/from"), views.ls("/collections/to")) == (["a"], ["a"])


def failing(exc: Exception) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise exc

    return fail


@pytest.mark.parametrize("path", ["c", "c/deep", "f"])
def test_only_members_are_taken_out(views: ViewsWorld, write: Writer, path: str) -> None:
    views.collect("c", views.add("deep/a"))
    views.collect("f/one", urn=OLDER)
    with pytest.raises(IsAFolder):
        write.discard(path)
    for gone in ("c/gone", "c/deep/gone", "gone"):
        with pytest.raises(NoSuchEntry):
            write.discard(gone)


def test_a_member_is_put_where_it_is_shown(views: ViewsWorld, write: Writer) -> None:
    older, newer = views.add("deep/a.csv", b"older"), views.add("deep/a.csv", b"newer")
    write.make("c")
    for path in ("a.csv", "deep", "deep/b.csv", "a@12345678.csv"):
        with pytest.raises(NotAllowed, match=r"deep/a\.csv"):
            write.add("c/" + path, newer)
    assert contents(views, COLLECTION_ITEM_SCHEMA) == []
    write.add("c/deep/a.csv", newer)
    aside = f"deep/a@{older[-36:][:8]}.csv"
    write.add("c/" + aside, older)
    assert views.cat("/collections/c/deep/a.csv") == b"newer"
    assert views.cat("/collections/c/" + aside) == b"older"


def test_members_go_into_collections_alone(views: ViewsWorld, write: Writer) -> None:
    member = views.add("a")
    views.collect("f/one", urn=OLDER)
    with pytest.raises(NotAllowed):
        write.add("f", member)
    with pytest.raises(NoSuchEntry):
        write.add("gone", member)
    assert contents(views, COLLECTION_ITEM_SCHEMA) == []


def test_an_artifact_that_was_not_there_when_it_was_looked_for_is_shown_once_it_is(
    views: ViewsWorld, write: Writer
) -> None:
    views.ls("/artifacts")
    later = views.add("later", b"content", status="pending")
    views.collect("c", later)
    assert views.ls("/collections/c") == []
    views.platform.store.artifacts.set_ready(later, 7, "etag")
    assert views.ls("/collections/c") == []
    write.add("c", later)
    assert views.ls("/collections/c") == ["later"]


@pytest.mark.parametrize("exc", [BadRequest("no", status=400), ServerFault("no", status=500), ConnectionBroken("no")])
def test_a_server_that_knows_no_paths_is_asked_for_all_members(
    views: ViewsWorld, write: Writer, monkeypatch: pytest.MonkeyPatch, exc: Exception
) -> None:
    api = views.connection.api
    listing = api.iter_aspects
    asked: list[object] = []

    def without_paths(**query: Any) -> Any:
        asked.append(query.get("content_path"))
        if query.get("content_path"):
            raise exc
        return listing(**query)

    one, two = views.add("one"), views.add("two")
    views.collect("c", one)
    monkeypatch.setattr(api, "iter_aspects", without_paths)
    for _ in range(2):
        write.add("c", one)
        write.add("c", two)
    write.discard("c/one")
    assert views.ls("/collections/c") == ["two"]
    assert len(contents(views, COLLECTION_ITEM_SCHEMA)) == 1
    assert sum(path is not None for path in asked) == 1, "it is not asked again and again"


def test_a_lost_answer_is_looked_for(views: ViewsWorld, write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    api = views.connection.api
    add = api.add_aspect

    def lose(*args: Any) -> str:
        add(*args)
        raise ConnectionBroken("the answer was lost")

    member = views.add("a")
    monkeypatch.setattr(api, "add_aspect", lose)
    write.make("c")
    write.add("c", member)
    assert views.ls("/collections/c") == ["a"]
    assert len(contents(views, COLLECTION_SCHEMA)) == len(contents(views, COLLECTION_ITEM_SCHEMA)) == 1


def test_what_cannot_be_read_back_is_asked_for(
    views: ViewsWorld, write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert views.ls("/collections") == []
    monkeypatch.setattr(views.connection.api, "read_aspect", failing(ServerFault("no", status=500)))
    write.make("c")
    assert views.ls("/collections") == ["c"]


def test_while_the_server_is_down_nothing_changes(views: ViewsWorld, write: Writer) -> None:
    views.collect("c", views.add("a"))
    other = views.add("b")
    assert views.ls("/collections/c") == ["a"]
    views.platform.stop()
    for attempt in (
        lambda: write.make("new"), lambda: write.add("c", other), lambda: write.discard("c/a"),
        lambda: write.remove("c"), lambda: write.rename("c", "d"),
    ):  # fmt: skip
        with pytest.raises(IvcapfsError):
            attempt()
    assert views.ls("/collections") == ["c"]
    assert views.ls("/collections/c") == ["a"]


def test_what_is_read_while_others_write_is_whole(views: ViewsWorld, write: Writer) -> None:
    members = {name: views.add(name) for name in ("n1", "n2", "n3")}
    views.collect("c", views.add("always"))
    views.ls("/artifacts")
    done = threading.Event()

    def read() -> int:
        rounds = 0
        while not done.is_set():
            assert "c" in views.entries("/collections")
            assert "always" in views.entries("/collections/c")
            assert views.fs.getattr("/collections/c/always").size == 0
            rounds += 1
        return rounds

    def change(name: str, urn: str) -> None:
        own = f"of {name}"
        for _ in range(4):
            write.add("c", urn)
            write.make(own)
            write.move(f"c/{name}", own)
            views.refresh()
            write.rename(own, own + "!")
            write.discard(f"{own}!/{name}")
            write.remove(own + "!")

    readers = [Background(read) for _ in range(2)]
    writers = [Background(change, name, urn) for name, urn in members.items()]
    try:
        for writer in writers:
            writer.result()
    finally:
        done.set()
    assert all(reader.result() for reader in readers)
    assert views.ls("/collections") == ["c"]
    assert views.ls("/collections/c") == ["always"]


def test_the_past_stays_as_it_was(views: ViewsWorld, write: Writer) -> None:
    views.collect("c", views.add("a"))
    moment = views.moment()
    assert views.ls(f"/at/{moment}/collections/c") == ["a"]
    write.discard("c/a")
    write.rename("c", "d")
    assert views.ls(f"/at/{moment}/collections") == ["c"]
    assert views.ls(f"/at/{moment}/collections/c") == ["a"]
    assert views.ls("/collections/d") == []
