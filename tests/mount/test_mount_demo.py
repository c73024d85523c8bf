"""`ivcapfs demo` shows true output, says when something is not as it should be, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="there is no /dev/fuse"),
]

SECONDS = 60.0
STAYS = "Ctrl-C ends all of it."


class Demo:
    """One run of the demo, in a process group of its own, with a temporary folder of its own."""

    def __init__(self, folder: Path, *words: object, **env: str) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self._tag = f"DEMO_TEST={folder}"
        name, _, value = self._tag.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ivcapfs", "demo", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": str(self.temporary), "IVCAP_URL": "http://127.0.0.1:9", name: value} | env,
            process_group=0,
        )
        self.output = ""

    def read_until(self, words: str) -> None:
        """Read what the demo says until it has said this."""
        assert self.process.stdout is not None
        end = time.monotonic() + SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while words not in self.output:
                assert selector.select(end - time.monotonic()), f"not in time: {words}\n{self.output}"
                data = os.read(self.process.stdout.fileno(), 65536)
                assert data, f"it ended before it said {words}\n{self.output}"
                self.output += data.decode()

    def signal(self, number: int) -> None:
        """Send a signal to the whole group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def end(self) -> int:
        """Read to the end; return the exit code."""
        self.output += self.process.communicate(timeout=SECONDS)[0].decode()
        return self.process.returncode

    def processes(self) -> list[int]:
        """Return the processes of this run."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.fsencode(self._tag) in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found

    def assert_nothing_is_left(self) -> None:
        """See that neither mounts nor processes nor files are left."""
        assert mounts_below(self.temporary.parent) == []
        assert self.processes() == []
        assert os.listdir(self.temporary) == []

    def clean_up(self) -> None:
        """Remove what a broken demo left."""
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.communicate()
        for path in mounts_below(self.temporary.parent):
            subprocess.run(["fusermount3", "-u", "-z", path], check=False)


@pytest.fixture
def demos(tmp_path: Path) -> Iterator[list[Demo]]:
    """The runs of a test, for cleaning up."""
    runs: list[Demo] = []
    yield runs
    for demo in runs:
        demo.clean_up()


def mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    return [point for point in points if point.startswith(f"{folder}/")]


def test_the_tour_shows_true_output_and_leaves_nothing(tmp_path: Path, demos: list[Demo]) -> None:
    demo = Demo(tmp_path)
    demos.append(demo)
    assert demo.end() == 0, demo.output
    assert re.search(r"^-r--r--r-- .* 6933 .* tides\.csv$", demo.output, re.M)
    assert re.search(r"^-r--r--r-- .* 765 .* tides@[0-9a-f]{8}\.csv$", demo.output, re.M)
    assert "time,station,level_m\n2026-06-01T00:00Z,Hobart," in demo.output
    assert re.search(r'^user\.ivcap\.id="urn:ivcap:artifact:[0-9a-f-]{36}"$', demo.output, re.M)
    assert re.search(r'^user\.ivcap\.aspect\.urn:example:schema:review\.1=.*accepted', demo.output, re.M)
    assert re.search(r'^  "id": "urn:ivcap:artifact:[0-9a-f-]{36}",$', demo.output, re.M)
    digests = re.findall(r"^([0-9a-f]{64})  ", demo.output, re.M)
    assert len(digests) == 2
    assert digests[0] == digests[1]
    demo.assert_nothing_is_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "term"])
def test_keep_stays_until_a_signal_and_then_leaves_nothing(
    tmp_path: Path, demos: list[Demo], number: signal.Signals
) -> None:
    mountpoint = tmp_path / "mnt"
    demo = Demo(tmp_path, mountpoint, "--keep")
    demos.append(demo)
    demo.read_until(STAYS)
    assert mounts_below(tmp_path) == [str(mountpoint)]
    assert "tides.csv" in os.listdir(mountpoint / "artifacts" / "survey" / "2026")
    demo.signal(number)
    assert demo.end() == 0, demo.output
    assert not mountpoint.exists(), "the demo made it, and removes it"
    demo.assert_nothing_is_left()


def test_a_signal_during_the_tour_ends_it_cleanly(tmp_path: Path, demos: list[Demo]) -> None:
    demo = Demo(tmp_path)
    demos.append(demo)
    demo.read_until("$ ls -l artifacts")
    demo.signal(signal.SIGINT)
    assert demo.end() == 130, demo.output
    demo.assert_nothing_is_left()


def test_a_mount_that_is_in_use_is_taken_away_and_that_is_told(tmp_path: Path, demos: list[Demo]) -> None:
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    demo = Demo(tmp_path, mountpoint, "--keep")
    demos.append(demo)
    demo.read_until(STAYS)
    descriptor = os.open(mountpoint / "artifacts", os.O_RDONLY)
    try:
        demo.signal(signal.SIGINT)
        assert demo.end() == 1, demo.output
        assert "was taken away while in use" in demo.output
        assert mountpoint.is_dir(), "the demo did not make it, and leaves it"
        demo.assert_nothing_is_left()
    finally:
        os.close(descriptor)


def test_a_mount_point_that_is_not_empty_is_refused_in_one_line(tmp_path: Path, demos: list[Demo]) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "mnt" / "file").touch()
    demo = Demo(tmp_path, tmp_path / "mnt")
    demos.append(demo)
    assert demo.end() == 1
    assert demo.output.splitlines()[-1].startswith(f"ivcapfs: the mount point {tmp_path}/mnt is not empty")
    assert "Traceback" not in demo.output
    demo.assert_nothing_is_left()


def test_a_command_that_fails_fails_the_demo(tmp_path: Path, demos: list[Demo]) -> None:
    program = tmp_path / "bin" / "tar"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho this tar is broken\nexit 3\n")
    program.chmod(0o755)
    demo = Demo(tmp_path, PATH=f"{program.parent}:{os.environ['PATH']}")
    demos.append(demo)
    assert demo.end() == 1
    assert "this tar is broken\n\n# FAILED: exit code 3" in demo.output
    assert demo.output.endswith("ivcapfs: these commands did not show what they should: tar\n")
    demo.assert_nothing_is_left()


def test_a_proxy_in_the_environment_does_not_matter(tmp_path: Path, demos: list[Demo]) -> None:
    demo = Demo(tmp_path, HTTP_PROXY="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9")
    demos.append(demo)
    assert demo.end() == 0, demo.output
