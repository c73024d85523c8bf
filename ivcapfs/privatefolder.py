"""A folder that belongs to this user alone: made where it is not there, and verified before anything is trusted in it.

Used by the catalog and the disk cache. Stateless; any thread may call it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from ivcapfs.errors import ConfigError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_private_folder(path: Path, what: str, *, create: bool = True, needs: int = 0o500) -> int:
    """Open a folder of mode 0700 that this user owns.

    Args:
        what: named in the error, e.g. ``catalog folder``.
        create: whether to make it, and those above it, where it is not there.
        needs: the bits of its mode that must be set.

    Returns:
        Its descriptor (open(2) with O_NOFOLLOW); the caller closes it.

    Raises:
        ConfigError: it is a symbolic link or no folder, belongs to another user, is open to others, or cannot be made.
    """
    try:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                path.mkdir(0o700)
        fd = os.open(path, _FOLDER)
    except NotADirectoryError as exc:
        kind = "a symbolic link: name the folder itself" if path.is_symlink() else "no directory: name another"
        raise ConfigError(f"the {what} {path} is {kind}") from exc
    except OSError as exc:
        raise ConfigError(f"the {what} {path} cannot be used: {exc.strerror}") from exc
    status = os.fstat(fd)
    mode, wrong = stat.S_IMODE(status.st_mode), ""
    if status.st_uid != os.geteuid():
        wrong = f"belongs to another user (uid {status.st_uid}): name one of your own"
    elif mode & 0o077 or mode & needs != needs:
        wrong = f"must be open to you alone, and has mode {mode:04o}: chmod 700 {path}"
    if wrong:
        os.close(fd)
        raise ConfigError(f"the {what} {path} {wrong}")
    return fd
