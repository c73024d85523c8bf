"""What the tests of the persistent tier share: blocks with known bytes, a du(1), and processes that fill a folder.

Run as a module it is one of those processes: ``python -m tests.cache.disk_world WORK FOLDER …``.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ivcapfs.cache.disk import DiskSettings, DiskTier
from ivcapfs.cache.diskledger import Ledger
from ivcapfs.cache.diskstore import Folder, digest_of
from ivcapfs.cache.eviction import Store
from ivcapfs.config import KIB, MIB
from ivcapfs.models import BlockKey

ROOT = Path(__file__).parent.parent.parent
LIMIT = 16 * MIB
STEPS = ("open", "mkdir", "ftruncate", "pwrite", "pwritev", "rename", "unlink")
"""The system calls that change a folder (open: where it creates)."""


def key_of(number: int) -> BlockKey:
    return BlockKey("https://host", "me", "uuid", '"1"', number)


def block_of(number: int, largest: int = 256 * KIB) -> bytes:
    """Return a block's bytes: always the same for a number, of some length."""
    chance = random.Random(number)
    return chance.randbytes(chance.randrange(largest + 1))


def get(tier: DiskTier, number: int, largest: int = 256 * KIB) -> bool:
    """Return whether the tier has a block; fail if its bytes are wrong."""
    expected = block_of(number, largest)
    into = bytearray(len(expected))
    found = tier.get(key_of(number), memoryview(into))
    assert not found or into == expected, f"wrong bytes for block {number}"
    return found


def path_of(folder: Path, number: int) -> Path:
    name = digest_of(key_of(number)).hex()
    return folder / name[:2] / name


def du(folder: Path) -> int:
    """Return what ``du -s`` says, in bytes. The folder may be in use."""
    found = os.lstat(folder)
    size = found.st_blocks * 512
    for root, folders, files in os.walk(folder):
        for name in folders + files:
            try:
                size += os.lstat(os.path.join(root, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return size


def leftovers(folder: Path) -> list[str]:
    return os.listdir(folder / "tmp") if (folder / "tmp").exists() else []


def check_account(folder: Path) -> int:
    """Show that the account is never below what is there, at a moment when nobody may change either; return it."""
    ledger = Ledger(Folder(folder, create=False))
    with ledger.locked(10.0):
        while (slot := ledger.unknown()) is not None:
            ledger.measure(slot)
        total = ledger.total()
        used = du(folder)
        assert used <= total, f"{used - total} bytes are not accounted for"
    return total


def child(*words: object) -> subprocess.Popen[str]:
    """Start a process of this module."""
    command = [sys.executable, "-W", "error", "-m", "tests.cache.disk_world", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


# -- what the processes do -------------------------------------------------------------------------------------------


def fill(folder: Path, first: int, count: int) -> None:
    """Write blocks through a tier of its own, reading some in between, as a mount does."""
    tier = DiskTier(DiskSettings(folder, LIMIT))
    for number in range(first, first + count):
        tier.put(key_of(number), block_of(number))
        if number % 16 == 0:
            tier.flush(60.0)
        get(tier, first + (number * 7) % count)
    tier.flush(60.0)
    written = tier.info().written
    tier.close()
    print(written, flush=True)


def die_in_mid_air(folder: Path, times: int) -> None:
    """Fork processes that fill the folder through a tier, and kill each after a while, wherever it is."""
    chance = random.Random(50)
    for attempt in range(times):
        begun, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            tier = DiskTier(DiskSettings(folder, LIMIT))
            for number in range(10_000):
                tier.put(key_of(attempt * 50 + number), block_of(attempt * 50 + number))
                os.write(tell, b".")
                tier.flush(10.0 if number % 8 == 0 else 0.001)
            os._exit(1)
        os.close(tell)
        os.read(begun, 1)
        time.sleep(chance.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(begun)
        assert os.WTERMSIG(status) == signal.SIGKILL, status
    print("ok", flush=True)


def die_at_each_step(folder: Path, times: int) -> None:
    """Fork processes that fill the folder, each killing itself before a later system call than the one before it."""
    for attempt in range(times):
        pid = os.fork()
        if pid == 0:
            store = Store(Folder(folder, create=True), LIMIT)
            _kill_before_step(attempt + 1 if attempt % 2 else attempt * 7 + 1)
            for number in range(attempt * 50, attempt * 50 + 1000):
                store.write(digest_of(key_of(number)), block_of(number))
            os._exit(1)
        _, status = os.waitpid(pid, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, status
    print("ok", flush=True)


def _kill_before_step(last: int) -> None:
    """Make this process kill itself at its `last` changing system call; a write is done by half then."""
    steps, real_pwritev = 0, os.pwritev

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **named: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps >= last:
                if call is real_pwritev:
                    fd, (header, block), at = args
                    real_pwritev(fd, [header, block[: len(block) // 2]], at)
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **named)

        return wrapped

    for name in STEPS:
        setattr(os, name, wrap(getattr(os, name)))


def main(work: str, folder: str, *numbers: str) -> None:
    works: dict[str, Callable[..., None]] = {
        "fill": fill, "mid-air": die_in_mid_air, "step": die_at_each_step,
    }  # fmt: skip
    works[work](Path(folder), *map(int, numbers))
    assert threading.active_count() == 1


if __name__ == "__main__":
    main(*sys.argv[1:])
