"""Tokens from a file and from a program, and whose they are.

Used by `ivcapfs.client.login`. A `Supply` is asked by one thread at a time (see `renewal`).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from ivcapfs.client import tokencommand
from ivcapfs.client.auth import claims_of, identity_of
from ivcapfs.client.contextfile import Signature, signature
from ivcapfs.client.renewal import Supply, Token
from ivcapfs.config import read_token
from ivcapfs.errors import Closing, ConfigError, CredentialError
from ivcapfs.secret import Secret


class Owner:
    """Whose tokens these are: those of one user, from the first to the last.

    What was read with one user's token is in memory, in the kernel and perhaps on disk; another user's token must not
    give access to it. So it is not taken.

    Args:
        account_id: of the account, where it is known.
        is_vouched: whether the account is told together with each token, so that also a token counts that does not
            itself say whose it is.
    """

    def __init__(self, account_id: str | None, *, is_vouched: bool = False) -> None:
        self._account_id = account_id
        self._is_vouched = is_vouched and account_id is not None
        self.identity: str | None = None

    def check(self, secret: Secret) -> Secret:
        """Return the token, if it is of the same user as the first one.

        Raises:
            CredentialError: it is another user's, or does not say whose it is.
        """
        if self._is_vouched and "sub" not in claims_of(secret):
            identity = Secret(f"account {self._account_id}").fingerprint()
        else:
            identity = identity_of(secret, self._account_id)
        if self.identity is None:
            self.identity = identity
        if identity == self.identity:
            return secret
        whose = "is another user's" if "sub" in claims_of(secret) else "does not say whose it is"
        exc = CredentialError(
            f"the new token {whose}, and the mount is that of who began it: log in as before (ivcap context login), "
            "or unmount and mount again"
        )
        exc.needs_login = True
        raise exc


class FileSupply(Supply):
    """A file that somebody else keeps up to date.

    Args:
        path: the file.
        owner: whose tokens these are.
    """

    def __init__(self, path: Path, owner: Owner) -> None:
        self._path = path
        self._owner = owner
        self._seen: Signature | None = None

    def first(self) -> Token:
        """See `Supply.first`."""
        return self._read()

    def has_changed(self) -> bool:
        """See `Supply.has_changed`: another time, size or inode."""
        return signature(self._path) != self._seen

    def look(self, current: Token) -> Token:
        """See `Supply.look`."""
        found = self._read()
        return current if found.secret == current.secret else found

    def renew(self, current: Token, *, is_refused: bool) -> Token:
        """See `Supply.renew`."""
        found = self.look(current)
        if found is current and (is_refused or current.has_expired()):
            exc = CredentialError(
                f"the token in {self._path} is refused: put a new one there, as from ivcap context login"
            )
            exc.needs_login = True
            raise exc
        return found

    def close(self) -> None:
        """See `Supply.close`: nothing takes long here."""

    def _read(self) -> Token:
        self._seen = signature(self._path)
        try:
            return Token.of(self._owner.check(read_token(self._path)))
        except ConfigError as exc:
            raise CredentialError(str(exc)) from exc


class CommandSupply(Supply):
    """A program that prints the token.

    Args:
        command: the program and its arguments.
        owner: whose tokens these are.
    """

    def __init__(self, command: Sequence[str], owner: Owner) -> None:
        self._command = tuple(command)
        self._owner = owner
        self._closed = threading.Event()

    def first(self) -> Token:
        """See `Supply.first`."""
        return Token.of(self._owner.check(tokencommand.ask(self._command, self._pause)))

    def has_changed(self) -> bool:
        """See `Supply.has_changed`: a program does not tell."""
        return False

    def look(self, current: Token) -> Token:
        """See `Supply.look`."""
        return current

    def renew(self, current: Token, *, is_refused: bool) -> Token:
        """See `Supply.renew`."""
        found = self.first()
        if found.secret != current.secret:
            return found
        if is_refused or current.has_expired():
            exc = CredentialError(
                f"the token command {self._command[0]} gives a token that is refused: log in again, as by "
                "ivcap context login"
            )
            exc.needs_login = True
            raise exc
        return current

    def close(self) -> None:
        """See `Supply.close`: the program is ended."""
        self._closed.set()

    def _pause(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise Closing("the client is closed")
