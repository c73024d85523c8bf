"""Everyday programs run unchanged on the mount, and tell of it what they tell of the files that were uploaded.

One world for the whole module: the official SDK uploads files of many kinds, a large one among them, and one mount
shows them. What was uploaded stays on disk as the standard of comparison, and is deleted with all else at the end.
"""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import random
import re
import shutil
import sqlite3
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from ivcap_client.ivcap import IVCAP as SDK

from ivcapfs.server.runner import Platform
from tests.mount.conftest import TOKEN, Mount, Mounter, output, run, settled_counters

MIB = 1024 * 1024
LARGE = int(os.environ.get("IVCAPFS_LARGE_MIB", "384")) * MIB
"""Several times what is kept in memory; IVCAPFS_LARGE_MIB=1024 is the long form."""
BIG = "raw/random.bin"


def write_csv(path: Path) -> None:
    """A table with numbers, texts and gaps."""
    rows = (f"{n},{n * n % 1009 / 7},site {n % 13},{'' if n % 11 == 0 else n % 5}\n" for n in range(50_000))
    path.write_text("n,depth,site,count\n" + "".join(rows))


def write_png(path: Path) -> None:
    """A colour image of 640 by 480 (the PNG specification, section 5)."""
    width, height = 640, 480
    rows = b"".join(b"\0" + bytes(x * y // 3 % 256 for x in range(3 * width)) for y in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def write_hdf5(path: Path) -> None:
    """Two datasets, one of them in compressed chunks."""
    with h5py.File(path, "w") as file:
        grid = np.arange(600_000, dtype="f8").reshape(600, 1000)
        file.create_dataset("grid", data=grid, chunks=(60, 100), compression=4)
        file.create_dataset("a/b/line", data=np.arange(100_000, dtype="i4"))
        file["grid"].attrs["unit"] = "mm"


NETCDF_VALUES = struct.pack(">50000f", *(n / 8 for n in range(50_000)))


def write_netcdf(path: Path) -> None:
    """One dimension `time` and one variable `level` of floats (NetCDF classic format, CDF-1)."""

    def name(text: bytes) -> bytes:
        return struct.pack(">I", len(text)) + text + b"\0" * (-len(text) % 4)

    def header(begin: int) -> bytes:
        dimensions = struct.pack(">II", 10, 1) + name(b"time") + struct.pack(">I", 50_000)
        variable = name(b"level") + struct.pack(">II", 1, 0) + bytes(8)
        variable += struct.pack(">III", 5, len(NETCDF_VALUES), begin)
        return b"CDF\1" + bytes(4) + dimensions + bytes(8) + struct.pack(">II", 11, 1) + variable

    path.write_bytes(header(len(header(0))) + NETCDF_VALUES)


def write_sqlite(path: Path) -> None:
    """A database with an index, larger than a block."""
    database = sqlite3.connect(path)
    with database:
        database.execute("CREATE TABLE reading (n INTEGER PRIMARY KEY, site TEXT, value REAL)")
        rows = ((n, f"site {n % 13}", n / 7) for n in range(80_000))
        database.executemany("INSERT INTO reading VALUES (?, ?, ?)", rows)
        database.execute("CREATE INDEX by_site ON reading (site, value)")
    database.close()


def write_zip(path: Path) -> None:
    """An archive with one member compressed and one stored."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/numbers.txt", "\n".join(map(str, range(200_000))))
        archive.writestr("stored.bin", random.Random(1).randbytes(2 * MIB), zipfile.ZIP_STORED)


def write_tar(path: Path) -> None:
    """A compressed archive of this module and of noise."""
    noise = path.with_name("noise")
    noise.write_bytes(random.Random(2).randbytes(3 * MIB))
    with tarfile.open(path, "w:gz") as archive:
        archive.add(__file__, "module.py")
        archive.add(noise, "noise")
    noise.unlink()


def random_bytes(size: int) -> Callable[[Path], None]:
    """Return what writes a file of so many random bytes."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            for start in range(0, size, 16 * MIB):
                file.write(os.urandom(min(16 * MIB, size - start)))

    return write


FILES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "tables/sites.csv": ("text/csv", write_csv),
    "tables/empty.csv": ("text/csv", random_bytes(0)),
    "tables/survey.sqlite": ("application/vnd.sqlite3", write_sqlite),
    "pictures/two words/gradient.png": ("image/png", write_png),
    "model.h5": ("application/x-hdf5", write_hdf5),
    "model.nc": ("application/x-netcdf", write_netcdf),
    "archive.zip": ("application/zip", write_zip),
    "archive.tar.gz": ("application/gzip", write_tar),
    "raw/one-block.bin": ("application/octet-stream", random_bytes(MIB)),
    "raw/one-block-and-a-byte.bin": ("application/octet-stream", random_bytes(MIB + 1)),
    BIG: ("application/octet-stream", random_bytes(LARGE)),
}
"""Name -> MIME type, what writes it."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for everything in this module, deleted at the end: it grows to several GiB."""
    folder = tmp_path_factory.mktemp("tools")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def platform(world: Path) -> Iterator[Platform]:
    """One platform for all tests."""
    with Platform(world / "data", token=TOKEN) as platform:
        yield platform


@pytest.fixture(scope="module")
def sdk(platform: Platform) -> Iterator[SDK]:
    """The official SDK, logged in."""
    sdk = SDK(url=platform.url, token=TOKEN)
    yield sdk
    sdk._client.get_httpx_client().close()


@pytest.fixture(scope="module")
def local(world: Path, sdk: SDK) -> Path:
    """The folder of the originals, all of them uploaded."""
    folder = world / "originals"
    for name, (mime_type, write) in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        sdk.upload_artifact(name=name, file_path=str(path), content_type=mime_type, chunk_size=64 * MIB)
        (path.parent / f".ivcap-{path.name}.txt").unlink()  # the SDK's note that it was uploaded
    gc.collect()  # the files that the SDK left open
    return folder


@pytest.fixture(scope="module")
def mounter(world: Path) -> Iterator[Mounter]:
    """Makes mounts that do not outlive the module."""
    mounter = Mounter(world)
    try:
        yield mounter
    finally:
        mounter.close()


@pytest.fixture(scope="module")
def mount(platform: Platform, local: Path, mounter: Mounter) -> Iterator[Mount]:
    """One mount for all tests; nothing unforeseen may have happened in it at the end."""
    mount = mounter(platform.url)
    yield mount
    assert "Traceback" not in mount.logged()
    assert "WARNING" not in mount.logged()


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder whose content does not outlive the test: copies are large."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def shell(folder: Path, script: str, *words: object) -> str:
    """Run a shell script in a folder; it must succeed without a word on standard error."""
    command = ["bash", "-o", "pipefail", "-c", f'cd "$0" && {script}', folder, *words]
    result = run(*command, timeout=100)
    assert (result.returncode, result.stderr) == (0, ""), script
    return result.stdout


def files(folder: Path) -> dict[str, Path]:
    """Return relative name -> path of all files below a folder."""
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


SAME = [
    "find . -type f -print0 | sort -z | xargs -0 sha256sum",
    "find . | sort",
    "find . -type f -printf '%s %y %p\\n' | sort",
    "find . -type f -size +1023k | sort",
    "find . -type f -size 1048577c",
    "find . -empty",
    "find . -type f -print0 | sort -z | xargs -0 wc -c",
    "find . -type f -print0 | sort -z | xargs -0 du -b",
    "ls -lR | awk '/^-/ { print $5, $NF }'",
    "find . -type f -print0 | sort -z | xargs -0 stat -c '%s %F %h %n'",
    "find . -type f -print0 | sort -z | xargs -0 file",
    "find . -type f -print0 | sort -z | xargs -0 file -i",
    "grep -c 'site 7' tables/sites.csv; grep -rlF 'site 7' tables | sort; grep -c '' tables/*",
    "unzip -t archive.zip && unzip -Z archive.zip",
    "unzip -p archive.zip folder/numbers.txt | sha256sum",
    "tar -tvzf archive.tar.gz && tar -xOzf archive.tar.gz noise | sha256sum",
    "gzip -t archive.tar.gz && zcat archive.tar.gz | sha256sum",
    "sqlite3 'file:tables/survey.sqlite?mode=ro' 'pragma integrity_check; select site, sum(n) from reading group by 1'",
    "sqlite3 tables/survey.sqlite 'pragma integrity_check; select count(*) from reading'",
    "sort -t, -k3,3 -k1,1n tables/sites.csv | sha256sum; awk -F, '{ s += $2 } END { print s }' tables/sites.csv",
    "head -c 12345 tables/sites.csv; tail -c 12345 tables/sites.csv",
    "head -n 3 tables/sites.csv; tail -n 3 tables/sites.csv; sed -n 40000p tables/sites.csv",
    "head -c 5000000 raw/random.bin | sha256sum; tail -c 5000000 raw/random.bin | sha256sum",
    "cmp raw/one-block.bin raw/one-block-and-a-byte.bin | cat; cmp model.nc model.nc",
    "cat tables/empty.csv raw/one*.bin | md5sum",
]
"""Scripts that must say the same in both folders, byte for byte."""


@pytest.mark.parametrize("script", SAME)
def test_programs_say_the_same_of_the_mount_as_of_the_originals(mount: Mount, local: Path, script: str) -> None:
    said = shell(mount.artifacts, script)
    assert said == shell(local, script)
    assert said


def test_reading_the_end_of_1_gib_fetches_little(
    platform: Platform, local: Path, mounter: Mounter
) -> None:
    mount = mounter(platform.url)
    with (local / BIG).open("rb") as file:
        file.seek(-1000, os.SEEK_END)
        end = file.read()
    before = settled_counters(platform)["blob_bytes_sent"]
    assert shell(mount.artifacts, f"tail -c 1000 {BIG} | sha256sum").split()[0] == hashlib.sha256(end).hexdigest()
    assert 1000 <= settled_counters(platform)["blob_bytes_sent"] - before <= 2 * MIB


def test_diff_finds_no_difference(mount: Mount, local: Path) -> None:
    assert shell(mount.path, 'diff -r "$1" artifacts', local) == ""


def test_cp_copies_content_and_times(mount: Mount, local: Path, scratch: Path) -> None:
    assert shell(mount.path, 'cp -a artifacts "$1/copy"', scratch) == ""
    assert shell(local, 'diff -r . "$1/copy"', scratch) == ""
    copies = files(scratch / "copy")
    assert set(copies) == set(FILES)
    for name, copy in copies.items():
        assert copy.stat().st_mtime_ns == (mount.artifacts / name).stat().st_mtime_ns
        assert copy.stat().st_mode == (mount.artifacts / name).stat().st_mode


def test_rsync_copies_once_and_then_finds_nothing_to_do(mount: Mount, local: Path, scratch: Path) -> None:
    transfer = 'rsync -a --itemize-changes artifacts/ "$1"'
    assert shell(mount.path, transfer, scratch).count(">f+++") == len(FILES)
    assert shell(local, 'diff -r . "$1"', scratch) == ""
    assert shell(mount.path, transfer, scratch) == ""


def test_tar_packs_files_that_do_not_change_under_its_hands(mount: Mount, local: Path, scratch: Path) -> None:
    assert shell(mount.path, 'tar -cf - artifacts | tar -xf - -C "$1"', scratch) == ""
    assert shell(local, 'diff -r . "$1/artifacts"', scratch) == ""


def test_dd_reads_any_range(mount: Mount, local: Path) -> None:
    chance = random.Random(7)
    for name in [BIG] * 12 + ["raw/one-block-and-a-byte.bin"] * 4 + ["tables/sites.csv"] * 4:
        size = (local / name).stat().st_size
        skip, count = chance.randrange(size), int(10 ** chance.uniform(0, 7))
        block = chance.choice(["4K", "64K", "1M", "777"])
        options = f"bs={block} skip={skip} count={count} iflag=skip_bytes,count_bytes status=none"
        script = f"dd if={name} {options} | sha256sum"
        with (local / name).open("rb") as file:
            file.seek(skip)
            expected = hashlib.sha256(file.read(count)).hexdigest()
        assert shell(mount.artifacts, script).split()[0] == expected, script


@pytest.mark.parametrize("name", [BIG, "raw/one-block.bin", "raw/one-block-and-a-byte.bin", "tables/empty.csv"])
def test_pread_ends_where_the_file_ends(mount: Mount, local: Path, name: str) -> None:
    size = (local / name).stat().st_size
    chance = random.Random(8)
    descriptors = [os.open(folder / name, os.O_RDONLY) for folder in (mount.artifacts, local)]
    try:
        for beyond in (size, size + 1, size + 4096, size + 5 * MIB, 2**62):
            assert os.pread(descriptors[0], 4096, beyond) == b""
        offsets = [max(size - back, 0) for back in (1, 2, 4095, 4096, 4097, MIB, MIB + 1)]
        offsets += [chance.randrange(size + 1) for _ in range(50)]
        for offset in offsets:
            length = chance.choice([1, 4096, 100_000, 2 * MIB])
            assert os.pread(descriptors[0], length, offset) == os.pread(descriptors[1], length, offset)
        assert os.lseek(descriptors[0], 0, os.SEEK_END) == size
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


SLICES = """
import mmap, random, sys
chance, size = random.Random(9), int(sys.argv[3])
maps = []
for path in sys.argv[1:3]:
    with open(path, "rb") as file:
        maps.append(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
mapped, expected = maps
assert len(mapped) == size
for start in [0, size - 1, size - 4097, *(chance.randrange(size) for _ in range(100))]:
    length = chance.choice([1, 10, 5000, 300_000])
    assert mapped[start : start + length] == expected[start : start + length]
print("equal")
"""


def test_mmap_shows_any_slice(mount: Mount, local: Path) -> None:
    # In a process of its own: a page fault holds the interpreter's lock, which the platform in this one needs.
    assert output(sys.executable, "-c", SLICES, mount.artifacts / BIG, local / BIG, LARGE) == "equal\n"


READERS = """
import gzip, sys, zipfile
from pathlib import Path
import h5py, numpy as np, pandas as pd
there, here = map(Path, sys.argv[1:3])
pd.testing.assert_frame_equal(pd.read_csv(there / "tables/sites.csv"), pd.read_csv(here / "tables/sites.csv"))
with h5py.File(there / "model.h5", "r") as file, h5py.File(here / "model.h5", "r") as original:
    assert file["grid"].attrs["unit"] == "mm"
    assert np.array_equal(file["grid"][100:500:7, ::13], original["grid"][100:500:7, ::13])
    assert np.array_equal(file["a/b/line"], original["a/b/line"])
assert (there / "model.nc").read_bytes() == (here / "model.nc").read_bytes()
with gzip.open(there / "archive.tar.gz") as file, gzip.open(here / "archive.tar.gz") as original:
    assert file.read() == original.read()
with zipfile.ZipFile(there / "archive.zip") as archive:
    assert archive.testzip() is None
print("equal")
"""


def test_pythons_readers_of_formats(mount: Mount, local: Path) -> None:
    # In a process of their own, for the same reason.
    assert (local / "model.nc").read_bytes().endswith(NETCDF_VALUES)
    assert output(sys.executable, "-c", READERS, mount.artifacts, local) == "equal\n"


@pytest.mark.parametrize("mode", ["{path}", "file:{path}?mode=ro", "file:{path}?immutable=1"])
def test_pythons_sqlite_opens_a_database_in_every_way(mount: Mount, mode: str) -> None:
    database = sqlite3.connect(mode.format(path=mount.artifacts / "tables/survey.sqlite"), uri=mode.startswith("file:"))
    try:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        counted = database.execute("SELECT count(*), max(n) FROM reading WHERE site = 'site 3'").fetchall()
        assert counted == [(len(range(3, 80_000, 13)), range(3, 80_000, 13)[-1])]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            database.execute("DELETE FROM reading")
    finally:
        database.close()


def test_the_png_is_seen_as_what_it_is(mount: Mount) -> None:
    said = shell(mount.artifacts, "file -b 'pictures/two words/gradient.png' model.nc tables/survey.sqlite model.h5")
    assert re.findall(r"PNG image data, 640 x 480|NetCDF|SQLite 3|Hierarchical Data Format", said) == [
        "PNG image data, 640 x 480", "NetCDF", "SQLite 3", "Hierarchical Data Format",
    ]  # fmt: skip


def test_du_and_df_count_what_is_there(mount: Mount, local: Path) -> None:
    sizes = {name: path.stat().st_size for name, path in files(local).items()}
    assert shell(mount.artifacts, "du -bs .").split()[0] == str(sum(sizes.values()))
    sectors = {name: -(-size // 512) * 512 for name, size in sizes.items()}
    said = shell(mount.artifacts, "find . -type f -print0 | xargs -0 du -B1")
    told = {name.removeprefix("./"): int(size) for size, name in (line.split("\t") for line in said.splitlines())}
    assert told == sectors
    assert shell(mount.artifacts, "du -s -B512 .").split()[0] == str(sum(sectors.values()) // 512)
    kinds, free, used, inodes = shell(mount.path, "df -B4096 --output=fstype,avail,used,itotal . | tail -1").split()
    blocks = sum(-(-size // 4096) for size in sizes.values())
    assert (kinds, free, used, inodes) == ("fuse.ivcapfs", "0", str(blocks), str(len(FILES)))


WRITING = [
    "touch model.nc",
    "touch new",
    "echo more > new",
    "echo more > model.nc",
    "echo more >> model.nc",
    "rm -f model.nc",
    "mkdir new",
    "rmdir tables",
    "chmod u+w model.nc",
    "chown 1 model.nc",
    "mv model.nc other.nc",
    "ln model.nc other.nc",
    "ln -s model.nc other.nc",
    "truncate -s 0 model.nc",
    "setfattr -n user.note -v 1 model.nc",
    "setfattr -x user.mime_type model.nc",
    "cp /etc/passwd new",
    "mkfifo new",
]


@pytest.mark.parametrize("script", WRITING)
def test_whatever_would_write_is_refused_as_a_read_only_filesystem(mount: Mount, script: str) -> None:
    listing = sorted(os.listdir(mount.artifacts))
    result = run("bash", "-c", f'cd "$0" && {script}', mount.artifacts)
    assert result.returncode != 0
    assert os.strerror(errno.EROFS) in result.stderr
    assert sorted(os.listdir(mount.artifacts)) == listing


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_TRUNC, os.O_CREAT | os.O_APPEND | os.O_RDWR])
def test_opening_for_writing_is_refused(mount: Mount, flags: int) -> None:
    for path in (mount.artifacts / "model.nc", next((mount.path / "by-id").iterdir()) / "artifact.json"):
        with pytest.raises(OSError) as caught:
            os.close(os.open(path, flags))
        assert caught.value.errno == errno.EROFS


def test_the_sdk_gets_back_what_it_sent(mount: Mount, sdk: SDK) -> None:
    listed = [sdk.get_artifact(item.id) for item in sdk.list_artifacts(limit=None)]
    assert {artifact.name for artifact in listed} == set(FILES)
    for artifact in listed:
        path = mount.artifacts / artifact.name
        assert path.stat().st_size == artifact.size
        assert os.getxattr(path, "user.mime_type").decode() == FILES[artifact.name][0]
        if artifact.name != BIG:
            assert b"".join(artifact.as_stream()) == path.read_bytes()
    assert output("ls", mount.path / "by-id").count("\n") == len(FILES)
