"""``mount.ivcapfs``: what mount(8) runs for ``mount -t ivcapfs`` and for lines of /etc/fstab.

A console script of its own, put in mount(8)'s way by ``ivcapfs install-helper``. Speaks mount(8)'s language (section
EXTERNAL HELPERS) and its exit codes, works without HOME, and hands everything on to what ``ivcapfs mount`` does, too.
Main thread only.
"""

from __future__ import annotations

import ctypes
import getopt
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ivcapfs.errors import ConfigError, IvcapfsError, MountError
from ivcapfs.fs.daemon import mount
from ivcapfs.options import mount_settings, parse_options
from ivcapfs.places import SYSTEM_TOKEN

DONE, USAGE, INTERRUPTED, FAILED = 0, 1, 8, 32
"""mount(8)'s exit codes."""
CLONE_NEWNS = 0x00020000
USAGE_LINE = "usage: mount.ivcapfs SOURCE MOUNTPOINT [-fnsv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]"

NOT_OURS = frozenset(
    {
        *("auto", "noauto", "user", "nouser", "users", "nousers", "owner", "noowner", "group", "nogroup"),
        *("_netdev", "nofail", "rw", "async", "sync", "dirsync", "exec", "suid", "dev", "mand", "nomand"),
        *("atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime"),
        *("lazytime", "nolazytime", "iversion", "noiversion", "silent", "loud"),
    }
)
"""Words of fstab(5) and mount(8) for others, or for filesystems that write."""
NOT_OURS_BEGINNINGS = ("x-", "X-", "comment=", "user=", "uhelper=", "helper=")


@dataclass(frozen=True, slots=True)
class Call:
    """What mount(8) asked for.

    Attributes:
        options: those that are ours, separated by commas.
        fake: everything but the mount itself; what is mounted there already does not matter.
        sloppy: unknown options are no error.
        namespace: the mount namespace to mount in, as a path; None: our own.
    """

    source: str
    mountpoint: str
    options: tuple[str, ...] = ()
    fake: bool = False
    sloppy: bool = False
    verbose: bool = False
    namespace: str | None = None


def main() -> None:
    """Run as a program."""
    sys.exit(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """Do what mount(8) asked for; return the exit code."""
    try:
        call = parse(words)
        perform(call)
    except getopt.GetoptError as exc:
        _say(f"{exc}; {USAGE_LINE}")
        return USAGE
    except ConfigError as exc:
        _say(str(exc))
        return USAGE
    except IvcapfsError as exc:
        _say(str(exc))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def parse(words: Sequence[str]) -> Call:
    """Return what the words ask for, in any order, as mount(8) gives them.

    Raises:
        getopt.GetoptError: they are none of mount(8)'s.
    """
    flags, places = getopt.gnu_getopt(list(words), "fnsvN:t:o:")
    if len(places) != 2:
        raise getopt.GetoptError(f"{len(places)} places were given, not two")
    given = dict(flags)
    options = (word for flag, text in flags if flag == "-o" for word in text.split(","))
    return Call(
        source=places[0],
        mountpoint=places[1],
        options=tuple(ours(options)),
        fake="-f" in given,
        sloppy="-s" in given,
        verbose="-v" in given,
        namespace=given.get("-N"),
    )


def ours(options: Iterable[str]) -> Iterable[str]:
    """Yield the options that are not for mount(8) or others alone.

    Raises:
        ConfigError: one asks for what cannot be done to a mount that is there.
    """
    for word in options:
        if word == "remount":
            raise ConfigError("a mount cannot be changed while it is there: unmount it, then mount it again")
        if word and word not in NOT_OURS and not word.startswith(NOT_OURS_BEGINNINGS):
            yield word


def perform(call: Call) -> None:
    """Mount, or see whether it could be done.

    Raises:
        ConfigError: an option or the source makes no sense.
        MountError: the mount did not begin.
    """
    if call.namespace is not None:
        enter(call.namespace)
    options = [word for word in call.options if not call.sloppy or _is_known(word)]
    options += _system_token(call.source, options)
    settings = mount_settings(call.source, call.mountpoint, options, foreground=False)
    if call.verbose:
        _say(f"{settings.client.url} at {settings.mountpoint}" + (" (fake)" if call.fake else ""), error=False)
    if not call.fake:
        mount(settings, lambda: None)


def enter(namespace: str) -> None:
    """Go into a mount namespace (setns(2)); the mount's process then lives in it.

    Raises:
        MountError: it is none, or this user may not.
    """
    try:
        descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNS) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise MountError(f"the mount namespace {namespace} cannot be entered: {exc.strerror}") from exc


def _is_known(word: str) -> bool:
    """Return whether an option is one of ours, by its name; a wrong value stays an error."""
    try:
        parse_options([word])
    except ConfigError as exc:
        return not str(exc).startswith("unknown option")
    return True


def _system_token(source: str, options: Iterable[str]) -> list[str]:
    """Return the option for the machine's own token: for an address, where this user may read it and names no other."""
    named = any(word.replace("_", "-").startswith("token-file=") for word in options)
    if "://" not in source or named or not _is_readable(SYSTEM_TOKEN):
        return []
    return [f"token-file={SYSTEM_TOKEN}"]


def _is_readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)


def _say(text: str, *, error: bool = True) -> None:
    print(f"mount.ivcapfs: {text}", file=sys.stderr if error else sys.stdout)
