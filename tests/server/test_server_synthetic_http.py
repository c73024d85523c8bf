"""A platform with artifacts by formula, over HTTP and by the official SDK; and what the command takes."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from ivcap_client.ivcap import IVCAP

from ivcapfs.cli import main
from ivcapfs.server import runner, synthetic
from ivcapfs.server.runner import Platform
from ivcapfs.server.settings import ServeSettings
from ivcapfs.server.synthetic import Synthetic, artifact_id, aspect_id

SIZE = 200_000


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with Platform(tmp_path / "data", synthetic=Synthetic(1_000_000, SIZE)) as running:
        yield running


@pytest.fixture
def http(platform: Platform) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=platform.url) as client:
        yield client


def test_the_sdk_lists_and_reads_one(platform: Platform, tmp_path: Path) -> None:
    sdk = IVCAP(url=platform.url, token="any")
    source = tmp_path / "new.txt"
    source.write_bytes(b"uploaded")
    with source.open("rb") as stream:
        sdk.upload_artifact(name="new", io_stream=stream, content_type="a/b", content_size=8)
    listed = [artifact.name for artifact in sdk.list_artifacts(limit=120, order_desc=True)]
    assert listed == ["new", *(f"artifact-{number:07d}.bin" for number in range(999_999, 999_880, -1))]
    found = list(sdk.list_artifacts(filter="name ~= 'artifact-00001%'", limit=200))
    assert sorted(artifact.name for artifact in found) == [f"artifact-{number:07d}.bin" for number in range(100, 200)]
    artifact = sdk.get_artifact(artifact_id(128))
    assert (artifact.name, artifact.status, artifact.size) == ("artifact-0000128.bin", "ready", SIZE)
    assert b"".join(artifact.as_stream()) == synthetic.content(128, 0, SIZE)
    artifact.add_metadata({"$schema": "urn:x:mine:1", "note": "added"})
    assert {aspect.schema for aspect in artifact.metadata} == {synthetic.SCHEMA, "urn:x:mine:1"}
    sdk._client.get_httpx_client().close()
    gc.collect()


def test_a_content_is_read_like_any_other(http: httpx.Client) -> None:
    href = f"/1/artifacts/{artifact_id(999)}/blob"
    record = http.get(f"/1/artifacts/{artifact_id(999)}").json()
    whole = http.get(href)
    assert (whole.status_code, whole.content) == (200, synthetic.content(999, 0, SIZE))
    assert whole.headers["ETag"] == f'"{record["etag"]}"'
    parts = [("10-99", 10, 100), ("65530-65550", 65530, 65551), ("-5", SIZE - 5, SIZE), ("150000-", 150_000, SIZE)]
    for header, start, stop in parts:
        part = http.get(href, headers={"Range": f"bytes={header}"})
        assert (part.status_code, part.content) == (206, synthetic.content(999, start, stop))
        assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert http.get(href, headers={"Range": f"bytes={SIZE}-"}).status_code == 416
    assert http.get(href, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    head = http.head(href)
    assert (head.headers["Content-Length"], head.headers["ETag"]) == (str(SIZE), whole.headers["ETag"])
    assert http.head(href, headers={"Tus-Resumable": "1.0.0"}).headers["Upload-Offset"] == str(SIZE)
    assert http.put(href, content=b"other").status_code == 409
    assert http.get(f"/1/artifacts/{artifact_id(1_000_000)}").status_code == 404


def test_an_aspect_is_retracted_and_replaced_like_any_other(http: httpx.Client, platform: Platform) -> None:
    def standing(number: int, **params: str) -> list[dict]:
        given = {"entity": artifact_id(number), "include-content": "true"} | params
        items = http.get("/1/aspects", params=given).json()["items"]
        assert isinstance(items, list)
        return items

    [aspect] = standing(16)
    assert aspect["id"] == aspect_id(16)
    assert aspect["content"] == json.loads(synthetic.aspect_content(16))
    assert standing(17) == []
    assert http.delete(f"/1/aspects/{aspect_id(16)}").status_code == 204
    assert http.delete(f"/1/aspects/{aspect_id(17)}").status_code == 404
    record = http.get(f"/1/aspects/{aspect_id(16)}").json()
    assert (record["id"], "valid-to" in record) == (aspect_id(16), True)
    put = {"entity": artifact_id(24), "schema": synthetic.SCHEMA}
    new = http.put("/1/aspects", params=put, json={"a": 1}).json()["id"]
    assert http.get(f"/1/aspects/{new}").json()["replaces"] == aspect_id(24)
    twice = {"entity": artifact_id(32), "schema": synthetic.SCHEMA}
    http.post("/1/aspects", params=twice, json={"a": 1})
    assert http.put("/1/aspects", params=twice, json={"a": 2}).status_code == 424
    for _ in range(2):
        assert standing(16) == []
        assert [item["id"] for item in standing(16, **{"at-time": "2020-01-01"})] == [aspect_id(16)]
        assert [item["id"] for item in standing(24)] == [new]
        assert len(standing(32)) == 2
        platform.close()
        platform.start()


def test_a_thousand_million_start_at_once(tmp_path: Path) -> None:
    with Platform(tmp_path / "data", synthetic=Synthetic(10**9, 5 * 1024**3)) as platform:
        reply = httpx.get(f"{platform.url}/1/artifacts", params={"limit": 1}).json()
        assert [item["name"] for item in reply["items"]] == ["artifact-999999999.bin"]
        assert reply["items"][0]["created-at"] < reply["at-time"]
        last = httpx.get(f"{platform.url}/1/artifacts/{artifact_id(10**9 - 1)}/blob", headers={"Range": "bytes=-3"})
        assert last.content == synthetic.content(10**9 - 1, 5 * 1024**3 - 3, 5 * 1024**3)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--synthetic", "1000000"], (Synthetic(1_000_000, 4096), 0.0)),
        (["--synthetic", "7,64K", "--latency", "50"], (Synthetic(7, 65536), 0.05)),
        (["--latency", "0.5"], (None, 0.0005)),
    ],
)
def test_what_the_command_takes(
    words: list[str], wanted: tuple[Synthetic | None, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[ServeSettings] = []
    monkeypatch.setattr(runner, "run_forever", lambda settings, announce: served.append(settings))
    result = CliRunner().invoke(main, ["serve", *words])
    assert result.exit_code == 0, result.output
    assert [(settings.synthetic, settings.latency) for settings in served] == [wanted]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("many", "takes N or N,SIZE"),
        ("-1", "takes N or N,SIZE"),
        ("1_000", "takes N or N,SIZE"),
        ("²", "takes N or N,SIZE"),
        ("5,big", "not a size: 'big'"),
        ("5,", "not a size: ''"),
        ("5,6G", "5368709120 bytes at most"),
        ("1000000001", "1000000000 synthetic artifacts at most"),
    ],
)
def test_what_the_command_refuses(text: str, said: str) -> None:
    result = CliRunner().invoke(main, ["serve", "--synthetic", text])
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
