"""The parts of the client, put together for one deployment and one identity.

Used by the filesystem (`ivcapfs.fs.mount`) and by the public face (`facade`). Thread-safe, as its parts are.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx

from ivcapfs.client.api import Api
from ivcapfs.client.auth import TokenSource, identity_of
from ivcapfs.client.blobs import Blobs
from ivcapfs.client.login import Login, log_in
from ivcapfs.client.transport import Transport
from ivcapfs.client.tus import Uploads
from ivcapfs.config import ClientSettings


@dataclass(frozen=True, slots=True)
class Connection:
    """One deployment, as one identity.

    Attributes:
        origin: the deployment's URL, for cache keys.
        identity: stands for who the token is, or "anonymous", for cache keys: what one may read, another may not.
    """

    transport: Transport
    api: Api
    blobs: Blobs
    uploads: Uploads
    origin: str
    identity: str

    def close(self) -> None:
        """End all exchanges, in all threads; every later call raises `errors.Closing`. May be called twice."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(
    settings: ClientSettings,
    *,
    tokens: TokenSource | None = None,
    transport: httpx.BaseTransport | None = None,
) -> Connection:
    """Return the client of a deployment. The deployment is not asked yet, unless for a token.

    Args:
        settings: which deployment, as whom, within which bounds.
        tokens: where the token comes from; None: from where the settings say.
        transport: replaces the network, in tests.

    Raises:
        OriginRefused: the deployment's address, or a trusted origin, is none that ivcapfs talks to.
        CredentialError: the login that the settings name has no token, and there is no way to one.
        ConfigError: a proxy or the certificates that the environment names cannot be used.
    """
    login = log_in(settings) if tokens is None else Login(tokens, identity_of(settings.token, settings.account_id))
    wire = Transport(settings, login.tokens, transport=transport)
    api = Api(wire)
    return Connection(
        transport=wire,
        api=api,
        blobs=Blobs(api, wire),
        uploads=Uploads(api, wire),
        origin=settings.url.rstrip("/"),
        identity=login.identity,
    )
