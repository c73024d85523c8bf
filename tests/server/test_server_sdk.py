"""The unmodified official SDK against a running platform."""

from __future__ import annotations

import io
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ivcap_client.artifact import TarMember
from ivcap_client.exception import IvcapApiError, NotAuthorizedException
from ivcap_client.ivcap import IVCAP

from ivcapfs.server.runner import Platform

# The SDK's uploader leaves the files open that it reads.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

SCHEMA = "urn:test:schema:thing.1"
COLLECTION = "urn:ivcap:collection:7d0e0ad3-4a1b-4b3e-9d6e-0a1f8d4a9b11"
CONTENT = bytes(range(256)) * 5000


def test_a_file_uploaded_by_the_sdk_reads_back_in_every_way(sdk: IVCAP, tmp_path: Path) -> None:
    source = tmp_path / "räw data.csv"
    source.write_bytes(CONTENT)
    uploaded = sdk.upload_artifact(name="folder/räw data.csv", file_path=str(source))
    artifact = sdk.get_artifact(uploaded.id)
    assert (artifact.name, artifact.size, artifact.mime_type) == (
        "folder/räw data.csv",
        len(CONTENT),
        "text/csv",
    )
    assert artifact.status == "ready"
    with artifact.open() as file:
        assert file.read() == CONTENT
    assert b"".join(artifact.as_stream(chunk_size=100_000)) == CONTENT
    with artifact.as_local_file() as path:
        assert path.read_bytes() == CONTENT


def test_a_file_uploaded_in_chunks(sdk: IVCAP, tmp_path: Path) -> None:
    source = tmp_path / "big.bin"
    source.write_bytes(CONTENT)
    uploaded = sdk.upload_artifact(file_path=str(source), content_type="x/y", chunk_size=300_000)
    assert b"".join(uploaded.as_stream()) == CONTENT


@pytest.mark.parametrize("size", [-1, len(CONTENT)])
def test_a_stream_with_and_without_its_size(sdk: IVCAP, size: int) -> None:
    uploaded = sdk.upload_artifact(
        name="s", io_stream=io.BytesIO(CONTENT), content_type="application/x-test", content_size=size
    )
    artifact = sdk.get_artifact(uploaded.id)
    assert artifact.status == "ready"
    assert artifact.size == len(CONTENT)
    assert b"".join(artifact.as_stream()) == CONTENT


def test_a_stream_in_chunks_with_its_size(sdk: IVCAP) -> None:
    uploaded = sdk.upload_artifact(
        io_stream=io.BytesIO(CONTENT), content_type="x/y", content_size=len(CONTENT), chunk_size=500_000
    )
    assert b"".join(uploaded.as_stream()) == CONTENT


def test_an_empty_file_is_ready_at_once(sdk: IVCAP, tmp_path: Path) -> None:
    source = tmp_path / "empty.txt"
    source.write_bytes(b"")
    artifact = sdk.get_artifact(sdk.upload_artifact(file_path=str(source)).id)
    assert artifact.status == "ready"
    assert artifact.size == 0
    with artifact.open() as file:
        assert file.read() == b""


def test_a_tar_upload_of_unknown_length(sdk: IVCAP, tmp_path: Path) -> None:
    noise = (b"%d," % (n * n * 7919 % 1_000_003) for n in range(60_000))
    data = b"".join(noise)
    members = [TarMember.from_bytes(data, "a/data.bin"), TarMember.from_bytes(b"", "empty")]
    artifact = sdk.upload_tar_artifact(members, name="all.tar.gz", chunk_size=20_000)
    assert artifact.status == "ready"
    assert artifact.is_tar_file
    with artifact.as_local_file() as path, tarfile.open(path) as tar:
        member = tar.extractfile("a/data.bin")
        assert member is not None
        assert member.read() == data
    artifact.untar(tmp_path / "out")
    assert (tmp_path / "out/a/data.bin").read_bytes() == data


def test_listing_runs_through_all_pages(sdk: IVCAP, platform: Platform) -> None:
    with platform.store.batch():
        ids = [platform.store.add_artifact(name=f"n{i}", content=b"x") for i in range(123)]
    assert [a.id for a in sdk.list_artifacts(limit=None, order_desc=True)] == ids[::-1]
    assert [a.id for a in sdk.list_artifacts(limit=None, order_by="created-at")] == ids
    assert [a.id for a in sdk.list_artifacts(limit=70, order_desc=True)] == ids[:52:-1]
    assert [a.name for a in sdk.list_artifacts(filter="name ~= 'n12%'", order_by="name")] == [
        "n12", "n120", "n121", "n122",
    ]  # fmt: skip


def test_listing_as_it_was(sdk: IVCAP, platform: Platform) -> None:
    old = platform.store.add_artifact(name="old", created_at=datetime(2024, 1, 1, tzinfo=UTC))
    platform.store.add_artifact(name="new")
    assert [a.id for a in sdk.list_artifacts(at_time=datetime(2025, 1, 1, tzinfo=UTC))] == [old]
    assert [a.id for a in sdk.list_artifacts(at_time=datetime(2025, 1, 1))] == [old]
    assert list(sdk.list_artifacts(at_time=datetime(2023, 1, 1, tzinfo=UTC))) == []


def test_aspects_live_and_die(sdk: IVCAP) -> None:
    entity = "urn:test:entity#1"
    first = sdk.add_aspect(entity, {"n": 1}, schema=SCHEMA)
    sdk.add_aspect(entity, {"$schema": "urn:test:schema:other.1", "n": 2})
    assert [a.content["n"] for a in sdk.list_aspects(entity=entity)] == [2, 1]
    assert [a.content["n"] for a in sdk.list_aspects(schema="urn:test:schema:th%")] == [1]
    assert list(sdk.list_aspects(schema="urn:test:schema:th_ng.1")) == []
    before = datetime.now(UTC)
    second = sdk.update_aspect(entity, {"n": 3}, schema=SCHEMA)
    assert [a.id for a in sdk.list_aspects(entity=entity, schema=SCHEMA)] == [second.id]
    assert [a.id for a in sdk.list_aspects(entity=entity, schema=SCHEMA, at_time=before)] == [first.id]
    assert first.refresh().valid_to is not None
    second.retract()
    assert second.retracter is not None
    assert list(sdk.list_aspects(entity=entity, schema=SCHEMA)) == []
    assert second.content == {"$schema": SCHEMA, "$entity": entity, "n": 3}


def test_an_update_where_several_stand_is_refused_and_changes_nothing(sdk: IVCAP) -> None:
    for n in range(2):
        sdk.add_aspect("urn:e:1", {"n": n}, schema=SCHEMA)
    with pytest.raises(IvcapApiError) as caught:
        sdk.update_aspect("urn:e:1", {"n": 9}, schema=SCHEMA)
    assert caught.value.status_code == 424
    assert sorted(a.content["n"] for a in sdk.list_aspects(entity="urn:e:1")) == [0, 1]


def test_metadata_of_an_artifact(sdk: IVCAP, platform: Platform) -> None:
    artifact = sdk.get_artifact(platform.store.add_artifact(name="a", content=b"1"))
    artifact.add_metadata({"k": "ü"}, schema=SCHEMA).add_metadata({"$schema": "urn:s:2", "k": [1, None]})
    assert [m.content["k"] for m in artifact.metadata] == [[1, None], "ü"]
    assert {m.entity for m in artifact.metadata} == {artifact.id}


def test_collections(sdk: IVCAP, platform: Platform) -> None:
    ids = [platform.store.add_artifact(name=f"m{i}") for i in range(3)]
    collection = sdk.create_collection(COLLECTION, "Ocean survey", description="first")
    sdk.create_collection(COLLECTION, "Ocean survey", description="second")
    assert sdk.get_collection(COLLECTION).description == "second"
    for item in ids:
        assert sdk.add_to_collection(COLLECTION, item) is not None
    assert sdk.add_to_collection(COLLECTION, ids[0]) is None
    assert [m.item for m in collection.items()] == ids[::-1]
    assert sdk.remove_from_collection(COLLECTION, ids[1])
    assert not sdk.remove_from_collection(COLLECTION, ids[1])
    assert {m.item for m in collection.items()} == {ids[0], ids[2]}
    for form in ('== "Ocean survey"', 'starts with "Oce"', 'like_regex ".*SURVEY$" flag "i"'):
        assert [c.urn for c in sdk.list_collections(name_filter=form)] == [COLLECTION]
    assert list(sdk.list_collections(name_filter='starts with "oce"')) == []
    assert sdk.retract_collection(COLLECTION) == 3
    assert list(sdk.list_collections()) == []


def test_a_collection_of_more_than_a_page_is_retracted(sdk: IVCAP, platform: Platform) -> None:
    sdk.create_collection(COLLECTION, "big")
    schema = "urn:ivcap:schema:collection-item.1"
    for number in range(120):
        platform.store.add_aspect(COLLECTION, schema, {"collection": COLLECTION, "item": f"urn:i:{number}"})
    assert sdk.retract_collection(COLLECTION) == 121
    assert list(sdk.list_aspects(entity=COLLECTION)) == []


def test_an_upload_into_a_collection(sdk: IVCAP) -> None:
    sdk.create_collection(COLLECTION, "c")
    artifact = sdk.upload_artifact(name="x", io_stream=io.BytesIO(b"1"), content_type="t/p", collection=COLLECTION)
    assert [m.item for m in sdk.get_collection(COLLECTION).items()] == [artifact.id]


def test_a_wrong_token_is_refused(platform: Platform) -> None:
    stranger = IVCAP(url=platform.url, token="another")
    with pytest.raises(NotAuthorizedException):
        list(stranger.list_artifacts())
    stranger._client.get_httpx_client().close()


def test_everything_is_there_after_a_restart(sdk: IVCAP, platform: Platform, tmp_path: Path) -> None:
    artifact = sdk.upload_artifact(name="kept", io_stream=io.BytesIO(CONTENT), content_type="t/p")
    artifact.add_metadata({"a": 1}, schema=SCHEMA)
    sdk._client.get_httpx_client().close()
    platform.close()
    with Platform(tmp_path / "data") as again:
        other = IVCAP(url=again.url, token="any")
        found = other.get_artifact(artifact.id)
        assert (found.name, found.etag) == ("kept", artifact.etag)
        with found.open() as file:
            assert file.read() == CONTENT
        assert [m.content["a"] for m in found.metadata] == [1]
        other._client.get_httpx_client().close()
