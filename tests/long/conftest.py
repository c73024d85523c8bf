"""What the proofs of robustness are made of: a platform whose contents another server sends, fast, slow or never.

Each proof has a small form that runs with all other tests, and a long one (the marker ``long``) that takes minutes and
gigabytes: ``scripts/test -m long``. What they measure is printed at the end.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.platforms import BlobHrefs
from ivcapfs.server.runner import Platform
from tests.long.origin import MIB, Origin, Stretch, make_noise
from tests.mount.conftest import TOKEN, Mount, daemons, eventually, ivcapfs, mounter, output

__all__ = ["mounter"]  # a fixture here, too

FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Make room for the figures."""
    config.stash.setdefault(FIGURES, [])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder, and skip them where FUSE is missing: nowhere else."""
    here = Path(__file__).parent
    for item in items:
        if here in Path(item.path).parents:
            item.add_marker(pytest.mark.mount)
            if not Path("/dev/fuse").exists():
                item.add_marker(pytest.mark.skip(reason="there is no /dev/fuse"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was measured by the long forms."""
    figures = config.stash.get(FIGURES, [])
    if figures:
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.write_line(line)


@dataclass
class World:
    """A platform that knows the artifacts, and the server that has their contents."""

    platform: Platform
    origin: Origin
    pool: Path

    def add(self, name: str, size: int, start: int = 0, file: Path | None = None) -> str:
        """Put an artifact in place whose content is a stretch of the pool, or of another file; return its URN."""
        urn = f"urn:ivcap:artifact:{uuid.uuid4()}"
        self.origin.stretches[urn] = Stretch(file or self.pool, start, size)
        self.platform.store.artifacts.insert(
            urn, name, "application/octet-stream", size=size, status="ready", etag="0" * 64
        )
        return urn

    def fill_pool(self, size: int) -> None:
        """Make the pool, of so many bytes."""
        make_noise(self.pool, size)

    def add_many(self, count: int, size: int, name: str = "file") -> list[str]:
        """Put artifacts in place that differ in every byte; make the pool for them."""
        step = MIB + 4099  # no multiple of a block
        self.fill_pool(size + count * step)
        with self.platform.store.batch():
            return [self.add(f"{name}-{number:04}", size, number * step) for number in range(count)]

    def files(self, mount: Mount, urns: list[str]) -> list[tuple[Path, Stretch]]:
        """Return where artifacts are in a mount, and what must be in them."""
        return [(mount.by_id(urn) / "content", self.origin.stretches[urn]) for urn in urns]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An empty platform that asks for TOKEN, whose contents come from an origin of their own."""
    origin = Origin()
    pool = tmp_path / "pool"
    try:
        with Platform(tmp_path / "data", token=TOKEN, wrap=lambda app: BlobHrefs(app, origin.url)) as platform:
            yield World(platform, origin, pool)
    finally:
        origin.close()
        pool.unlink(missing_ok=True)


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a line for the figures; those of the small forms are not worth printing."""
    is_long = request.node.get_closest_marker("long") is not None
    name = request.node.name
    return lambda line: request.config.stash[FIGURES].append(f"{name}: {line}") if is_long else None


def peak_memory(mount: Mount) -> int:
    """Return the most memory that the mount's process has had at once, in bytes (VmHWM of proc_pid_status(5))."""
    (daemon,) = daemons(mount.path)
    lines = Path(f"/proc/{daemon}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def unmount(mount: Mount) -> None:
    """Unmount, and let the process write what it still has."""
    output(*ivcapfs("umount", mount.path))
    eventually(lambda: not daemons(mount.path), "the process ends")

