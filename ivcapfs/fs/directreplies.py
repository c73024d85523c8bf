"""Answering a read from the blocks themselves: one writev(2) to the FUSE device, and no copy in between.

Used by `ivcapfs.fs.replies`. libfuse frees the memory that ``read_buf`` answers with (malloc(3)), so what lies in a
block has to be copied for it: a fifth of all that a sequential read costs a mount. Here the answer (``struct
fuse_out_header``, then the bytes) goes to the kernel from where it is. libfuse then sends its own, to a request that is
answered already: numbers of requests never come again, so the kernel refuses that with ENOENT, which libfuse takes for
an interrupted request and says nothing (`fuse_write_msg_dev`, and before 3.19 `fuse_send_msg`, in fuse_lowlevel.c).

The number of the request is not in libfuse's interface. It is where it has been since 2013: the pointer to the request
lies behind the ``struct fuse_context`` that fuse_get_context(3) returns, and the request begins with its session and
its number. Versions up to 3.19 were looked at, and of each request the session is compared with the one that the
interface tells. Where anything is otherwise, the log says so, and reads are answered by a copy from then on.

Threading: any thread may call anything.
"""

from __future__ import annotations

import ctypes
import logging
import os
import struct
from collections.abc import Sequence
from typing import Any

log = logging.getLogger(__name__)

FIRST, LAST = (3, 2), (3, 19)
"""Versions of libfuse whose structures are known."""
COPIED = "reads are answered by a copy"
"""How the log begins to say so."""
MOST_PIECES = 64
"""Pieces of one answer; writev(2) takes 1,024."""
_HEADER = struct.Struct("=IiQ")
"""``struct fuse_out_header``: length, error, number of the request."""
_REQUEST = struct.Struct("@PQ")
"""How ``struct fuse_req`` begins: session, number of the request."""


class _Context(ctypes.Structure):
    """``struct fuse_context``."""

    _fields_ = (
        ("fuse", ctypes.c_void_p), ("uid", ctypes.c_uint), ("gid", ctypes.c_uint), ("pid", ctypes.c_int),
        ("private_data", ctypes.c_void_p), ("umask", ctypes.c_uint),
    )  # fmt: skip


class Device:
    """The FUSE device of one mount.

    Args:
        get_context: fuse_get_context(3).
        session: the address of the mount's ``struct fuse_session``.
        descriptor: of the device.
        version: of libfuse.
    """

    def __init__(self, get_context: Any, session: int, descriptor: int, version: tuple[int, int]) -> None:
        address = ctypes.cast(get_context, ctypes.c_void_p).value or 0
        self._context = ctypes.PYFUNCTYPE(ctypes.c_void_p)(address)  # too short to let the interpreter's lock go
        self._session = session
        self._descriptor = descriptor
        self._is_known = True
        if not FIRST <= version <= LAST:
            self._is_strange(f"libfuse {version[0]}.{version[1]} was not looked at")

    def send(self, pieces: Sequence[memoryview]) -> bool:
        """Answer the request of the callback on this thread; return False where that cannot be done so.

        Args:
            pieces: all bytes of the answer, in order.
        """
        number = self._number()
        if number is None or len(pieces) > MOST_PIECES:
            return False
        head = _HEADER.pack(_HEADER.size + sum(map(len, pieces)), 0, number)
        try:
            os.writev(self._descriptor, [head, *pieces])
        except OSError:  # nobody waits for it any more, or there is no memory: libfuse's answer will show
            return False
        return True

    def _number(self) -> int | None:
        """Return the number of the request that this thread answers; None where it is not where it should be."""
        context = self._context() if self._is_known else None
        if not context:
            return None
        request = ctypes.c_void_p.from_address(context + ctypes.sizeof(_Context)).value
        if not request:
            return None
        session, number = _REQUEST.unpack(ctypes.string_at(request, _REQUEST.size))
        if session != self._session:
            self._is_strange("libfuse's requests are not as they were")
            return None
        return int(number)

    def _is_strange(self, why: str) -> None:
        self._is_known = False
        log.info("%s: %s", COPIED, why)
