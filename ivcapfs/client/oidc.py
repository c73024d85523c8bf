"""Getting the next token as the `ivcap` program does it: OpenID Connect's refresh grant (RFC 6749, 6).

Used by `ivcapfs.client.contextlogin`. The deployment says who issues its tokens (``GET /1/authinfo.yaml``); that one is
sent the refresh token, and nobody else: https only (or this machine), no redirects, no bearer token along with it.

Threading: any thread; `close` ends what another is doing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
import yaml

from ivcapfs.client import faults, jsontext
from ivcapfs.client.connections import Connections
from ivcapfs.client.exchange import Patience
from ivcapfs.client.network import Network
from ivcapfs.client.origins import OriginRules, redact
from ivcapfs.config import ClientSettings, Limits
from ivcapfs.errors import Closing, CredentialError, IvcapfsError, OriginRefused
from ivcapfs.hosts import is_loopback
from ivcapfs.secret import Secret
from ivcapfs.waits import now

_LIMITS = Limits(connect=5.0, idle=10.0, total=15.0)
_LARGEST = 256 * 1024
_AUTHINFO = "asking how to log in"
_REFRESH = "renewing the token"


class InvalidGrant(CredentialError):
    """The refresh token is not, or no longer, good: another process may have a newer one, else only a login helps."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """What was gained.

    Attributes:
        refresh: the next refresh token, where they rotate; the old one is then spent.
        lifetime: of the access token, in seconds, where it was told.
    """

    access: Secret
    refresh: Secret | None
    lifetime: float | None


class Issuer:
    """Who issues a deployment's tokens.

    Args:
        settings: the deployment.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._is_closed = False
        self._connections = Connections(self._check_open)

    def refresh(self, refresh: Secret) -> Renewed:
        """Trade a refresh token for an access token.

        Raises:
            InvalidGrant: it is refused.
            CredentialError: no answer, or none that makes sense.
            Closing: `close` was called.
        """
        network = Network(1)
        try:
            token_url, client_id = self._provider(network)
            form = {"grant_type": "refresh_token", "client_id": client_id, "refresh_token": refresh.reveal()}
            status, body = self._exchange(network, "POST", token_url, _REFRESH, form)
            answer = jsontext.parse_object(body, what=_REFRESH)
        except (CredentialError, Closing):
            raise
        except IvcapfsError as exc:
            raise CredentialError(f"the token cannot be renewed now: {exc}") from exc
        finally:
            network.close()
        return _renewed(status, answer, refresh)

    def close(self) -> None:
        """End what is under way."""
        self._is_closed = True
        self._connections.shut_down()

    def _check_open(self) -> None:
        if self._is_closed:
            raise Closing("the client is closed")

    def _provider(self, network: Network) -> tuple[httpx.URL, str]:
        """Return the address of the token endpoint, and our name there."""
        base = OriginRules(self._settings).base
        if base.scheme != "https" and not is_loopback(base.host):
            raise OriginRefused(f"over plain http nobody is believed who is to get the refresh token: {redact(base)}")
        url = httpx.URL(self._settings.url.rstrip("/") + "/1/authinfo.yaml")
        status, body = self._exchange(network, "GET", url, _AUTHINFO, host=self._settings.host)
        if status != 200:
            raise faults.refusal(status, _AUTHINFO)
        try:
            auth = yaml.safe_load(body)["auth"]
            providers = auth["providers"]
            chosen = providers[auth["default-provider-id"]] if auth.get("default-provider-id") else None
            provider = chosen or next(iter(providers.values()))
            token_url, client_id = str(provider["token-url"]), str(provider["client-id"])
        except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, StopIteration, RecursionError) as exc:
            raise CredentialError(f"{_AUTHINFO}: the deployment's answer makes no sense") from exc
        return OriginRules(ClientSettings(token_url)).base, client_id

    def _exchange(
        self,
        network: Network,
        method: str,
        url: httpx.URL,
        what: str,
        form: dict[str, str] | None = None,
        host: str | None = None,
    ) -> tuple[int, bytes]:
        """Make one exchange, within 15 seconds, and return status and body."""
        patience = Patience(_LIMITS, now, now() + _LIMITS.total)
        timeouts = {"connect": _LIMITS.connect, "read": patience, "write": _LIMITS.idle, "pool": _LIMITS.idle}
        headers = {"Host": host} if host else {}
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            client = network.client_for(url)
            request = client.build_request(
                method, url, headers=headers, content=urlencode(form).encode() if form else None,
                extensions={"timeout": timeouts, "trace": self._connections.trace},
            )  # fmt: skip
            response = client.send(request, stream=True)
            body = b""
            for part in response.iter_raw():
                body += part
                if len(body) > _LARGEST:
                    raise CredentialError(f"{what}: the answer is over {_LARGEST} bytes")
            return response.status_code, body
        except faults.HTTPX_ERRORS as exc:
            self._check_open()
            raise faults.translate(exc, what) from exc


def _renewed(status: int, answer: dict[str, Any], sent: Secret) -> Renewed:
    """Read the answer of the token endpoint (RFC 6749, 5)."""
    access, refresh, lifetime = answer.get("access_token"), answer.get("refresh_token"), answer.get("expires_in")
    if status == 200 and isinstance(access, str) and access:
        try:
            seconds = max(0.0, min(float(lifetime), 1e9)) if lifetime is not None else None
        except (ValueError, TypeError):
            seconds = None
        rotated = Secret(refresh) if isinstance(refresh, str) and refresh and refresh != sent.reveal() else None
        return Renewed(Secret(access), rotated, seconds)
    error = faults.tidy(str(answer.get("error", "")), secret=sent.reveal())[:50]
    if error == "invalid_grant":
        raise InvalidGrant("the refresh token is no longer good")
    raise CredentialError(f"the token cannot be renewed now: the issuer answered {status} {error}".rstrip())
