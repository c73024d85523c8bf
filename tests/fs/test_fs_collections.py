"""`collections/`: every collection under a name of its own, its members as files, and few requests for that."""

from __future__ import annotations

import errno
import os

import pytest

from ivcapfs.models import ARTIFACT_COLLECTION_SCHEMA, COLLECTION_ITEM_SCHEMA, COLLECTION_SCHEMA
from tests.fakes import uuid_of
from tests.fs.views_world import COLLECTION, ViewsWorld


def fails(code: int, call: object, *args: object) -> None:
    with pytest.raises(OSError) as caught:
        call(*args)  # type: ignore[operator]
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[code]


def collection_urn(number: int, head: str | None = None) -> str:
    return "urn:ivcap:collection:" + uuid_of(number, head)


def test_a_collection_shows_its_members_under_their_names(views: ViewsWorld) -> None:
    old, new, other = views.add("survey/a.csv", b"old"), views.add("survey/a.csv", b"new"), views.add("b.csv", b"b")
    views.add("not a member.csv")
    views.collect("My things", old, new, other)
    assert views.ls("/collections") == ["My things"]
    assert views.ls("/collections/My things") == ["b.csv", "survey"]
    aside = f"a@{old.rpartition(':')[2][:8]}.csv"
    assert views.ls("/collections/My things/survey") == sorted(["a.csv", aside])
    assert views.cat("/collections/My things/survey/a.csv") == b"new"
    assert views.cat(f"/collections/My things/survey/{aside}") == b"old"
    assert (
        views.fs.getattr("/collections/My things/b.csv").inode
        == views.fs.getattr("/artifacts/b.csv").inode
        == views.fs.getattr(f"/by-id/{other}/b.csv").inode
    )


def test_a_member_has_the_attributes_of_its_artifact(views: ViewsWorld) -> None:
    urn = views.add("a.csv")
    views.describe(urn, "urn:x:note", text="hello")
    views.collect("c", urn)
    views.entries("/artifacts")
    assert views.attributes("/collections/c/a.csv") == views.attributes("/artifacts/a.csv")


def test_an_only_member_has_a_plain_name_even_if_it_is_an_old_one(views: ViewsWorld) -> None:
    old = views.add("a.csv", b"old")
    views.add("a.csv", b"newer")
    views.collect("c", old)
    assert views.ls("/collections/c") == ["a.csv"]
    assert views.cat("/collections/c/a.csv") == b"old"


def test_the_older_form_is_read_alone_and_beside_the_newer(views: ViewsWorld) -> None:
    one, two, three = (views.add(name) for name in ("one", "two", "three"))
    older, bare = collection_urn(7), "urn:somebody:list"
    views.describe(older, ARTIFACT_COLLECTION_SCHEMA, collection=older, artifacts=[one, two])
    views.describe("urn:ivcap:service:x", ARTIFACT_COLLECTION_SCHEMA, collection=bare, artifacts=[three, 5, None])
    assert views.ls("/collections") == sorted([uuid_of(7), bare])
    assert views.ls(f"/collections/{uuid_of(7)}") == ["one", "two"]
    assert views.ls(f"/collections/{bare}") == ["three"]
    views.describe(older, COLLECTION_SCHEMA, name="both")
    views.member(three, older)
    views.refresh()
    assert views.ls("/collections") == ["both", bare]
    assert views.ls("/collections/both") == ["one", "three", "two"]


def test_names_are_made_safe_and_unique_by_the_rules_of_artifacts(views: ViewsWorld) -> None:
    member = views.add("x")
    names = ["same", "same", "..", "new\nline", "a", "a/b", "looks@1a2b3c4d", "", None, "n" * 300, "%2F"]
    for number, name in enumerate(names):
        views.collect(name, member, urn=collection_urn(number, "deadbeef" if name == "same" else f"{number:08x}"))
    views.entries("/artifacts")
    views.asked()
    listed = views.ls("/collections")
    assert listed == sorted([
        "same", f"same@{uuid_of(0, 'deadbeef')}", "%2E%2E", "new%0Aline", "a", "a@00000004", "looks%401a2b3c4d",
        uuid_of(7), uuid_of(8), "n" * 246 + "@00000009", "%252F",
    ])  # fmt: skip
    folders = [f"/collections/{name}" for name in listed if name != "a"] + ["/collections/a/b"]
    assert [views.ls(folder) for folder in folders] == [["x"]] * len(names)
    assert views.ls("/collections/a") == ["b"]
    assert views.ls("/collections/a/b") == ["x"]
    assert views.cat("/collections/same@deadbeef-0000-4000-8000-000000000001/x") == b"", "the @id form opens"
    inodes = {views.fs.getattr(folder).inode for folder in folders}
    assert len(inodes) == len(folders)
    assert views.asked() == {"aspect.list": 1 + len(names)}, "one for the list, one for each"


def test_the_newest_description_counts_and_a_retracted_collection_is_gone(views: ViewsWorld) -> None:
    views.collect("before", views.add("x"))
    described = views.describe(COLLECTION, COLLECTION_SCHEMA, name="after")
    assert views.ls("/collections") == ["after"]
    views.retract(described)
    assert views.ls("/collections") == ["after"], "within the refresh time"
    views.refresh()
    assert views.ls("/collections") == ["before"]


def test_members_that_come_and_go_follow_within_the_refresh_time(views: ViewsWorld) -> None:
    one, two = views.add("one"), views.add("two")
    (membership,) = views.collect("c", one)
    assert views.ls("/collections/c") == ["one"]
    views.member(two)
    views.retract(membership)
    assert views.ls("/collections/c") == ["one"]
    views.refresh()
    assert views.ls("/collections/c") == ["two"]
    fails(errno.ENOENT, views.fs.getattr, "/collections/c/one")


def test_a_member_that_no_list_has_shown_yet_is_there(views: ViewsWorld) -> None:
    assert views.ls("/artifacts") == []
    views.collect("c", views.add("new", b"new"))
    views.asked()
    assert views.ls("/collections/c") == ["new"]
    assert views.asked() == {"aspect.list": 2, "artifact.read": 1}
    assert views.cat("/collections/c/new") == b"new"


def test_what_cannot_be_shown_is_counted_but_left_out(views: ViewsWorld) -> None:
    members = [views.add("ok"), "urn:ivcap:artifact:" + uuid_of(99), "urn:ivcap:collection:" + uuid_of(98), "nonsense"]
    views.collect("c", *members, views.add("later", status="pending"))
    views.describe(COLLECTION, COLLECTION_ITEM_SCHEMA, collection=COLLECTION, item={"not": "a text"})
    assert views.ls("/collections/c") == ["ok"]
    assert views.attributes("/collections/c")["user.ivcap.members"] == "5"
    views.asked()
    views.refresh()
    assert views.ls("/collections/c") == ["ok"]
    assert views.asked()["artifact.read"] == 0, "what is not there is not asked for again and again"


def test_the_folder_has_the_collections_own_attributes(views: ViewsWorld) -> None:
    views.describe(COLLECTION, COLLECTION_SCHEMA, name="My things", description="all of them")
    views.describe(COLLECTION, "urn:x:note:1", text="hello")
    views.member(views.add("a"))
    assert set(views.fs.listxattr("/collections/My things", 255)) == {
        "user.ivcap.id", "user.ivcap.name", "user.ivcap.description", "user.ivcap.valid-from",
    }  # fmt: skip
    views.asked()
    assert views.fs.getxattr("/collections/My things", "user.ivcap.id") == COLLECTION.encode()
    assert views.asked() == {}, "what the list told needs no question"
    told = views.attributes("/collections/My things")
    assert told.pop("user.ivcap.valid-from").endswith("Z")
    assert told == {
        "user.ivcap.id": COLLECTION,
        "user.ivcap.name": "My things",
        "user.ivcap.description": "all of them",
        "user.ivcap.members": "1",
        f"user.ivcap.aspect.{COLLECTION_SCHEMA}": '{"name": "My things", "description": "all of them"}',
        "user.ivcap.aspect.urn:x:note:1": '{"text": "hello"}',
    }
    fails(errno.ENODATA, views.fs.getxattr, "/collections/My things", "user.ivcap.size")
    assert views.fs.listxattr("/collections", 0) == []


def test_many_members_and_collections_come_over_all_pages_for_one_request_a_page(views: ViewsWorld) -> None:
    with views.platform.store.batch():
        members = [views.add(f"n{number:03}") for number in range(120)]
        views.collect("big", *members)
        for number in range(60):
            views.collect(f"c{number:02}", urn=collection_urn(number))
    views.entries("/artifacts")
    views.asked()
    assert len(views.ls("/collections")) == 61
    assert views.asked() == {"aspect.list": 2}
    assert len(views.ls("/collections/big")) == 120
    assert views.asked() == {"aspect.list": 3}
    assert len(views.ls("/collections/big")) == 120
    assert len(views.ls("/collections")) == 61
    views.cat("/collections/big/n001")
    assert views.asked() == {}


def test_a_page_of_members_that_cannot_be_had_fails_the_listing(views: ViewsWorld) -> None:
    views.collect("c", *(views.add(f"n{number:03}") for number in range(60)))
    views.entries("/artifacts")
    assert views.ls("/collections") == ["c"]
    views.platform.stop()
    fails(errno.EIO, views.ls, "/collections/c")
    views.platform.start()
    views.clock.advance(6)
    assert len(views.ls("/collections/c")) == 60


def test_the_last_known_state_is_shown_while_the_server_is_down(views: ViewsWorld) -> None:
    views.collect("c", views.add("a"))
    views.collect("never looked at", views.add("b"), urn=collection_urn(1))
    assert views.ls("/collections/c") == ["a"]
    views.platform.stop()
    views.refresh()
    assert views.ls("/collections") == ["c", "never looked at"]
    assert views.ls("/collections/c") == ["a"]
    fails(errno.EIO, views.ls, "/collections/never looked at")
    fails(errno.EIO, views.fs.getattr, "/collections/never heard of")
    views.platform.start()
    views.clock.advance(6)
    assert views.ls("/collections/never looked at") == ["b"]


def test_a_new_collection_is_found_by_its_name_at_once_and_probes_ask_little(views: ViewsWorld) -> None:
    assert views.ls("/collections") == []
    views.collect("new", views.add("a"))
    views.clock.advance(3)
    assert views.ls("/collections/new") == ["a"]
    views.asked()
    for name in (".git", ".hidden", ".Trash-1000", ".git/HEAD"):
        fails(errno.ENOENT, views.fs.getattr, f"/collections/{name}")
    assert views.asked() == {}
    for name in ("HEAD", "desktop.ini", "autorun.inf", "HEAD", "Thumbs.db"):
        fails(errno.ENOENT, views.fs.getattr, f"/collections/{name}")
        fails(errno.ENOENT, views.fs.getattr, f"/collections/new/{name}")
    assert views.asked()["aspect.list"] <= 1


def test_an_empty_deployment_has_an_empty_folder_and_files_are_no_folders(views: ViewsWorld) -> None:
    assert views.ls("/collections") == []
    views.collect("c", views.add("a"))
    views.clock.advance(3)
    fails(errno.ENOENT, views.fs.getattr, "/collections/c/a/b")
    fails(errno.ENOTDIR, views.fs.opendir, "/collections/c/a")
    fails(errno.EISDIR, views.fs.open, "/collections/c", os.O_RDONLY)
    fails(errno.EROFS, views.fs.open, "/collections/c/a", os.O_RDWR)
