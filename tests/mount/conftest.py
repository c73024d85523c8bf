"""A real platform, the official SDK, and real mounts: what every test in this folder is made of.

Nothing is left behind: each mount is taken down at the end of its test, and its process must be gone then.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ivcap_client.ivcap import IVCAP as SDK

from ivcapfs.server.runner import Platform

TOKEN = "canary-token-5f2c"
SECONDS = 30.0
SDK_LEAKS = "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
"""The SDK and its upload library do not close the files and connections that they open."""


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where mounts in the background log, if nothing else is said: not where this machine's own mounts do."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("state")
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder, and skip them where FUSE is missing: nowhere else."""
    here = Path(__file__).parent
    for item in items:
        if here in Path(item.path).parents:
            item.add_marker(pytest.mark.mount)
            if "sdk" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.filterwarnings(SDK_LEAKS))
            if not Path("/dev/fuse").exists():
                item.add_marker(pytest.mark.skip(reason="there is no /dev/fuse"))


def eventually(condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """Return the first true value of `condition`, asked again and again within a bound."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    pytest.fail(f"not within {seconds:g} s: {what}")


def run(*command: object, env: dict[str, str] | None = None, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what it said; the test looks at the exit code."""
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        env=env,
        timeout=timeout,
        check=False,
    )


def output(*command: object, timeout: float = 60.0) -> str:
    """Run a command that must succeed, and return its standard output."""
    result = run(*command, timeout=timeout)
    assert result.returncode == 0, f"{command}: {result.returncode}: {result.stderr}"
    return result.stdout


def clean_env(**more: str) -> dict[str, str]:
    """Return this environment without what would configure ivcapfs."""
    return {name: value for name, value in os.environ.items() if not name.startswith("IVCAP_")} | more


def ivcapfs(*words: object) -> list[str]:
    """Return the command line of an ivcapfs command."""
    return [sys.executable, "-m", "ivcapfs", *map(str, words)]


def is_mounted(path: Path) -> bool:
    """Return whether the kernel has a mount at a path, however sick."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == str(path) for line in lines)


def daemons(mountpoint: Path) -> list[int]:
    """Return the processes whose command line names a mount point."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"mount" in words and os.fsencode(mountpoint) in words:
                found.append(int(folder.name))
    return found


@dataclass
class Mount:
    """One mount in the background."""

    path: Path
    log: Path

    @property
    def artifacts(self) -> Path:
        """The folder of all artifacts by name."""
        return self.path / "artifacts"

    def by_id(self, urn: str) -> Path:
        """The folder of one artifact."""
        return self.path / "by-id" / urn.removeprefix("urn:ivcap:artifact:")

    def logged(self) -> str:
        """What the mount has logged so far."""
        return self.log.read_text() if self.log.exists() else ""


class Mounter:
    """Makes mounts, and takes all of them down at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Path] = []
        self.spool = folder / "spool"
        token = folder / "token"
        token.write_text(TOKEN + "\n")
        token.chmod(0o600)
        self.token_file = token

    def __call__(self, url: str, *flags: str, **options: object) -> Mount:
        """Mount a deployment in the background; flags and options as in `-o`, the latter with `_` for `-`.

        One that is to write has its spool in the test's folder, as all others of the test.
        """
        number = len(self._made)
        path, log = self._folder / f"mnt{number}", self._folder / f"log{number}"
        path.mkdir()
        self._made.append(path)
        named = {"refresh": 1, "token-file": self.token_file, "log-file": log} | {
            name.replace("_", "-"): value for name, value in options.items()
        }
        if "write" in flags:
            named = {"spool-dir": self.spool} | named
        words = ["debug", *flags, *(f"{name}={value}" for name, value in named.items())]
        result = run(*ivcapfs("mount", url, path, "-o", ",".join(words)), env=clean_env())
        assert result.returncode == 0, result.stderr
        return Mount(path, log)

    def close(self) -> None:
        """Take all mounts down, lazily if need be, and see their processes end."""
        for path in self._made:
            if is_mounted(path) and run(*ivcapfs("umount", "--now", path)).returncode != 0:
                run("umount", "-l", path)
            eventually(lambda path=path: not daemons(path), f"the process of {path} ends")
            assert not is_mounted(path)


@dataclass
class Faults:
    """ASGI middleware whose behaviour a test can change at any time.

    Attributes:
        rule: for each request: None lets it pass, else an ASGI application answers instead.
        seen: (method, path, headers) of every request.
        app: the application itself, for rules that let it answer and change what comes of that.
    """

    rule: Callable[[dict[str, Any]], Any] = lambda scope: None
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    app: Any = None

    def wrap(self, app: Any) -> Any:
        """Return the application with the faults around it."""
        self.app = app

        async def faulty(scope: dict[str, Any], receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                return await app(scope, receive, send)
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            self.seen.append((scope["method"], scope["path"], headers))
            return await (self.rule(scope) or app)(scope, receive, send)

        return faulty

    def asked(self, pattern: str) -> int:
        """Return how many requests there were whose "METHOD path" matches."""
        return sum(bool(re.fullmatch(pattern, f"{method} {path}")) for method, path, _ in self.seen)


@pytest.fixture
def faults() -> Faults:
    """The faults of `platform`: none, until the test sets some."""
    return Faults()


@pytest.fixture
def platform(tmp_path: Path, faults: Faults) -> Iterator[Platform]:
    """An empty platform that asks for TOKEN."""
    with Platform(tmp_path / "data", token=TOKEN, wrap=faults.wrap) as platform:
        yield platform


@pytest.fixture
def sdk(platform: Platform) -> Iterator[SDK]:
    """The official SDK, logged in; what it leaves open is collected here, not in a later test."""
    sdk = SDK(url=platform.url, token=TOKEN)
    yield sdk
    vars(sdk).clear()
    gc.collect()


@pytest.fixture
def mounter(tmp_path: Path) -> Iterator[Mounter]:
    """Makes mounts that do not outlive the test."""
    mounter = Mounter(tmp_path)
    try:
        yield mounter
    finally:
        mounter.close()


@pytest.fixture
def mount(platform: Platform, mounter: Mounter) -> Mount:
    """The platform, mounted with a refresh of 1 s."""
    return mounter(platform.url)


@contextlib.contextmanager
def process(*command: object, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs beside the test and never outlives it."""
    words = [str(word) for word in command]
    started = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    killer = threading.Timer(SECONDS * 2, started.kill)
    killer.start()
    try:
        yield started
    finally:
        killer.cancel()
        if started.poll() is None:
            started.send_signal(signal.SIGKILL)
        started.communicate()


def settled_counters(platform: Platform) -> dict[str, Any]:
    """Return the platform's counters once they stand still: what was read ahead is counted, too."""
    seen = [platform.counters()]

    def still() -> bool:
        time.sleep(0.1)
        seen.append(platform.counters())
        return len(seen) > 2 and seen[-1] == seen[-2] == seen[-3]

    eventually(still, "the platform has nothing left to do")
    return seen[-1]
