"""Everything that a run needs: files, nginx, the platforms behind it, the slow link; and their end.

Used by `bench.runner`. A context manager for the main thread: whatever ends the run, all is taken down and removed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import TracebackType

from bench.content import BIG, FOUR, MANY, MIB, ONE, SMALL, Folder, Sizes, check_room, folders, make_files
from bench.mounts import is_mounted, open_fuse_privately, unmount
from bench.nginx import Nginx
from bench.platforms import link_blobs, start_platform, urn_of
from bench.processes import Daemon, StepFailed
from ivcapfs.server.runner import Platform

ROOT = Path(__file__).resolve().parent.parent
_SHAPER_SECONDS = 15.0


class Via(Enum):
    """The way to the server."""

    PLAIN = "http"
    TLS = "https"
    SHAPED = "shaped"
    COUNTED = "counted"


class World:
    """The world of one run.

    Args:
        sizes: how much of everything.
        python: the interpreter for what is started.
    """

    def __init__(self, sizes: Sizes, python: str) -> None:
        self.sizes = sizes
        self.python = python
        self.folders = folders(sizes)
        self._stack = contextlib.ExitStack()
        self._numbers = itertools.count()
        self._ports: dict[Via, int] = {}
        self._apis: dict[str, str] = {}

    def __enter__(self) -> World:
        """Make it.

        Raises:
            StepFailed: something cannot be had.
        """
        with contextlib.ExitStack() as stack:
            self.temp = Path(tempfile.mkdtemp(prefix="ivcapfs-bench-"))
            stack.callback(self._remove)
            self.temp.chmod(0o755)  # for the peer that runs as an ordinary user
            self.files = self.temp / "files"
            check_room(self.temp, self.sizes)
            open_fuse_privately(self.temp)
            make_files(self.files, self.sizes)
            os.sync()  # or the kernel would write them to the disk while the first works are timed
            self._start_servers(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take all of it down."""
        self._stack.close()

    def _start_servers(self, stack: contextlib.ExitStack) -> None:
        blobs = self.temp / "blobs"
        large, small, many = ([self.folders[name] for name in names] for names in ((ONE, FOUR, BIG), (SMALL,), (MANY,)))
        link_blobs(blobs, self.files, [*large, *small])
        front = self._platform(stack, large, None)
        host = front.url.removeprefix("http://")
        self.nginx = Nginx(self.temp / "nginx", self.files, blobs, host)
        stack.callback(self.nginx.stop)
        ports = self.nginx.ports
        self._ports = {Via.PLAIN: ports.plain, Via.TLS: ports.tls, Via.COUNTED: ports.counted}
        self._ports[Via.SHAPED] = self._start_shaper(stack, ports.plain)
        plain = f"http://127.0.0.1:{ports.plain}"
        self._apis = {SMALL: self._platform(stack, small, plain).url, MANY: self._platform(stack, many, plain).url}

    def _platform(self, stack: contextlib.ExitStack, contents: list[Folder], base: str | None) -> Platform:
        platform = start_platform(self.temp / f"platform-{contents[0].name}", contents, base)
        stack.callback(platform.close)
        return platform

    def _start_shaper(self, stack: contextlib.ExitStack, port: int) -> int:
        log = self.temp / "shaper.log"
        command = [self.python, "-m", "bench.shaper", "--upstream", f"127.0.0.1:{port}"]
        daemon = Daemon(command, log, {"PYTHONPATH": str(ROOT)})
        stack.callback(daemon.stop)
        deadline = time.monotonic() + _SHAPER_SECONDS
        while not daemon.log().endswith("\n"):
            daemon.check()
            if time.monotonic() > deadline:
                raise StepFailed("the slow link did not start")
            time.sleep(0.02)
        return int(daemon.log().split()[0].rpartition(":")[2])

    # --- what the peers ask for --------------------------------------------------------------------------------------

    def files_url(self, folder: str, via: Via) -> str:
        """Return the address of a folder's listing, with a slash at its end."""
        return f"{self._origin(via)}/files/{folder}/"

    def api_url(self, folder: str, via: Via) -> str:
        """Return the address of the platform that has a folder's artifacts."""
        return self._apis.get(folder) or self._origin(via)

    def urn(self, folder: str, name: str) -> str:
        """Return the URN of a file's artifact."""
        return urn_of(f"{folder}/{name}")

    def trust(self, via: Via) -> dict[str, str]:
        """Return the environment variable by which a program trusts our certificate."""
        return {"SSL_CERT_FILE": str(self.nginx.certificate)} if via is Via.TLS else {}

    @contextlib.contextmanager
    def scratch(self, owner: int | None = None) -> Iterator[Path]:
        """Give a folder for one step, empty but for an empty ``mnt``; removed afterwards with what is in it.

        Args:
            owner: whose it shall be, by number; None: ours.
        """
        folder = self.temp / f"step-{next(self._numbers)}"
        (folder / "mnt").mkdir(parents=True)
        if owner is not None:
            os.chown(folder, owner, owner)
            os.chown(folder / "mnt", owner, owner)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def warm(self, folder: str) -> None:
        """Read a folder's files, so that nginx has them in the page cache."""
        buffer = bytearray(MIB)
        for name in self.folders[folder].files:
            with (self.files / folder / name).open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    def _origin(self, via: Via) -> str:
        return f"{'https' if via is Via.TLS else 'http'}://127.0.0.1:{self._ports[via]}"

    def _remove(self) -> None:
        """Remove the temporary folder, and what may still be mounted in it."""
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        points = [line.split()[4] for line in lines]
        for point in reversed(points):
            if point.startswith(f"{self.temp}/"):
                unmount(Path(point))
                if is_mounted(Path(point)):
                    return  # better a folder left than somebody's files removed
        shutil.rmtree(self.temp, ignore_errors=True)
