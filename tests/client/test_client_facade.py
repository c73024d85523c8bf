"""The public face, on the embedded platform, side by side with the official SDK."""

# ruff: noqa: SIM117 (what is set up, and what is expected of it, on lines of their own)
from __future__ import annotations

import gc
import io
import os
import random
import stat
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ivcapfs import errors
from ivcapfs.client import IVCAP, Artifact
from ivcapfs.client.localfiles import TemporaryPath, save, suffix_for
from ivcapfs.config import ClientSettings, Secret
from ivcapfs.models import EPOCH, ArtifactStatus
from ivcapfs.server.runner import Platform
from tests.client.fakeorigin import CANARY, LIMITS, UUID, Origin, Reply, ranged, with_blob

DATA = random.Random(5).randbytes(2_500_000)
SCHEMA = "urn:test:schema:note.1"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("platform"), token=CANARY) as running:
        yield running


@pytest.fixture
def ivcap(platform: Platform) -> Iterator[IVCAP]:
    with IVCAP(platform.url, CANARY) as client:
        yield client


@pytest.fixture(scope="module")
def sdk(platform: Platform) -> Iterator[Any]:
    module = pytest.importorskip("ivcap_client.ivcap")
    client = module.IVCAP(platform.url, token=CANARY)
    yield client
    client._client.get_httpx_client().close()
    with warnings.catch_warnings():  # the SDK's uploader leaves its connections to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def big(platform: Platform) -> str:
    """One artifact of some size, for all tests that read."""
    with IVCAP(platform.url, CANARY) as client:
        return client.upload_artifact(name="big.bin", io_stream=io.BytesIO(DATA)).id


# Settings


def test_nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IVCAP_URL", "IVCAP_BASE_URL", "IVCAP_JWT", "IVCAP_ACCESS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(errors.ConfigError):
        IVCAP()
    with pytest.raises(errors.ConfigError):
        IVCAP("https://h", settings=ClientSettings("https://h"))


def test_the_environment_names_the_deployment(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IVCAP_URL", platform.url + "/")
    monkeypatch.setenv("IVCAP_JWT", CANARY)
    with IVCAP() as client:
        assert client.url == platform.url and CANARY not in repr(client)
        list(client.list_artifacts())


def test_a_wrong_token(platform: Platform) -> None:
    with IVCAP(platform.url, "wrong") as client, pytest.raises(errors.NotAuthenticated):
        list(client.list_artifacts())


# Reading


def test_open_seeks_and_reads_lazily(ivcap: IVCAP, platform: Platform, big: str) -> None:
    with ivcap.get_artifact(big).open() as file:
        assert file.seekable() and file.readable() and not file.writable()
        assert file.read(10) == DATA[:10]
        file.seek(-5, os.SEEK_END)
        assert file.read() == DATA[-5:] and file.read(1) == b""
        file.seek(1_000_000)
        assert file.read(1_400_000) == DATA[1_000_000:2_400_000] and file.tell() == 2_400_000
        file.seek(10**9)
        assert file.read(5) == b""
        file.seek(7)
        assert file.read() == DATA[7:]
        with pytest.raises((ValueError, OSError)):
            file.seek(-1)
    with pytest.raises(ValueError):
        file.read()


def test_open_against_a_file_in_memory(ivcap: IVCAP, big: str) -> None:
    """Random operations, the same on both."""
    dice, model = random.Random(11), io.BytesIO(DATA)
    with ivcap.get_artifact(big).open() as file:
        for _ in range(60):
            offset, size = dice.randrange(len(DATA) + 10), dice.choice([0, 1, 100, 5000, 70_000])
            assert file.seek(offset) == model.seek(offset)
            assert file.read(size) == model.read(size)
            assert file.readline(50) == model.readline(50)
            assert file.tell() == model.tell()


def test_open_notices_other_content() -> None:
    with Origin(with_blob(ranged(DATA))) as origin:
        settings = ClientSettings(origin.url, Secret(CANARY), limits=LIMITS)
        with IVCAP(settings=settings) as client, client.get_artifact(UUID).open() as file:
            file.read(10)
            origin.answer = with_blob(ranged(DATA[::-1], '"e2"'))
            assert file.read(10) == DATA[10:20]  # from the buffer
            file.seek(2_000_000)
            with pytest.raises(errors.ContentChanged):
                file.read(10)


def test_text(ivcap: IVCAP) -> None:
    made = ivcap.upload_artifact(
        io_stream=io.BytesIO("zeile eins\nzweite\n".encode("utf-16")), content_type="text/plain"
    )
    with io.TextIOWrapper(made.open(), "utf-16") as lines:
        assert list(lines) == ["zeile eins\n", "zweite\n"]


@pytest.mark.parametrize("chunk_size", [1000, 99_999, len(DATA), 10**8])
def test_chunks_are_exact(ivcap: IVCAP, big: str, chunk_size: int) -> None:
    chunks = list(ivcap.get_artifact(big).as_stream(chunk_size))
    assert b"".join(chunks) == DATA
    assert all(len(chunk) == chunk_size for chunk in chunks[:-1]) and 0 < len(chunks[-1]) <= chunk_size


def test_the_default_chunk_is_a_tenth(ivcap: IVCAP, big: str) -> None:
    assert [len(chunk) for chunk in ivcap.get_artifact(big).as_stream()] == [250_000] * 10
    small = ivcap.upload_artifact(io_stream=io.BytesIO(DATA[:20_000]))
    assert [len(chunk) for chunk in small.as_stream()] == [8192, 8192, 3616]


@pytest.mark.parametrize("chunk_size", [0, -2])
def test_no_such_chunk_size(ivcap: IVCAP, big: str, chunk_size: int) -> None:
    with pytest.raises(ValueError):
        ivcap.get_artifact(big).as_stream(chunk_size)


def test_a_local_file(ivcap: IVCAP, big: str, tmp_path: Path) -> None:
    path, told = tmp_path / "a" / "b" / "c.bin", []
    got = ivcap.get_artifact(big).as_local_file(path, progress_callback=lambda done, total: told.append((done, total)))
    assert got == path and type(got) is type(Path()) and path.read_bytes() == DATA
    assert told[-1] == (len(DATA), len(DATA)) and [entry.name for entry in path.parent.iterdir()] == ["c.bin"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_temporary_file(ivcap: IVCAP, big: str) -> None:
    with ivcap.get_artifact(big).as_local_file() as path:
        assert path.read_bytes() == DATA and path.suffix == ".bin"
    assert not path.exists()


def test_a_failed_download_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "f"
    target.write_bytes(b"before")
    with Origin(with_blob(lambda asked: ranged(DATA)(asked) if asked.method == "HEAD" else Reply(404))) as origin:
        with IVCAP(settings=ClientSettings(origin.url, Secret(CANARY), limits=LIMITS)) as client:
            with pytest.raises(errors.NotFound):
                client.get_artifact(UUID).as_local_file(target)
    assert target.read_bytes() == b"before" and list(tmp_path.iterdir()) == [target]


def test_links_are_followed_and_pipes_written_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    save([b"ab", b"c"], tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"abc"
    save([b"abc"], Path("/dev/null"))
    assert not Path("/dev/null").is_file()
    with pytest.raises(IsADirectoryError):
        save([b"abc"], tmp_path)


@pytest.mark.parametrize(
    ("name", "mime_type", "suffix"),
    [
        ("a.csv", None, ".csv"),
        ("a/b.c/d", "text/html", ".html"),
        (None, None, ""),
        ("a.b c", "x/y", ""),
        ("\0.x", None, ""),
    ],
)
def test_suffixes(name: str | None, mime_type: str | None, suffix: str) -> None:
    assert suffix_for(name, mime_type) == suffix


def test_a_temporary_path_may_be_gone_already(tmp_path: Path) -> None:
    with TemporaryPath(tmp_path / "x"):
        pass


def test_an_empty_artifact(ivcap: IVCAP, tmp_path: Path) -> None:
    empty = ivcap.upload_artifact(io_stream=io.BytesIO(b""))
    assert empty.size == 0 and empty.status == "ready" and list(empty.as_stream()) == []
    with empty.open() as file:
        assert file.read() == b""
    assert empty.as_local_file(tmp_path / "e").read_bytes() == b""


# Records


def test_properties(ivcap: IVCAP, big: str) -> None:
    whole = ivcap.get_artifact(big)
    listed = next(found for found in ivcap.list_artifacts(limit=None) if found.id == big)
    for one in (whole, listed):
        assert (one.urn, one.name, one.size, one.status) == (big, "big.bin", len(DATA), ArtifactStatus.READY)
        assert one.mime_type == "application/octet-stream" and one.created_at == whole.created_at > EPOCH
    assert (listed.etag, listed.policy, listed.account) == (whole.etag, whole.policy, whole.account)
    assert whole.etag and whole.policy and whole.account and whole.last_modified_at
    assert ivcap.get_artifact(big.rpartition(":")[2]).id == big


def test_status_is_asked_for_until_it_is_final(ivcap: IVCAP) -> None:
    begun = ivcap._connection.uploads.begin(name="slow", content_type="a/b", size=3)
    artifact = ivcap.get_artifact(begun.uuid)
    assert artifact.status == ArtifactStatus.PENDING
    with pytest.raises(errors.NotReady):
        artifact.open()
    ivcap._connection.uploads.send(begun, io.BytesIO(b"abc"))
    assert artifact.status == ArtifactStatus.READY and artifact.size == 3
    assert b"".join(artifact.as_stream()) == b"abc"


def test_what_is_no_artifact(ivcap: IVCAP) -> None:
    with pytest.raises(errors.NotFound):
        ivcap.get_artifact(UUID)
    for id in ("", "urn:ivcap:aspect:" + UUID, "data:text/plain,x", "file:///etc/passwd"):
        with pytest.raises(errors.ConfigError):
            ivcap.get_artifact(id)


def test_lists(tmp_path: Path) -> None:
    with Platform(tmp_path) as platform, IVCAP(platform.url) as client:
        made = [client.upload_artifact(name=f"n{number}", io_stream=io.BytesIO(b"x")).id for number in range(13)]
        middle = client.get_artifact(made[6]).created_at
        assert len(list(client.list_artifacts())) == 10
        assert {found.id for found in client.list_artifacts(limit=None)} == set(made)
        assert [len(list(client.list_artifacts(limit=limit))) for limit in (0, -1, 1, 12, 99)] == [0, 0, 1, 12, 13]
        assert [found.name for found in client.list_artifacts(filter="name ~= 'n1%'", order_by="name")] == [
            "n1", "n10", "n11", "n12",
        ]  # fmt: skip
        assert {found.id for found in client.list_artifacts(limit=None, at_time=middle)} == set(made[:7])


# Uploads


def test_a_file_is_uploaded_and_nothing_left_beside_it(ivcap: IVCAP, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"a,b\n")
    first, second = (ivcap.upload_artifact(name="t", file_path=path) for _ in range(2))
    assert first.mime_type == "text/csv" and first.size == 4 and first.id != second.id
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("arguments", [{}, {"file_path": "x", "io_stream": io.BytesIO()}, {"file_path": "/no/such"},
                                       {"file_path": "/"}])  # fmt: skip
def test_what_cannot_be_uploaded(ivcap: IVCAP, arguments: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigError):
        ivcap.upload_artifact(**arguments)


# Aspects


def test_metadata(ivcap: IVCAP) -> None:
    artifact = ivcap.upload_artifact(io_stream=io.BytesIO(b"x"))
    for number in range(60):
        assert artifact.add_metadata({"$schema": SCHEMA, "number": number}) is artifact
    found = list(artifact.metadata)
    assert {one.content["number"] for one in found} == set(range(60))
    assert all((one.entity, one.schema, one.content["$entity"]) == (artifact.id, SCHEMA, artifact.id) for one in found)
    with pytest.raises(errors.ConfigError):
        artifact.add_metadata({"number": 1})
    with pytest.raises(errors.ConfigError):
        artifact.add_metadata([1], schema=SCHEMA)
    with pytest.raises(errors.ConfigError):
        artifact.add_metadata({"number": float("nan")}, schema=SCHEMA)


def test_aspects(ivcap: IVCAP) -> None:
    entity = "urn:test:entity:1"
    first = ivcap.add_aspect(entity, {"v": 1}, schema=SCHEMA)
    assert first.content == first.aspect == {"$schema": SCHEMA, "$entity": entity, "v": 1}
    assert first.urn == first.id and first.content_type == "application/json" and first.asserter and first.policy
    second = ivcap.update_aspect(entity, {"v": 2}, schema=SCHEMA)
    assert [one.id for one in ivcap.list_aspects(entity=entity)] == [second.id]
    bare = next(ivcap.list_aspects(entity=entity, include_content=False))
    assert bare.content["v"] == 2 and SCHEMA in repr(bare)
    assert [one.id for one in ivcap.list_aspects(entity=entity, at_time=first.valid_from)] == [first.id]
    assert second.valid_to is None and second.retract().retract().valid_to is not None
    assert list(ivcap.list_aspects(entity=entity)) == []


# The oracle


@pytest.mark.parametrize("data", [b"", b"x", DATA])
@pytest.mark.parametrize("sized", [True, False])
def test_the_sdk_reads_what_we_write(ivcap: IVCAP, sdk: Any, data: bytes, sized: bool) -> None:
    ours = ivcap.upload_artifact(
        name="ämne/ö.csv", io_stream=io.BytesIO(data), content_size=len(data) if sized else -1, chunk_size=1_000_000,
        content_type="text/csv",
    ).add_metadata({"$schema": SCHEMA, "v": 1})  # fmt: skip
    theirs = sdk.get_artifact(ours.id)
    assert (theirs.id, theirs.name, theirs.mime_type) == (ours.id, ours.name, ours.mime_type)
    assert theirs.size == ours.size == len(data) and theirs.status == ours.status and theirs.etag == ours.etag
    with theirs.open() as file:
        assert file.read() == data
    assert [one.content["v"] for one in theirs.metadata] == [1]


@pytest.mark.parametrize("data", [b"x", DATA])
@pytest.mark.parametrize("sized", [True, False])
def test_we_read_what_the_sdk_writes(ivcap: IVCAP, sdk: Any, data: bytes, sized: bool, tmp_path: Path) -> None:
    theirs = sdk.upload_artifact(
        name="ämne/ö.csv", io_stream=io.BytesIO(data), content_size=len(data) if sized else -1, content_type="text/csv"
    )
    theirs.add_metadata({"$schema": SCHEMA, "v": 1})
    ours = ivcap.get_artifact(theirs.id)
    assert (ours.name, ours.mime_type, ours.size, ours.status) == ("ämne/ö.csv", "text/csv", len(data), "ready")
    with ours.open() as file:
        assert file.read() == data
    assert ours.as_local_file(tmp_path / "f").read_bytes() == data
    assert [one.content["v"] for one in ours.metadata] == [1]


def test_the_sdks_collections(ivcap: IVCAP, sdk: Any, big: str) -> None:
    made = sdk.create_collection("urn:ivcap:collection:" + UUID, name="C", description="D")
    made.add_item(big)
    api = ivcap._connection.api
    found = [one for one in api.iter_collections() if one.urn == made.urn]
    assert [(one.name, one.description) for one in found] == [("C", "D")]
    assert list(api.collection_members(made.urn)) == [big]
    made.remove_item(big)
    assert list(api.collection_members(made.urn)) == []


def test_inside_the_platform_hrefs_name_the_external_host(tmp_path: Path) -> None:
    with Platform(tmp_path, data_href_base="https://external.invalid") as platform, IVCAP(platform.url) as client:
        made = client.upload_artifact(io_stream=io.BytesIO(DATA), chunk_size=1_000_000)
        assert b"".join(made.as_stream()) == DATA


def test_closing(platform: Platform, big: str) -> None:
    client = IVCAP(platform.url, CANARY)
    artifact: Artifact = client.get_artifact(big)
    client.close()
    with pytest.raises(errors.Closing):
        artifact.open()
    assert big in repr(artifact)


def test_all_bounds_can_be_given(platform: Platform) -> None:
    settings = ClientSettings(platform.url, Secret(CANARY), limits=replace(LIMITS, json_size=10))
    with IVCAP(settings=settings) as client, pytest.raises(errors.ProtocolError):
        list(client.list_artifacts())


QUICK_REFERENCE = '''
from ivcapfs.client import IVCAP

ivcap = IVCAP()

# Upload a file
artifact = ivcap.upload_artifact(
    name="my-data",
    file_path="/path/to/file.csv",
)
print(artifact.id, artifact.mime_type)

# Download
with artifact.as_local_file() as path:
    print(f"Downloaded to: {path}")

# Stream to disk
with open("/tmp/output.csv", "wb") as f:
    for chunk in artifact.as_stream():
        f.write(chunk)
'''
"""The SDK's own, with another import line."""


def test_the_quick_reference_of_the_sdk_runs_with_another_import_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "file.csv", tmp_path / "output.csv"
    source.write_bytes(b"a,b\n1,2\n")
    program = QUICK_REFERENCE.replace("/path/to/file.csv", str(source)).replace("/tmp/output.csv", str(target))
    with Platform(tmp_path / "data", token="t") as platform:
        monkeypatch.setenv("IVCAP_URL", platform.url)
        monkeypatch.setenv("IVCAP_JWT", "t")
        names: dict[str, object] = {}
        exec(compile(program, "quick reference", "exec"), names)
        names["ivcap"].close()  # type: ignore[attr-defined]
    said = capsys.readouterr().out
    assert said.startswith("urn:ivcap:artifact:") and "text/csv" in said
    assert target.read_bytes() == source.read_bytes()
    assert not Path(str(names["path"])).exists()
