"""The platform's calls: what is asked, paging to the end and not for ever, collections in both forms."""

# ruff: noqa: SIM117 (what is set up, and what is expected of it, on lines of their own)
from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count, islice
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ivcapfs import errors
from ivcapfs.client import Connection
from ivcapfs.models import ARTIFACT_COLLECTION_SCHEMA, COLLECTION_ITEM_SCHEMA, COLLECTION_SCHEMA
from tests.client.fakeorigin import URN, UUID, Asked, Origin, Reply, as_json, client, record

C1, C2 = "urn:ivcap:collection:1", "urn:ivcap:collection:2"


def query(asked: Asked) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(asked.target).query).items()}


def page(items: list[Any], cursor: str | None = None) -> Reply:
    links = [{"rel": "next", "href": f"/1/artifacts?page={cursor}"}] if cursor else []
    return as_json({"items": items, "links": links, "at-time": "2026-01-01T00:00:00Z"})


def listed(number: int) -> dict[str, str]:
    return {"id": f"urn:ivcap:artifact:{number:08x}-0000-4000-8000-000000000000", "status": "ready"}


def aspect(id: str, entity: str, schema: str, content: Any) -> dict[str, Any]:
    return {"id": id, "entity": entity, "schema": schema, "content": content, "valid-from": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("path", ["/1/artifacts", "/1/aspects"])
def test_a_list_that_is_not_found_is_a_fault_of_the_server_and_no_word_on_what_is_in_it(path: str, status: int) -> None:
    ask: dict[str, Callable[[Connection], object]] = {
        "/1/artifacts": lambda connection: connection.api.list_artifacts_text(),
        "/1/aspects": lambda connection: next(connection.api.iter_aspects()),
    }
    with Origin(lambda _: Reply(status)) as origin, client(origin.url) as connection:
        with pytest.raises(errors.ServerFault) as caught:
            ask[path](connection)
    assert caught.value.status == status


def test_what_a_list_is_asked_with() -> None:
    with Origin(lambda _: page([])) as origin, client(origin.url) as connection:
        connection.api.list_artifacts_page(
            cursor="a/b=", limit=99, filter="name ~= 'Sc%'", order_by="name", order_desc=True,
            at_time=datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip
        connection.api.list_artifacts_page()
        list(connection.api.iter_aspects(entity="e\ud800", include_content=False, content_path='$.a ? (@ == "b")'))
    assert query(origin.asked[0]) == {
        "page": "a/b=", "limit": "50", "filter": "name ~= 'Sc%'", "order-by": "name", "order-desc": "true",
        "at-time": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    assert query(origin.asked[1]) == {"limit": "50"}
    assert query(origin.asked[2]) == {
        "limit": "50", "entity": "e?", "include-content": "false", "content-path": '$.a ? (@ == "b")',
    }  # fmt: skip


def test_all_pages_with_decoded_cursors() -> None:
    pages = {None: page([listed(1)], "b%2F%3D"), "b/=": page([listed(2)], "c"), "c": page([listed(3)])}
    with Origin(lambda asked: pages[query(asked).get("page")]) as origin, client(origin.url) as connection:
        assert [int(item.uuid[:8], 16) for item in connection.api.iter_artifacts()] == [1, 2, 3]


@pytest.mark.parametrize(
    "answer",
    [
        lambda number: page([listed(number)], "same"),
        lambda number: page([listed(number)], f"c{number % 2}"),
        lambda number: page([], f"c{number}"),
        lambda number: page([listed(1)], f"c{number}"),
        lambda number: page([listed(number % 3)], f"c{number}"),
    ],
)
def test_endless_chains_end(answer: Callable[[int], Reply]) -> None:
    numbers = count()
    with Origin(lambda _: answer(next(numbers))) as origin, client(origin.url) as connection:
        with pytest.raises(errors.ProtocolError):
            list(islice(connection.api.iter_artifacts(), 1000))
    assert len(origin.asked) < 10


def test_empty_pages_in_between_are_no_end() -> None:
    pages = {None: page([listed(1)], "b"), "b": page([], "c"), "c": page([], "d"), "d": page([listed(2)])}
    with Origin(lambda asked: pages[query(asked).get("page")]) as origin, client(origin.url) as connection:
        assert len(list(connection.api.iter_artifacts())) == 2


def test_a_next_link_elsewhere_is_asked_here() -> None:
    foreign = {"items": [listed(1)], "links": [{"rel": "next", "href": "https://evil.invalid/1/artifacts?page=x"}]}
    with Origin(lambda asked: page([]) if "page=" in asked.target else as_json(foreign)) as origin:
        with client(origin.url) as connection:
            assert len(list(connection.api.iter_artifacts())) == 1
    assert [asked.path for asked in origin.asked] == ["/1/artifacts"] * 2


def test_a_record_is_asked_for_by_its_urn() -> None:
    with Origin(lambda _: as_json(record())) as origin, client(origin.url) as connection:
        assert connection.api.read_artifact(UUID).urn == URN
        with pytest.raises(errors.ProtocolError):
            connection.api.read_artifact(UUID[:-1] + "0")
    assert origin.asked[0].target == "/1/artifacts/" + URN.replace(":", "%3A")


def test_creating() -> None:
    made = as_json(record(status="pending", **{"data-href": None}), 201, Location="/1/artifacts/x/blob")
    with Origin(lambda _: made) as origin, client(origin.url) as connection:
        got = connection.api.create_artifact(
            name="häl/lo", content_type="text/csv", size=5, collection=C1, policy="urn:ivcap:policy:p"
        )
        connection.api.create_artifact(content_type="text/csv", size=None)
    assert got.data_href == "/1/artifacts/x/blob"
    first, second = (asked.headers for asked in origin.asked)
    assert base64.b64decode(first["x-name"]).decode() == "häl/lo"
    assert (first["x-content-type"], first["x-content-length"], first["upload-length"]) == ("text/csv", "5", "5")
    assert (first["x-collection"], first["x-policy"], first["tus-resumable"]) == (C1, "urn:ivcap:policy:p", "1.0.0")
    assert second["x-content-length"] == "-1" and "upload-length" not in second and "x-name" not in second


@pytest.mark.parametrize(
    "bad",
    [{"content_type": "a\r\nX: y"}, {"name": "\ud800"}, {"policy": "p"}, {"collection": "c"}, {"policy": "urn:ü"}],
)
def test_what_cannot_be_created(bad: dict[str, str]) -> None:
    with Origin(lambda _: Reply(500)) as origin, client(origin.url) as connection:
        with pytest.raises(errors.ConfigError):
            connection.api.create_artifact(**{"content_type": "a/b", "size": 1, **bad})  # type: ignore[arg-type]
    assert not origin.asked


@pytest.mark.parametrize(("standing", "method"), [([], "POST"), ([aspect("a", URN, "urn:s", None)], "PUT")])
def test_updating_looks_first(standing: list[Any], method: str) -> None:
    with Origin(lambda asked: page(standing) if asked.method == "GET" else as_json({"id": "new"})) as origin:
        with client(origin.url) as connection:
            assert connection.api.update_aspect(URN, "urn:s", {"a": 1}, "urn:ivcap:policy:p") == "new"
    assert origin.asked[-1].method == method and origin.asked[-1].body == b'{"a":1}'
    assert query(origin.asked[-1]) == {"entity": URN, "schema": "urn:s", "policy": "urn:ivcap:policy:p"}


def test_retracting_and_an_answer_without_an_id() -> None:
    with Origin(lambda asked: Reply(204) if asked.method == "DELETE" else as_json({})) as origin:
        with client(origin.url) as connection:
            connection.api.retract_aspect("urn:ivcap:aspect:1")
            with pytest.raises(errors.ProtocolError):
                connection.api.add_aspect(URN, "urn:s", {})


STANDING = [
    aspect("1", C1, COLLECTION_SCHEMA, {"name": "first", "description": "d"}),
    aspect("2", C1, COLLECTION_SCHEMA, {"name": "older description"}),
    aspect("3", C1, COLLECTION_ITEM_SCHEMA, {"collection": C1, "item": URN}),
    aspect("4", C1, COLLECTION_ITEM_SCHEMA, {"collection": C1, "item": URN}),
    aspect("5", C1, COLLECTION_ITEM_SCHEMA, {"collection": C1, "item": 7}),
    aspect("6", C1, COLLECTION_ITEM_SCHEMA, "nonsense"),
    aspect("7", C1, ARTIFACT_COLLECTION_SCHEMA, {"collection": C1, "artifacts": [URN, "urn:x", None]}),
    aspect("8", "urn:other", ARTIFACT_COLLECTION_SCHEMA, {"collection": C2, "artifacts": ["urn:y"]}),
]


def collections(asked: Asked) -> Reply:
    wanted = query(asked)
    return page([one for one in STANDING if all(one[key] == wanted.get(key, one[key]) for key in ("entity", "schema"))])


def test_collections_of_both_forms() -> None:
    def members(connection: Connection, urn: str) -> list[str]:
        return list(connection.api.collection_members(urn))

    with Origin(collections) as origin, client(origin.url) as connection:
        found = list(connection.api.iter_collections())
        assert [(one.urn, one.name, one.description) for one in found] == [(C1, "first", "d"), (C2, None, None)]
        assert members(connection, C1) == [URN, "urn:x"]
        assert members(connection, C2) == ["urn:y"]
        assert members(connection, "urn:none") == []
