"""Settings: what a user may choose, as frozen dataclasses, and the only reader of environment and files.

Used by the command line (`ivcapfs.cli`) and by `ivcapfs.client.IVCAP()`; every other module is handed the dataclass
that it needs. Everything here runs before any thread exists.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from ivcapfs import contexts
from ivcapfs.errors import ConfigError
from ivcapfs.hosts import is_loopback
from ivcapfs.memory import memory_limit as memory_limit
from ivcapfs.secret import Secret as Secret

KIB = 1024
MIB = 1024 * KIB
_ASK_IVCAP = ("context", "get", "access-token", "--refresh-token", "--context")
"""What the `ivcap` program gives a token for, without IVCAP_ACCESS_TOKEN, which it would only repeat."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one HTTP exchange. Times in seconds, sizes in bytes.

    Attributes:
        connect: to establish a connection.
        idle: without one byte of progress.
        total: for one small exchange, retries included; a list page, a record, an aspect.
        retries: how often a failed exchange is repeated.
        backoff: the first wait between two tries; it doubles, with jitter, up to `backoff_max`.
        least_rate: bytes per second below which a transfer counts as stalled, after `idle` seconds.
        json_size: the largest JSON body that is read.
        connections: of the pool.
        redirects: hops followed.
    """

    connect: float = 5.0
    idle: float = 20.0
    total: float = 30.0
    retries: int = 4
    backoff: float = 0.2
    backoff_max: float = 5.0
    least_rate: int = 1 * KIB
    json_size: int = 64 * MIB
    connections: int = 320
    redirects: int = 5


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Which deployment, as whom, and within which bounds.

    Attributes:
        url: the deployment's base URL, without a trailing slash.
        token: the bearer token; None where none is sent (inside the platform a sidecar authenticates).
        account_id: `urn:ivcap:account:<uuid>`, where the user named one.
        allow_http: plain http also beyond loopback.
        trusted_origins: further origins (`https://host[:port]`) that may be sent the token.
        host: the Host header to send to the deployment, where it is not that of `url`.
        token_file: where `token` was read, to be read again when it changes.
        token_command: a program and its arguments, whose output is the token.
        context: the `ivcap` program's context that all this is from; its login is then shared with that program.
    """

    url: str
    token: Secret | None = None
    account_id: str | None = None
    allow_http: bool = False
    trusted_origins: frozenset[str] = frozenset()
    limits: Limits = Limits()
    host: str | None = None
    token_file: Path | None = None
    token_command: tuple[str, ...] | None = None
    context: contexts.ContextPlace | None = None


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Memory for bytes. Sizes in bytes.

    Attributes:
        block_size: the smallest piece that is fetched and cached.
        memory: of all blocks together, cached or on their way.
        read_ahead: the largest window of one open file; 0 switches read-ahead off.
        workers: transfers at the same time.
        folder: where blocks are kept beyond the life of the mount; None: nowhere.
        folder_size: what they may take there.
    """

    block_size: int = 128 * KIB
    memory: int = field(default_factory=lambda: min(1024 * MIB, memory_limit() // 4))
    read_ahead: int = 128 * MIB
    workers: int = 256
    folder: Path | None = None
    folder_size: int = 20 * 1024 * MIB


def catalog_folder() -> Path:
    """Return where catalogs are kept unless the user says otherwise: in the user's cache folder."""
    return platformdirs.user_cache_path("ivcapfs") / "catalog"


@dataclass(frozen=True, slots=True)
class CatalogSettings:
    """What is known of the deployment's artifacts.

    Attributes:
        folder: where that is kept beyond the life of the mount; None: in memory alone.
        reconcile: seconds after which everything is walked again in the background; 0: never.
    """

    folder: Path | None = field(default_factory=catalog_folder)
    reconcile: float = 86_400.0


@dataclass(frozen=True, slots=True)
class ViewSettings:
    """What the tree looks like.

    Attributes:
        refresh: seconds after which a listing is asked for again.
        uid, gid: the owner shown.
        umask: permission bits taken away from 0444 and 0555, or 0644 and 0755.
        writable: whether the owner may write.
    """

    refresh: float = 30.0
    uid: int = field(default_factory=os.getuid)
    gid: int = field(default_factory=os.getgid)
    umask: int = 0
    writable: bool = False


def spool_folder() -> Path:
    """Return where new files wait unless the user says otherwise: in the user's state folder."""
    return platformdirs.user_state_path("ivcapfs") / "spool"


def transfers_folder() -> Path:
    """Return where ``ivcapfs put`` and ``get`` note how far they are: in the user's state folder."""
    return platformdirs.user_state_path("ivcapfs") / "transfers"


@dataclass(frozen=True, slots=True)
class WriteSettings:
    """How new files become artifacts.

    Attributes:
        spool: where they wait.
        settle: seconds between close(2) and completion, in which a file may still be renamed.
        policy: URN of the policy of new artifacts; None: the platform's own.
    """

    spool: Path = field(default_factory=spool_folder)
    settle: float = 2.0
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class MountSettings:
    """One mount, all of it.

    Attributes:
        mountpoint: absolute; or `/dev/fd/N`, where whoever started us mounted and hands us the open /dev/fuse.
        source: the word that names the deployment, as given; it is what the list of mounts shows. Empty: the URL.
        write: how new files become artifacts; None: the mount only reads.
        replace: clear a stale mount (its process died) at the mount point first.
        noexec: nothing there may be run.
        allow_other, allow_root: who besides the mounting user may look (fuse(8)); at most one of them.
        log_file: the file to log to, if one was named.
        log: else where to: auto, journal, syslog, file (rotated), stderr, none; auto is stderr in the foreground,
            else the first of journal, syslog and file that there is.
        threads: callbacks at the same time; also the kernel's background requests.
        read_ahead_kib: the kernel's own read-ahead, in KiB, where this user may set it; 0 leaves it alone.
        crash_at: of the torture harness alone: see `ivcapfs.crashing`.
    """

    client: ClientSettings
    mountpoint: Path
    cache: CacheSettings = field(default_factory=CacheSettings)
    catalog: CatalogSettings = field(default_factory=CatalogSettings)
    view: ViewSettings = field(default_factory=ViewSettings)
    write: WriteSettings | None = None
    allow_other: bool = False
    allow_root: bool = False
    foreground: bool = False
    debug: bool = False
    source: str = ""
    replace: bool = False
    noexec: bool = False
    log_file: Path | None = None
    log: str = "auto"
    threads: int = 256
    read_ahead_kib: int = 1024
    crash_at: str = ""


def client_settings(
    source: str | None = None,
    token: str | None = None,
    account_id: str | None = None,
    *,
    token_file: Path | None = None,
    token_command: tuple[str, ...] | None = None,
    allow_http: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> ClientSettings:
    """Find out which deployment is meant, and as whom, in the order that the ecosystem's own tools use.

    First what is given here; then `IVCAP_URL` with `IVCAP_JWT` or `IVCAP_ACCESS_TOKEN`; then `IVCAP_BASE_URL`
    (inside the platform: a sidecar authenticates, no token is sent, and plain http is expected); then the active
    context of the `ivcap` program.

    Args:
        source: the deployment's URL, or the name of one of the `ivcap` program's contexts.
        token_file: a file of mode 0600 or stricter whose first line is the token; takes precedence over
            the environment's and a context's tokens.
        token_command: a program that prints the token; the same.

    Raises:
        ConfigError: nothing names a deployment, or what does is not usable.
    """
    if token_file and token_command:
        raise ConfigError("token-file and token-command exclude each other: choose one")
    given = Secret(token) if token else read_token(token_file) if token_file else None
    found = ClientSettings("", given, account_id, allow_http, token_file=token_file, token_command=token_command)
    if source and "://" not in source:
        return _of_context(found, source, environ)
    outside = source or environ.get("IVCAP_URL")
    inside = environ.get("IVCAP_BASE_URL")
    if not outside and not inside:
        return _of_context(found, None, environ)
    account = account_id or environ.get("IVCAP_ACCOUNT_ID") or None
    if not outside:
        return replace(found, url=check_url(inside or "", allow_http=True), account_id=account, allow_http=True)
    from_environment = environ.get("IVCAP_JWT", "").strip() or environ.get("IVCAP_ACCESS_TOKEN", "").strip()
    if from_environment and not (given or token_command):
        found = replace(found, token=Secret(from_environment))
    return replace(found, url=check_url(outside, allow_http=allow_http), account_id=account)


def _of_context(found: ClientSettings, name: str | None, environ: Mapping[str, str]) -> ClientSettings:
    """Complete settings by a context of the `ivcap` program: the named one, or the active one."""
    file = contexts.location(environ)
    try:
        context = contexts.read(file).find(name)
    except contexts.NoContexts as exc:
        if name is None:
            raise ConfigError(
                "no deployment is named: give its URL (ivcapfs mount https://HOST MOUNTPOINT), set IVCAP_URL and "
                "IVCAP_JWT, or log in with the ivcap program"
            ) from exc
        raise ConfigError(f"{name!r} is no URL (https://HOST), and no context either: {exc}") from exc
    if not context.url:
        raise ConfigError(f"the context {context.name} in {file} has no URL")
    url = check_url(context.url, allow_http=found.allow_http)
    found = replace(found, url=url, account_id=found.account_id or context.account_id, host=context.host)
    if found.token or found.token_command:
        return found
    program = shutil.which("ivcap", path=environ.get("PATH"))
    command = ("env", "-u", "IVCAP_ACCESS_TOKEN", program, *_ASK_IVCAP, context.name) if program else None
    place = contexts.ContextPlace(file, context.name)
    return replace(found, token=context.access_token, token_command=command, context=place)


def crash_at(environ: Mapping[str, str] = os.environ) -> str:
    """Return what the torture harness sets, and nobody else: see `ivcapfs.crashing`; empty: nothing."""
    return environ.get("IVCAPFS_CRASH_AT", "")


def command_words(text: str) -> tuple[str, ...]:
    """Return a command's words, split as a shell would; no shell is involved later, and the folder is another then.

    Raises:
        ConfigError: a quote is not closed, or there is no word.
    """
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise ConfigError(f"the token-command cannot be split into words: {exc}") from exc
    if not words:
        raise ConfigError("the token-command is empty")
    program = str(Path(words[0]).absolute()) if "/" in words[0] else words[0]
    return (program, *words[1:])


def check_url(url: str, *, allow_http: bool) -> str:
    """Return `url` without a trailing slash.

    Raises:
        ConfigError: it is no http(s) URL, has a query, or is plain http to another machine.
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as exc:
        raise ConfigError(f"not a URL: {url!r} ({exc})") from exc
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"not the URL of a deployment: {url!r}; it looks like https://HOST")
    if "?" in url or "#" in url or "@" in parts.netloc:
        raise ConfigError("the URL of a deployment has no user, query or fragment: use https://HOST[/PATH]")
    if parts.scheme == "http" and not (allow_http or is_loopback(parts.hostname)):
        raise ConfigError(f"plain http would show the token to the network: use https, or -o allow-http for {url}")
    return url.rstrip("/")


def read_token(path: Path) -> Secret:
    """Return the token in a file, refusing one that others can read (ssh(1) does the same with keys)."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(64 * KIB).decode("ascii").strip()
    except OSError as exc:
        raise ConfigError(f"the token file {path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"the token file {path} holds more than a token: it must be one line of ASCII") from exc
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"the token file {path} can be read by others: chmod 600 {path}")
    if not text or len(text.split()) != 1:
        raise ConfigError(f"the token file {path} must hold one token on one line")
    return Secret(text)


def parse_size(text: str) -> int:
    """Return bytes for `4096`, `64K`, `256M`, `1G` (binary units, either case, an optional `B` or `iB`).

    Raises:
        ConfigError: it is none of these.
    """
    digits = text.strip().upper().removesuffix("IB").removesuffix("B")
    unit = {"K": KIB, "M": MIB, "G": 1024 * MIB, "T": 1024 * 1024 * MIB}.get(digits[-1:], 1)
    if unit != 1:
        digits = digits[:-1]
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        raise ConfigError(f"not a size: {text!r}; write it like 64K, 256M or 1G")
    return int(digits) * unit
