"""Records and aspects as extended attributes and as JSON files, next to what the official SDK says of them."""

from __future__ import annotations

import base64
import errno
import gc
import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from ivcap_client.artifact import Artifact as SDKArtifact
from ivcap_client.ivcap import IVCAP as SDK

from ivcapfs.server.runner import Platform
from tests.mount.conftest import TOKEN, Mount, Mounter, daemons, eventually, output, run

ASPECT = "user.ivcap.aspect."
SCHEMA = "urn:test:schema:a.1"
POLICY = "urn:ivcap:policy:ivcap.open.artifact"
CONTENT = "id,väl\n1,2\n".encode()
KIB = 1024

ASPECTS = [
    {"$schema": SCHEMA, "text": "it's \"quoted\"\n\ttwice \\ 🐚 ü \u2028", "number": -1.5e-7, "nothing": None},
    {"$schema": "urn:test:schema:b.2", "nested": {"list": [1, [2, [3, {"deep": True}]]], "": "empty name"}},
    {"$schema": "urn:test:schema:with/slash and space%", "big": 2**63, "zero": 0},
    {"$schema": "urn:test:schema:empty"},
]


@pytest.fixture
def sdk(platform: Platform) -> Iterator[SDK]:
    """The official SDK, logged in; what it leaves open is closed."""
    sdk = SDK(url=platform.url, token=TOKEN)
    yield sdk
    sdk._client.get_httpx_client().close()
    gc.collect()


@pytest.fixture
def artifact(sdk: SDK, tmp_path: Path) -> SDKArtifact:
    """An artifact that the SDK uploaded."""
    file = tmp_path / "table.csv"
    file.write_bytes(CONTENT)
    uploaded = sdk.upload_artifact(
        name="survey/table.csv", file_path=str(file), content_type="text/csv", policy=POLICY
    )
    return sdk.get_artifact(uploaded.id).refresh()


@pytest.fixture
def quiet(platform: Platform, mounter: Mounter) -> Mount:
    """A mount made when all is in place already; it keeps what it was told."""
    return mounter(platform.url, refresh=100_000)


def attributes(path: Path) -> dict[str, bytes]:
    """Return all attributes of a path, as getfattr(1) shows them."""
    result = run("getfattr", "-d", "--encoding=base64", "--absolute-names", path)
    assert (result.returncode, result.stderr) == (0, "")
    pairs = (line.partition("=") for line in result.stdout.splitlines() if line and not line.startswith("#"))
    return {_unescaped(name): base64.b64decode(value.removeprefix("0s")) for name, _, value in pairs}


def _unescaped(name: str) -> str:
    """Return an attribute's name without getfattr's octal escapes."""
    return name.replace("\\075", "=").replace("\\134", "\\")


def told(artifact: SDKArtifact) -> list[tuple[str, Any]]:
    """Return (schema, content) of all aspects of an artifact, newest first, as the SDK tells them."""
    return [(aspect.schema, aspect.content) for aspect in artifact._ivcap.list_aspects(entity=artifact.id, limit=None)]


def errno_of(path: Path, name: str) -> int:
    """Return the errno that reading an attribute gives."""
    with pytest.raises(OSError) as caught:
        os.getxattr(path, name)
    return caught.value.errno


def test_the_record_is_told_as_the_sdk_tells_it(artifact: SDKArtifact, quiet: Mount) -> None:
    path = quiet.artifacts / "survey/table.csv"
    shown = {name: value.decode() for name, value in attributes(path).items()}
    assert shown["user.mime_type"] == artifact.mime_type == "text/csv"
    assert shown["user.ivcap.id"] == artifact.id
    assert shown["user.ivcap.name"] == artifact.name == "survey/table.csv"
    assert shown["user.ivcap.status"] == str(artifact.status) == "ready"
    assert shown["user.ivcap.size"] == str(artifact.size) == str(len(CONTENT))
    assert shown["user.ivcap.etag"] == artifact.etag
    assert shown["user.ivcap.policy"] == artifact.policy == POLICY
    assert shown["user.ivcap.account"] == artifact.account
    created = datetime.fromisoformat(shown["user.ivcap.created-at"])
    assert created == datetime.fromisoformat(str(artifact.created_at))
    assert path.stat().st_mtime_ns // 1000 == int(created.timestamp()) * 1_000_000 + created.microsecond
    modified = datetime.fromisoformat(shown["user.ivcap.last-modified-at"])
    assert modified == datetime.fromisoformat(str(artifact.last_modified_at)) >= created
    assert None not in (artifact.etag, artifact.account, artifact.created_at)
    assert output("getfattr", "-n", "user.mime_type", "--only-values", path) == "text/csv"
    assert "href" not in " ".join(shown), "it may be signed"


def test_the_aspects_are_told_as_the_sdk_wrote_them(artifact: SDKArtifact, quiet: Mount) -> None:
    for aspect in ASPECTS:
        artifact.add_metadata(aspect)
    path = quiet.artifacts / "survey/table.csv"
    listed = [(name.removeprefix(ASPECT), value) for name, value in attributes(path).items() if ASPECT in name]
    shown = {label: json.loads(value) for label, value in listed}
    written = {aspect["$schema"].replace("/", "%2F"): aspect for aspect in ASPECTS}
    assert {name: {key: shown[name].get(key) for key in written[name]} for name in shown} == written
    assert sorted(map(str, shown.values())) == sorted(str(content) for _, content in told(artifact))
    folder = quiet.by_id(artifact.id) / "aspects"
    assert sorted(os.listdir(folder)) == sorted(f"{label}.json" for label in written)
    for label, content in shown.items():
        file = folder / f"{label}.json"
        assert json.loads(file.read_bytes()) == content
        assert file.stat().st_size == len(file.read_bytes())


def test_an_aspect_too_large_for_an_attribute_hides_no_other(artifact: SDKArtifact, quiet: Mount) -> None:
    path, folder = quiet.artifacts / "survey/table.csv", quiet.by_id(artifact.id) / "aspects"
    large = {"$schema": "urn:test:schema:large", "text": "x" * 100 * KIB}
    artifact.add_metadata(ASPECTS[0]).add_metadata(large).add_metadata(ASPECTS[1])
    shown = attributes(path)
    assert {name for name in shown if name.startswith(ASPECT)} == {ASPECT + SCHEMA, ASPECT + "urn:test:schema:b.2"}
    assert json.loads(shown[ASPECT + SCHEMA])["text"] == ASPECTS[0]["text"]
    assert set(os.listxattr(path)) == set(shown)
    assert errno_of(path, ASPECT + "urn:test:schema:large") == errno.E2BIG
    assert json.loads((folder / "urn:test:schema:large.json").read_bytes())["text"] == large["text"]
    assert len(os.listdir(folder)) == 3


@pytest.mark.parametrize(("excess", "fits"), [(0, True), (1, False)], ids=["64 KiB", "a byte more"])
def test_the_largest_attribute_has_64_kib(
    platform: Platform, artifact: SDKArtifact, quiet: Mount, excess: int, fits: bool
) -> None:
    frame = len(json.dumps({"t": ""}))
    content = {"t": "x" * (64 * KIB - frame + excess)}
    platform.store.add_aspect(artifact.id, SCHEMA, content)
    path = quiet.artifacts / "survey/table.csv"
    assert (ASPECT + SCHEMA in attributes(path)) is fits
    if fits:
        assert json.loads(os.getxattr(path, ASPECT + SCHEMA)) == content
        assert len(os.getxattr(path, ASPECT + SCHEMA)) == 64 * KIB
    else:
        assert errno_of(path, ASPECT + SCHEMA) == errno.E2BIG
    assert json.loads((quiet.by_id(artifact.id) / "aspects" / f"{SCHEMA}.json").read_bytes()) == content


def test_of_several_aspects_of_one_schema_the_newest_is_plain(artifact: SDKArtifact, quiet: Mount) -> None:
    for number in (1, 2, 3):
        artifact.add_metadata({"$schema": SCHEMA, "number": number})
    path, folder = quiet.artifacts / "survey/table.csv", quiet.by_id(artifact.id) / "aspects"
    shown = attributes(path)
    assert {name: json.loads(shown[name])["number"] for name in shown if name.startswith(ASPECT)} == {
        ASPECT + SCHEMA: 3,
        ASPECT + SCHEMA + "~2": 2,
        ASPECT + SCHEMA + "~3": 1,
    }
    assert {name: json.loads((folder / name).read_bytes())["number"] for name in os.listdir(folder)} == {
        f"{SCHEMA}.json": 3,
        f"{SCHEMA}~2.json": 2,
        f"{SCHEMA}~3.json": 1,
    }
    assert [content["number"] for _, content in told(artifact)] == [3, 2, 1]


@pytest.mark.parametrize("count", [25, 120])
def test_aspects_of_more_than_one_page_are_all_there(
    platform: Platform, artifact: SDKArtifact, quiet: Mount, count: int
) -> None:
    for number in range(count):
        platform.store.add_aspect(artifact.id, f"urn:test:schema:{number}", {"number": number})
    shown = attributes(quiet.artifacts / "survey/table.csv")
    numbers = {name: json.loads(shown[name])["number"] for name in shown if name.startswith(ASPECT)}
    assert numbers == {f"{ASPECT}urn:test:schema:{number}": number for number in range(count)}
    assert len(os.listdir(quiet.by_id(artifact.id) / "aspects")) == count
    assert len(told(artifact)) == count


@pytest.mark.parametrize("long", ["urn:test:" + "s" * 291, "urn:test:" + "ü" * 150, "urn:test:" + "🐚/" * 80])
def test_a_schema_too_long_for_a_name_breaks_nothing(artifact: SDKArtifact, quiet: Mount, long: str) -> None:
    artifact.add_metadata({"$schema": long, "number": 1})
    artifact.add_metadata({"$schema": long + "2", "number": 2})
    artifact.add_metadata({"$schema": SCHEMA, "number": 3})
    path, folder = quiet.artifacts / "survey/table.csv", quiet.by_id(artifact.id) / "aspects"
    shown = {name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith(ASPECT)}
    assert sorted(json.loads(value)["number"] for value in shown.values()) == [1, 2, 3]
    assert json.loads(shown[ASPECT + SCHEMA])["number"] == 3
    files = {name: json.loads((folder / name).read_bytes()) for name in os.listdir(folder)}
    assert sorted(content["number"] for content in files.values()) == [1, 2, 3]
    assert {f"{name.removeprefix(ASPECT)}.json" for name in shown} == set(files)
    assert output("ls", "-l", folder).count(".json") == 3


def test_a_list_of_attributes_over_64_kib_is_cut_not_refused(
    platform: Platform, artifact: SDKArtifact, quiet: Mount
) -> None:
    with platform.store.batch():
        for number in range(400):
            platform.store.add_aspect(artifact.id, f"urn:test:{number:04}:{'s' * 200}", {"number": number})
    path, folder = quiet.artifacts / "survey/table.csv", quiet.by_id(artifact.id) / "aspects"
    names = os.listxattr(path)
    assert "user.ivcap.id" in names
    assert 63 * KIB < sum(len(name) + 1 for name in names) <= 64 * KIB
    assert len(attributes(path)) == len(names)
    oldest = f"{ASPECT}urn:test:0000:{'s' * 200}"
    assert oldest not in names
    assert json.loads(os.getxattr(path, oldest)) == {"number": 0}
    assert len(os.listdir(folder)) == 400


def test_artifact_json_is_the_record(artifact: SDKArtifact, quiet: Mount) -> None:
    path = quiet.by_id(artifact.id) / "artifact.json"
    size = path.stat().st_size
    data = path.read_bytes()
    assert len(data) == size > 0
    with path.open("rb") as file:
        assert os.fstat(file.fileno()).st_size == size
        assert os.pread(file.fileno(), 100, size) == b""
        assert os.pread(file.fileno(), 100, size - 1) == data[-1:]
    record = json.loads(data)
    shown = attributes(quiet.artifacts / "survey/table.csv")
    assert record["mime-type"] == shown.pop("user.mime_type").decode()
    assert {f"user.ivcap.{name}": str(value).encode() for name, value in record.items() if name != "mime-type"} == shown
    assert record["size"] == artifact.size
    assert output("python3", "-m", "json.tool", path)
    assert "data-href" not in record, "it may be signed"


def test_what_is_not_there_has_the_right_errno(artifact: SDKArtifact, quiet: Mount) -> None:
    trusted = errno.EOPNOTSUPP if os.geteuid() == 0 else errno.ENODATA  # the kernel hides them from ordinary users
    folder = quiet.by_id(artifact.id)
    for path in (quiet.artifacts / "survey/table.csv", folder, folder / "artifact.json", quiet.artifacts, quiet.path):
        for name in ("user.nope", "user.ivcap.nope", "user.ivcap.", "user.ivcap.aspect.urn:nope", "user.ivcap.aspect."):
            assert errno_of(path, name) == errno.ENODATA
        for name in ("security.x", "security.capability", "system.x"):
            assert errno_of(path, name) == errno.EOPNOTSUPP
        assert errno_of(path, "trusted.x") == trusted
    assert os.listxattr(quiet.artifacts) == os.listxattr(quiet.path) == os.listxattr(folder / "aspects") == []


def test_the_folder_of_an_artifact_has_its_attributes(artifact: SDKArtifact, quiet: Mount) -> None:
    artifact.add_metadata(ASPECTS[0])
    expected = attributes(quiet.artifacts / "survey/table.csv")
    assert ASPECT + SCHEMA in expected
    folder = quiet.by_id(artifact.id)
    for path in (folder, quiet.path / "by-id" / artifact.id, folder / "table.csv", folder / "content"):
        assert attributes(path) == expected
    assert os.readlink(folder / "content") == "table.csv"


def test_an_aspect_that_is_added_changed_or_retracted_shows_within_the_refresh_time(
    artifact: SDKArtifact, sdk: SDK, mount: Mount
) -> None:
    path, folder = mount.artifacts / "survey/table.csv", mount.by_id(artifact.id) / "aspects"
    assert not any(name.startswith(ASPECT) for name in attributes(path))
    assert os.listdir(folder) == []
    artifact.add_metadata({"$schema": SCHEMA, "number": 1})
    eventually(lambda: ASPECT + SCHEMA in os.listxattr(path), "it is in the list", seconds=10)
    eventually(lambda: os.listdir(folder) == [f"{SCHEMA}.json"], "it is in the folder", seconds=10)
    assert json.loads((folder / f"{SCHEMA}.json").read_bytes())["number"] == 1
    changed = sdk.update_aspect(artifact.id, {"$schema": SCHEMA, "number": 2, "more": "x" * 1000})

    def attribute_follows() -> bool:
        return json.loads(os.getxattr(path, ASPECT + SCHEMA))["number"] == 2

    def file_follows() -> bool:
        data = (folder / f"{SCHEMA}.json").read_bytes()
        return json.loads(data)["number"] == 2 and len(data) == (folder / f"{SCHEMA}.json").stat().st_size

    eventually(attribute_follows, "the attribute follows", seconds=10)
    eventually(file_follows, "so does the file, whole", seconds=10)
    changed.retract()
    eventually(lambda: ASPECT + SCHEMA not in os.listxattr(path), "it is gone from the list", seconds=10)
    eventually(lambda: os.listdir(folder) == [], "and from the folder", seconds=10)
    assert errno_of(path, ASPECT + SCHEMA) == errno.ENODATA


def test_a_copy_keeps_what_its_filesystem_can_hold(artifact: SDKArtifact, quiet: Mount, tmp_path: Path) -> None:
    artifact.add_metadata(ASPECTS[0])
    copy = tmp_path / "copy.csv"
    output("cp", "-a", quiet.artifacts / "survey/table.csv", copy)
    assert copy.read_bytes() == CONTENT
    assert copy.stat().st_mtime_ns == (quiet.artifacts / "survey/table.csv").stat().st_mtime_ns
    try:
        os.setxattr(tmp_path, "user.test", b"1")
    except OSError as exc:
        assert exc.errno == errno.EOPNOTSUPP
        return
    assert ASPECT + SCHEMA in attributes(copy)
    assert attributes(copy) == attributes(quiet.artifacts / "survey/table.csv")


def test_a_callback_maps_no_memory(artifact: SDKArtifact, quiet: Mount) -> None:
    path = quiet.artifacts / artifact.name
    (daemon,) = daemons(quiet.path)

    def faults() -> int:
        return int(Path(f"/proc/{daemon}/stat").read_text().rpartition(")")[2].split()[7])

    for _ in range(300):  # until all threads that will answer have begun
        os.getxattr(path, "user.mime_type")
    before = faults()
    for _ in range(1000):
        os.getxattr(path, "user.mime_type")
    assert faults() - before < 500, "the state of libfuse's threads is made anew for each callback"
