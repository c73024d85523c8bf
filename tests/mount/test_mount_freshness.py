"""What is new shows up in time, every name appears and opens, and an open file stays the file that was opened."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
from ivcap_client.ivcap import IVCAP as SDK

from ivcapfs.server.runner import Platform
from tests.mount.conftest import Mount, Mounter, eventually, output

HOSTILE_NAMES = [
    "plain.csv",
    "folder/in/folder.txt",
    "a//b",
    "/leading",
    "trailing/",
    "two  spaces and\ttab",
    "new\nline",
    "x" * 300,
    "y" * 300 + ".tar.gz",
    "z" * 400 + "/below",
    "..",
    ".",
    "../../etc/passwd",
    "emoji \N{SNOWMAN} 🐚.txt",
    "control \x01\x1f\x7f.bin",
    "-rf",
    "*?[a]",
    "100%2Fsure",
    "looks@12345678.like",
    "content",
    "artifact.json",
    "aspects",
    ".hidden",
    "both",
    "both/a folder",
    "ümläut",
    "a,b\\c'd\"e",
]


def upload(platform: Platform, name: str | None, content: bytes = b"content\n") -> str:
    """Put an artifact straight into the platform's store and return its URN."""
    return platform.store.add_artifact(name=name, content=content, mime_type="text/plain")


def test_a_new_artifact_is_listed_within_the_refresh_time_and_there_by_its_uuid_at_once(
    mount: Mount, sdk: SDK, tmp_path: Path
) -> None:
    assert os.listdir(mount.artifacts) == []
    file = tmp_path / "new.txt"
    file.write_bytes(b"fresh\n")
    artifact = sdk.upload_artifact(name="new.txt", file_path=str(file))
    assert (mount.by_id(artifact.id) / "new.txt").read_bytes() == b"fresh\n"
    assert (mount.path / "by-id" / artifact.id / "content").read_bytes() == b"fresh\n"
    eventually(lambda: os.listdir(mount.artifacts) == ["new.txt"], "it is listed", seconds=5)
    assert (mount.artifacts / "new.txt").read_bytes() == b"fresh\n"


def test_a_new_name_opens_before_any_listing_has_shown_it(platform: Platform, mounter: Mounter) -> None:
    mount = mounter(platform.url, refresh=1000)
    assert os.listdir(mount.artifacts) == []
    upload(platform, "folder/it's 50% new_.txt")
    assert (mount.artifacts / "folder" / "it's 50% new_.txt").exists() is False, "its folder is not known"
    upload(platform, "it's 50% new_.txt")
    assert (mount.artifacts / "it's 50% new_.txt").read_bytes() == b"content\n"
    with pytest.raises(FileNotFoundError):
        (mount.artifacts / "nothing.txt").open()


def test_a_thousand_artifacts_list_completely(platform: Platform, mount: Mount) -> None:
    names = {f"file-{number:04}" for number in range(1000)}
    for name in sorted(names):
        upload(platform, name)
    eventually(lambda: len(os.listdir(mount.artifacts)) == 1000, "all are listed")
    assert set(os.listdir(mount.artifacts)) == names
    assert len(os.listdir(mount.path / "by-id")) == 1000


def test_every_name_appears_and_opens(platform: Platform, mount: Mount) -> None:
    contents = {upload(platform, name, name.encode()): name.encode() for name in HOSTILE_NAMES}
    contents[upload(platform, None, b"nameless")] = b"nameless"
    eventually(lambda: len(os.listdir(mount.path / "by-id")) == len(contents), "all are listed")
    found = [Path(folder) / name for folder, _, names in os.walk(mount.artifacts) for name in names]
    assert sorted(path.read_bytes() for path in found) == sorted(contents.values())
    assert len(output("find", mount.artifacts, "-type", "f", "-print0").rstrip("\0").split("\0")) == len(found)
    for urn, content in contents.items():
        folder = mount.by_id(urn)
        assert (folder / "content").read_bytes() == content
        assert len(os.listdir(folder)) == 4


@pytest.mark.parametrize(
    "new", [b"new", b"NEW-BYTES", b"new, and longer\n" * 10_000], ids=["smaller", "equal", "larger"]
)
def test_an_open_file_stays_what_it_was_when_a_newer_namesake_arrives(
    platform: Platform, mount: Mount, new: bytes
) -> None:
    old = b"old bytes"
    first = upload(platform, "data.bin", old)
    path = mount.artifacts / "data.bin"
    eventually(path.exists, "it is there")
    with path.open("rb", buffering=0) as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert file.read(3) == old[:3]
        second = upload(platform, "data.bin", new)
        aside = f"data@{first.rpartition(':')[2][:8]}.bin"
        eventually(lambda: aside in os.listdir(mount.artifacts), "the old one is listed by its @id")
        assert output("ls", "-l", mount.artifacts)
        assert path.stat().st_size == os.fstat(file.fileno()).st_size == len(old)
        assert os.pread(file.fileno(), 100, 0) == old
        assert bytes(mapped) == old
        assert path.read_bytes() == old, "the path stays bound while it is open"
        assert (mount.by_id(second) / "data.bin").read_bytes() == new
        assert (mount.artifacts / f"data@{second.rpartition(':')[2][:8]}.bin").read_bytes() == new
        assert bytes(mapped) == old
    assert path.read_bytes() == new
    assert path.stat().st_size == len(new)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert bytes(mapped) == new
    assert (mount.artifacts / aside).read_bytes() == old


def test_a_closed_file_is_never_mistaken_for_its_newer_namesake(platform: Platform, mount: Mount) -> None:
    path = mount.artifacts / "again.bin"
    for content in (b"one..", b"two..", b"three and more", b"4", b"five5"):
        upload(platform, "again.bin", content)
        eventually(lambda content=content: path.exists() and path.read_bytes() == content, f"{content!r} is read")
        assert path.stat().st_size == len(content)


def test_the_same_artifact_has_the_same_inode_number_everywhere(platform: Platform, mount: Mount) -> None:
    urn = upload(platform, "same.txt")
    path = mount.artifacts / "same.txt"
    eventually(path.exists, "it is there")
    assert path.stat().st_ino == (mount.by_id(urn) / "same.txt").stat().st_ino
    with os.scandir(mount.artifacts) as entries:
        assert [entry.inode() for entry in entries] == [path.stat().st_ino]
