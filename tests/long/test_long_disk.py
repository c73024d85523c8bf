"""The cache folder under real mounts: read again, damaged, shared, overfilled, killed in the middle, without a disk."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cache.disk_world import check_account, du
from tests.long.conftest import World, unmount
from tests.long.origin import MIB
from tests.long.readers import read_all, reading, seconds_of
from tests.mount.conftest import Mount, Mounter, daemons, eventually, ivcapfs, output, run

LONG = (pytest.mark.long, pytest.mark.timeout(1800))
SECONDS = 600.0

Tell = Callable[[str], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blocks"


def blocks(folder: Path) -> list[Path]:
    """Return the files of whole blocks, without the notes of contents."""
    return [path for path in sorted(folder.glob("??/*")) if path.stat().st_size > 1000]


def damage(path: Path, chance: random.Random) -> None:
    """Flip a bit somewhere, or cut the file somewhere."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        if chance.random() < 0.5:
            at = chance.randrange(size)
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ 1 << chance.randrange(8)]))
        else:
            file.truncate(chance.randrange(size))


@pytest.mark.parametrize(
    ("count", "size", "damages"),
    [pytest.param(2, 8 * MIB + 4321, 8, id="small"), pytest.param(4, 256 * MIB, 100, id="long", marks=LONG)],
)
def test_a_second_mount_asks_for_nothing_and_damage_is_fetched_again(
    world: World, mounter: Mounter, folder: Path, tell: Tell, count: int, size: int, damages: int
) -> None:
    """A piece behind a damaged one in the same transfer is fetched with it, unread: if that is damaged as well, a later
    mount finds out. So it may take some mounts until nothing is asked for any more."""
    urns = world.add_many(count, size)
    logs: list[str] = []

    def read_by_a_mount() -> tuple[int, int]:
        """Read everything; return by how many requests for how many bytes the server was asked meanwhile."""
        requests, sent = len(world.origin.requests), world.origin.sent
        mount = mounter(world.platform.url, cache_dir=folder)
        seconds = read_all("sequential", world.files(mount, urns), SECONDS)
        unmount(mount)
        logs.append(mount.logged())
        asked = len(world.origin.requests) - requests, world.origin.sent - sent
        tell(f"mount {len(logs)}: {count * size // MIB} MiB in {seconds:.2f} s, {asked[0]} requests, {asked[1]} bytes")
        return asked

    assert read_by_a_mount()[1] == count * size
    assert read_by_a_mount() == (0, 0)
    chance = random.Random(100)
    harmed = chance.sample(blocks(folder), damages)
    tell(f"{damages} of {len(blocks(folder))} blocks damaged, {sum(path.stat().st_size for path in harmed)} bytes")
    for path in harmed:
        damage(path, chance)
    requests, sent = read_by_a_mount()
    assert requests > 0
    assert damages * 64 * 1024 < sent < count * size
    assert "bad block(s)" in logs[-1]
    for _ in range(8):
        if read_by_a_mount() == (0, 0):
            break
    else:
        pytest.fail("what is damaged is not mended")
    # A damaged short piece is never looked at where a long one has the same bytes.
    tell(output(*ivcapfs("cache", "verify", folder), timeout=SECONDS).strip())
    assert "; 0 damaged" in output(*ivcapfs("cache", "verify", folder), timeout=SECONDS)


class Watch:
    """Looks at a folder's size all the time, by du(1)'s count and when nobody may change it."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.largest_du = self.largest = self.samples = 0
        self._folder, self._limit = folder, limit
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._failure: BaseException | None = None

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._ended.wait(0.02):
                if (self._folder / "ivcapfs.usage").exists():
                    self.largest_du = max(self.largest_du, du(self._folder))
                    self.largest = max(self.largest, check_account(self._folder))
                    self.samples += 1
        except BaseException as exc:  # noqa: BLE001 - raised by the test's thread
            self._failure = exc


@pytest.mark.parametrize(
    ("count", "size", "limit"),
    [pytest.param(4, 12 * MIB, 16 * MIB, id="small"), pytest.param(12, 128 * MIB, 512 * MIB, id="long", marks=LONG)],
)
def test_two_mounts_that_read_three_times_the_limit_stay_within_it(
    world: World, mounter: Mounter, folder: Path, tell: Tell, count: int, size: int, limit: int
) -> None:
    """On one folder, at the same time, one from the first file on and one from the last one on."""
    urns = world.add_many(count, size)
    assert count * size >= 3 * limit
    mounts = [mounter(world.platform.url, cache_dir=folder, cache_dir_size=limit, cache_size=64 * MIB) for _ in "12"]
    one, other = (world.files(mount, order) for mount, order in zip(mounts, (urns, urns[::-1]), strict=True))
    with Watch(folder, limit) as watch, reading("one-by-one", one) as first, reading("one-by-one", other) as second:
        took = [seconds_of(process, SECONDS) for process in (first, second)]
    for mount in mounts:
        unmount(mount)
    tell(
        f"two mounts, {count * size // MIB} MiB each, limit {limit // MIB} MiB: at most {watch.largest_du / MIB:.1f} "
        f"by du, {watch.largest / MIB:.1f} by the account; {watch.samples} samples in {max(took):.1f} s; "
        f"asked of the server: {world.origin.sent / MIB:.0f} MiB"
    )
    assert watch.samples > 3
    assert watch.largest <= limit
    assert limit // 2 < du(folder) <= limit
    assert "; 0 damaged" in output(*ivcapfs("cache", "verify", folder), timeout=SECONDS)


def kill_while_reading(world: World, mount: Mount, urns: list[str], chance: random.Random) -> bool:
    """Kill a mount's process a random moment after its first bytes came; return whether it was reading then."""
    (daemon,) = daemons(mount.path)
    sent = world.origin.sent
    with reading("sequential", world.files(mount, urns)) as reader:
        eventually(lambda: world.origin.sent > sent or reader.poll() is not None, "it reads")
        time.sleep(chance.uniform(0, 0.25))
        os.kill(daemon, signal.SIGKILL)
        was_reading = reader.poll() is None
        _, errors = reader.communicate(timeout=60)
    assert "wrong bytes" not in errors
    eventually(lambda: not daemons(mount.path), "it is gone")
    output(*ivcapfs("umount", mount.path))
    return was_reading


@pytest.mark.parametrize(
    ("kills", "size"), [pytest.param(2, 16 * MIB, id="small"), pytest.param(50, 64 * MIB, id="long", marks=LONG)]
)
def test_killed_in_the_middle_of_filling(
    world: World, mounter: Mounter, folder: Path, tell: Tell, kills: int, size: int
) -> None:
    limit, chance = size * 3 // 2, random.Random(9)
    *urns, fresh = world.add_many(7, size)
    reading_then = half_written = 0
    for _ in range(kills):
        mount = mounter(world.platform.url, cache_dir=folder, cache_dir_size=limit)
        reading_then += kill_while_reading(world, mount, chance.sample(urns, 3), chance)
        half_written += len(os.listdir(folder / "tmp")) if (folder / "tmp").exists() else 0
        check_account(folder)  # it may be above the limit: a block was booked twice by who was killed in between
        assert du(folder) <= limit
    assert reading_then > kills // 2, "most came too late to prove anything"
    kept, after = len(blocks(folder)), du(folder)
    assert kept > 0

    def read_by_a_mount(which: list[str]) -> int:
        """Read files, all bytes compared; return how many bytes the server was asked for."""
        sent = world.origin.sent
        mount = mounter(world.platform.url, cache_dir=folder, cache_dir_size=limit)
        read_all("one-by-one", world.files(mount, which), SECONDS)
        unmount(mount)
        assert "bad block" not in mount.logged()
        return world.origin.sent - sent

    found = len(urns) * size - read_by_a_mount(urns)
    assert os.listdir(folder / "tmp") == []
    assert read_by_a_mount([fresh]) == size
    assert read_by_a_mount([fresh]) == 0, "the folder is of use as ever"
    assert check_account(folder) <= limit
    said = output(*ivcapfs("cache", "verify", folder), timeout=SECONDS)
    tell(
        f"{kills} kills, {reading_then} while bytes came, {half_written} half-written blocks left; then {kept} blocks, "
        f"{found / MIB:.1f} MiB found in them, 0 wrong; du {after / MIB:.1f} of {limit // MIB} MiB; {said.strip()}"
    )
    assert "; 0 damaged" in said


@contextlib.contextmanager
def small_disk(path: Path, kind: str, size: int) -> Iterator[Path]:
    """Give a disk of its own, or skip the test where none can be mounted."""
    path.mkdir()
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"mode=700,size={size}", "tmpfs", str(path)]
    else:
        image = path.with_suffix(".img")
        with image.open("wb") as file:
            file.truncate(size)
        output("mkfs.ext4", "-q", image)
        command = ["mount", "-o", "loop", str(image), str(path)]
    if run(*command).returncode:
        pytest.skip(f"may not mount a disk here: {kind}")
    try:
        path.chmod(0o700)
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True, timeout=60)


def fill_up(path: Path) -> None:
    """Leave no byte of a disk free; what is freed meanwhile is taken as well."""
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(64 * 1024))
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(512))


@contextlib.contextmanager
def brimful(ballast: Path) -> Iterator[None]:
    """Somebody takes every byte of a disk, and what is given way afterwards as well."""
    ended = threading.Event()

    def take_all() -> None:
        while not ended.wait(0.001):
            fill_up(ballast)

    taker = threading.Thread(target=take_all)
    taker.start()
    try:
        yield
    finally:
        ended.set()
        taker.join()


@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize(
    ("kind", "size"),
    [
        pytest.param("tmpfs", 24 * MIB, id="small"),
        pytest.param("tmpfs", 256 * MIB, id="long-tmpfs", marks=LONG),
        pytest.param("ext4", 256 * MIB, id="long-ext4", marks=LONG),
    ],
)
def test_reads_go_on_when_the_disk_is_filled_to_the_brim(
    world: World, mounter: Mounter, tmp_path: Path, tell: Tell, kind: str, size: int, when: str
) -> None:
    urns = world.add_many(40, size // 4)
    with small_disk(tmp_path / "disk", kind, size) as disk:
        ballast = disk / "lost+found" / "ballast"
        ballast.parent.mkdir(exist_ok=True)
        if when == "before":
            fill_up(ballast)
        mount = mounter(world.platform.url, cache_dir=disk)

        def said() -> list[str]:
            return [line for line in mount.logged().splitlines() if "nothing more is written to the cache" in line]

        files = iter(world.files(mount, urns))
        try:
            if when == "meanwhile":
                for _ in range(3):
                    read_all("one-by-one", [next(files)], SECONDS)
                assert len(blocks(disk)) > 0
                assert said() == []
            with brimful(ballast):
                while not said():
                    read_all("one-by-one", [next(files)], SECONDS)
                for _ in range(3):
                    read_all("one-by-one", [next(files)], SECONDS)
                left = os.statvfs(disk).f_bavail
        finally:
            unmount(mount)
        tell(f"{left} blocks free, {40 - len(list(files))} files read, {len(blocks(disk))} blocks kept; {said()}")
        assert len(said()) == 1
        assert os.strerror(errno.ENOSPC) in said()[0]
        assert "Traceback" not in mount.logged()
