"""Between libfuse's callbacks and our operations, those that write; see `binding` for the others.

Used by `ivcapfs.fs.mount` where the option `write` was given. libfuse is told of these callbacks by their names in the
operations: a mount that only reads has none of them.

Threading: callbacks come on libfuse's threads, many at a time.
"""

from __future__ import annotations

import ctypes
from typing import Any

from ivcapfs.fs.binding import Kernel, lib, text


class WritingKernel(Kernel):
    """One mounted filesystem, for reading and writing."""

    def create(self, path: bytes, mode: int, fip: Any) -> int:
        """``create``."""
        fip.contents.fh = self.operations.create(text(path), fip.contents.flags)
        return 0

    def write(self, path: bytes | None, buf: Any, size: int, offset: int, fip: Any) -> int:
        """``write``."""
        data = (ctypes.c_char * size).from_address(ctypes.cast(buf, ctypes.c_void_p).value or 0)
        return int(self.operations.write(fip.contents.fh, memoryview(data).cast("B"), offset))

    def truncate_fuse_3(self, path: bytes | None, length: int, fip: Any) -> int:
        """``truncate``."""
        self.operations.truncate(_path(path), length, _handle(fip))
        return 0

    def flush(self, path: bytes | None, fip: Any) -> int:
        """``flush``: one of the descriptors of an open file was closed."""
        self.operations.flush(fip.contents.fh, lib.fuse_get_context().contents.pid)
        return 0

    def fsync(self, path: bytes | None, datasync: int, fip: Any) -> int:
        """``fsync``."""
        self.operations.fsync(fip.contents.fh)
        return 0

    def fsyncdir(self, path: bytes | None, datasync: int, fip: Any) -> int:
        """``fsyncdir``: what is in a folder is the platform's."""
        return 0

    def unlink(self, path: bytes) -> int:
        """``unlink``."""
        self.operations.unlink(text(path))
        return 0

    def mkdir(self, path: bytes, mode: int) -> int:
        """``mkdir``."""
        self.operations.mkdir(text(path))
        return 0

    def rmdir(self, path: bytes) -> int:
        """``rmdir``."""
        self.operations.rmdir(text(path))
        return 0

    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
        """``rename``."""
        self.operations.rename(text(old), text(new), flags)
        return 0

    def link(self, existing: bytes, new: bytes) -> int:
        """``link``."""
        self.operations.link(text(existing), text(new))
        return 0

    def symlink(self, source: bytes, target: bytes) -> int:
        """``symlink``: a link at `target`, as the class above has it."""
        self.operations.symlink(text(target), text(source))
        return 0

    def mknod(self, path: bytes, mode: int, dev: int) -> int:
        """``mknod``."""
        self.operations.mknod(text(path))
        return 0

    def chmod_fuse_3(self, path: bytes | None, mode: int, fip: Any) -> int:
        """``chmod``."""
        self.operations.chmod(_path(path), mode, _handle(fip))
        return 0

    def chown_fuse_3(self, path: bytes | None, uid: int, gid: int, fip: Any) -> int:
        """``chown``."""
        self.operations.chown(_path(path), uid, gid, _handle(fip))
        return 0

    def utimens_fuse_3(self, path: bytes | None, times: Any, fip: Any) -> int:
        """``utimens``; only the time of the last write is kept."""
        written = times.contents.modtime if times else None
        told = None if written is None else (written.tv_sec, written.tv_nsec)
        self.operations.utimens(_path(path), told, _handle(fip))
        return 0

    def setxattr(self, path: bytes, name: bytes, value: Any, size: int, flags: int, *args: Any) -> int:
        """``setxattr``."""
        self.operations.setxattr(text(path), text(name), ctypes.string_at(value, size), flags)
        return 0

    def removexattr(self, path: bytes, name: bytes) -> int:
        """``removexattr``."""
        self.operations.removexattr(text(path), text(name))
        return 0


def _path(raw: bytes | None) -> str:
    """Return a path that libfuse may not know any more; there is a handle then."""
    return "" if raw is None else text(raw)


def _handle(fip: Any) -> int | None:
    return int(fip.contents.fh) if fip else None
