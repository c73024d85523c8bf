"""fio(1) checks every block that it reads through a mount; one flipped byte at the server does not get past it."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.long.conftest import World
from tests.long.origin import MIB
from tests.mount.conftest import Mount, Mounter, output, run

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]
JOBS = 4
HEADER_EVERY = 4096
SECONDS = 3000


def command(path: Path, size: int, *words: str) -> list[str]:
    """Return fio's command line for a file whose every 4 KiB have a checksum and say where they belong."""
    return [
        *("fio", "--name=verify", f"--filename={path}", f"--size={size // JOBS}", f"--offset_increment={size // JOBS}"),
        *(f"--numjobs={JOBS}", "--thread", "--group_reporting", "--ioengine=psync", "--output-format=terse"),
        *("--verify=crc32c", f"--verify_interval={HEADER_EVERY}", "--verify_state_save=0", "--randseed=1", *words),
    ]


def verified(path: Path, size: int) -> subprocess.CompletedProcess[str]:
    """Read everything once, in random order and in requests of many sizes, by four jobs."""
    reads = ("--rw=randread", "--bsrange=4k-256k", "--readonly", "--allow_file_create=0", "--verify_fatal=1")
    return run(*command(path, size, *reads), timeout=SECONDS)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    """The file at the server; removed at the end."""
    if shutil.which("fio") is None:
        pytest.skip("fio is missing: scripts/bench --setup")
    path = tmp_path / "served"
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("size", [pytest.param(256 * MIB, id="256M"), pytest.param(10 * 1024 * MIB, id="10G")])
def test_fio_finds_no_wrong_byte_and_would(
    world: World, mounter: Mounter, served: Path, tell: Callable[[str], None], size: int
) -> None:
    output(*command(served, size, "--rw=write", "--bs=256k", "--do_verify=0"), timeout=SECONDS)
    assert served.stat().st_size == size
    urn = world.add("served", size, file=served)

    def through_a_mount() -> tuple[Mount, subprocess.CompletedProcess[str]]:
        mount = mounter(world.platform.url)
        return mount, verified(mount.by_id(urn) / "content", size)

    _, result = through_a_mount()
    fields = result.stdout.strip().splitlines()[-1].split(";") if result.stdout.strip() else []
    tell(
        f"{size // MIB} MiB at the server, sent {world.origin.sent / size:.3f} of it; fio: exit code "
        f"{result.returncode}, read {int(fields[5]) // 1024} MiB at {int(fields[6]) // 1024} MiB/s"
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert int(fields[5]) * 1024 == size, "each byte was read once"
    at = random.Random(3).randrange(size)
    with served.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))
    _, result = through_a_mount()
    said = [line for line in result.stderr.splitlines() if "verify" in line or "crc" in line]
    tell(f"byte {at} flipped at the server: exit code {result.returncode}; {said[:2]}")
    assert result.returncode != 0
    assert "verify" in result.stderr
