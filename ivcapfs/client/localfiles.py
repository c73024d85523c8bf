"""Contents as files on the local disk.

Used by `Artifact.as_local_file`. No state: any thread. Errors of the local disk are left as `OSError`,
since the path is the caller's own.
"""

from __future__ import annotations

import contextlib
import mimetypes
import os
import re
import secrets
import tempfile
from collections.abc import Iterable
from pathlib import Path, PosixPath
from types import TracebackType
from typing import Self

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")


class TemporaryPath(PosixPath):
    """The path of a temporary file, which is deleted at the end of a ``with``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unlink(missing_ok=True)


def save(chunks: Iterable[bytes], target: Path) -> None:
    """Write `chunks` to `target`, whose folders are made; `target` is as before, or has all of the content.

    The content gets its name only when it is complete. A symbolic link is followed, and what is no regular
    file (a pipe, a device) is written to as it is.

    Raises:
        OSError: the disk refuses.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    place = Path(os.path.realpath(target))
    if place.exists() and not place.is_file():
        with place.open("wb") as file:
            file.writelines(chunks)
        return
    part = place.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            file.writelines(chunks)
        part.replace(place)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def save_temporarily(chunks: Iterable[bytes], *, suffix: str) -> TemporaryPath:
    """Write `chunks` to a new temporary file, readable by its owner only; return its path.

    Raises:
        OSError: the disk refuses.
    """
    handle, name = tempfile.mkstemp(prefix="ivcapfs-", suffix=suffix)
    path = TemporaryPath(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(chunks)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def suffix_for(name: str | None, mime_type: str | None) -> str:
    """Return a file name suffix for a content, from its name or else its MIME type; "" where neither gives one."""
    suffix = Path(name.rpartition("/")[2]).suffix if name and "\0" not in name else ""
    if not _SUFFIX.fullmatch(suffix):
        suffix = mimetypes.guess_extension(mime_type or "") or ""
    return suffix


def content_type_of(path: Path) -> str:
    """Return the MIME type that a file's name suggests."""
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"
