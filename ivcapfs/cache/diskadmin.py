"""What a user may ask of a cache folder: how full it is, whether all of it is good, to empty it.

Used by the command line's ``cache`` commands. Mounts may use the folder meanwhile: a block that a mount writes or
removes during the walk is in the report or not, and a block that a clearing removes is simply fetched again.

Threading: plain functions; each opens the folder for itself. Only `info` changes nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ivcapfs.cache.diskledger import BASE, STAGING_SLOT, Busy, Ledger
from ivcapfs.cache.diskstore import BLOCK_NAME, FANOUT, Folder, cost_of, is_good, open_block, slot_name
from ivcapfs.errors import ConfigError

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class FolderInfo:
    """What is in a cache folder.

    Attributes:
        bytes: of the whole folder, rounded up; at least what du(1) says.
        files: whole blocks.
    """

    bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a check of a cache folder found.

    Attributes:
        files: blocks that are good.
        bytes: what these take on the disk.
        bad: blocks that were not, and were removed.
        foreign: names that ivcapfs did not make; left alone.
        leftovers: pieces of killed mounts, removed.
    """

    files: int
    bytes: int
    bad: int
    foreign: int
    leftovers: int


def info(folder: Path) -> FolderInfo:
    """Count what is in a cache folder.

    Raises:
        ConfigError: it is no cache folder, or not ours.
    """
    cache = Folder(folder, create=False)
    size, files = BASE, 0
    for slot in range(FANOUT + 1):
        with _entered(cache, slot) as fd:
            if fd is not None:
                size += cost_of(os.fstat(fd))
                for entry in _entries(fd):
                    with contextlib.suppress(OSError):
                        size += cost_of(entry.stat(follow_symlinks=False))
                        files += slot < FANOUT and _is_block(entry)
    return FolderInfo(size, files)


def verify(folder: Path) -> VerifyReport:
    """Read and check every block in a cache folder; remove those that are bad, and what killed mounts left behind.

    Raises:
        ConfigError: it is no cache folder, or not ours; or it cannot be written.
    """
    cache = Folder(folder, create=False)
    ledger = _ledger(cache)
    files = size = bad = foreign = 0
    for slot in range(FANOUT):
        with _entered(cache, slot) as fd:
            for entry in _entries(fd):
                if not BLOCK_NAME.fullmatch(entry.name):
                    foreign += 1
                elif (cost := _check(fd, entry.name)) is None:
                    bad += 1
                    cache.remove(entry.name)
                else:
                    files, size = files + (cost > 0), size + cost
    before = _staged(cache)
    for slot in range(FANOUT + 1):
        with _locked(ledger):
            ledger.measure(slot)
    return VerifyReport(files, size, bad, foreign, len(before - _staged(cache)))


def clear(folder: Path) -> int:
    """Remove every block from a cache folder, and what killed mounts left behind; return how many blocks.

    The folder itself stays, and so does whatever ivcapfs did not make.

    Raises:
        ConfigError: it is no cache folder, or not ours; or it cannot be written.
    """
    cache = Folder(folder, create=False)
    ledger, removed = _ledger(cache), 0
    for slot in range(FANOUT):
        with _locked(ledger):
            with _entered(cache, slot) as fd:
                for entry in _entries(fd):
                    if fd is not None and BLOCK_NAME.fullmatch(entry.name):
                        with contextlib.suppress(OSError):
                            os.unlink(entry.name, dir_fd=fd)
                            removed += 1
            with contextlib.suppress(OSError):
                os.rmdir(slot_name(slot), dir_fd=cache.fd)
            ledger.measure(slot)
    with _locked(ledger):
        ledger.measure(STAGING_SLOT)
    return removed


def _ledger(cache: Folder) -> Ledger:
    try:
        return Ledger(cache)
    except OSError as exc:
        raise ConfigError(f"the cache folder {cache.path} cannot be used: {exc.strerror}") from exc


@contextlib.contextmanager
def _locked(ledger: Ledger) -> Iterator[None]:
    try:
        with ledger.locked(PATIENCE_SECONDS):
            yield
    except Busy as exc:
        raise ConfigError(f"{exc}: end that process, or try again") from exc
    except OSError as exc:
        raise ConfigError(f"the cache folder's account cannot be used: {exc.strerror or exc}") from exc


@contextlib.contextmanager
def _entered(cache: Folder, slot: int) -> Iterator[int | None]:
    """Open one of the folder's directories; None where there is none."""
    with contextlib.ExitStack() as stack:
        try:
            fd = stack.enter_context(cache.entered(slot_name(slot)))
        except OSError:
            fd = None
        yield fd


def _entries(fd: int | None) -> list[os.DirEntry[str]]:
    if fd is None:
        return []
    with os.scandir(fd) as entries:
        return list(entries)


def _is_block(entry: os.DirEntry[str]) -> bool:
    return BLOCK_NAME.fullmatch(entry.name) is not None and entry.is_file(follow_symlinks=False)


def _staged(cache: Folder) -> set[str]:
    with _entered(cache, STAGING_SLOT) as fd:
        return {entry.name for entry in _entries(fd)}


def _check(folder: int | None, name: str) -> int | None:
    """Return the bytes that a block takes if it is good, 0 if it is gone by now, None if it is bad."""
    if folder is None:
        return 0
    try:
        fd = open_block(folder, name)
    except FileNotFoundError:
        return 0
    except OSError:
        return None
    try:
        return cost_of(os.fstat(fd)) if is_good(fd, name) else None
    except OSError:
        return None
    finally:
        os.close(fd)
