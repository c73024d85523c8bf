"""What a read answers the kernel with: the blocks themselves, or memory that libfuse sends and gives back.

Used by `ivcapfs.fs.binding`. libfuse's ``read`` comes with a buffer for the answer, so that a thousand reads that wait
for the server hold a thousand megabytes; ``read_buf`` lets the callback bring its own. It has to come from malloc(3),
for libfuse frees it, and is taken once there are bytes for it. A long answer whose bytes are there all at once needs
none (`ivcapfs.fs.directreplies`).

Threading: a reply belongs to the thread that answers.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
from collections.abc import Sequence

from ivcapfs.fs.directreplies import Device

_LIBC = ctypes.PyDLL(None)  # keeps the interpreter's lock: what is called here takes less than that
_malloc, _free = _LIBC.malloc, _LIBC.free
_malloc.restype, _malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
_free.restype, _free.argtypes = None, [ctypes.c_void_p]
_copy = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(
    ctypes.cast(_LIBC.memmove, ctypes.c_void_p).value or 0
)
_ONE_BUFFER = struct.Struct("@NNN Ni PiqN")
"""``struct fuse_bufvec`` with one ``struct fuse_buf``: count, index, offset; size, flags, memory, descriptor, position,
and the size of the memory (since libfuse 3.17)."""
SHORT = 64 * 1024
"""Bytes that are copied faster than the interpreter's lock is let go and taken again, or a further call is made."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # <malloc.h>
_KEPT = 16 * 1024 * 1024
"""Free bytes at the end of the heap that are not given back: a fresh page costs a fault."""
_MAPPED = 1024 * 1024 + 2048
"""From this size on memory is mapped by itself. Not an answer, of a megabyte at most: the next takes it again. But the
buffer for requests that each of libfuse's threads has, which is 4 KiB longer: mapped, it takes no more than the longest
request had, and most have a hundred bytes."""


def keep_memory_together() -> None:
    """Make malloc(3) take all from one place; to be called before the first thread begins.

    glibc gives each of many threads a place of its own, and each keeps the answers that went through it. Of the one
    place it would give back what is more than two answers, again and again: see mallopt(3).
    """
    with contextlib.suppress(AttributeError):  # another C library than glibc, which does not do that
        for option, value in ((_M_ARENA_MAX, 1), (_M_TRIM_THRESHOLD, _KEPT), (_M_MMAP_THRESHOLD, _MAPPED)):
            _LIBC.mallopt(option, value)


class Reply:
    """The answer to one read, filled piece by piece.

    Args:
        room: bytes that the kernel asked for.
        device: takes long answers without a copy; None: all are copied.

    Attributes:
        is_sent: whether the kernel has it already.
    """

    __slots__ = ("_device", "_filled", "_memory", "_room", "is_sent")

    def __init__(self, room: int, device: Device | None = None) -> None:
        self._room = room
        self._device = device
        self._memory = 0
        self._filled = 0
        self.is_sent = False

    def add(self, pieces: Sequence[memoryview], is_last: bool) -> None:
        """Send the next pieces, or copy them; see `ivcapfs.cache.block.Sink`.

        Raises:
            MemoryError: there is no memory for the answer.
        """
        size = sum(map(len, pieces))
        if size > self._room - self._filled:
            raise ValueError(f"{size} bytes more than the {self._room} that the kernel asked for")
        if is_last and not self._filled and size > SHORT and self._device is not None:
            self.is_sent = self._device.send(pieces)
        if not self.is_sent:
            for piece in pieces:
                self._copy_in(piece)

    def _copy_in(self, piece: memoryview) -> None:
        size = len(piece)
        if not self._memory:
            self._memory = _allocated(self._room)
        source = bytes(piece) if piece.readonly else ctypes.byref(ctypes.c_char.from_buffer(piece))
        (_copy if size <= SHORT else ctypes.memmove)(self._memory + self._filled, source, size)
        self._filled += size

    def hand_over(self) -> int:
        """Return the address of the ``struct fuse_bufvec`` for libfuse, which frees it and the bytes.

        Raises:
            MemoryError: there is no memory for it.
        """
        vector = _allocated(_ONE_BUFFER.size)
        fields = _ONE_BUFFER.pack(1, 0, 0, self._filled, 0, self._memory, -1, 0, self._filled)
        _copy(vector, fields, len(fields))
        self._memory = 0
        return vector

    def drop(self) -> None:
        """Give back what was not handed over. May be called again."""
        if self._memory:
            _free(self._memory)
            self._memory = 0


def _allocated(size: int) -> int:
    address = _malloc(size)
    if not address:
        raise MemoryError(f"no {size} bytes for an answer")
    return int(address)
