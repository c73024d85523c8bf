"""Where the bearer token comes from.

Used by `ivcapfs.client.transport`, which asks before every request and decides alone who is sent it.
Sources that read a file or refresh a token implement the same protocol. Implementations must be safe to
call from any thread.
"""

from __future__ import annotations

import base64
import json
import logging
from typing import Any, Protocol

from ivcapfs.config import Secret
from ivcapfs.errors import ConfigError

log = logging.getLogger(__name__)


class TokenSource(Protocol):
    """Something that knows the current token. What is not needed has a default."""

    def token(self) -> Secret | None:
        """Return the token to send now, or None to send none."""

    def accepted(self, token: Secret) -> None:
        """Take note that the server took `token`: what it answered was not 401."""
        return

    def rejected(self, token: Secret) -> bool:
        """Take note that the server answered 401 to `token`; return whether `token()` now has another."""

    def expires(self) -> float | None:
        """Return when the present token expires, in seconds since the epoch; None: there is none, or it is not known.

        Asks for nothing; may be what the token itself says.
        """
        return None

    def close(self) -> None:
        """End what is under way, in all threads. May be called twice."""
        return


class GivenToken(TokenSource):
    """One token, given once. When it was good, and no longer is, the log is told once."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret
        self._was_good = False  # one assignment, hence no lock
        self._was_told = False  # the same

    def token(self) -> Secret | None:
        """Return the given token."""
        return self._secret

    def accepted(self, token: Secret) -> None:
        """Take note that the token is good."""
        self._was_good = True

    def rejected(self, token: Secret) -> bool:
        """Return False: there is no other."""
        if self._was_good and not self._was_told:
            self._was_told = True
            log.error(
                "the token is refused, and there is no way to another: get one (ivcap context login), and mount again"
            )
        return False

    def expires(self) -> float | None:
        """Return what the token says."""
        return expiry_of(self._secret)


class NoToken(TokenSource):
    """No token: public data, or inside the platform where a sidecar authenticates. Immutable."""

    def token(self) -> Secret | None:
        """Return None."""
        return None

    def rejected(self, token: Secret) -> bool:
        """Return False: there is none."""
        return False


def given(secret: Secret | None) -> TokenSource:
    """Return the source for an optional token."""
    return NoToken() if secret is None else GivenToken(secret)


def bearer(token: Secret) -> str:
    """Return the value of the Authorization header.

    Raises:
        ConfigError: HTTP cannot carry the token. (httpx would say so too, and show the token.)
    """
    text = token.reveal()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError("the token holds characters that no token has: is it on one line, without quotes?")
    return f"Bearer {text}"


def identity_of(secret: Secret | None, account_id: str | None = None) -> str:
    """Return a short text that tells identities apart without telling anything else, for cache keys.

    A token lives for hours, what was read for longer: so it is the subject of a JWT that counts (RFC 7519, 4.1), not
    its text. Nothing is verified here: whoever could forge it has the cache's folder already.
    """
    if secret is None:
        return "anonymous"
    claims = claims_of(secret)
    if "sub" not in claims:
        return secret.fingerprint()
    return Secret(json.dumps([account_id, claims.get("iss"), claims["sub"]])).fingerprint()


def expiry_of(secret: Secret) -> float | None:
    """Return when a JWT expires, in seconds since the epoch; None where it does not say, or is none."""
    expiry = claims_of(secret).get("exp")
    if isinstance(expiry, bool) or not isinstance(expiry, int | float):
        return None
    return float(expiry) if 0 <= expiry < 1e11 else None


def claims_of(secret: Secret) -> dict[str, Any]:
    """Return what a JWT says, not verified; nothing where the token is none."""
    try:
        payload = secret.reveal().split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}
