"""Who the caller is: chooses the source of tokens that the settings ask for.

Used by `ivcapfs.client.connection`. No request is made here, unless there is no token yet that has not expired.
"""

from __future__ import annotations

from dataclasses import dataclass

from ivcapfs.client.auth import TokenSource, given, identity_of
from ivcapfs.client.renewal import RenewedToken, Supply
from ivcapfs.client.supplies import CommandSupply, FileSupply, Owner
from ivcapfs.config import ClientSettings


@dataclass(frozen=True, slots=True)
class Login:
    """A source of tokens, all of one user.

    Attributes:
        identity: stands for that user, for cache keys.
    """

    tokens: TokenSource
    identity: str


def log_in(settings: ClientSettings) -> Login:
    """Return the login that the settings ask for.

    Raises:
        CredentialError: there is no token to begin with.
    """
    supply: Supply
    owner = Owner(settings.account_id, is_vouched=settings.context is not None)
    if settings.context is not None:
        from ivcapfs.client.contextlogin import ContextSupply  # reads and writes YAML: 20 ms for who needs it

        supply = ContextSupply(settings.context, settings, owner, settings.token_command)
    elif settings.token_command is not None:
        supply = CommandSupply(settings.token_command, owner)
    elif settings.token_file is not None:
        supply = FileSupply(settings.token_file, owner)
    else:
        return Login(given(settings.token), identity_of(settings.token, settings.account_id))
    first = supply.first()
    assert owner.identity is not None
    return Login(RenewedToken(supply, first), owner.identity)
