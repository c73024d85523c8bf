"""Between libfuse's callbacks and our operations: the only importer of the FUSE library.

Used by `ivcapfs.fs.mount`, which imports it late: importing it loads libfuse 3, and raises OSError where there is none.
mfusepy's class does the ctypes work of mounting and dispatching; the callbacks are ours, because they pass what its own
do not: attributes in readdir (readdirplus), `keep_cache` per open, and the room that a list of attributes has.

Threading: callbacks come on libfuse's threads, many at a time. `Kernel.serve` occupies the main thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import threading
from collections.abc import Callable
from typing import Any

os.environ["FUSE_LIBRARY_NAME"] = "fuse3"  # mfusepy would take libfuse 2 where both are installed
import mfusepy

from ivcapfs.config import MountSettings
from ivcapfs.fs.directreplies import Device
from ivcapfs.fs.nodes import Attributes
from ivcapfs.fs.operations import Operations
from ivcapfs.fs.replies import Reply, keep_memory_together
from ivcapfs.fs.threadstates import keep

READDIR_PLUS = 1
"""FUSE_READDIR_PLUS: the kernel takes attributes, too."""
FILL_PLUS = 2
"""FUSE_FILL_DIR_PLUS: the attributes of an entry are valid."""
INTERRUPT_SIGNAL = signal.SIGRTMIN + 1
"""Sent by libfuse to the thread of a callback whose caller got a signal. Nobody else's: it handles it by itself."""
VERSION = (mfusepy.fuse_version_major, mfusepy.fuse_version_minor)
THREADS_STAY = VERSION >= (3, 12)

lib = mfusepy._libfuse
lib.fuse_interrupted.restype = ctypes.c_int
lib.fuse_interrupted.argtypes = []
lib.fuse_invalidate_path.restype = ctypes.c_int
lib.fuse_invalidate_path.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
lib.fuse_get_session.restype = ctypes.c_void_p
lib.fuse_get_session.argtypes = [ctypes.c_void_p]
lib.fuse_session_fd.restype = ctypes.c_int
lib.fuse_session_fd.argtypes = [ctypes.c_void_p]
lib.fuse_session_exited.restype = ctypes.c_int
lib.fuse_session_exited.argtypes = [ctypes.c_void_p]


def interrupted() -> bool:
    """Return whether the caller of the callback on this thread got a signal (``fuse_interrupted(3)``)."""
    return bool(lib.fuse_interrupted())


def kernel_options(settings: MountSettings) -> dict[str, Any]:
    """Return the options for libfuse and mount(2)."""
    name = (settings.source or settings.client.url).replace("\\", "\\\\").replace(",", "\\,")
    options: dict[str, Any] = {
        "foreground": True,
        "fsname": name,
        "subtype": "ivcapfs",
        "ro": settings.write is None,
        "nosuid": True,
        "nodev": True,
        "default_permissions": True,
        "noexec": settings.noexec,
        "allow_other": settings.allow_other,
        "allow_root": settings.allow_root,
    }
    if VERSION >= (3, 12):
        options["max_threads"] = settings.threads
    return options


class Kernel(mfusepy.FUSE):
    """One mounted filesystem.

    Args:
        settings: what to mount, and how.

    Attributes:
        was_ready: whether the mount served at any time.
    """

    def __init__(self, settings: MountSettings) -> None:
        keep_memory_together()
        self._settings = settings
        self._lock = threading.Lock()
        self._fuse: ctypes.c_void_p | None = None  # while libfuse may be called about it; written under _lock
        self._device: Device | None = None  # written by the first callback
        self.was_ready = False

    def serve(self, operations: Operations, ready: Callable[[], None], first_open: Callable[[], None]) -> None:
        """Mount, answer callbacks until unmounted or `exit`, unmount.

        Args:
            ready: called once the kernel has agreed: from then on the mount serves.
            first_open: called in the first callbacks of `open`, before they answer.

        Raises:
            RuntimeError: libfuse says that something failed; also at the end of a loop that `exit` ended.
        """
        self._ready = ready
        self._first_open: Callable[[], None] | None = first_open
        super().__init__(operations, str(self._settings.mountpoint), **kernel_options(self._settings))

    def exit(self) -> None:
        """Make the loop end; its main thread still has to be woken by a signal."""
        with self._lock:
            if self._fuse is not None:
                lib.fuse_exit(self._fuse)

    def is_connected(self) -> bool:
        """Return whether the kernel holds the connection: as long as it does, the mount's device number is ours."""
        with self._lock:
            if self._fuse is None:
                return False
            poll = select.poll()
            poll.register(lib.fuse_session_fd(lib.fuse_get_session(self._fuse)), select.POLLERR)
            return not poll.poll(0)

    def forget(self, path: str) -> None:
        """Make the kernel drop what it knows of a path: attributes and pages. Not to be called in a callback."""
        with self._lock:
            if self._fuse is not None:
                lib.fuse_invalidate_path(self._fuse, path.encode())

    def is_over(self) -> bool:
        """Return whether the mount is gone, or `exit` was called.

        The kernel interrupts nobody's read-ahead: who waits for such bytes when it unmounts learns it here. To be
        asked in a callback: libfuse frees nothing before its end. So this needs no lock, and must not take it:
        `forget` holds it while the kernel may wait for this very callback.
        """
        fuse = self._fuse
        return fuse is None or bool(lib.fuse_session_exited(lib.fuse_get_session(fuse)))

    # -- callbacks -----------------------------------------------------------------------------------------------

    def _wrapper(self, func: Any, *args: Any) -> int:
        """Around each callback; mfusepy's makes an errno of an exception."""
        if THREADS_STAY:
            keep()
        return int(super()._wrapper(func, *args))  # type: ignore[no-untyped-call]

    def init_fuse_3(self, conn: Any, config: Any) -> None:
        """Settle the connection's parameters (``struct fuse_conn_info``, ``struct fuse_config``)."""
        limits, wishes = conn.contents, config.contents
        limits.max_background = self._settings.threads
        limits.congestion_threshold = self._settings.threads * 3 // 4
        if VERSION >= (3, 17):  # since then, who does not ask for interrupts is not told of them either
            wishes.intr, wishes.intr_signal = 1, INTERRUPT_SIGNAL
        wishes.use_ino = 1
        wishes.nullpath_ok = 1
        wishes.entry_timeout = wishes.attr_timeout = self._settings.view.refresh
        wishes.negative_timeout = 0
        wishes.kernel_cache = wishes.auto_cache = wishes.direct_io = 0
        self._fuse = ctypes.c_void_p(lib.fuse_get_context().contents.fuse)
        session = lib.fuse_get_session(self._fuse)
        self._device = Device(lib.fuse_get_context, session, lib.fuse_session_fd(session), VERSION)
        self.was_ready = True
        self._ready()

    def destroy(self, private_data: Any) -> None:
        """``destroy``: the loop is over, and libfuse is about to free what `exit` and `forget` speak of."""
        with self._lock:
            self._fuse = None
        self.operations.destroy("/")

    def getattr_fuse_3(self, path: bytes | None, buf: Any, fip: Any) -> int:
        """``getattr``."""
        found = self.operations.getattr("" if path is None else text(path), fip.contents.fh if fip else None)
        ctypes.memset(buf, 0, ctypes.sizeof(mfusepy.c_stat))
        _fill(buf.contents, found)
        return 0

    def readlink(self, path: bytes, buf: Any, bufsize: int) -> int:
        """``readlink``."""
        target = self.operations.readlink(text(path)).encode()[: bufsize - 1] + b"\0"
        ctypes.memmove(buf, target, len(target))
        return 0

    def open(self, path: bytes, fip: Any) -> int:
        """``open``."""
        if (first_open := self._first_open) is not None:
            first_open()
            self._first_open = None
        opened = self.operations.open(text(path), fip.contents.flags)
        fip.contents.fh = opened.handle
        fip.contents.keep_cache = int(opened.keep_cache)
        return 0

    def read_buf(self, path: bytes | None, bufpp: Any, size: int, offset: int, fip: Any) -> int:
        """``read_buf``: as ``read``, into memory that is ours until there are bytes for it."""
        reply = Reply(size, self._device)
        try:
            self.operations.read_buf(fip.contents.fh, size, offset, reply.add)
            if reply.is_sent:
                return -errno.EIO  # nobody is told: see `ivcapfs.fs.directreplies`
            ctypes.c_void_p.from_address(ctypes.addressof(bufpp.contents)).value = reply.hand_over()
        finally:
            reply.drop()
        return 0

    def release(self, path: bytes | None, fip: Any) -> int:
        """``release``."""
        self.operations.release(fip.contents.fh)
        return 0

    def opendir(self, path: bytes, fip: Any) -> int:
        """``opendir``."""
        fip.contents.fh = self.operations.opendir(text(path))
        return 0

    def readdir_fuse_3(
        self, path: bytes | None, buf: Any, filler: Any, offset: int, fip: Any, flags: int
    ) -> int:
        """``readdir``, with attributes wherever they are known (readdirplus)."""
        told = mfusepy.c_stat()
        plus = bool(flags & READDIR_PLUS)
        for name, found, following in self.operations.readdir(fip.contents.fh, offset, plus=plus):
            if found is not None:
                _fill(told, found)
            if filler(buf, name.encode(), told if found else None, following, FILL_PLUS if found else 0):
                break
        return 0

    def releasedir(self, path: bytes | None, fip: Any) -> int:
        """``releasedir``."""
        self.operations.releasedir(fip.contents.fh)
        return 0

    def getxattr(self, path: bytes, name: bytes, value: Any, size: int, *args: Any) -> int:
        """``getxattr``; size 0 asks for the length."""
        return _give(self.operations.getxattr(text(path), text(name)), value, size)

    def listxattr(self, path: bytes, namebuf: Any, size: int) -> int:
        """``listxattr``; size 0 asks for the length."""
        names = self.operations.listxattr(text(path), size)
        return _give(b"".join(name.encode() + b"\0" for name in names), namebuf, size)

    def statfs(self, path: bytes, buf: Any) -> int:
        """``statfs``."""
        for name, number in self.operations.statfs(text(path)).items():
            setattr(buf.contents, name, number)
        return 0


def text(raw: bytes) -> str:
    """Return a path or name as Python has it (PEP 383)."""
    return raw.decode("utf-8", "surrogateescape")


def _fill(told: Any, found: Attributes) -> None:
    """Write attributes into a ``struct stat``."""
    mode, inode, size, time_ns, links, uid, gid = found
    told.st_mode, told.st_ino, told.st_nlink, told.st_uid, told.st_gid = mode, inode, links, uid, gid
    told.st_size, told.st_blocks = size, found.sectors
    seconds, nanoseconds = divmod(time_ns, 10**9)
    modified = told.st_mtimespec
    modified.tv_sec, modified.tv_nsec = seconds, nanoseconds
    told.st_atimespec = told.st_ctimespec = modified


def _give(data: bytes, buf: Any, size: int) -> int:
    """Answer an attribute call: the length alone where no room was given."""
    if size == 0:
        return len(data)
    if len(data) > size:
        return -errno.ERANGE
    ctypes.memmove(buf, data, len(data))
    return len(data)
