"""Artifacts become files: which ones, where, and that an interrupted one goes on and is never a mixture."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ivcapfs.errors import AlreadyThere, ApiError, Closing, ConfigError, ContentChanged, NotFound, NotReady
from ivcapfs.models import ArtifactRecord
from ivcapfs.transfers.choose import choose, target_in
from ivcapfs.transfers.get import Getter
from tests.fakes import wait_until
from tests.transfers.transferworld import MIB, TransferWorld

CREATED = datetime(2026, 6, 1, 10, 0, 0, 123456, tzinfo=UTC)


def day(number: int) -> datetime:
    return datetime(2026, 6, number, tzinfo=UTC)


def add(world: TransferWorld, name: str | None, content: bytes = b"x", created: datetime = CREATED, **more: str) -> str:
    return world.platform.store.add_artifact(name=name, content=content, created_at=created, **more)


def record_of(world: TransferWorld, urn: str) -> ArtifactRecord:
    return world.connection.api.read_artifact(urn.rpartition(":")[2])


def get(
    world: TransferWorld, urn: str, target: Path, tell: Callable[[int], None] = lambda done: None, **more: Any
) -> bool:
    with Getter(world.connection, world.notes, **{"jobs": 1, "range_size": MIB} | more) as getter:
        return getter.get(record_of(world, urn), target, tell)


def sent_by(world: TransferWorld) -> int:
    """Return the bytes of contents that the server sent so far."""
    return int(world.platform.counters()["blob_bytes_sent"])


# -- which ones ------------------------------------------------------------------------------------------------------


def chosen(world: TransferWorld, *words: str, recursive: bool = False) -> dict[str, str]:
    found = choose(world.connection.api, words, recursive=recursive)
    return {str(target_in(Path(), each)): each.record.urn for each in found}


def test_names_as_a_mount_shows_them(world: TransferWorld) -> None:
    old = add(world, "survey/tides.csv", created=day(1))
    new = add(world, "survey/tides.csv", created=day(2))
    odd = add(world, "a//b\n.txt")
    assert chosen(world, "survey/tides.csv") == {"tides.csv": new}
    digits = old.rpartition(":")[2]
    assert chosen(world, f"survey/tides@{digits[:8]}.csv") == {f"tides@{digits[:8]}.csv": old}
    assert chosen(world, f"survey/tides@{digits}.csv") == {f"tides@{digits}.csv": old}
    assert chosen(world, "a/%2Fb%0A.txt") == {"%2Fb%0A.txt": odd}
    assert chosen(world, old) == chosen(world, digits) == chosen(world, digits.upper()) == {"tides.csv": old}


def test_an_artifact_without_a_name_is_called_by_its_uuid(world: TransferWorld) -> None:
    urn = add(world, None, mime_type="image/png")
    assert chosen(world, urn) == {f"{urn.rpartition(':')[2]}.png": urn}


def test_a_name_cannot_lead_out_of_the_folder(world: TransferWorld) -> None:
    names = ["../../up", "/etc/passwd", "..", "x/../../y"]
    urns = [add(world, name) for name in names]
    for urn in urns:
        (target,) = chosen(world, urn)
        assert "/" not in target and target not in (".", "..")
    for target in chosen(world, "x", recursive=True):
        assert ".." not in Path(target).parts


def test_folders(world: TransferWorld) -> None:
    add(world, "survey/2026/a.csv", created=day(1))
    a, b = add(world, "survey/2026/a.csv", created=day(2)), add(world, "survey/2026/raw/b.csv")
    add(world, "survey/2027/c.csv")
    add(world, "survey/2026/pending", status="pending")
    add(world, "survey_2026/no.csv")
    both = {"2026/a.csv": a, "2026/raw/b.csv": b}
    assert chosen(world, "survey/2026", recursive=True) == chosen(world, "survey/2026/", recursive=True) == both
    assert chosen(world, "survey/2026/a.csv", recursive=True) == {"a.csv": a}
    for word in ("survey/2026", "survey/2026/"):
        with pytest.raises(ConfigError, match="is a folder: -r"):
            chosen(world, word)


def test_the_newest_of_more_namesakes_than_a_page_has(world: TransferWorld) -> None:
    urns = [add(world, "a", created=datetime(2026, 1, 1, 0, (number + 30) % 60, tzinfo=UTC)) for number in range(60)]
    assert chosen(world, "a") == {"a": urns[29]}


def test_what_is_not_there(world: TransferWorld) -> None:
    pending = add(world, "p", status="pending")
    for word in ("none", "p", "tides@3f2a9c1e.csv", "none/"):
        with pytest.raises(ConfigError, match="no artifact is called"):
            chosen(world, word)
    for word in ("", "/a", "a//b"):
        with pytest.raises(ConfigError, match="is no name"):
            chosen(world, word)
    with pytest.raises(NotFound):
        chosen(world, "3f2a9c1e-7b4d-4e0a-9c58-1d6f0a2b3c4d")
    with pytest.raises(NotReady):
        chosen(world, pending)


def test_two_artifacts_are_never_one_file(world: TransferWorld) -> None:
    add(world, "x/a")
    add(world, "y/a")
    add(world, "a.part")
    with pytest.raises(ConfigError, match="two artifacts would be the file a"):
        chosen(world, "x/a", "y/a")
    with pytest.raises(ConfigError, match=r"a.part is in the way"):
        chosen(world, "x/a", "a.part")
    assert len(chosen(world, "x/a", "x/a")) == 1


# -- one file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1, 5 * MIB + 17])
@pytest.mark.parametrize("jobs", [1, 4])
def test_an_artifact_becomes_a_file(world: TransferWorld, tmp_path: Path, size: int, jobs: int) -> None:
    content = os.urandom(size)
    urn, target = add(world, "a", content), tmp_path / "out" / "folder" / "a"
    told: list[int] = []
    assert get(world, urn, target, told.append, jobs=jobs)
    assert target.read_bytes() == content
    assert target.stat().st_mtime_ns == 1_780_308_000_123_456_000
    assert max(told) == size
    assert [path.name for path in target.parent.iterdir()] == ["a"]
    assert list(world.notes.iterdir()) == []


def broken_off(world: TransferWorld, urn: str, target: Path, after: int) -> None:
    """Get an artifact, and be ended once so many bytes are here."""
    stop = threading.Event()
    with pytest.raises(Closing):
        get(world, urn, target, lambda done: stop.set() if done >= after else None, stopped=stop.is_set)
    assert not target.exists()
    assert target.with_name("a.part").exists()


def test_an_interrupted_one_fetches_what_is_missing(world: TransferWorld, tmp_path: Path) -> None:
    content = os.urandom(6 * MIB)
    urn, target = add(world, "a", content), tmp_path / "a"
    broken_off(world, urn, target, 3 * MIB)
    before = sent_by(world)
    told: list[int] = []
    get(world, urn, target, told.append)
    assert target.read_bytes() == content
    assert told[0] == 3 * MIB
    wait_until(lambda: sent_by(world) >= before + 3 * MIB)  # counted after the last byte has gone
    assert sent_by(world) == before + 3 * MIB, "the other three ranges, and nothing else"


def test_bytes_that_are_not_noted_are_fetched_again(world: TransferWorld, tmp_path: Path) -> None:
    content = os.urandom(4 * MIB)
    urn, target = add(world, "a", content), tmp_path / "a"
    broken_off(world, urn, target, 2 * MIB)
    with target.with_name("a.part").open("r+b") as file:
        file.seek(2 * MIB)
        file.write(b"rubbish")
    get(world, urn, target)
    assert target.read_bytes() == content


def test_another_etag_begins_anew(world: TransferWorld, tmp_path: Path) -> None:
    content = os.urandom(4 * MIB)
    urn, target = add(world, "a", content), tmp_path / "a"
    broken_off(world, urn, target, 2 * MIB)
    (note,) = world.notes.iterdir()
    text = note.read_text()
    etag = text.partition('"content": ["')[2].partition('", ')[0]
    note.write_text(text.replace(etag, etag[:-3] + 'X\\"' if etag.endswith('\\"') else "other"))
    with target.with_name("a.part").open("r+b") as file:
        file.write(b"rubbish of the other content")
    get(world, urn, target)
    assert target.read_bytes() == content


def test_a_part_that_was_not_begun_here_stays(world: TransferWorld, tmp_path: Path) -> None:
    urn, target = add(world, "a", b"content"), tmp_path / "a"
    part = tmp_path / "a.part"
    part.write_bytes(b"somebody's")
    with pytest.raises(AlreadyThere, match="was not begun here"):
        get(world, urn, target)
    assert part.read_bytes() == b"somebody's"
    get(world, urn, target, force=True)
    assert target.read_bytes() == b"content"
    assert not part.exists()


def test_a_part_that_was_replaced_stays(world: TransferWorld, tmp_path: Path) -> None:
    urn, target = add(world, "a", os.urandom(4 * MIB)), tmp_path / "a"
    broken_off(world, urn, target, 2 * MIB)
    other = tmp_path / "other"
    other.write_bytes(b"somebody's")
    other.rename(tmp_path / "a.part")
    with pytest.raises(AlreadyThere, match="was not begun here"):
        get(world, urn, target)


def test_a_complete_file_is_kept(world: TransferWorld, tmp_path: Path) -> None:
    urn, target = add(world, "a", b"content"), tmp_path / "a"
    assert get(world, urn, target)
    world.platform.reset_counters()
    assert not get(world, urn, target)
    assert sent_by(world) == 0
    assert get(world, urn, target, force=True)
    wait_until(lambda: sent_by(world) == 7)


def test_another_file_is_not_replaced_unless_forced(world: TransferWorld, tmp_path: Path) -> None:
    urn, target = add(world, "a", b"content"), tmp_path / "a"
    target.write_bytes(b"mine!!!")  # of the same size
    with pytest.raises(AlreadyThere, match="--force"):
        get(world, urn, target)
    assert target.read_bytes() == b"mine!!!"
    get(world, urn, target, force=True)
    assert target.read_bytes() == b"content"
    target.unlink()
    target.symlink_to("elsewhere")
    with pytest.raises(AlreadyThere):
        get(world, urn, target)
    target.unlink()
    target.mkdir()
    with pytest.raises(AlreadyThere, match="is a folder"):
        get(world, urn, target, force=True)


def test_a_file_that_appears_meanwhile_stays(world: TransferWorld, tmp_path: Path) -> None:
    urn, target = add(world, "a", b"content"), tmp_path / "a"
    with pytest.raises(AlreadyThere, match="--force"):
        get(world, urn, target, lambda done: target.write_bytes(b"mine") and None)
    assert target.read_bytes() == b"mine"


def test_a_refusal_in_the_middle_leaves_what_came(world: TransferWorld, tmp_path: Path) -> None:
    content = os.urandom(4 * MIB)
    urn, target = add(world, "a", content), tmp_path / "a"
    blobs = 0

    def third(request: str) -> bool:
        nonlocal blobs
        blobs += request.startswith("GET") and request.endswith("/blob")
        return blobs > 2

    world.refuse = third
    with pytest.raises(ApiError):
        get(world, urn, target)
    world.refuse = lambda request: False
    told: list[int] = []
    get(world, urn, target, told.append)
    assert told[0] == 2 * MIB
    assert target.read_bytes() == content


def test_a_record_that_tells_another_size_is_not_believed(world: TransferWorld, tmp_path: Path) -> None:
    urn = add(world, "a", b"content")
    for size in (6, 8):
        wrong = replace(record_of(world, urn), size=size)
        with Getter(world.connection, world.notes, jobs=1) as getter, pytest.raises(Exception, match="bytes") as caught:
            getter.get(wrong, tmp_path / "a")
        assert size == 8 or isinstance(caught.value, ContentChanged)
        assert not (tmp_path / "a").exists()


def test_a_long_name_has_a_part_too(world: TransferWorld, tmp_path: Path) -> None:
    name = "n" * 255
    urn = add(world, name, os.urandom(2 * MIB))
    get(world, urn, tmp_path / name)
    assert (tmp_path / name).stat().st_size == 2 * MIB


def test_what_the_disk_refuses_is_an_error_of_the_disk(world: TransferWorld) -> None:
    urn = add(world, "a", b"content")
    with pytest.raises(FileNotFoundError):
        get(world, urn, Path("/proc/none/a"))
