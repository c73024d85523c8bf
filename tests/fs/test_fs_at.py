"""`at/<time>/`: exactly what was there: artifacts, their names, aspects and collections as they were."""

from __future__ import annotations

import errno
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from ivcapfs.fs.views import Views
from tests.fakes import artifact, uuid_of
from tests.fs.test_fs_collections import collection_urn, fails
from tests.fs.views_world import COLLECTION, ViewsWorld


def test_a_time_shows_exactly_what_was_there(views: ViewsWorld) -> None:
    old = views.add("survey/a.csv", b"old")
    note = views.describe(old, "urn:x:note", text="first")
    (membership,) = views.collect("c", old)
    then = f"/at/{views.moment()}"
    new = views.add("survey/a.csv", b"newer")
    views.add("other/b.csv")
    views.retract(note)
    views.describe(old, "urn:x:later", text="second")
    views.member(new)
    views.retract(membership)
    views.collect("another", new, urn=collection_urn(1))

    assert views.ls(then) == ["artifacts", "by-id", "collections"]
    assert views.ls(f"{then}/artifacts") == ["survey"]
    assert views.ls(f"{then}/artifacts/survey") == ["a.csv"]
    assert views.cat(f"{then}/artifacts/survey/a.csv") == b"old"
    assert views.cat("/artifacts/survey/a.csv") == b"newer"
    told = views.attributes(f"{then}/artifacts/survey/a.csv")
    assert told["user.ivcap.aspect.urn:x:note"] == '{"text": "first"}'
    assert "user.ivcap.aspect.urn:x:later" not in told
    old_uuid, new_uuid = (urn.rpartition(":")[2] for urn in (old, new))
    assert views.ls(f"{then}/by-id") == [old_uuid]
    assert views.ls(f"{then}/by-id/{old}/aspects") == ["urn:x:note.json"]
    assert views.attributes(f"{then}/by-id/{old}") == told
    fails(errno.ENOENT, views.fs.getattr, f"{then}/by-id/{new_uuid}")
    assert views.ls(f"{then}/collections") == ["c"]
    assert views.ls(f"{then}/collections/c/survey") == ["a.csv"]
    assert views.cat(f"{then}/collections/c/survey/a.csv") == b"old"

    now = f"/at/{views.moment()}"
    assert views.ls(f"{now}/artifacts") == ["other", "survey"]
    assert views.ls(f"{now}/by-id/{old}/aspects") == views.ls(f"/by-id/{old}/aspects") == ["urn:x:later.json"]
    assert views.ls(f"{now}/collections") == ["another", "c"]
    assert views.cat(f"{now}/collections/c/survey/a.csv") == b"newer"
    assert len(views.ls(f"{now}/artifacts/survey")) == 2


def test_files_keep_their_inode_numbers_and_folders_have_their_own(views: ViewsWorld) -> None:
    urn = views.add("d/a")
    views.collect("c", urn)
    views.entries("/artifacts")
    then = f"/at/{views.moment()}"
    files = ["/artifacts/d/a", f"/by-id/{urn}/a", "/collections/c/d/a"]
    assert len({views.fs.getattr(base + path).inode for base in ("", then) for path in files}) == 1
    folders = ["/artifacts", "/artifacts/d", "/by-id", f"/by-id/{urn}", "/collections", "/collections/c"]
    inodes = {views.fs.getattr(base + path).inode for base in ("", then) for path in folders}
    assert len(inodes) == 2 * len(folders)


def test_before_anything_all_is_empty(views: ViewsWorld) -> None:
    views.collect("c", views.add("a"))
    for time in ("1970-01-01", "1815-12-10T12:00:00Z", "0001-01-01"):
        assert views.ls(f"/at/{time}") == ["artifacts", "by-id", "collections"]
        for view in views.ls(f"/at/{time}"):
            assert views.ls(f"/at/{time}/{view}") == []


def test_all_ways_to_write_a_moment_share_what_is_known(views: ViewsWorld) -> None:
    views.collect("c", views.add("a", created_at=datetime(2026, 5, 1, tzinfo=UTC)))
    views.entries("/artifacts")
    moment = views.moment_at()
    plain = moment.isoformat().replace("+00:00", "Z")
    elsewhere = (moment + timedelta(hours=10)).isoformat()[:-6] + "+10:00"
    spellings = [plain, plain.lower(), quote(plain, safe=""), elsewhere]
    views.asked()
    assert {tuple(views.ls(f"/at/{text}/collections/c")) for text in spellings} == {("a",)}
    assert len({views.fs.getattr(f"/at/{text}/collections").inode for text in spellings}) == 1
    assert views.asked() == {"aspect.list": 2}


def test_a_date_is_its_beginning(views: ViewsWorld) -> None:
    views.add("before", created_at=datetime(2026, 5, 31, 23, 59, 59, tzinfo=UTC))
    views.add("midnight", created_at=datetime(2026, 6, 1, tzinfo=UTC))
    views.add("after", created_at=datetime(2026, 6, 1, 0, 0, 0, 1, tzinfo=UTC))
    assert views.ls("/at/2026-06-01/artifacts") == ["before", "midnight"]
    assert views.ls("/at/2026-05-31/artifacts") == []
    assert views.fs.getattr("/at/2026-06-01").time_ns == int(datetime(2026, 6, 1, tzinfo=UTC).timestamp()) * 10**9


def test_nonsense_and_the_future_do_not_exist_and_ask_nothing(views: ViewsWorld) -> None:
    assert views.ls("/at") == []
    views.entries("/artifacts")
    views.asked()
    for name in ("nonsense", ".git", "HEAD", "desktop.ini", "2026", "2026-02-30", "9999-12-31", "2026-06-01T25:00:00Z"):
        fails(errno.ENOENT, views.fs.getattr, f"/at/{name}")
        fails(errno.ENOENT, views.fs.getattr, f"/at/{name}/artifacts")
        fails(errno.ENOENT, views.fs.opendir, f"/at/{name}")
    for name in ("search", ".git", "HEAD", "at"):
        fails(errno.ENOENT, views.fs.getattr, f"/at/2026-06-01/{name}")
    for name in ("x", ".git", "d/x"):
        fails(errno.ENOENT, views.fs.getattr, f"/at/2026-06-01/artifacts/{name}")
    assert views.asked() == {}


def test_the_present_reaches_as_far_as_the_newest_artifact(views: ViewsWorld) -> None:
    """The server's clock may be ahead of ours."""
    ahead = datetime.now(UTC) + timedelta(minutes=2)
    fails(errno.ENOENT, views.fs.getattr, f"/at/{ahead.isoformat()}")
    views.store.write(lambda write: write.put([replace(artifact("a"), created_at=ahead)]))
    assert views.fs.getattr(f"/at/{ahead.isoformat()}").time_ns == int(ahead.timestamp() * 10**6) * 1000


def test_what_was_uploaded_a_moment_ago_is_there_before_any_list_has_shown_it(views: ViewsWorld) -> None:
    assert views.ls("/artifacts") == []
    urn = views.add("new", b"new")
    now = views.moment()
    views.asked()
    assert views.cat(f"/at/{now}/artifacts/new") == b"new"
    assert views.asked()["artifact.list"] == 1
    assert views.cat(f"/at/{now}/by-id/{urn}/new") == b"new"
    fails(errno.ENOENT, views.fs.getattr, f"/at/{now}/artifacts/.git")


def test_an_old_time_costs_nothing_but_what_it_asks(views: ViewsWorld) -> None:
    for number in range(10):
        views.add(f"n{number}", created_at=datetime(2026, 5, 1 + number, tzinfo=UTC))
    views.entries("/artifacts")
    views.asked()
    assert len(views.ls("/at/2026-05-05/artifacts")) == 5
    assert len(views.ls("/at/2026-05-09/by-id")) == 9
    assert views.asked() == {}
    views.attributes("/at/2026-05-05/artifacts/n0")
    assert views.asked() == {"artifact.read": 1, "aspect.list": 1}
    views.attributes("/at/2026-05-05/artifacts/n0")
    assert views.asked() == {}


def test_the_past_is_there_while_the_server_is_down(views: ViewsWorld) -> None:
    urn = views.add("a", b"data")
    views.describe(urn, "urn:x:note", text="hello")
    views.collect("c", urn)
    then = f"/at/{views.moment()}"
    views.ls(f"{then}/artifacts")
    views.ls(f"{then}/collections/c")
    views.ls(f"{then}/by-id/{urn}/aspects")
    views.platform.stop()
    views.refresh()
    assert views.ls(f"{then}/artifacts") == ["a"]
    assert views.ls(f"{then}/collections/c") == ["a"]
    assert views.ls(f"{then}/by-id/{urn}/aspects") == ["urn:x:note.json"]
    assert views.ls("/at/2026-01-01/artifacts") == []
    fails(errno.EIO, views.ls, "/at/2026-01-01/collections")
    fails(errno.EIO, views.fs.getattr, f"{then}/artifacts/unknown")


def test_a_collection_is_named_as_it_was(views: ViewsWorld) -> None:
    urn = views.add("a")
    described = views.describe(COLLECTION, "urn:ivcap:schema:collection.1", name="before")
    views.member(urn)
    then = views.moment()
    views.retract(described)
    between = views.moment()
    views.describe(COLLECTION, "urn:ivcap:schema:collection.1", name="after")
    assert views.ls(f"/at/{then}/collections") == ["before"]
    assert views.ls(f"/at/{between}/collections") == []
    assert views.ls("/collections") == ["after"]
    assert views.attributes(f"/at/{then}/collections/before")["user.ivcap.name"] == "before"


def test_a_member_that_was_named_before_it_was_made_is_not_there_before(views: ViewsWorld) -> None:
    uuid = uuid_of(77)
    views.collect("c", "urn:ivcap:artifact:" + uuid)
    then = views.moment()
    views.add("a", artifact_id=uuid)
    assert views.ls(f"/at/{then}/collections/c") == []
    assert views.ls("/collections/c") == ["a"]


def test_closing_twice_is_closing_once(views: ViewsWorld) -> None:
    assert isinstance(views.views, Views)
    views.views.close()
    views.views.close()
