"""Artifacts and aspects by formula: their uuids and contents, and lists as if each stood in a table."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ivcapfs.server import scatter, synthetic
from ivcapfs.server.clock import to_datetime, to_rfc3339
from ivcapfs.server.filters import FilterError
from ivcapfs.server.formula import Column, FormulaSource
from ivcapfs.server.mixed import MixedArtifacts
from ivcapfs.server.paging import ListQuery, parse_cursor
from ivcapfs.server.spans import intersection, like_prefix, union
from ivcapfs.server.store import Store
from ivcapfs.server.synthetic import Synthetic, artifact_id, aspect_id, created_at

COUNT = 300
SIZE = 200_000
FORMULA = Synthetic(COUNT, SIZE)
URN = "urn:ivcap:artifact:"

numbers = st.integers(0, scatter.LIMIT - 1)


# --- numbers and their uuids


@given(numbers)
def test_a_uuid_tells_its_number(number: int) -> None:
    text = scatter.uuid_of(number, 5)
    assert str(uuid.UUID(text)) == text
    assert (uuid.UUID(text).version, uuid.UUID(text).variant) == (8, uuid.RFC_4122)
    assert scatter.number_of(text) == number


def test_any_text_is_looked_up() -> None:
    source = FormulaSource(FORMULA.artifacts())
    for number in range(COUNT):
        assert source.find(artifact_id(number)) == number
    almost = artifact_id(7)[:-1] + ("0" if artifact_id(7)[-1] != "0" else "1")
    others = [almost, artifact_id(COUNT), aspect_id(0), artifact_id(3).upper(), f"{URN}{uuid.uuid4()}", "", URN]
    others += ["ü" * 55, URN + "8"]
    assert [source.find(text) for text in others] == [None] * len(others)
    source.close()


@given(st.integers(0, 700), st.sampled_from([1, 8]), st.booleans(), st.none() | numbers)
def test_a_walk_is_in_the_order_of_the_uuids(count: int, step: int, descending: bool, start: int | None) -> None:
    those = range(0, count, step)
    ordered = sorted(those, key=lambda number: scatter.uuid_of(number, 0), reverse=descending)
    head = {number: int(scatter.uuid_of(number, 0).replace("-", "")[:10], 16) for number in those}
    if start is not None:
        ordered = [n for n in ordered if (head[n] <= start if descending else head[n] >= start)]
    assert list(scatter.walk(those, descending=descending, start=start)) == ordered


@given(st.one_of(st.builds(scatter.uuid_of, numbers, st.just(0)), st.text("0123456789abcdef-~", max_size=14)))
def test_a_walk_from_any_text_misses_none(text: str) -> None:
    those = range(500)
    start = scatter.seek(text)
    for descending in (False, True):
        reached = set(scatter.walk(those, descending=descending, start=start))
        wanted = {n for n in those if (scatter.uuid_of(n, 0) < text if descending else scatter.uuid_of(n, 0) > text)}
        assert wanted <= reached
        assert len(reached - wanted) <= 2


# --- spans

_CUTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=4)


def _spans(cuts: list[tuple[int, int]]) -> list[range]:
    whole: list[range] = []
    for first, last in cuts:
        whole = union(whole, [r for r in [range(0, 320, 8)[first:last]] if r])
    return whole


def _members(spans: list[range]) -> list[int]:
    return [number for span in spans for number in span]


@given(_CUTS, _CUTS)
def test_spans_are_sets(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    a, b = _spans(one), _spans(other)
    assert _members(a) == sorted({n for first, last in one for n in range(0, 320, 8)[first:last]})
    assert _members(intersection(a, b)) == sorted(set(_members(a)) & set(_members(b)))
    assert _members(union(a, b)) == sorted(set(_members(a)) | set(_members(b)))


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [("abc%", "abc"), ("a_c", "a"), ("%x", ""), (r"a\%b%", "a%b"), (r"a\_\\b", "a_\\b"), ("abc\\", "abc"), ("x", "x")],
)
def test_what_a_pattern_begins_with(pattern: str, prefix: str) -> None:
    assert like_prefix(pattern) == prefix


# --- contents


@given(st.integers(0, 10**9), st.integers(0, SIZE), st.integers(0, SIZE))
def test_any_part_of_a_content_is_that_part_of_the_whole(number: int, start: int, stop: int) -> None:
    whole = synthetic.content(number, 0, SIZE)
    assert len(whole) == SIZE
    assert synthetic.content(number, start, stop) == whole[start:stop]


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 30), st.integers(0, 30))
def test_contents_and_their_parts_differ(one: int, other: int, block: int, another: int) -> None:
    first, second = (synthetic.content(n, b << 16, (b + 1) << 16) for n, b in ((one, block), (other, another)))
    assert (first == second) is ((one, block) == (other, another))
    assert synthetic.content(one, 0, 8) == one.to_bytes(8, "big")


# --- lists: what stands in a table is the model

_TIMES = st.integers(-2, COUNT + 2).map(lambda n: created_at(n) + n % 3 - 1) | st.just(created_at(10**9))
REAL = [
    ("artifact-0000007.bin", 3), ("artifact-00001", 12), ("b", 40), (None, 41), ("Artifact", 150),
    ("artifact-0000299.bin", 299), ("artifact-9", 400),
]  # fmt: skip


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Store]]:
    """A store with formulas, and one in which the same artifacts and aspects stand as rows."""
    root = tmp_path_factory.mktemp("worlds")
    mixed, plain = Store(root / "mixed", FORMULA), Store(root / "plain")
    with plain.batch():
        for made in map(FORMULA.artifact, range(COUNT)):
            plain.artifacts.insert(
                made.id, made.name, made.mime_type, size=made.size, status=made.status, etag=made.etag,
                created_at=made.created_at,
            )  # fmt: skip
        for number in range(0, COUNT, synthetic.ASPECT_EVERY):
            plain.aspects.insert(synthetic.aspect(number))
    for at, (name, second) in enumerate(REAL):
        for store in (mixed, plain):
            artifact = f"{URN}{uuid.UUID(int=at * 7919 << 110 | 5)}"
            moment = to_datetime(created_at(second) + at % 2)
            store.add_artifact(name=name, content=b"x" * at, created_at=moment, artifact_id=artifact, mime_type="a/b")
    for number, schema in ((0, "urn:x:other"), (3, synthetic.SCHEMA), (8, "urn:x:other")):
        mixed.add_aspect(artifact_id(number), schema, {"number": number})
        plain.aspects.insert(mixed.aspects.select(ListQuery(at_time=mixed.clock.now()))[0])
    yield mixed, plain
    mixed.close()
    plain.close()


Lists = Callable[[ListQuery], tuple[list, tuple | None]]


def pages(lists: Lists, query: ListQuery) -> list[list[str]]:
    """All pages of a list; each cursor goes through its text."""
    found = []
    while True:
        page, key = lists(query)
        found.append([record.id for record in page])
        if key is None:
            return found
        query = parse_cursor(query.following(key).cursor())


def _comparison(field: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds("{} {} '{}'".format, st.just(field), st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), values)


_NUMBERED = st.builds("artifact-{:07d}{}".format, st.integers(0, COUNT), st.sampled_from([".bin", "", ".z"]))
_NAMES = _NUMBERED | st.sampled_from(["", "a", "artifact", "b", "z", "artifact-00001"])
_URNS = st.builds(artifact_id, st.integers(0, COUNT)) | st.sampled_from(["", URN, URN + "8", "zzz"])
_PATTERNS = st.builds("name ~= '{}{}'".format, _NAMES, st.sampled_from(["%", "", "_", "_bin", r"\%", "%7%"]))
_MOMENTS = st.integers(0, COUNT).map(lambda n: to_rfc3339(created_at(n)))
_TERMS = st.one_of(
    _PATTERNS,
    _comparison("name", _NAMES),
    _comparison("created-at", _MOMENTS),
    _comparison("id", _URNS),
    _comparison("status", st.sampled_from(["ready", "pending"])),
    _comparison("mime-type", st.sampled_from(["a/b", "application/octet-stream"])),
    st.builds("size {} {}".format, st.sampled_from(["=", "<", ">="]), st.integers(0, 6) | st.just(SIZE)),
    st.builds("id ~= '{}%'".format, _URNS.map(lambda urn: urn[:21])),
)
_JOINED = st.recursive(
    _TERMS, lambda inner: st.builds("({}) {} ({})".format, inner, st.sampled_from(["and", "or"]), inner), max_leaves=5
)
_LIMITS = st.sampled_from([1, 7, 50])


def _orders(*fields: str) -> st.SearchStrategy[tuple[tuple[str, bool], ...]]:
    return st.lists(st.tuples(st.sampled_from(fields), st.booleans()), min_size=1, max_size=3).map(tuple)


@settings(max_examples=75, deadline=None)
@given(
    at_time=_TIMES,
    limit=_LIMITS,
    text=st.just("") | _JOINED,
    order=_orders("created-at", "name", "id", "size", "status", "mime-type", "last-modified-at"),
)
def test_lists_of_artifacts_are_those_of_a_table(
    worlds: tuple[Store, Store], at_time: int, limit: int, text: str, order: tuple[tuple[str, bool], ...]
) -> None:
    query = ListQuery(at_time, limit, text, order)
    mixed, plain = (pages(store.list_artifacts, query) for store in worlds)
    assert mixed == plain


@settings(max_examples=100, deadline=None)
@given(
    at_time=_TIMES | st.just(created_at(0) * 10),
    limit=_LIMITS,
    text=st.sampled_from(["", "schema = 'urn:x:other'", "replaces = 'x' or retracter = ''", "valid-to > '2020-01-01'"])
    | _comparison("entity", _URNS)
    | _comparison("valid-from", _MOMENTS)
    | _comparison("content", st.sampled_from(["{", '{"$entity": "urn:ivcap:artifact:8', "~"])),
    order=_orders("valid-from", "entity", "schema", "id", "content", "valid-to", "asserter", "replaces"),
    entity=st.just("") | _URNS,
    schema=st.sampled_from(["", synthetic.SCHEMA, "urn:x:%", "urn:x:syn%1", "urn:x:other", "%z"]),
    path=st.sampled_from(["", "$.group ? (@ == 3)", "$.number ? (@ < 9)"]),
)
def test_lists_of_aspects_are_those_of_a_table(
    worlds: tuple[Store, Store], at_time: int, limit: int, text: str, order: tuple[tuple[str, bool], ...],
    entity: str, schema: str, path: str,
) -> None:  # fmt: skip
    query = ListQuery(at_time, limit, text, order, (), entity, schema, path)
    mixed, plain = (pages(store.list_aspects, query) for store in worlds)
    assert mixed == plain


_KEY_PARTS = st.one_of(st.text(max_size=5), st.just("urn:"), st.just("~"), st.integers(-5, 5), st.floats(-9, 9), _URNS)


@settings(max_examples=60, deadline=None)
@given(order=_orders("created-at", "name", "id", "size"), data=st.data())
def test_a_key_that_somebody_made_up_means_what_it_means_to_a_table(
    worlds: tuple[Store, Store], order: tuple[tuple[str, bool], ...], data: st.DataObject
) -> None:
    after = tuple(data.draw(_KEY_PARTS) for _ in range(len(order) + 1))
    query = ListQuery(created_at(10**9), 10, "", order, after)
    mixed, plain = (store.list_artifacts(query) for store in worlds)
    assert [record.id for record in mixed[0]] == [record.id for record in plain[0]]


def test_a_refused_filter_is_refused(worlds: tuple[Store, Store]) -> None:
    with pytest.raises(FilterError):
        worlds[0].list_artifacts(ListQuery(created_at(5), filter="colour = 'red'"))


# --- what a page costs


@pytest.fixture
def looked_at(tmp_path: Path) -> Iterator[tuple[Store, list[str]]]:
    """A store of a thousand million artifacts, and a list that grows by each value and record that is computed."""
    formula = Synthetic(10**9)
    store = Store(tmp_path / "data", formula)
    touched: list[str] = []

    def counted(name: str, call: Callable) -> Callable:
        return lambda number: touched.append(name) or call(number)

    plan = formula.artifacts()
    columns = {
        name: Column(counted(name, column.value), column.order, column.prefix) for name, column in plan.columns.items()
    }
    assert isinstance(store.artifacts, MixedArtifacts)
    store.artifacts.close()
    store.artifacts._source = FormulaSource(replace(plan, columns=columns, record=counted("record", plan.record)))
    yield store, touched
    store.close()


@pytest.mark.parametrize("order", ["created-at", "name", "id", "size", "status"])
@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize(
    "text", ["", "status = 'ready'", "created-at < '2019-01-01'", "size < 5000 and mime-type != 'a/b' or name = 'x'"]
)
def test_a_page_deep_inside_costs_what_its_items_cost(
    looked_at: tuple[Store, list[str]], order: str, descending: bool, text: str
) -> None:
    store, touched = looked_at
    middle = store.artifacts.get(artifact_id(623_456_789))
    assert middle is not None
    value = getattr(middle, order.replace("-", "_"))
    after = (value, middle.id) if order != "id" else (value, value)
    query = ListQuery(store.clock.now(), 50, text, ((order, descending),), after)
    page, key = store.list_artifacts(query)
    assert (len(page), key is None) == (50, False)
    assert all((record.id > middle.id) is not descending for record in page if order in ("id", "size", "status"))
    assert touched.count("record") == 51
    assert len(touched) < 1000


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("name = 'artifact-123456789.bin'", [123_456_789]),
        ("name ~= 'artifact-00000123_.bin'", [*range(1239, 1229, -1)]),
        ("name ~= 'artifact-00000012%' and name > 'artifact-000000125.bin'", [129, 128, 127, 126]),
        ("name ~= 'artifact-00000000%' and name != 'artifact-000000001.bin'", [9, 8, 7, 6, 5, 4, 3, 2, 0]),
        (f"id = '{artifact_id(77)}' or name = 'artifact-000000003.bin'", [77, 3]),
        ("status = 'pending' or size > 4096", []),
        ("name = 'no such'", []),
        ("created-at <= '1990-01-01T00:00:02Z'", [2, 1, 0]),
    ],
)
@pytest.mark.parametrize("order", ["created-at", "size"])
def test_a_lookup_among_a_thousand_million(
    looked_at: tuple[Store, list[str]], text: str, wanted: list[int], order: str
) -> None:
    store, touched = looked_at
    page, _ = store.list_artifacts(ListQuery(store.clock.now(), 50, text, ((order, True),)))
    found = [record.id for record in page]
    expected = [artifact_id(number) for number in wanted]
    assert found == (expected if order == "created-at" else sorted(expected, reverse=True))
    assert len(touched) < 1000
