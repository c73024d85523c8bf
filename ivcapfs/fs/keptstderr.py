"""Standard error, kept back while the C library mounts: its words become part of our one-line error.

Used by `ivcapfs.fs.mount`. Diverts file descriptor 2 of the whole process, so only one may be in use at a time.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType


class KeptStderr:
    """A context in which standard error goes to memory, until `restore`."""

    def __enter__(self) -> KeptStderr:
        sys.stderr.flush()
        self._memory = os.memfd_create("stderr")
        self._saved = os.dup(2)
        self._diverted = True
        os.dup2(self._memory, 2)
        return self

    def restore(self) -> None:
        """Let standard error go where it went before."""
        if self._diverted:
            self._diverted = False
            os.dup2(self._saved, 2)

    def last_line(self) -> str:
        """Return the last line that was written meanwhile, or nothing."""
        lines = os.pread(self._memory, 4096, 0).decode("utf-8", "replace").strip().splitlines()
        return lines[-1].removeprefix("fuse: ") if lines else ""

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()
        os.close(self._memory)
        os.close(self._saved)
