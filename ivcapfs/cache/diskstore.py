"""The folder of the persistent tier: who may own it, how a block lies in it, how one is read and put in place.

Used by `ivcapfs.cache.disk` and its helpers (`diskledger`, `eviction`, `diskadmin`), and by nothing else.

::

    FOLDER/                 0700, ours, no symbolic link
      CACHEDIR.TAG          tells backup programs to leave the folder out
      ivcapfs.usage         the shared account and its lock (`ivcapfs.cache.diskledger`)
      tmp/                  blocks being written, each locked (flock) by its writer
      00/ … ff/             one file per block, named by the hash of its key

A block's name is the BLAKE2b of its key: no string of a server's is ever part of a path. The file is a header of 64
bytes (magic with the version, length, digest of the key, SHA-1 of the content), then the content. All of it is checked
on every read, so a file that is torn, flipped, cut, exchanged or not ours is a miss and never wrong bytes; that is why
nothing here calls fsync. SHA-1 is not meant against an attacker (who can write here is the user), but against decay,
where its 160 bits are plenty; of the strong sums in hashlib it is the fastest with and without SHA instructions
(1.95 and 1.25 GB/s on one machine; SHA-256: 1.8 and 0.55; BLAKE2b: 0.95).

Every path is walked by descriptor, one component at a time and without following symbolic links, so whatever is
planted inside the folder does not lead out of it.

Threading: `Folder` has no state but its descriptor, which is closed when the last user lets go of it. Any thread may
read; `stage` and `Staged` are for the one thread that writes.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
import struct
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ivcapfs.crashing import reach
from ivcapfs.errors import ConfigError
from ivcapfs.models import BlockKey
from ivcapfs.privatefolder import open_private_folder

HEADER = struct.Struct("<8sQ28s20s")
MAGIC = b"ivcapfs\x01"
GRAIN = 4096
USAGE = "ivcapfs.usage"
STAGING = "tmp"
FANOUT = 256
BLOCK_NAME = re.compile(r"[0-9a-f]{56}")
_TAG = "CACHEDIR.TAG"
_TAG_TEXT = b"Signature: 8a477f597d28d172789f06886806bc55\n# A cache of ivcapfs; see https://bford.info/cachedir/\n"
_IGNORED = {"lost+found", _TAG}

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOREIGN = {errno.ELOOP, errno.ENOTDIR, errno.EACCES, errno.ENXIO}
"""Opening answers one of these: the name is there, but is nothing that we put there."""

SECONDS_BETWEEN_TOUCHES = 300.0
"""A block's time of last use is noted in its mtime, at most this often."""


class Found(enum.Enum):
    """What a look for a block gave."""

    HIT = "hit"
    MISS = "miss"
    BAD = "bad"
    """Something was there that is not the block; it was removed."""


def digest_of(key: BlockKey) -> bytes:
    """Return the 28 bytes that name a block; its first byte is its directory."""
    texts = (key.origin, key.identity, key.uuid, key.validator)
    text = "".join([f"{len(each)}:{each}" for each in texts]) + str(key.number)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=28, person=b"ivcapfs block").digest()


def slot_name(slot: int) -> str:
    """Return the name of a directory by its number: the fan-out, and behind it the one of blocks being written."""
    return f"{slot:02x}" if slot < FANOUT else STAGING


def round_up(size: int, grain: int = GRAIN) -> int:
    """Return the bytes that a file of `size` takes on the disk."""
    return -(-size // grain) * grain


def cost_of(status: os.stat_result) -> int:
    """Return the bytes that a file or directory takes, now or (written ahead of its allocation) soon."""
    return max(status.st_blocks * 512, round_up(status.st_size))


def _sum(content: bytes | memoryview) -> bytes:
    return hashlib.sha1(content, usedforsecurity=False).digest()


@dataclass(slots=True, eq=False)
class Staged:
    """A block being written, under a temporary name; its lock tells others that the writer lives.

    Attributes:
        fd: the file, already of its final length, so that others' measuring counts all of it.
    """

    folder: int
    fd: int
    name: str

    def fill(self, digest: bytes, block: bytes) -> None:
        """Write header and content."""
        header = HEADER.pack(MAGIC, len(block), digest, _sum(block))
        written = os.pwritev(self.fd, [header, block], 0)
        while written < HEADER.size + len(block):  # a disk that just filled up takes a part; the next call says so
            written += os.pwrite(self.fd, (header + block)[written:], written)

    def discard(self) -> None:
        """Give it up, or tidy up after it was placed. May be called twice."""
        if self.fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self.name, dir_fd=self.folder)
            os.close(self.fd)
            os.close(self.folder)
            self.fd = self.folder = -1


class Folder:
    """The cache folder, opened and found to be safe.

    Args:
        create: make it, where it is not there; else it must be there and be a cache.

    Raises:
        ConfigError: it cannot be a cache folder; says why, and what to do.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        self.path = path.absolute()
        self.fd = open_private_folder(self.path, "cache folder", create=create, needs=0o700)
        self._closer = weakref.finalize(self, os.close, self.fd)
        self._closer.atexit = False  # a thread may still be at it then
        with os.scandir(self.fd) as entries:
            names = {entry.name for entry in entries} - _IGNORED
        if names and USAGE not in names:
            raise ConfigError(f"the cache folder {path} holds other files: name a new or an empty folder")

    # -- reading -------------------------------------------------------------------------------------------------

    def read(self, digest: bytes, into: memoryview) -> Found:
        """Fill `into` with a block. Unless it is a hit, what `into` holds afterwards means nothing."""
        name = digest.hex()
        try:
            folder = os.open(name[:2], _FOLDER, dir_fd=self.fd)
            try:
                fd = os.open(name, _READ, dir_fd=folder)
            finally:
                os.close(folder)
        except OSError as exc:
            if exc.errno not in _FOREIGN:
                return Found.MISS  # not there; or no descriptor left, and such
            self.remove(name)
            return Found.BAD
        try:
            found = _load(fd, digest, into)
        except OSError:
            found = Found.BAD
        finally:
            os.close(fd)
        if found is Found.BAD:
            self.remove(name)
        return found

    @contextlib.contextmanager
    def entered(self, name: str) -> Iterator[int]:
        """Open one of the folder's directories, whatever it may have become meanwhile.

        Raises:
            OSError: it is not there, or is no directory.
        """
        fd = os.open(name, _FOLDER, dir_fd=self.fd)
        try:
            yield fd
        finally:
            os.close(fd)

    def has(self, name: str) -> bool:
        """Return whether there is a file for a block; says nothing of what is in it."""
        try:
            with self.entered(name[:2]) as folder:
                return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        except OSError:
            return False

    def remove(self, name: str) -> None:
        """Remove whatever stands where a block should be; also what stands where its directory should be."""
        with contextlib.suppress(OSError):
            try:
                with self.entered(name[:2]) as folder:
                    os.unlink(name, dir_fd=folder)
            except NotADirectoryError:
                os.unlink(name[:2], dir_fd=self.fd)

    # -- writing -------------------------------------------------------------------------------------------------

    def stage(self, size: int) -> Staged:
        """Begin the file of a block with `size` bytes of content. The ledger's lock is held."""
        folder = self._enter_or_make(STAGING)
        fd, name = -1, f"{os.getpid():x}-{secrets.token_hex(8)}"
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=folder)
            staged = Staged(folder, fd, name)
        except OSError:
            os.close(folder)
            raise
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, HEADER.size + size)
        except OSError:
            staged.discard()
            raise
        return staged

    def place(self, staged: Staged, digest: bytes) -> int:
        """Put a written block where readers find it; return the bytes it takes. The ledger's lock is held."""
        name = digest.hex()
        fd = self._enter_or_make(name[:2])
        try:
            cost = cost_of(os.fstat(staged.fd))
            reach("cache write")
            os.rename(staged.name, name, src_dir_fd=staged.folder, dst_dir_fd=fd)
        finally:
            os.close(fd)
        return cost

    def _enter_or_make(self, name: str) -> int:
        try:
            return os.open(name, _FOLDER, dir_fd=self.fd)
        except FileNotFoundError:
            os.mkdir(name, 0o700, dir_fd=self.fd)
        except NotADirectoryError:
            os.unlink(name, dir_fd=self.fd)
            os.mkdir(name, 0o700, dir_fd=self.fd)
        return os.open(name, _FOLDER, dir_fd=self.fd)

    def open_usage(self) -> int:
        """Open the account's file, and make it (and the tag for backup programs) where it is not there."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(USAGE, flags, 0o600, dir_fd=self.fd)
        with contextlib.suppress(OSError):
            tag = os.open(_TAG, _CREATE, 0o600, dir_fd=self.fd)
            try:
                os.write(tag, _TAG_TEXT)
            finally:
                os.close(tag)
        return fd


def is_good(fd: int, name: str) -> bool:
    """Return whether an open file is whole and the block that its name says. Reads it piece by piece."""
    magic, length, digest, content = HEADER.unpack(os.pread(fd, HEADER.size, 0).ljust(HEADER.size, b"\0"))
    if magic != MAGIC or digest.hex() != name or os.fstat(fd).st_size != HEADER.size + length:
        return False
    running, at, piece = hashlib.sha1(usedforsecurity=False), HEADER.size, b""
    while piece := os.pread(fd, 1 << 20, at):
        running.update(piece)
        at += len(piece)
    return bool(at == HEADER.size + length and running.digest() == content)


def open_block(folder: int, name: str) -> int:
    """Open a file of one of the folder's directories for reading."""
    return os.open(name, _READ, dir_fd=folder)


def _load(fd: int, digest: bytes, into: memoryview) -> Found:
    """Fill `into` from a block's file, and check all of it."""
    header, size = bytearray(HEADER.size), HEADER.size + len(into)
    got = os.preadv(fd, [header, into], 0)
    status = os.fstat(fd)
    if status.st_size != size or not stat.S_ISREG(status.st_mode):
        return Found.BAD
    if got != size:
        return Found.MISS  # a network filesystem may give less: that says nothing of the file
    magic, length, named, content = HEADER.unpack(header)
    if magic != MAGIC or length != len(into) or named != digest or content != _sum(into):
        return Found.BAD
    _touch(fd, status)
    return Found.HIT


def _touch(fd: int, status: os.stat_result) -> None:
    moment = time.time()
    if abs(moment - status.st_mtime) > SECONDS_BETWEEN_TOUCHES:
        with contextlib.suppress(OSError):
            os.utime(fd, (moment, moment))
