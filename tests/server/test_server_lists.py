"""The list calls: fields, pages, orders, times and refusals."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from ivcapfs.server.paging import ListQuery
from ivcapfs.server.runner import Platform

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def next_of(reply: dict) -> str | None:
    return next((link["href"] for link in reply["links"] if link["rel"] == "next"), None)


def names(http: httpx.Client, **params: str | int) -> list[str | None]:
    """All names of a listing, through all its pages, following the links as they stand."""
    found: list[str | None] = []
    reply = http.get("/1/artifacts", params=params).json()
    while True:
        found += [item.get("name") for item in reply["items"]]
        href = next_of(reply)
        if href is None:
            return found
        reply = http.get(href).json()


def test_the_fields(http: httpx.Client, platform: Platform) -> None:
    artifact = platform.store.add_artifact(name="n", content=b"12", mime_type="a/b")
    bare = platform.store.add_artifact(mime_type=None, status="pending")
    reply = http.get("/1/artifacts").json()
    assert set(reply) == {"items", "links", "at-time"}
    assert TIME.fullmatch(reply["at-time"])
    second, first = reply["items"]
    assert set(first) == {"id", "name", "status", "mime-type", "size", "created-at", "href"}
    assert set(second) == {"id", "status", "created-at", "href"}
    assert (second["id"], second["status"]) == (bare, "pending")
    assert first["href"] == f"{platform.url}/1/artifacts/{artifact}"
    assert TIME.fullmatch(first["created-at"])
    record = http.get(first["href"]).json()
    assert set(record) == set(first) - {"href"} | {
        "last-modified-at", "etag", "policy", "account", "data-href", "links",
    }  # fmt: skip
    assert http.get(f"/1/artifacts/{artifact.removeprefix('urn:ivcap:artifact:')}").json() == record


def test_pages_stay_as_they_were_while_others_add(http: httpx.Client, platform: Platform) -> None:
    for number in range(7):
        platform.store.add_artifact(name=f"{number}")
    reply = http.get("/1/artifacts", params={"limit": 3}).json()
    seen = [item["name"] for item in reply["items"]]
    while (href := next_of(reply)) is not None:
        platform.store.add_artifact(name="intruder")
        assert re.fullmatch(r"page=[A-Za-z0-9_-]+", href.partition("?")[2])
        later = http.get(href, params=httpx.URL(href).params.merge({"filter": "garbage", "order-by": "rubbish"}))
        assert later.json()["at-time"] == reply["at-time"]
        reply = later.json()
        seen += [item["name"] for item in reply["items"]]
    assert seen == ["6", "5", "4", "3", "2", "1", "0"]


def test_the_limit_may_change_from_page_to_page(http: httpx.Client, platform: Platform) -> None:
    for number in range(9):
        platform.store.add_artifact(name=f"{number}")
    href = next_of(http.get("/1/artifacts", params={"limit": 2}).json())
    assert href is not None
    page = http.get(href, params=httpx.URL(href).params.merge({"limit": 4})).json()
    assert [item["name"] for item in page["items"]] == ["6", "5", "4", "3"]
    first = next(link["href"] for link in page["links"] if link["rel"] == "first")
    assert [item["name"] for item in http.get(first).json()["items"]] == ["8", "7", "6", "5"]


@pytest.mark.parametrize("limit", [1, 2, 50])
def test_every_order_is_total(http: httpx.Client, platform: Platform, limit: int) -> None:
    given = [("b", b"1"), (None, b"22"), ("a", b"1"), ("b", b"333"), (None, b""), ("c", b"22")]
    for name, content in given:
        platform.store.add_artifact(name=name, content=content)
    plain = [name for name, _ in given]
    assert names(http, limit=limit) == plain[::-1]
    assert names(http, limit=limit, **{"order-desc": "false"}) == plain
    by_name = names(http, limit=limit, **{"order-by": "name", "order-desc": "false"})
    assert by_name == [None, None, "a", "b", "b", "c"]
    mixed = names(http, limit=limit, **{"order-by": "size desc,name asc"})
    assert mixed == ["b", None, "c", "a", "b", None]


def test_an_artifact_is_not_ready_before_it_was(http: httpx.Client, platform: Platform) -> None:
    tus = {"Tus-Resumable": "1.0.0"}
    artifact = http.post("/1/artifacts", headers=tus | {"X-Content-Length": "2"}).json()["id"]
    patch = tus | {"Content-Type": "application/offset+octet-stream"}
    times = [http.get("/1/artifacts").json()["at-time"]]
    for offset in range(2):
        headers = patch | {"Upload-Offset": str(offset)}
        assert http.patch(f"/1/artifacts/{artifact}/blob", content=b"x", headers=headers).status_code == 204
        times.append(http.get("/1/artifacts").json()["at-time"])
    then = [http.get("/1/artifacts", params={"at-time": at}).json()["items"][0]["status"] for at in times]
    assert then == ["pending", "partial", "ready"]
    ready = {"at-time": times[1], "filter": "status = 'ready'"}
    assert http.get("/1/artifacts", params=ready).json()["items"] == []


def test_times_in_any_zone(http: httpx.Client, platform: Platform) -> None:
    moment = datetime(2025, 6, 1, 12, tzinfo=UTC)
    platform.store.add_artifact(name="old", created_at=moment)
    platform.store.add_artifact(name="young", created_at=moment + timedelta(microseconds=1))
    for text in ("2025-06-01T12:00:00Z", "2025-06-01T22:00:00+10:00", "2025-06-01T12:00:00.000000000Z"):
        reply = http.get("/1/artifacts", params={"at-time": text}).json()
        assert [item["name"] for item in reply["items"]] == ["old"], text
        assert reply["at-time"] == "2025-06-01T12:00:00.000000Z"
    unescaped = http.get("/1/artifacts?at-time=2025-06-01T22:00:00+10:00").json()
    assert [item["name"] for item in unescaped["items"]] == ["old"]


def test_creation_times_strictly_increase(platform: Platform, http: httpx.Client) -> None:
    with platform.store.batch():
        for number in range(40):
            platform.store.add_artifact(name=f"{number:02}")
    times = [item["created-at"] for item in http.get("/1/artifacts", params={"limit": 50}).json()["items"]]
    assert times == sorted(set(times), reverse=True)
    assert len(times) == 40


@pytest.mark.parametrize(
    ("path", "params", "name"),
    [
        ("/1/artifacts", {"limit": "0"}, "limit"),
        ("/1/artifacts", {"limit": "51"}, "limit"),
        ("/1/artifacts", {"limit": "ten"}, "limit"),
        ("/1/artifacts", {"at-time": "today"}, "at-time"),
        ("/1/artifacts", {"at-time": "0001-01-01T00:00:00+23:00"}, "at-time"),
        ("/1/artifacts", {"at-time": "9999-12-31T23:59:59-23:00"}, "at-time"),
        ("/1/artifacts", {"page": "bm9uc2Vuc2U"}, "page"),
        ("/1/artifacts", {"page": "$$$"}, "page"),
        ("/1/artifacts", {"order-by": "colour"}, "order-by"),
        ("/1/artifacts", {"order-desc": "maybe"}, "order-desc"),
        ("/1/aspects", {"order-by": "colour"}, "order-by"),
        ("/1/aspects", {"order-direction": "UP"}, "order-direction"),
        ("/1/aspects", {"include-content": "maybe"}, "include-content"),
    ],
)
def test_parameters_that_are_refused(http: httpx.Client, path: str, params: dict[str, str], name: str) -> None:
    reply = http.get(path, params=params)
    assert reply.status_code == 422
    body = reply.json()
    assert set(body) == {"message", "name", "value"}
    assert body["name"] == name
    assert body["value"] == params[name]


def test_aspects_with_all_their_fields(http: httpx.Client) -> None:
    params = {"entity": "urn:e:1", "schema": "urn:s:1", "policy": "urn:ivcap:policy:p"}
    added = http.post("/1/aspects", params=params, json={"a": 1})
    assert (added.status_code, set(added.json())) == (200, {"id"})
    put = http.put("/1/aspects", params=params, json={"a": 2}).json()["id"]
    old = http.get(f"/1/aspects/{added.json()['id']}").json()
    assert set(old) == {
        "id", "entity", "schema", "content", "content-type", "valid-from", "valid-to", "asserter",
        "retracter", "policy", "account", "links",
    }  # fmt: skip
    new = http.get(f"/1/aspects/{put}").json()
    assert (new["replaces"], new["content"], new["policy"]) == (old["id"], {"a": 2}, "urn:ivcap:policy:p")
    reply = http.get("/1/aspects", params={"entity": "urn:e:1", "schema": "urn:s%"}).json()
    assert (reply["entity"], reply["schema"]) == ("urn:e:1", "urn:s%")
    assert [set(item) for item in reply["items"]] == [{"id", "entity", "schema", "content-type", "valid-from"}]
    for _ in range(2):
        assert http.delete(f"/1/aspects/{put}").status_code == 204
    assert http.get("/1/aspects").json()["items"] == []
    was = http.get("/1/aspects", params={"at-time": new["valid-from"]}).json()["items"]
    assert [item["id"] for item in was] == [put]


def test_aspects_in_any_order_through_all_pages(http: httpx.Client, platform: Platform) -> None:
    for number in range(12):
        platform.store.add_aspect(f"urn:e:{number % 3}", f"urn:s:{number % 2}", {"n": number})
    params = {"order-by": "entity,valid_from", "order-direction": "ASC,DESC", "limit": "5"}
    reply = http.get("/1/aspects", params=params | {"include-content": "true"}).json()
    seen = []
    while True:
        seen += [item["content"]["n"] for item in reply["items"]]
        href = next_of(reply)
        if href is None:
            break
        reply = http.get(href).json()
    assert seen == [9, 6, 3, 0, 10, 7, 4, 1, 11, 8, 5, 2]
    filtered = http.get("/1/aspects", params={"filter": "schema eq 'urn:s:1' and entity != 'urn:e:0'"}).json()
    assert len(filtered["items"]) == 4


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"{", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b'{"a": NaN}', "application/json", 400),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "application/json", 400),
        (b'{"a": ' + b"1" * 5_000 + b"}", "application/json", 400),
        (b"{}", "text/plain", 415),
    ],
)
def test_aspect_bodies_that_are_refused(http: httpx.Client, body: bytes, kind: str, code: int) -> None:
    params = {"entity": "urn:e:1", "schema": "urn:s:1"}
    reply = http.post("/1/aspects", params=params, content=body, headers={"Content-Type": kind})
    assert (reply.status_code, set(reply.json())) == (code, {"message"})


def test_aspects_need_entity_and_schema(http: httpx.Client) -> None:
    assert http.post("/1/aspects", params={"schema": "urn:s:1"}, json={}).json()["name"] == "entity"
    assert http.post("/1/aspects", params={"entity": "urn:e:1"}, json={}).json()["name"] == "schema"
    surrogate = b'{"$schema": "urn:\\ud800"}'
    headers = {"Content-Type": "application/json"}
    reply = http.post("/1/aspects", params={"entity": "urn:e:1"}, content=surrogate, headers=headers)
    assert reply.status_code == 422
    assert http.post("/1/aspects", params={"entity": "urn:e:1"}, json={"$schema": "urn:s:9"}).status_code == 200
    for call in (http.get, http.delete):
        assert call("/1/aspects/urn:ivcap:aspect:unknown").json()["id"] == "urn:ivcap:aspect:unknown"


def test_late_pages_are_as_quick_as_early_ones(platform: Platform) -> None:
    """Deep in a long list SQLite must seek by the key, not walk there from the newest."""
    store = platform.store
    with store.batch():
        for number in range(3000):
            store.add_artifact(name=f"{number}")
    key = store.list_artifacts(ListQuery(at_time=store.clock.now()))[1]
    assert key is not None
    for after in ((), key):
        query = ListQuery(at_time=store.clock.now(), after=after)
        statements: list[str] = []
        with store._database.reading() as db:
            db.set_trace_callback(statements.append)
            store.list_artifacts(query)
            db.set_trace_callback(None)
            plan = [row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {statements[0]}")]
        wanted = "(created_at,id)<(?,?)" if after else "created_at<?"
        assert plan == [f"SEARCH artifacts USING INDEX artifacts_by_time ({wanted})"]
