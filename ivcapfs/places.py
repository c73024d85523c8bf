"""Where things of a user are on this machine: what runs, what is logged, which contexts there are, the service
manager's socket, and where a mount tells of itself.

Used by `ivcapfs.fs` and by the commands. Like `ivcapfs.config` it reads the environment, and works without any:
mount(8) at boot has no HOME. Pure, but for the environment, the name of the user's home folder,
and the file of contexts.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from ivcapfs import contexts
from ivcapfs.errors import ConfigError

SYSTEM_RUNTIME = Path("/run/ivcapfs")
SYSTEM_LOGS = Path("/var/log/ivcapfs")
SYSTEM_TOKEN = Path("/etc/ivcapfs/token")
"""The token of the machine's own mounts: mode 0600, read by `mount.ivcapfs` where nothing else names one."""
USER_RUNTIMES = Path("/run/user")
STATUS_FOLDER, STATUS_FILE = ".ivcapfs", "status.json"
"""What a mount tells of itself, in its root."""


def status_file(mountpoint: Path) -> Path:
    """Return the file in which the mount at a path tells how it does."""
    return mountpoint / STATUS_FOLDER / STATUS_FILE


def runtime_folder(environ: Mapping[str, str] = os.environ, *, uid: int | None = None) -> Path:
    """Return the folder for what lives as long as a mount: of root /run/ivcapfs, else below XDG_RUNTIME_DIR.

    Args:
        uid: whose; None: this process's own user.
    """
    uid = os.geteuid() if uid is None else uid
    if uid == 0:
        return SYSTEM_RUNTIME
    given = environ.get("XDG_RUNTIME_DIR", "")
    return Path(given) / "ivcapfs" if given.startswith("/") else Path(f"/tmp/ivcapfs-{uid}")


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder for logs: below XDG_STATE_HOME, of root without that /var/log/ivcapfs."""
    given = environ.get("XDG_STATE_HOME", "")
    if given.startswith("/"):
        return Path(given) / "ivcapfs"
    if os.geteuid() == 0:
        return SYSTEM_LOGS
    return _home(environ) / ".local" / "state" / "ivcapfs"


def notify_socket(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the address at which systemd waits to hear that a service is ready (sd_notify(3)), if it does."""
    given = environ.get("NOTIFY_SOCKET", "")
    return given if given.startswith(("/", "@")) else None


def known_contexts(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the names of the `ivcap` program's contexts with their URLs; none where its file cannot be read."""
    file = contexts.location(environ)
    try:
        return {each.name: each.url for each in contexts.parse(contexts.read_text(file), file).all}
    except ConfigError:
        return {}


def _home(environ: Mapping[str, str]) -> Path:
    """Return the home folder, also without HOME; the root folder, where nothing is written, for a user without one."""
    given = environ.get("HOME", "")
    if given.startswith("/"):
        return Path(given)
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        return Path("/")
