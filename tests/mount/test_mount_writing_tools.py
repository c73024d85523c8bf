"""Everyday programs write into the mount unchanged, and each file becomes one artifact with its bytes and its name.

One world for the whole module: each test writes into a folder of its own, and looks at all that the platform has more
in the end. The official SDK is who tells.
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from ivcap_client.ivcap import IVCAP as SDK

from ivcapfs.server.runner import Platform
from tests.mount.conftest import SDK_LEAKS, TOKEN, Mount, Mounter, output, run
from tests.mount.writing import MIB, arrived, once, uploads, writing_mount

pytestmark = pytest.mark.filterwarnings(SDK_LEAKS)

CONTENT = random.Random(1).randbytes(3 * MIB + 17)
TEXT = "".join(f"line {number}\n" for number in range(5_000)).encode()


@dataclass
class World:
    """A mount that writes, the platform behind it, and the folder of the test."""

    mount: Mount
    sdk: SDK
    platform: Platform
    name: str = ""
    seen: set[str] = field(default_factory=set)

    @property
    def folder(self) -> Path:
        """Where the test writes."""
        return self.mount.artifacts / self.name

    def made(self) -> dict[str, bytes]:
        """Return the contents of the artifacts of the test by the rest of their names, once all have arrived."""
        arrived(self.mount)
        found = once(self.sdk, self.seen)
        assert {name.partition("/")[0] for name in found} == {self.name}, "nothing else became an artifact"
        told = uploads(self.mount)
        assert [told[kind] for kind in ("open", "failed", "interrupted", "local")] == [0, 0, 0, 0], told["files"]
        assert "Traceback" not in self.mount.logged()
        shown = {
            str((Path(folder) / name).relative_to(self.folder)): (Path(folder) / name).read_bytes()
            for folder, _, names in os.walk(self.folder)
            for name in names
        }
        result = {name.partition("/")[2]: content for name, content in found.items()}
        assert shown == result, "the mount shows what the platform has"
        return result


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("writing-tools")
    mounter = Mounter(folder)
    with Platform(folder / "data", token=TOKEN) as platform:
        try:
            mount = writing_mount(platform, mounter, catalog_dir=folder / "catalog")
            sdk = SDK(url=platform.url, token=TOKEN)
            yield World(mount, sdk, platform)
            sdk._client.get_httpx_client().close()
        finally:
            mounter.close()


@pytest.fixture
def world(shared: World) -> World:
    """The world, and in it a new folder; what is there already does not count."""
    arrived(shared.mount)
    seen = {artifact.id for artifact in shared.sdk.list_artifacts(limit=None)}
    world = replace(shared, name=f"w{len(seen)}", seen=seen)
    world.folder.mkdir()
    return world


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with files of several kinds."""
    folder = tmp_path / "source"
    (folder / "deep/er").mkdir(parents=True)
    (folder / "data.bin").write_bytes(CONTENT)
    (folder / "deep/lines.txt").write_bytes(TEXT)
    (folder / "deep/er/empty").write_bytes(b"")
    (folder / "two words ü.csv").write_bytes(b"a,b\n1,2\n")
    os.utime(folder / "data.bin", ns=(1_600_000_000_123_456_789,) * 2)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return what is in a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def posts(platform: Platform) -> int:
    """Return how many records were begun so far."""
    requests = platform.counters()["requests"]
    assert isinstance(requests, dict)
    return int(requests.get("artifact.create", 0))


@pytest.mark.parametrize("command", [["cp", "-r"], ["cp", "-a"], ["cp", "-a", "--sparse=always"]], ids=" ".join)
def test_cp(world: World, source: Path, command: list[str]) -> None:
    output(*command, f"{source}/.", world.folder)
    assert world.made() == contents(source)
    if "-a" in command:
        assert (world.folder / "data.bin").stat().st_mtime_ns == 1_600_000_000_123_456_789


@pytest.mark.parametrize("options", [["-a"], ["-a", "--inplace"], ["-rt", "--append"]], ids=" ".join)
def test_rsync_and_a_second_run_sends_nothing(world: World, source: Path, options: list[str]) -> None:
    output("rsync", *options, f"{source}/", world.folder)
    assert world.made() == contents(source)
    before = posts(world.platform)
    told = output("rsync", *options, "--itemize-changes", f"{source}/", world.folder)
    assert not [line for line in told.splitlines() if line.startswith(("<f", ">f"))], told
    assert world.made() == contents(source)
    assert posts(world.platform) == before


def test_rsync_right_after_itself_finds_its_files_while_they_settle(world: World, source: Path) -> None:
    for _ in range(2):
        output("rsync", "-a", f"{source}/", world.folder)
    assert world.made() == contents(source)


def test_tar_unpacks(world: World, source: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        archive.add(source, ".")
    output("tar", "xzf", tmp_path / "all.tar.gz", "-C", world.folder)
    assert world.made() == contents(source)
    assert (world.folder / "data.bin").stat().st_mtime_ns == 1_600_000_000_123_456_700, "as the archive has it"


def test_tar_packs(world: World, source: Path, tmp_path: Path) -> None:
    output("tar", "cf", world.folder / "all.tar", "-C", source, ".")
    (name, content), *more = world.made().items()
    assert (name, more) == ("all.tar", [])
    (tmp_path / "back.tar").write_bytes(content)
    with tarfile.open(tmp_path / "back.tar") as archive:
        archive.extractall(tmp_path / "back", filter="data")
    assert contents(tmp_path / "back") == contents(source)


def shell(words: str) -> Callable[[Path, Path], None]:
    """Return what runs a line in sh(1), with the source in $1 and the file to write in $2."""

    def write(source: Path, target: Path) -> None:
        output("sh", "-ec", words, "sh", source, target)

    return write


def python_open(source: Path, target: Path) -> None:
    with target.open("wb") as file:
        for start in range(0, len(CONTENT), 100_000):
            file.write(CONTENT[start : start + 100_000])


def python_process(source: Path, target: Path) -> None:
    """A program that leaves its file open to the end, as `json.dump(data, open(…, "w"))` does."""
    words = "import sys; f = open(sys.argv[2], 'wb'); f.write(open(sys.argv[1] + '/data.bin', 'rb').read()); f = f"
    output(sys.executable, "-c", words, source, target)


def exits_at_once(source: Path, target: Path) -> None:
    """A program that ends by exit(2), with its descriptors open."""
    words = "import os, sys; fd = os.open(sys.argv[2], 65, 0o644); os.write(fd, open(sys.argv[1] + '/data.bin', 'rb')"
    words += ".read()); os._exit(0)"
    output(sys.executable, "-c", words, source, target)


def starts_others(source: Path, target: Path) -> None:
    """A program that starts others while it writes: execve(2) closes the file in them."""
    words = "import subprocess, sys; data = open(sys.argv[1] + '/data.bin', 'rb').read()"
    words += "\nf = open(sys.argv[2], 'wb', 0)"
    words += "\nfor at in range(0, len(data), 500_000):\n f.write(data[at : at + 500_000])"
    words += "\n subprocess.run(['true'], close_fds=False, check=True)"
    output(sys.executable, "-c", words, source, target)


def temporary_and_rename(source: Path, target: Path) -> None:
    with (target.parent / "data.bin.tmp").open("wb") as file:
        file.write(CONTENT)
        file.flush()
        os.fsync(file.fileno())
    os.replace(target.parent / "data.bin.tmp", target)
    folder = os.open(target.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def backwards(source: Path, target: Path) -> None:
    with target.open("wb", buffering=0) as file:
        for start in reversed(range(0, len(CONTENT), 250_000)):
            file.seek(start)
            file.write(CONTENT[start : start + 250_000])


def header_last(source: Path, target: Path) -> None:
    """As programs do that know the length in the header only at the end; synchronized in between."""
    with target.open("wb") as file:
        file.write(bytes(512))
        file.write(CONTENT[512:])
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        file.write(CONTENT[:512])


def moved_in(source: Path, target: Path) -> None:
    shutil.copy(source / "data.bin", source / "moving")
    output("mv", source / "moving", target)
    assert not (source / "moving").exists()


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "dd": shell('dd if="$1/data.bin" of="$2" bs=64k status=none'),
    "dd fsync": shell('dd if="$1/data.bin" of="$2" bs=300k conv=fsync oflag=append status=none'),
    "cat": shell('head -c 1000000 "$1/data.bin" > "$1/a"; tail -c +1000001 "$1/data.bin" > "$1/b"; '
                 'cat "$1/a" "$1/b" > "$2"'),
    "two cats": shell('head -c 1000000 "$1/data.bin" > "$1/a"; tail -c +1000001 "$1/data.bin" > "$1/b"; '
                      '(cat "$1/a"; sleep 1; cat "$1/b") > "$2"'),
    "append twice": shell('head -c 1000000 "$1/data.bin" > "$2"; tail -c +1000001 "$1/data.bin" >> "$2"'),
    "tee": shell('tee "$2" < "$1/data.bin" > /dev/null'),
    "install": shell('install -m 644 "$1/data.bin" "$2"'),
    "truncate first": shell('truncate -s 4000000 "$2"; cat "$1/data.bin" > "$2"'),
    "written twice": shell('head -c 5000000 /dev/urandom > "$2"; cp "$1/data.bin" "$2"'),
    "Python open": python_open,
    "Python left open": python_process,
    "exit": exits_at_once,
    "starts others": starts_others,
    "rename": temporary_and_rename,
    "backwards": backwards,
    "header last": header_last,
    "mv": moved_in,
}  # fmt: skip


def test_each_way_to_write_a_file(world: World, source: Path) -> None:
    for way, write in WAYS.items():
        write(source, world.folder / way)
        assert (world.folder / way).read_bytes() == CONTENT, f"{way}: read back at once"
    found = world.made()
    assert sorted(found) == sorted(WAYS)
    assert not [way for way in WAYS if found[way] != CONTENT]


RANDOM_WRITES = """
import random, sys, h5py, numpy
chance, grid = random.Random(2), numpy.zeros((400, 500))
with h5py.File(sys.argv[1], "w") as file:
    data = file.create_dataset("grid", data=grid, chunks=(40, 50), compression=4)
    for _ in range(300):
        row, column = chance.randrange(400), chance.randrange(500)
        data[row, column] = grid[row, column] = chance.random()
    file.attrs["unit"] = "mm"
numpy.save(sys.argv[2], grid)
"""
"""In a process of its own: HDF5 lets no other thread run while it waits, and the platform is one."""


def test_pandas_h5py_sqlite_and_zip(world: World, source: Path, tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": range(20_000), "half": [n / 2 for n in range(20_000)]})
    frame.to_csv(world.folder / "frame.csv", index=False)
    output(sys.executable, "-c", RANDOM_WRITES, world.folder / "grid.h5", tmp_path / "grid.npy")
    database = sqlite3.connect(world.folder / "survey.sqlite")
    for start in range(0, 20_000, 5_000):
        with database:
            database.execute("CREATE TABLE IF NOT EXISTS reading (n INTEGER PRIMARY KEY, value REAL)")
            rows = ((n, n / 7) for n in range(start, start + 5_000))
            database.executemany("INSERT INTO reading VALUES (?, ?)", rows)
    database.close()
    subprocess.run(["zip", "-qr", world.folder / "all.zip", "."], cwd=source, check=True, timeout=60)

    for name, content in world.made().items():
        (tmp_path / name).write_bytes(content)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "frame.csv"), frame)
    with h5py.File(tmp_path / "grid.h5") as file:
        assert np.array_equal(file["grid"][()], np.load(tmp_path / "grid.npy"))
        assert file.attrs["unit"] == "mm"
    database = sqlite3.connect(tmp_path / "survey.sqlite")
    assert database.execute("SELECT count(*), max(n) FROM reading").fetchone() == (20_000, 19_999)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.testzip() is None
        assert archive.read("data.bin") == CONTENT
    gc.collect()


def test_sqlite_command_creates_a_database(world: World, tmp_path: Path) -> None:
    words = "PRAGMA journal_mode=DELETE; CREATE TABLE t (n); INSERT INTO t VALUES (1), (2); DELETE FROM t WHERE n = 1;"
    output("sqlite3", world.folder / "t.db", words)
    (tmp_path / "t.db").write_bytes(world.made()["t.db"])
    assert output("sqlite3", tmp_path / "t.db", "SELECT n FROM t") == "2\n"


def test_sed_in_place_of_a_new_file_and_of_an_artifact(world: World, sdk: SDK) -> None:
    (world.folder / "new.txt").write_bytes(TEXT)
    output("sed", "-i", "s/line/row/", world.folder / "new.txt")
    after = TEXT.replace(b"line", b"row")
    assert world.made() == {"new.txt": after}
    output("sed", "-i", "s/row/third/", world.folder / "new.txt")
    arrived(world.mount)
    assert (world.folder / "new.txt").read_bytes() == TEXT.replace(b"line", b"third")
    names = [name for name in os.listdir(world.folder) if name != "new.txt"]
    assert [(world.folder / name).read_bytes() for name in names] == [after], "the old one is at its @id form"


def test_vim_makes_a_file_and_does_not_harm_an_artifact(world: World) -> None:
    """Its swap file begins with a dot. It opens what is there without O_TRUNC, which no artifact allows."""
    words = ["vim", "-Nu", "NONE", "-i", "NONE", "-es"]
    output(*words, "-c", "normal ione", "-c", "normal othree", "-c", "wq", world.folder / "notes.txt")
    assert world.made() == {"notes.txt": b"one\nthree\n"}
    assert run(*words, "-c", "%s/three/four/", "-c", "wq", world.folder / "notes.txt").returncode == 1
    assert world.made() == {"notes.txt": b"one\nthree\n"}
    output(*words, "-c", "%s/three/four/", "-c", "saveas " + str(world.folder / "more.txt"), "-c", "q",
           world.folder / "notes.txt")  # fmt: skip
    assert world.made() == {"notes.txt": b"one\nthree\n", "more.txt": b"one\nfour\n"}


def test_many_small_files(world: World, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(60):
        (many / f"{number:03}.txt").write_bytes(b"%d\n" % number * number)
    output("cp", "-a", f"{many}/.", world.folder)
    assert world.made() == contents(many)


def test_the_token_is_nowhere_in_the_spool_or_the_log(world: World, source: Path) -> None:
    shutil.copy(source / "data.bin", world.folder / ".kept")
    shutil.copy(source / "data.bin", world.folder / "data.bin")
    texts = [path.read_bytes() for path in (world.mount.path.parent / "spool").rglob("*") if path.is_file()]
    assert texts
    assert not any(TOKEN.encode() in text for text in [*texts, world.mount.logged().encode()])
    os.unlink(world.folder / ".kept")
    assert world.made() == {"data.bin": CONTENT}
