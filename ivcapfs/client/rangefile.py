"""A content as a seekable file that reads what is asked for, when it is asked for.

Used by `Artifact.open`. A file belongs to one thread at a time, as Python's files do.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ivcapfs.client.blobs import Blobs
from ivcapfs.config import MIB
from ivcapfs.models import Content

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER = 1 * MIB


class RangeFile(io.RawIOBase):
    """The raw file beneath `io.BufferedReader`: one ranged GET per call.

    Args:
        blobs: where the bytes come from.
        uuid: the artifact.
        content: what it was when the file was opened; other content raises `errors.ContentChanged`.
    """

    def __init__(self, blobs: Blobs, uuid: str, content: Content) -> None:
        super().__init__()
        self._blobs = blobs
        self._uuid = uuid
        self._content = content
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position, in bytes from the start."""
        self._check_not_closed()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move, without a request; beyond the end is allowed, as for any file. Return the new position."""
        self._check_not_closed()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._content.size}.get(whence)
        if base is None:
            raise ValueError(f"not a whence: {whence}")
        if base + offset < 0:
            raise ValueError(f"a position before the start: {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill `buffer` with the bytes at the position; return how many there were (fewer only at the end)."""
        self._check_not_closed()
        view = memoryview(buffer).cast("B")
        stop = min(self._position + len(view), self._content.size)
        filled = 0
        for chunk in self._chunks(stop):
            view[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
        self._position += filled
        return filled

    def readall(self) -> bytes:
        """Return the bytes from the position to the end, by a single transfer."""
        self._check_not_closed()
        data = b"".join(self._chunks(self._content.size))
        self._position += len(data)
        return data

    def _chunks(self, stop: int) -> Iterator[bytes]:
        if self._position >= stop:
            return
        with self._blobs.open_range(self._uuid, self._position, stop, expected=self._content) as stream:
            yield from stream

    def _check_not_closed(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
