"""Mounts a web folder with fsspec's own FUSE bridge: a program for the peer `fsspec` in `bench.peers`.

    python -m bench.fsspec_mount URL MOUNTPOINT

Stays in the foreground. Set up as fsspec does by itself: one thread, `HTTPFileSystem` with its block size and cache.
The one thing added: the root is said to be a folder, since over HTTP fsspec takes it for a file and cannot mount.
"""

from __future__ import annotations

import importlib
import stat
import sys
import time
from typing import Any


def main() -> None:
    """Mount until the end."""
    url, point = sys.argv[1:]
    fuse: Any = importlib.import_module("fsspec.fuse")
    http: Any = importlib.import_module("fsspec.implementations.http")

    class Rooted(fuse.FUSEr):  # type: ignore[misc]
        def getattr(self, path: str, fh: Any = None) -> Any:
            if path != "/":
                return super().getattr(path, fh)
            now = time.time()
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2, "st_mtime": now, "st_ctime": now, "st_atime": now}

    fuse.run(http.HTTPFileSystem(), url, point, foreground=True, threads=False, ops_class=Rooted)


if __name__ == "__main__":
    main()
