"""`ivcapfs status`: the mount tells of itself, through itself, whatever the server does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ivcapfs.server.runner import Platform
from ivcapfs.server.synthetic import Synthetic
from tests.mount.conftest import (
    TOKEN,
    Faults,
    Mount,
    Mounter,
    clean_env,
    eventually,
    is_mounted,
    ivcapfs,
    output,
    process,
    run,
)


def told(mount: Mount) -> dict[str, Any]:
    """Return what the mount's file says."""
    text = (mount.path / ".ivcapfs" / "status.json").read_bytes()
    assert text.endswith(b"}\n")
    return json.loads(text)  # type: ignore[no-any-return]


def shown(mount: Mount, *words: str) -> str:
    return output(*ivcapfs("status", mount.path, *words))


def test_the_file_tells_what_the_mount_did(platform: Platform, mount: Mount) -> None:
    platform.store.add_artifact(name="a.bin", content=bytes(300_000))
    assert (mount.artifacts / "a.bin").read_bytes() == bytes(300_000)
    status = told(mount)
    assert status["url"] == platform.url and status["mountpoint"] == str(mount.path)
    assert status["pid"] > 1 and status["uptime"] > 0
    assert status["reads"]["bytes_read"] == status["reads"]["bytes_fetched"] == 300_000
    assert status["reads"]["requests"] >= 1 and status["reads"]["transfers"] == status["reads"]["failures"] == 0
    assert os.listdir(mount.artifacts) == ["a.bin"]
    eventually(lambda: told(mount)["catalog"]["artifacts"] == 1, "the catalog knows it")
    assert told(mount)["catalog"]["state"] == "current"
    assert TOKEN not in json.dumps(told(mount))


def test_it_is_in_no_listing_and_has_the_size_that_stat_says(mount: Mount) -> None:
    assert ".ivcapfs" not in output("ls", "-a", mount.path).split()
    assert ".ivcapfs" not in output("find", mount.path)
    assert os.listdir(mount.path / ".ivcapfs") == ["status.json"]
    path = mount.path / ".ivcapfs" / "status.json"
    for _ in range(20):
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            assert len(file.read()) == size
            json.loads(path.read_bytes())
    with pytest.raises(OSError):
        path.open("wb")


def test_many_readers_at_once_each_get_a_whole_text(mount: Mount) -> None:
    script = f"for i in 1 2 3 4 5 6 7 8; do cat {mount.path}/.ivcapfs/status.json; sleep 0.15; done"
    readers = [subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for reader in readers:
        text, _ = reader.communicate(timeout=60)
        decoder, count = json.JSONDecoder(), 0
        while text.strip():
            status, end = decoder.raw_decode(text.lstrip())
            text, count = text.lstrip()[end:], count + 1
            assert status["mountpoint"] == str(mount.path)
        assert count == 8


def test_the_command_prints_a_table_or_the_json(platform: Platform, mount: Mount) -> None:
    table = shown(mount)
    assert str(mount.path) in table and platform.url in table and "artifacts" in table
    assert json.loads(shown(mount, "--json"))["url"] == platform.url
    result = run(*ivcapfs("status", mount.path.parent))
    assert (result.returncode, result.stderr) == (1, f"ivcapfs: no ivcapfs is mounted at {mount.path.parent}\n")


def test_watching_goes_on_until_it_is_interrupted(mount: Mount) -> None:
    with process(*ivcapfs("status", "--watch", "--json", mount.path), env=clean_env(PYTHONUNBUFFERED="1")) as watching:
        assert watching.stdout is not None
        seen = 0
        while seen < 2:
            seen += b'"uptime"' in watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130


def test_the_server_is_down_and_the_status_says_so(platform: Platform, mount: Mount) -> None:
    platform.store.add_artifact(name="a", content=b"x")
    eventually(lambda: os.listdir(mount.artifacts) == ["a"], "it is listed")
    platform.stop()

    def is_stale() -> bool:
        os.listdir(mount.artifacts)
        return bool(told(mount)["catalog"]["state"] == "stale")

    eventually(is_stale, "the catalog is told to be stale")
    assert "no connection" in told(mount)["catalog"]["failure"]
    assert "stale" in shown(mount)


def test_it_tells_how_far_the_first_synchronization_is(tmp_path: Path, mounter: Mounter, faults: Faults) -> None:
    with Platform(
        tmp_path / "many", token=TOKEN, synthetic=Synthetic(100_000), latency=0.05, wrap=faults.wrap
    ) as platform:
        mount = mounter(platform.url)
        with process("ls", mount.artifacts):
            eventually(lambda: told(mount)["catalog"]["synchronized_pages"] >= 3, "pages come")
            status = told(mount)["catalog"]
            assert status["state"] == "synchronizing" and 150 <= status["artifacts"] < 100_000
            assert "synchronizing" in shown(mount) and "pages so far" in shown(mount)


def test_a_mount_whose_process_died_is_named(mount: Mount) -> None:
    os.kill(told(mount)["pid"], signal.SIGKILL)
    eventually(lambda: run("stat", mount.path).returncode != 0, "it is dead")
    result = run(*ivcapfs("status", mount.path))
    assert result.returncode == 1 and f"is still at {mount.path}: ivcapfs umount {mount.path}" in result.stderr
    assert is_mounted(mount.path)
