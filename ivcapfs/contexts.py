"""The `ivcap` program's file of contexts: where it is, and what it says.

Used by the settings, which look up a context once, and by the client, which reads the file again when a token has to be
renewed. Reading never changes the file. Pure but for `read`; everything is immutable: any thread.
"""

from __future__ import annotations

import functools
import pwd
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from os import getuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ivcapfs.errors import ConfigError
from ivcapfs.secret import Secret

if TYPE_CHECKING:
    import yaml

_LARGEST = 1024 * 1024
_PATIENCE = 1.0
"""Seconds. The `ivcap` program writes over its file: for a moment it is empty, or ends in the middle."""
_PAUSE = 0.05
_EARLY = 10.0
"""Seconds by which the `ivcap` program notes an expiry too early."""


@dataclass(frozen=True, slots=True)
class ContextPlace:
    """Where a context stands.

    Attributes:
        file: the `ivcap` program's config file.
        name: the context's.
    """

    file: Path
    name: str


@dataclass(frozen=True, slots=True)
class Context:
    """One context: a deployment, and a login there.

    Attributes:
        url: of the deployment, as it stands there.
        host: the Host header to send.
        access_token: the last one, perhaps expired.
        expires: when it expires, in seconds since the epoch.
        refresh_token: what gets the next one.
    """

    name: str
    url: str
    account_id: str | None = None
    host: str | None = None
    access_token: Secret | None = None
    expires: float | None = None
    refresh_token: Secret | None = None


@dataclass(frozen=True, slots=True)
class Contexts:
    """A whole file.

    Attributes:
        active: the name of the context that is used where none is named.
    """

    file: Path
    active: str | None
    all: tuple[Context, ...]

    def find(self, name: str | None) -> Context:
        """Return the context of that name, or the active one.

        Raises:
            ConfigError: there is no such context.
        """
        wanted = name or self.active
        for context in self.all:
            if context.name == wanted:
                return context
        names = ", ".join(context.name for context in self.all) or "none at all"
        if wanted is None:
            raise ConfigError(f"no context is active in {self.file}: ivcap context set NAME, or name one of: {names}")
        raise ConfigError(f"there is no context {wanted!r} in {self.file}; there are: {names}")


class NoContexts(ConfigError):
    """There is no file of contexts."""


def location(environ: Mapping[str, str]) -> Path:
    """Return where the `ivcap` program keeps its contexts (Go's `os.UserConfigDir`); HOME may be missing."""
    folder = environ.get("XDG_CONFIG_HOME", "")
    if not folder.startswith("/"):
        home = environ.get("HOME", "")
        if not home.startswith("/"):
            try:
                home = pwd.getpwuid(getuid()).pw_dir
            except KeyError:
                home = "/"
        folder = f"{home}/.config"
    return Path(folder) / "ivcap-cli" / "config.yaml"


def read(file: Path) -> Contexts:
    """Return what a file of contexts says. A file that is being written is waited for.

    Raises:
        NoContexts: there is none.
        ConfigError: it cannot be read, or makes no sense.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            found = parse(read_text(file), file)
            if found.all or time.monotonic() > end:
                return found
        except NoContexts:
            raise
        except ConfigError:
            if time.monotonic() > end:
                raise
        time.sleep(_PAUSE)


def read_text(file: Path) -> str:
    """Return the text of a file of contexts.

    Raises:
        NoContexts: there is none.
        ConfigError: it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            return opened.read(_LARGEST).decode("utf-8")
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise NoContexts(
            f"the ivcap program's file {file} does not exist: ivcap context create NAME URL, ivcap context login"
        ) from exc
    except OSError as exc:
        raise ConfigError(f"the ivcap program's file {file} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"the ivcap program's file {file} is no YAML: it is not UTF-8") from exc


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    """Return what reads every scalar but null as a text, as Go does for fields that are texts: a name may be yes."""
    import yaml

    class Loader(yaml.SafeLoader):
        """For this file alone."""

    kept = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag in kept]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


def parse(text: str, file: Path) -> Contexts:
    """Return what a text says; `file` is named in errors.

    Raises:
        ConfigError: it is no YAML of this kind. The message shows nothing of it: there are tokens in it.
    """
    import yaml  # here, for most who import this module read no file with it: 15 ms

    try:
        whole = yaml.load(text, _loader())  # noqa: S506 - a safe one, see above
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise ConfigError(f"the ivcap program's file {file} is no YAML{where}") from None
    if whole is None:
        return Contexts(file, None, ())
    entries = (whole.get("contexts") or []) if isinstance(whole, dict) else None
    if not isinstance(entries, list):
        raise ConfigError(f"the ivcap program's file {file} has no list of contexts")
    found = (_context(entry) for entry in entries if isinstance(entry, dict))
    return Contexts(file, _text(whole, "active-context"), tuple(context for context in found if context.name))


def _context(entry: dict[Any, Any]) -> Context:
    access, refresh = _text(entry, "access-token"), _text(entry, "refresh-token")
    return Context(
        name=_text(entry, "name") or "",
        url=_text(entry, "url") or "",
        account_id=_text(entry, "account-id"),
        host=_text(entry, "host"),
        access_token=Secret(access) if access else None,
        expires=_moment(_text(entry, "access-token-expiry")),
        refresh_token=Secret(refresh) if refresh else None,
    )


def _text(entry: dict[Any, Any], key: str) -> str | None:
    value = entry.get(key)
    return (value.strip() or None) if isinstance(value, str) else None


def _moment(text: str | None) -> float | None:
    """Return seconds since the epoch for a time as Go writes it; None for none, and for Go's own "never" of year 1."""
    try:
        moment = datetime.fromisoformat(_to_microseconds(text or ""))
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds + _EARLY if seconds > 0 else None


def _to_microseconds(text: str) -> str:
    """Cut the nanoseconds of Go's times down to what Python reads."""
    whole, dot, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    return f"{whole}.{rest[: min(digits, 6)].ljust(6, '0')}{rest[digits:]}" if dot and digits else text


def noted_expiry(expires: float) -> str:
    """Return an expiry (seconds since the epoch) as the `ivcap` program would note it."""
    return datetime.fromtimestamp(expires - _EARLY, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
