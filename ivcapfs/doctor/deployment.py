"""The checks of a deployment itself: its clock, the token, a list, a range of bytes.

Used by `ivcapfs.doctor.rounds`. The requests are made by the same client as a mount's, with tokens from the same
source: a login that is about to expire is renewed, as a mount would. Main thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime

from ivcapfs import contexts
from ivcapfs.client import Connection, connect
from ivcapfs.client.auth import NoToken, TokenSource
from ivcapfs.client.login import log_in
from ivcapfs.client.origins import resolve_data_href
from ivcapfs.config import ClientSettings, Limits
from ivcapfs.doctor.result import Result, fail, ok, skip, warn
from ivcapfs.errors import ApiError, ConfigError, CredentialError, IvcapfsError, TransportError

CHECKS = ("clock", "token", "list", "range")
LIMITS = Limits(connect=5.0, idle=10.0, total=10.0, retries=0)
ANY_REFUSAL = frozenset(range(400, 600))
WARN_SKEW, FAIL_SKEW = 30.0, 300.0
SHORT_LIFE = 600.0
LOGIN = "ivcap context login, or another token"
ASK = "ask who runs the deployment"

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the deployment said to the request for a list: the status, and when by its own clock."""

    status: int
    date: float | None
    asked: float


@dataclass(frozen=True, slots=True)
class Source:
    """Where the token comes from, in words.

    Attributes:
        later: what happens when it is about to expire; empty where nothing does.
        remedy: how to get another.
    """

    later: str
    remedy: str


def deployment(settings: ClientSettings, clock: Clock = time.time) -> list[Result]:
    """Return the outcome of all checks of a deployment.

    Args:
        clock: seconds since the epoch, by this machine's clock.
    """
    settings = replace(settings, limits=LIMITS)
    source = source_of(settings)
    tokens, no_login = _log_in(settings, source)
    try:
        with connect(settings, tokens=tokens) as connection:
            answer = _ask(connection, clock)
            return [
                skew(answer),
                no_login or token(tokens, source, answer, clock()),
                listing(connection, answer),
                ranges(connection, answer),
            ]
    except IvcapfsError as exc:
        said = f"the deployment does not answer ({exc})"
        remedy = "see the lines above; else " + ASK
        without = (skip("clock", "no answer"), no_login or skip("token", "no answer"))
        return [*without, fail("list", said, remedy), skip("range", "no answer")]


def _log_in(settings: ClientSettings, source: Source) -> tuple[TokenSource, Result | None]:
    """Return what a mount would take its tokens from; or none, and what is wrong."""
    try:
        return log_in(settings).tokens, None
    except CredentialError as exc:
        said = str(exc).removesuffix(f": {source.remedy}")
        return NoToken(), fail("token", said, source.remedy)


def source_of(settings: ClientSettings) -> Source:
    """Return where the token comes from, in the order of `log_in`."""
    if settings.context is not None:
        name, file = settings.context.name, settings.context.file
        remedy = f"ivcap context login --context {name}"
        try:
            is_renewed = contexts.read(file).find(name).refresh_token is not None
        except ConfigError:
            is_renewed = False
        return Source("then the login gives another" if is_renewed else "", remedy)
    if settings.token_command is not None:
        return Source("then the token command is asked", f"see why {settings.token_command[0]} gives no good token")
    if settings.token_file is not None:
        return Source(f"a new one in {settings.token_file} is noticed", f"put a new token into {settings.token_file}")
    return Source("", LOGIN)


def _ask(connection: Connection, clock: Clock) -> Answer:
    """Ask for one artifact.

    Raises:
        IvcapfsError: no answer.
    """
    asked = clock()
    url = f"{connection.origin}/1/artifacts?limit=1"
    with connection.transport.stream("GET", url, what="listing artifacts", accept=ANY_REFUSAL) as stream:
        return Answer(stream.status, _date(stream.headers.get("date", "")), (asked + clock()) / 2)


def skew(answer: Answer) -> Result:
    """This machine's clock agrees with the deployment's: tokens and certificates are believed by it."""
    if answer.date is None:
        return skip("clock", "the deployment does not tell the time")
    seconds = round(answer.asked - answer.date)
    said = f"{abs(seconds)} s {'ahead of' if seconds > 0 else 'behind'} the deployment's"
    if abs(seconds) > FAIL_SKEW:
        return fail("clock", said, "set this machine's clock (timedatectl set-ntp true)")
    if abs(seconds) > WARN_SKEW:
        return warn("clock", said, "set this machine's clock (timedatectl set-ntp true)")
    return ok("clock", "agrees with the deployment's")


def token(tokens: TokenSource, source: Source, answer: Answer, now: float) -> Result:
    """The token is taken, and lives for a while or is followed by another."""
    expires, is_none = tokens.expires(), isinstance(tokens, NoToken)
    left = expires - now if expires is not None else None
    if answer.status == 401:
        ended = f"it expired {duration(-left)} ago" if left is not None and left < 0 else "the deployment refuses it"
        return fail("token", "there is none, and the deployment wants one" if is_none else ended, source.remedy)
    if is_none:
        return ok("token", "none is needed")
    if left is None:
        return ok("token", "it is taken; how long it lives it does not say")
    if left <= 0:
        return warn("token", f"by this clock it expired {duration(-left)} ago", source.remedy)
    if source.later:
        return ok("token", f"it is taken, and lives for {duration(left)}; {source.later}")
    if left < SHORT_LIFE:
        return warn("token", f"it expires in {duration(left)}", source.remedy)
    return ok("token", f"it is taken, and lives for {duration(left)}")


def listing(connection: Connection, answer: Answer) -> Result:
    """Artifacts can be listed."""
    if answer.status == 401:
        return skip("list", "not without a token that is taken")
    if answer.status == 403:
        return fail("list", "this account may not list artifacts (403)", ASK + " for the permission")
    try:
        page = connection.api.list_artifacts_page(limit=1)
    except ApiError as exc:
        return fail("list", f"it is refused ({exc})", "check the address: it ends before /1/artifacts")
    except TransportError as exc:
        return fail("list", f"no answer ({exc})", "try again; a larger timeout")
    except IvcapfsError as exc:
        return fail("list", f"no IVCAP deployment ({exc})", "check the address: it ends before /1/artifacts")
    return ok("list", "artifacts can be listed" if page.items else "there is no artifact yet")


def ranges(connection: Connection, answer: Answer) -> Result:
    """A part of a content can be asked for, without the rest."""
    if answer.status >= 400:
        return skip("range", "not without a list")
    try:
        page = connection.api.list_artifacts_page()
        uuid = next((item.uuid for item in page.items if item.is_ready and item.size != 0), None)
        if uuid is None:
            return skip("range", "there is no artifact with content")
        record = connection.api.read_artifact(uuid)
        if not record.data_href:
            return skip("range", f"artifact {uuid} has no address of its content")
        where = resolve_data_href(connection.origin, record.data_href)
        headers = {"Range": "bytes=0-0"}
        with connection.transport.stream("GET", where, what=f"reading {uuid}", headers=headers) as stream:
            partial = stream.status == 206
    except IvcapfsError as exc:
        return fail("range", f"a content cannot be read ({exc})", ASK)
    if not partial:
        return fail("range", "ranges are ignored: each read transfers the whole content", ASK + " for Range requests")
    return ok("range", "single bytes can be read")


def duration(seconds: float) -> str:
    """Return a time in words: `3 h 10 min`."""
    minutes = int(seconds // 60)
    if minutes < 1:
        return f"{int(seconds)} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
