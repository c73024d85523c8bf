"""Mount options (``-o name=value,…``) -> settings.

Used by the command line. Pure, but for resolving paths and for what `ivcapfs.config` reads.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from ivcapfs.config import (
    CacheSettings,
    CatalogSettings,
    Limits,
    MountSettings,
    ViewSettings,
    WriteSettings,
    catalog_folder,
    client_settings,
    command_words,
    crash_at,
    parse_size,
)
from ivcapfs.errors import ConfigError
from ivcapfs.fs.mountpoint import inherited

OPTIONS = {
    "allow_other": "other users may look, too",
    "allow_root": "root may look, too",
    "uid=USER": "the owner shown (default: who mounts)",
    "gid=GROUP": "the group shown",
    "umask=OCTAL": "permission bits taken away from 0444 and 0555 (0644, 0755)",
    "write": "new files become artifacts; without it the mount only reads",
    "spool-dir=DIR": "where new files wait until they are sent; of this user alone",
    "settle=SECONDS": "how long a closed file may still be renamed (2)",
    "policy=URN": "the policy of new artifacts",
    "refresh=SECONDS": "how old a listing may be (30)",
    "cache-size=SIZE": "memory for all blocks (a quarter of what there is, at most 1G)",
    "read-ahead=SIZE": "the largest read-ahead of one file (128M; 0: none)",
    "read-ahead-kb=KIB": "the kernel's own read-ahead, where root mounts (1024; 0: the kernel's default)",
    "cache-dir=DIR": "keep blocks there, for later mounts; of this user alone",
    "cache-dir-size=SIZE": "what the blocks there may take (20G)",
    "catalog-dir=DIR": "where the list of artifacts is kept (the user's cache folder; none: in memory)",
    "reconcile=SECONDS": "how often the whole list is walked again, for what vanished (86400; 0: never)",
    "timeout=SECONDS": "how long a request may take without any progress (20)",
    "token-file=FILE": "a file (mode 0600) that holds the token",
    "token-command=CMD": "a program that prints the token, and its arguments; no shell",
    "log-file=FILE": "log to this file",
    "log=PLACE": "else: journal, syslog, file (rotated), stderr, none",
    "replace": "clear a mount whose process died, first",
    "noexec": "nothing there may be run",
    "allow-http": "plain http also to other machines",
    "debug": "log every request",
}
"""What each option means, for the help."""

_FLAGS = frozenset(name for name in OPTIONS if "=" not in name)
_VALUED = frozenset(name.split("=")[0] for name in OPTIONS if "=" in name)
_IGNORED = frozenset({"ro", "defaults", "nosuid", "nodev", "default_permissions"})
"""What a mount does anyway, or what means nothing: taken without a word."""
_LOGS = ("auto", "journal", "syslog", "file", "stderr", "none")


def mount_settings(
    source: str | None, mountpoint: str, options: Iterable[str], *, foreground: bool
) -> MountSettings:
    """Put a mount's settings together.

    Args:
        source: the deployment's URL, or one of the `ivcap` program's contexts; None: the environment or the active
            context.
        options: as given to each `-o`.

    Raises:
        ConfigError: an option is unknown, doubled in meaning, or has a value that makes no sense.
    """
    given = parse_options(options)
    if "allow_other" in given and "allow_root" in given:
        raise ConfigError("allow_other and allow_root exclude each other: choose one")
    where = Path(mountpoint)
    if inherited(where) is None:
        where = absolute(where)
    token_file = _path(given.get("token-file"), where)
    command = command_words(given["token-command"]) if "token-command" in given else None
    client = client_settings(
        source, token_file=token_file, token_command=command, allow_http="allow-http" in given
    )
    limits = Limits()
    if "timeout" in given:
        seconds = _seconds("timeout", given["timeout"], least=0.1)
        limits = replace(limits, idle=seconds, connect=min(limits.connect, seconds), total=max(seconds, 1.0) * 1.5)
    return MountSettings(
        client=replace(client, limits=limits),
        mountpoint=where,
        cache=_cache(given, where),
        catalog=_catalog(given, where),
        view=_view(given),
        write=_write(given, where),
        allow_other="allow_other" in given,
        allow_root="allow_root" in given,
        foreground=foreground,
        debug="debug" in given,
        source=source or "",
        replace="replace" in given,
        noexec="noexec" in given,
        log_file=_path(given.get("log-file"), where),
        log=_log(given.get("log", "auto"), foreground=foreground),
        read_ahead_kib=_read_ahead_kib(given),
        crash_at=crash_at(),
    )


def parse_options(options: Iterable[str]) -> dict[str, str]:
    """Return name -> value of all options; flags have an empty value. The last of several counts.

    Raises:
        ConfigError: an option is unknown, or lacks or has a value against its nature.
    """
    given: dict[str, str] = {}
    for word in (word for text in options for word in _words(text) if word):
        name, equals, value = word.partition("=")
        name = _spelled(name)
        if name in _IGNORED:
            continue
        if name in _FLAGS and not equals:
            given[name] = ""
        elif name in _VALUED and value:
            given[name] = value
        elif name in _FLAGS:
            raise ConfigError(f"the option {name} takes no value")
        elif name in _VALUED:
            raise ConfigError(f"the option {name} needs a value: {name}=…")
        elif name == "rw":
            raise ConfigError("a mount only reads, unless it is asked to write: the option is write, not rw")
        else:
            raise ConfigError(f"unknown option {name!r}; known are: {', '.join(OPTIONS)}")
    return given


def _words(text: str) -> Iterator[str]:
    r"""Split at commas; ``\,`` is a comma within a value, as libfuse has it."""
    return (word.replace("\\,", ",") for word in re.split(r"(?<!\\),", text))


def absolute(path: Path) -> Path:
    """Return an absolute path without symbolic links; a stale mount on it (ENOTCONN) counts as no link."""
    return Path(os.path.realpath(path))


def _spelled(name: str) -> str:
    """Return an option's own spelling: `cache_size` is `cache-size`, `allow-other` is `allow_other`."""
    for known in (name, name.replace("_", "-"), name.replace("-", "_")):
        if known in _FLAGS or known in _VALUED:
            return known
    return name


def _cache(given: dict[str, str], mountpoint: Path) -> CacheSettings:
    cache = CacheSettings()
    memory = parse_size(given["cache-size"]) if "cache-size" in given else cache.memory
    read_ahead = parse_size(given["read-ahead"]) if "read-ahead" in given else cache.read_ahead
    size = parse_size(given["cache-dir-size"]) if "cache-dir-size" in given else cache.folder_size
    folder = _path(given.get("cache-dir"), mountpoint)
    return replace(cache, memory=memory, read_ahead=read_ahead, folder=folder, folder_size=size)


def _catalog(given: dict[str, str], mountpoint: Path) -> CatalogSettings:
    text = given.get("catalog-dir", "")
    folder = None if text == "none" else _path(text or str(catalog_folder()), mountpoint)
    catalog = CatalogSettings(folder)
    if "reconcile" in given:
        catalog = replace(catalog, reconcile=_seconds("reconcile", given["reconcile"], least=0.0))
    return catalog


def _view(given: dict[str, str]) -> ViewSettings:
    view = ViewSettings()
    if "refresh" in given:
        view = replace(view, refresh=_seconds("refresh", given["refresh"], least=0.0))
    if "uid" in given:
        view = replace(view, uid=_user(given["uid"]))
    if "gid" in given:
        view = replace(view, gid=_group(given["gid"]))
    if "umask" in given:
        view = replace(view, umask=_octal(given["umask"]))
    return replace(view, writable="write" in given)


def _write(given: dict[str, str], mountpoint: Path) -> WriteSettings | None:
    """Return how to write, if at all; the other options are looked at all the same."""
    write = WriteSettings()
    spool = _path(given.get("spool-dir"), mountpoint) or _path(str(write.spool), mountpoint)
    assert spool is not None
    settle = _seconds("settle", given["settle"], least=0.0) if "settle" in given else write.settle
    policy = given.get("policy")
    if policy is not None and not re.fullmatch(r"urn:ivcap:policy:[!-~]+", policy):
        raise ConfigError(f"policy must be the URN of a policy, urn:ivcap:policy:…, not {policy!r}")
    return WriteSettings(spool, settle, policy) if "write" in given else None


def _read_ahead_kib(given: dict[str, str]) -> int:
    text = given.get("read-ahead-kb", "1024")
    if not text.isascii() or not text.isdigit():
        raise ConfigError(f"read-ahead-kb must be a number of KiB, not {text!r}")
    return int(text)


def _log(text: str, *, foreground: bool) -> str:
    if text not in _LOGS:
        raise ConfigError(f"log must be one of {', '.join(_LOGS)}, not {text!r}; a file is named by log-file=FILE")
    if text == "stderr" and not foreground:
        raise ConfigError("log=stderr needs the foreground (-f): in the background nobody reads it")
    return text


def _path(text: str | None, mountpoint: Path) -> Path | None:
    if text is None:
        return None
    path = absolute(Path(text))
    if path.is_relative_to(mountpoint):
        raise ConfigError(f"{path} would be inside the mount itself: choose a place outside")
    return path


def _seconds(name: str, text: str, *, least: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not least <= number < 1e7:
        raise ConfigError(f"{name} must be a number of seconds from {least:g} on, not {text!r}")
    return number


def _octal(text: str) -> int:
    try:
        mask = int(text, 8)
    except ValueError:
        mask = -1
    if not 0 <= mask <= 0o777:
        raise ConfigError(f"umask must be an octal number up to 777, not {text!r}")
    return mask


def _user(text: str) -> int:
    try:
        return _number("uid", text) if text.isdigit() else pwd.getpwnam(text).pw_uid
    except KeyError:
        raise ConfigError(f"there is no user {text!r}") from None


def _group(text: str) -> int:
    try:
        return _number("gid", text) if text.isdigit() else grp.getgrnam(text).gr_gid
    except KeyError:
        raise ConfigError(f"there is no group {text!r}") from None


def _number(name: str, text: str) -> int:
    """Return a user's or group's number; the largest 32-bit one means nobody (chown(2))."""
    if not text.isascii() or len(text) > 10 or int(text) >= 2**32 - 1:
        raise ConfigError(f"{name} must be a name or a number below {2**32 - 1}, not {text!r}")
    return int(text)
