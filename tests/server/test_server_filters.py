"""The filter language and the content-path language: parsed, refused, and right."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.server.fields import ARTIFACT_FIELDS
from ivcapfs.server.filters import FilterError, parse_filter, to_clause
from ivcapfs.server.jsonpath import PathError, parse_path
from ivcapfs.server.runner import Platform

Row = tuple[str, int]
ROWS: list[Row] = [("alpha", 1), ("beta", 20), ("it's", 300), ("a%b_c", 4), ("Ünï", 50), ("alphabet", 20)]


@pytest.fixture(scope="module")
def table() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA case_sensitive_like=ON")
    connection.execute("CREATE TABLE t (name TEXT, size INTEGER)")
    connection.executemany("INSERT INTO t VALUES (?, ?)", ROWS)
    yield connection
    connection.close()


def select(table: sqlite3.Connection, text: str) -> set[Row]:
    clause = to_clause(parse_filter(text, ARTIFACT_FIELDS))
    assert clause is not None
    return set(table.execute(f"SELECT name, size FROM t WHERE {clause.sql}", clause.params))


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def like(pattern: str, text: str) -> bool:
    parts = {"%": ".*", "_": "."}
    return re.fullmatch("".join(parts.get(c, re.escape(c)) for c in pattern), text, re.DOTALL) is not None


_NAMES = st.one_of(st.sampled_from([name for name, _ in ROWS]), st.text("alphbet'%_Ü", max_size=4))
_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "=": int.__eq__, "==": int.__eq__, "!=": int.__ne__, "<": int.__lt__, "<=": int.__le__,
    ">": int.__gt__, ">=": int.__ge__, "eq": int.__eq__, "GE": int.__ge__,
}  # fmt: skip


def _size(op: str, value: int) -> tuple[str, Callable[[Row], bool]]:
    return f"size {op} {value}", lambda row: _COMPARISONS[op](row[1], value)


def _name(value: str) -> tuple[str, Callable[[Row], bool]]:
    return f"name = {quoted(value)}", lambda row: row[0] == value


def _pattern(value: str) -> tuple[str, Callable[[Row], bool]]:
    return f"name~={quoted(value)}", lambda row: like(value, row[0])


def _joined(left: tuple, word: str, right: tuple) -> tuple[str, Callable[[Row], bool]]:
    join = all if word.lower() == "and" else any
    return f"({left[0]}) {word} ({right[0]})", lambda row: join((left[1](row), right[1](row)))


_EXPRESSIONS = st.recursive(
    st.one_of(
        st.builds(_size, st.sampled_from(list(_COMPARISONS)), st.integers(-5, 400)),
        st.builds(_name, _NAMES),
        st.builds(_pattern, _NAMES),
    ),
    lambda inner: st.builds(_joined, inner, st.sampled_from(["and", "or", "AND", "Or"]), inner),
    max_leaves=6,
)


@given(_EXPRESSIONS)
def test_a_filter_means_what_it_says(table: sqlite3.Connection, expression: tuple[str, Callable[[Row], bool]]) -> None:
    text, predicate = expression
    assert select(table, text) == {row for row in ROWS if predicate(row)}


@given(st.text("ab'%=()<>! \\~andorsize name1.-_", max_size=25))
def test_any_text_is_a_filter_or_is_refused_with_a_position(table: sqlite3.Connection, text: str) -> None:
    try:
        clause = to_clause(parse_filter(text, ARTIFACT_FIELDS))
    except FilterError as exc:
        assert 1 <= exc.position <= len(text) + 1
        assert str(exc.position) in str(exc)
        return
    if clause is None:
        assert not text.strip()
    else:
        table.execute(f"SELECT 1 FROM (SELECT *, '' AS id FROM t) WHERE {clause.sql}", clause.params)


def test_and_binds_more_tightly_than_or(table: sqlite3.Connection) -> None:
    assert select(table, "size = 1 or size = 20 and name = 'beta'") == {("alpha", 1), ("beta", 20)}


def test_a_backslash_escapes_in_a_pattern(table: sqlite3.Connection) -> None:
    assert select(table, r"name ~= 'a\%b\_c'") == {("a%b_c", 4)}
    assert select(table, "name ~= 'ALPHA%'") == set()


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("nme = 'x'", 1),
        ("name 'x'", 6),
        ("name = 'x", 8),
        ("name = 5", 8),
        ("size = 'x'", 8),
        ("size ~= '1'", 6),
        ("(name = 'x'", 12),
        ("name = 'x' name = 'y'", 12),
        ("created-at > 'yesterday'", 14),
        ("name = 'x' and", 15),
        ("size > 99999999999999999999", 8),
        ("(" * 60 + "size=1" + ")" * 60, 41),
        (" or ".join(["size=1"] * 500), 4001),
        ("name = ;", 8),
    ],
)
def test_a_refusal_names_the_position(http: httpx.Client, text: str, position: int) -> None:
    reply = http.get("/1/artifacts", params={"filter": text})
    assert reply.status_code == 400
    assert f"position {position}:" in reply.json()["message"]


def test_filters_over_http(http: httpx.Client, platform: Platform) -> None:
    one = platform.store.add_artifact(name="it's; DROP TABLE artifacts", content=b"12345", mime_type="a/b")
    two = platform.store.add_artifact(name="two", content=b"1", status="pending", mime_type="c/d")
    created = http.get(f"/1/artifacts/{one}").json()["created-at"]
    for text, wanted in {
        "name = 'it''s; DROP TABLE artifacts'": [one],
        "status != 'ready'": [two],
        "mime-type = 'a/b' and size >= 5": [one],
        f"created-at > '{created}'": [two],
        f"last-modified-at <= '{created}'": [one],
        f"id = '{two}' or id ~= '{one[:30]}%'": [two, one],
    }.items():
        items = http.get("/1/artifacts", params={"filter": text}).json()["items"]
        assert [item["id"] for item in items] == wanted, text


DOCUMENT = {
    "item": "urn:x:1", "name": "Ocean Survey", "n": 5, "none": None, "yes": True,
    "images": [{"size": 10, "tag": "a"}, {"size": 20000}], "odd key": {"deep": [1, 2]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ('$.item ? (@ == "urn:x:1")', True),
        ('$.item?(@=="urn:x:2")', False),
        ('$.name ? (@ starts with "Oce")', True),
        ('$.name ? (@ like_regex "^ocean" flag "i")', True),
        ('$.name ? (@ like_regex "^ocean")', False),
        ('$.name ? (@ like_regex "a.*" flag "q")', False),
        ("$.images[*] ? (@.size > 10000)", True),
        ("$.images ? (@.size > 20000)", False),
        ('$.images[0] ? (@.tag == "a" && @.size < 11)', True),
        ('$ ? (@.n == 5 || @.n == "5")', True),
        ("$ ? (!(@.n == 5))", False),
        ("$ ? (@.none == null)", True),
        ("$ ? (@.yes == true && @.n != 6)", True),
        ("$ ? (@.yes == 1)", False),
        ("$ ? (exists(@.missing))", False),
        ("$.missing", False),
        ('$."odd key".deep[1] ? (@ <= 2)', True),
        ('$.n ? (@ starts with "5")', False),
        ('$ ? (!(@.n starts with "5"))', False),  # unknown stays unknown
        ("$.images[7]", False),
    ],
)
def test_content_paths(path: str, wanted: bool) -> None:
    assert parse_path(path).matches(DOCUMENT) is wanted


@given(st.text('$@.a"[]*?()=!<>&| 1starwihlke_gx', max_size=25))
def test_any_text_is_a_path_or_is_refused_with_a_position(text: str) -> None:
    try:
        path = parse_path(text)
    except PathError as exc:
        assert 1 <= exc.position <= len(text) + 1
        return
    assert path.matches(DOCUMENT) in (True, False)


def test_a_refused_content_path(http: httpx.Client) -> None:
    reply = http.get("/1/aspects", params={"content-path": "$.item ? (@ is 5)"})
    assert reply.status_code == 400
    assert "position 13:" in reply.json()["message"]
