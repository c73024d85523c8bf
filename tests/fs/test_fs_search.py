"""`search/`: what the server finds, all of it; what it does not understand is an error, and probes cost nothing."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.catalog import search
from ivcapfs.catalog.search import unescaped
from ivcapfs.server.synthetic import Synthetic
from tests.fakes import uuid_of
from tests.fs.test_fs_collections import fails
from tests.fs.views_world import ViewsWorld


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewsWorld]:
    """A platform with thousands of artifacts by formula."""
    world = ViewsWorld(tmp_path_factory.mktemp("many"), Synthetic(3000, 10))
    try:
        yield world
    finally:
        world.close()


def test_a_filter_lists_exactly_the_matches(many: ViewsWorld) -> None:
    many.asked()
    assert many.ls("/search/name~='artifact-00001%'") == [f"artifact-00001{number:02}.bin" for number in range(100)]
    assert many.asked() == {"artifact.list": 2}, "a request for every fifty"
    assert many.ls("/search/name~='artifact-00001%'")[0] == "artifact-0000100.bin"
    assert many.fs.getattr("/search/name~='artifact-00001%'/artifact-0000100.bin").size == 10
    assert many.asked() == {}


def test_a_schema_lists_exactly_those_that_carry_such_an_aspect(many: ViewsWorld) -> None:
    many.entries("/artifacts")
    many.asked()
    found = many.ls("/search/aspect:urn:x:%")
    assert len(found) == 3000 // 8
    aspects = list(many.connection.api.iter_aspects(schema="urn:x:%", include_content=False))
    inodes = {many.fs.getattr(f"/by-id/{aspect.entity}/content").inode for aspect in aspects}
    assert len(inodes) == len(found)
    for name in found[:3]:
        assert "user.ivcap.aspect.urn:x:synthetic:1" in many.attributes(f"/search/aspect:urn:x:%/{name}")
    many.refresh()
    many.asked()
    many.entries("/search/aspect:urn:x:%")
    assert many.asked() == {"aspect.list": 8, "artifact.list": 1}, "a request for every fifty, and what is new"


def test_names_and_folders_are_those_of_the_set_alone(views: ViewsWorld) -> None:
    views.add("survey/a.csv", b"old")
    views.add("survey/a.csv", b"new")
    views.add("survey/b.txt", b"b")
    views.add("survey", b"not found")
    assert views.ls("/search/name ~= '%.csv'") == ["survey"]
    assert len(views.ls("/search/name ~= '%.csv'/survey")) == 2
    assert views.cat("/search/name ~= '%.csv'/survey/a.csv") == b"new"
    assert (
        views.fs.getattr("/search/name ~= '%.csv'/survey/a.csv").inode
        == views.fs.getattr("/artifacts/survey/a.csv").inode
    )
    assert views.ls("/search/size = 3 and name ~= 'survey%2F%'") == ["survey"]
    assert views.ls("/search/name = 'nothing'") == []
    assert views.attributes("/search/name ~= '%.csv'/survey/a.csv")["user.ivcap.name"] == "survey/a.csv"


def test_an_aspect_search_finds_artifacts_alone_each_once(views: ViewsWorld) -> None:
    one, two = views.add("one"), views.add("two")
    for urn in (one, one, "urn:ivcap:collection:" + uuid_of(5), "urn:ivcap:artifact:" + uuid_of(6)):
        views.describe(urn, "urn:x:note:1", text="hello")
    views.describe(two, "urn:y:note:1", text="hello")
    assert views.ls("/search/aspect:urn:x:note:1") == ["one"]
    assert views.ls("/search/aspect:%:note:%") == ["one", "two"]
    assert views.ls("/search/aspect:urn:z") == []


def test_what_is_new_follows_within_the_refresh_time(views: ViewsWorld) -> None:
    first = views.add("a1")
    note = views.describe(first, "urn:x:note", text="hello")
    assert views.ls("/search/name~='a%'") == views.ls("/search/aspect:urn:x:note") == ["a1"]
    views.describe(views.add("a2"), "urn:x:note", text="hello")
    views.retract(note)
    views.refresh()
    assert views.ls("/search/name~='a%'") == ["a1", "a2"]
    assert views.ls("/search/aspect:urn:x:note") == ["a2"]


def test_a_filter_that_is_refused_is_invalid_and_the_log_has_the_servers_words(
    views: ViewsWorld, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            fails(errno.EINVAL, views.fs.getattr, "/search/nonsense ~~ 5")
    assert "EINVAL" in caplog.text and "Cannot understand the filter at position 10" in caplog.text
    assert views.asked() == {"artifact.list": 1}, "a refusal is remembered"
    views.clock.advance(31)
    fails(errno.EINVAL, views.fs.getattr, "/search/nonsense ~~ 5")
    assert views.asked() == {"artifact.list": 1}, "but not for ever"


def test_probes_of_programs_ask_nothing(views: ViewsWorld) -> None:
    names = [".git", ".hidden", "HEAD", "desktop.ini", "objects", "refs", "Thumbs.db", "aspect:", ".a = 'b'", "x" * 900]
    for name in names:
        fails(errno.ENOENT, views.fs.getattr, f"/search/{name}")
        fails(errno.ENOENT, views.fs.opendir, f"/search/{name}")
    views.add("a")
    views.ls("/search/name = 'a'")
    views.asked()
    for name in (".git", "HEAD", "a/b"):
        fails(errno.ENOENT, views.fs.getattr, f"/search/name = 'a'/{name}")
    assert views.asked() == {}
    assert views.ls("/search") == []


def test_the_last_answer_is_shown_while_the_server_is_down_and_never_an_empty_one(views: ViewsWorld) -> None:
    views.add("a")
    assert views.ls("/search/name = 'a'") == ["a"]
    views.platform.stop()
    views.refresh()
    assert views.ls("/search/name = 'a'") == ["a"]
    fails(errno.EIO, views.ls, "/search/name = 'b'")
    fails(errno.EIO, views.ls, "/search/aspect:urn:x")
    views.platform.start()
    views.clock.advance(6)
    assert views.ls("/search/name = 'b'") == []


def test_a_search_that_finds_too_much_is_an_error_and_not_a_part(
    views: ViewsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MOST_FOUND", 3)
    for number in range(4):
        views.add(f"n{number}")
    assert len(views.ls("/search/name ~= 'n%' and name != 'n0'")) == 3
    fails(errno.EFBIG, views.entries, "/search/name ~= 'n%'")
    fails(errno.EFBIG, views.fs.getattr, "/search/name ~= 'n%'/n0")


def test_a_search_of_aspects_waits_for_the_first_synchronization_if_it_finds_many(many_new: ViewsWorld) -> None:
    assert many_new.store.meta().get("complete") is None
    assert len(many_new.ls("/search/aspect:urn:x:synthetic:1")) == 125
    assert many_new.store.meta()["complete"]
    assert many_new.asked()["artifact.read"] == 0


@pytest.fixture
def many_new(tmp_path: Path) -> Iterator[ViewsWorld]:
    world = ViewsWorld(tmp_path, Synthetic(1000, 10))
    try:
        yield world
    finally:
        world.close()


@given(st.lists(st.sampled_from(["/", "%", "2", "5", "F", "f", "2F", "25", "%2", "'", "a"]), max_size=12).map("".join))
def test_every_expression_can_be_written_as_the_name_of_a_folder(expression: str) -> None:
    component = re.sub(r"%((?:25)*2F)", r"%25\1", expression, flags=re.IGNORECASE).replace("/", "%2F")
    assert "/" not in component
    assert unescaped(component).upper() == expression.upper()


def test_no_other_escape_is_touched() -> None:
    assert unescaped("name ~= '%20%25%41%'") == "name ~= '%20%25%41%'"
    assert unescaped("a%2Fb%2fc%252Fd%25252Fe") == "a/b/c%2Fd%252Fe"
