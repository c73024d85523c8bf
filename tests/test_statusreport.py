"""What `ivcapfs status` prints of a status: what people want to know, in their units; and what is none is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ivcapfs.catalog.interface import CatalogStatus
from ivcapfs.errors import MountError
from ivcapfs.fs.status import CacheStatus, Status, status_json
from ivcapfs.spool.describe import FileStatus, UploadsStatus
from ivcapfs.statusreport import duration, parsed, read_status, rows, size

HERE = Path("/here")
CATALOG = CatalogStatus("current", 1_234_567, 3, 24_692, 0.0, 12.3, None, Path("/x.sqlite"))
READS = {"reads": 5, "bytes_read": 1536, "requests": 2, "bytes_fetched": 1 << 30, "failures": 0, "transfers": 1}
CACHE = CacheStatus(1 << 20, 1 << 30, 4, 3, None, None)
STATUS = Status("0.1", "https://h", "/here", 7, 4000.0, CATALOG, CACHE, READS, None)


def shown(**changes: Any) -> dict[str, str]:
    """Return the rows for a status."""
    return dict(rows(json.loads(status_json(dataclasses.replace(STATUS, **changes)))))


def test_what_is_shown() -> None:
    assert shown() == {
        "mount": "/here, process 7, for 1 h 6 min",
        "deployment": "https://h, ivcapfs 0.1",
        "artifacts": "1,234,567 known",
        "list": "current, 12 s old",
        "catalog": "/x.sqlite",
        "read": "1.5 KiB in 5 reads",
        "fetched": "1.0 GiB in 2 requests, 1 under way",
        "memory": "1.0 MiB of 1.0 GiB, 75% of blocks were there",
    }


def test_what_is_shown_only_when_there_is_something_to_say() -> None:
    catalog = CatalogStatus("synchronizing", 500, 10, 10, 1234.5, None, "no connection", None)
    cache = CacheStatus(0, 1, 0, 0, "/cache", 20 << 30)
    told = shown(catalog=catalog, cache=cache, reads={**READS, "failures": 3})
    assert told["list"] == "synchronizing, 10 pages so far, 1,234 artifacts a second"
    assert told["failure"] == "no connection" and told["catalog"] == "in memory"
    assert told["disk"] == "/cache, up to 20.0 GiB" and "3 failed" in told["fetched"]


def test_new_files_are_counted_and_some_are_named() -> None:
    files = (FileStatus("artifacts/a", "uploading 50%", 2048, 1024), FileStatus("artifacts/b", "failed: full", 5, 0))
    status = dataclasses.replace(STATUS, uploads=UploadsStatus(0, 1, 1, 0, 2, 1024, files))
    told = [text for name, text in rows(json.loads(status_json(status))) if name in ("uploads", "")]
    assert told == [
        "1 pending, 1.0 KiB to send, 1 failed, 2 local",
        "artifacts/a (2.0 KiB): uploading 50%",
        "artifacts/b (5 B): failed: full",
    ]


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"no json", b"\xff", b'{"catalog": 5}'])
def test_what_is_no_status_is_refused(text: bytes) -> None:
    with pytest.raises(MountError, match="tells no status"):
        parsed(text, HERE)


def test_a_folder_without_a_mount_has_none(tmp_path: Path) -> None:
    with pytest.raises(MountError, match="no ivcapfs is mounted"):
        read_status(tmp_path)
    with pytest.raises(MountError, match="no ivcapfs is mounted"):
        read_status(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (150 << 20, "150 MiB"), (3 << 60, "3072 PiB")],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.9, "0 s"), (59.9, "59 s"), (60, "1 min"), (7380, "2 h 3 min"), (180_000, "2 d 2 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
