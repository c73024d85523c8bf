"""Tokens of one of the `ivcap` program's contexts, shared with that program and with other mounts.

Used by `ivcapfs.client.login`. The program's file is where all of them meet: what another process has put there is
taken before anything is asked for; what we gain is put there, or the user's program would be logged out where refresh
tokens rotate. The program itself is asked first where it is installed, else (or where that brings nothing) the refresh
token is used as it would.

Threading: one thread at a time, except for `has_changed` and `close`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

from ivcapfs.client import tokencommand
from ivcapfs.client.contextfile import ContextFile
from ivcapfs.client.oidc import InvalidGrant, Issuer, Renewed
from ivcapfs.client.renewal import Supply, Token
from ivcapfs.client.supplies import Owner
from ivcapfs.config import ClientSettings
from ivcapfs.contexts import Context, ContextPlace, noted_expiry
from ivcapfs.errors import Closing, ConfigError, CredentialError
from ivcapfs.secret import Secret
from ivcapfs.waits import now

log = logging.getLogger(__name__)

_LIFETIME = 300.0
"""Seconds that a token is taken to live whose lifetime nobody tells."""
_OTHERS_SECONDS = 1.5
"""How long another process, which has just used our refresh token, may take to note what it got."""
_REFUSED_SECONDS = 60.0
_PAUSE = 0.05
_REMEMBERED = 64


class ContextSupply(Supply):
    """The login of a context.

    Args:
        place: the context.
        settings: the deployment, as the context named it when all began.
        owner: whose login it is.
        command: the `ivcap` program, where it is installed.
    """

    def __init__(
        self, place: ContextPlace, settings: ClientSettings, owner: Owner, command: Sequence[str] | None
    ) -> None:
        self._name = place.name
        self._settings = settings
        self._owner = owner
        self._command = command
        self._closed = threading.Event()
        self._issuer = Issuer(settings)
        self._file = ContextFile(place, self._pause)
        self._spent: deque[str] = deque(maxlen=_REMEMBERED)  # refresh tokens that are worth nothing any more
        self._no_refresh_before = 0.0  # with a refresh token that was refused
        self._own: tuple[Token, Secret] | None = None  # what we gained last

    def first(self) -> Token:
        """See `Supply.first`."""
        context = self._read()
        if context.access_token is not None:
            found = _token(context)
            if found is not None and not found.has_expired():
                return Token(self._owner.check(found.secret), found.expires)
        return self._renew(None, is_refused=True)

    def has_changed(self) -> bool:
        """See `Supply.has_changed`."""
        return self._file.has_changed()

    def look(self, current: Token) -> Token:
        """See `Supply.look`; what another process has undone by writing back what it had read before is put right."""
        context = self._read()
        if self._own is not None and self._is_spent(context.refresh_token):
            with self._file.locked():
                self._note_own()
            return current
        return self._better(context, current) or current

    def renew(self, current: Token, *, is_refused: bool) -> Token:
        """See `Supply.renew`."""
        return self._better(self._read(), current) or self._renew(current, is_refused=is_refused)

    def close(self) -> None:
        """See `Supply.close`."""
        self._closed.set()
        self._issuer.close()

    def _renew(self, current: Token | None, *, is_refused: bool) -> Token:
        """Get a token, while no other process of ours does."""
        with self._file.locked():
            context = self._read()  # another process may have been quicker
            found = self._better(context, current)
            if found is None and self._command is not None:
                found = self._ask_program(current, is_refused=is_refused)
            return found or self._refresh(self._read(), current)

    def _read(self) -> Context:
        """Return the context, if it still is the one that was mounted."""
        context = self._file.read()
        if context.url.rstrip("/") != self._settings.url:
            raise self._needs_login("is of another deployment now: mount again")
        if self._settings.account_id is not None and context.account_id != self._settings.account_id:
            raise self._needs_login("is of another account now, but the mount is that of who began it")
        return context

    def _better(self, context: Context, current: Token | None) -> Token | None:
        """Return the token that stands there, if it is another one that has not expired."""
        found = _token(context)
        if found is None or found.has_expired() or (current is not None and found.secret == current.secret):
            return None
        if self._own is not None and self._is_spent(context.refresh_token):
            return None  # as old as the refresh token beside it
        return Token(self._owner.check(found.secret), found.expires)

    def _ask_program(self, current: Token | None, *, is_refused: bool) -> Token | None:
        """Return what the `ivcap` program gives; None if that does not help."""
        assert self._command is not None
        try:
            secret = tokencommand.ask(self._command, self._pause)
        except tokencommand.TooSlow:
            raise  # it may just have used the refresh token
        except CredentialError as exc:
            log.debug("%s", exc)
            return None
        if current is not None and secret == current.secret:
            return None if is_refused or current.has_expired() else current
        context = self._read()
        found = _token(context)
        noted = found.expires if found is not None and found.secret == secret else None
        return Token(self._owner.check(secret), noted or Token.of(secret).expires)

    def _refresh(self, context: Context, current: Token | None) -> Token:
        """Use the refresh token; if it is refused, look whether another process has put a newer one there."""
        for _ in range(2):
            refresh = self._refresh_token(context)
            if refresh is None:
                raise self._needs_login("has no login")
            if self._is_spent(refresh) and now() < self._no_refresh_before:
                raise self._needs_login("has an expired login")
            self._file.check_writable()
            try:
                return self._note(refresh, self._issuer.refresh(refresh))
            except InvalidGrant as exc:
                self._spent.append(refresh.fingerprint())
                self._no_refresh_before = now() + _REFUSED_SECONDS
                newer = self._newer(refresh)
                if newer is None:
                    raise self._needs_login("has an expired login") from exc
                context = newer
            found = self._better(context, current)
            if found is not None:
                return found
        raise self._needs_login("has an expired login")

    def _refresh_token(self, context: Context) -> Secret | None:
        """Return the newest refresh token: the file's, unless that is one which we know to be spent."""
        if self._own is not None and self._is_spent(context.refresh_token):
            return self._own[1]
        return context.refresh_token

    def _newer(self, refresh: Secret) -> Context | None:
        """Return the context once another refresh token stands there; None where that does not happen."""
        end = time.monotonic() + _OTHERS_SECONDS
        while True:
            context = self._read()
            if context.refresh_token is not None and not self._is_spent(context.refresh_token):
                return context
            if time.monotonic() > end:
                return None
            self._pause(_PAUSE)

    def _note(self, used: Secret, renewed: Renewed) -> Token:
        """Take what was gained, and put it into the file."""
        secret = self._owner.check(renewed.access)
        lifetime = renewed.lifetime
        expires = time.time() + lifetime if lifetime is not None else Token.of(secret).expires
        token = Token(secret, expires)
        if renewed.refresh is not None:
            self._spent.append(used.fingerprint())
        self._own = token, renewed.refresh or used
        self._note_own(used)
        return token

    def _note_own(self, used: Secret | None = None) -> None:
        """Put what we gained last into the file, unless the user has logged in anew meanwhile."""
        assert self._own is not None
        token, refresh = self._own
        try:
            stands = self._read().refresh_token
            if stands is None or (stands != used and not self._is_spent(stands)):
                return
            expires = token.expires or time.time() + _LIFETIME
            self._file.write(
                {
                    "access-token": token.secret.reveal(),
                    "access-token-expiry": noted_expiry(expires),
                    "refresh-token": refresh.reveal(),
                }
            )
        except (OSError, ConfigError, CredentialError) as exc:
            words = exc.strerror if isinstance(exc, OSError) else exc
            log.error("the new refresh token cannot be noted, and is kept in memory only: %s", words)

    def _is_spent(self, refresh: Secret | None) -> bool:
        return refresh is not None and refresh.fingerprint() in self._spent

    def _needs_login(self, what: str) -> CredentialError:
        exc = CredentialError(f"the context {self._name} {what}: ivcap context login --context {self._name}")
        exc.needs_login = True
        return exc

    def _pause(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise Closing("the client is closed")


def _token(context: Context) -> Token | None:
    """Return the access token of a context."""
    if context.access_token is None:
        return None
    return Token(context.access_token, context.expires or Token.of(context.access_token).expires)
