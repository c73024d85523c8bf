"""``python -m tests.torture.planted BUG WORDS…``: ivcapfs with a bug in it, for a harness to find.

A harness that finds nothing proves something only if it would have found it. Each bug is one that its harness is for;
`scripts/torture --self-check` sees each of them caught.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ivcapfs.cache.block import Sink
from ivcapfs.errors import NoSpace


def flipped_byte() -> None:
    """One read of an artifact in 300 has one wrong bit. Found by the storm."""
    from ivcapfs.fs.operations import Operations

    right, count = Operations.read_buf, [0]

    def read_buf(self: Any, handle: int, size: int, offset: int, sink: Sink) -> int:
        def flip(pieces: Sequence[memoryview], is_last: bool) -> None:
            count[0] += 1
            data = bytearray(b"".join(pieces))
            if data and count[0] % 300 == 0:
                data[len(data) // 2] ^= 1
            sink([memoryview(data)], is_last)

        return right(self, handle, size, offset, flip)

    Operations.read_buf = read_buf  # type: ignore[method-assign]


def leak() -> None:
    """Every open keeps a descriptor for ever. Found by the soak."""
    from ivcapfs.fs.writing import WritingOperations

    right = WritingOperations.open

    def leaky(self: Any, path: str, flags: int) -> Any:
        os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return right(self, path, flags)

    WritingOperations.open = leaky  # type: ignore[method-assign]


def early_close() -> None:
    """close(2) returns 0 and the journal does not hear of it. Found by the crashes."""
    from ivcapfs.spool.draft import Draft
    from ivcapfs.spool.entry import State

    right = Draft.note

    def note(self: Any, change: Any, *, durable: bool = False) -> Any:
        after = change(self.entry)
        if after.state is not State.CLOSED or after.record is not None:
            return right(self, change, durable=durable)
        with self.lock:
            self.entry = after
        return after

    Draft.note = note  # type: ignore[method-assign]


def silent_loss() -> None:
    """What does not fit into the spool, or its journal, is dropped without a word. Found by the full disks."""
    from ivcapfs.spool.draft import Draft
    from ivcapfs.spool.folder import Folder

    right, right_save = Draft.write, Folder.save

    def write(self: Any, data: Any, offset: int) -> int:
        try:
            return right(self, data, offset)
        except NoSpace:
            return len(data)

    def save(self: Any, entry: Any, *, durable: bool = False) -> None:
        with contextlib.suppress(NoSpace):
            right_save(self, entry, durable=durable)

    Draft.write, Folder.save = write, save  # type: ignore[method-assign]


BUGS: dict[str, Callable[[], None]] = {
    "flipped byte": flipped_byte,
    "leak": leak,
    "early close": early_close,
    "silent loss": silent_loss,
}


def main() -> None:
    """Plant the bug that the first argument names, and go on as ivcapfs."""
    BUGS[sys.argv.pop(1)]()
    from ivcapfs.entry import main as ivcapfs

    ivcapfs()


if __name__ == "__main__":
    main()
