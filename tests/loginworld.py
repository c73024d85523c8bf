"""A deployment that asks for tokens which expire, the issuer of these tokens, and the `ivcap` program's file.

No mocks: real sockets, real files. Refresh tokens rotate: a spent one is refused, as by an issuer that watches them.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from ivcapfs.config import Secret
from tests.client.fakeorigin import Answer, Asked, Origin, Reply, as_json

ACCOUNT = "urn:ivcap:account:45a06508-5c3a-4678-8e6d-e6399bf27538"
CANARY = "canary9c41"
"""Part of every token here, access and refresh; `Deployment.sign` is part of one deployment's alone."""
NEVER = 1e9


def jwt(signature: str = CANARY, **claims: Any) -> str:
    """Return a token that says this; nobody verifies it."""
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{body}.{signature}"


@dataclass
class Deployment:
    """The platform and its issuer.

    Attributes:
        platform: answers requests whose token is good.
        lifetime: of an access token, in seconds.
        rotates: whether each refresh token is good only once.
        subject: whose tokens are given out.
        refreshes: how many access tokens were given out.
        is_strict_about: paths that need a token.
        fault: answers requests to the issuer in its stead.
        sign: part of every token given out here, and of no neighbour's: a hunt may look at all processes.
    """

    platform: Answer
    lifetime: float = 3600.0
    rotates: bool = True
    subject: str = "ada"
    refreshes: int = 0
    refused: int = 0
    fault: Answer | None = None
    host: str | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    access: dict[str, float] = field(default_factory=dict)
    refresh: set[str] = field(default_factory=set)
    number: int = 0
    sign: str = field(default_factory=lambda: f"{CANARY}-{secrets.token_hex(4)}")
    origin: Origin = field(init=False)

    def __post_init__(self) -> None:
        self.origin = Origin(self.answer)

    def log_in(self, subject: str | None = None) -> tuple[str, str]:
        """Return an access and a refresh token, as after a login in the browser."""
        with self.lock:
            self.subject = subject or self.subject
            return self.new_access(), self.new_refresh()

    def new_access(self) -> str:
        self.number += 1
        now = time.time()
        claims = {"iss": "https://issuer.example", "sub": self.subject, "exp": int(now + self.lifetime)}
        token = jwt(self.sign, **claims, n=self.number)
        self.access[token] = now + self.lifetime
        return token

    def new_refresh(self) -> str:
        self.number += 1
        token = f"v1.{self.sign}-refresh-{self.number}"
        self.refresh.add(token)
        return token

    def expire(self) -> None:
        """Make all access tokens bad."""
        with self.lock:
            self.access.clear()

    def log_out(self) -> None:
        """Make all tokens bad."""
        with self.lock:
            self.access.clear()
            self.refresh.clear()

    def is_good(self, asked: Asked) -> bool:
        with self.lock:
            return self.access.get(asked.headers.get("authorization", "").removeprefix("Bearer "), 0) > time.time()

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/1/authinfo.yaml":
            return self.authinfo()
        if asked.path == "/oauth/token":
            return self.fault(asked) if self.fault else self.grant(asked)
        if not self.is_good(asked):
            return Reply(401)
        return self.platform(asked)

    def authinfo(self) -> Reply:
        provider = {"login-url": self.origin.url, "token-url": f"{self.origin.url}/oauth/token", "client-id": "cli"}
        auth = {"default-provider-id": "p0", "providers": {"p0": provider, "p1": {}}}
        return as_json({"version": 1, "auth": auth})  # JSON is YAML

    def grant(self, asked: Asked) -> Reply:
        """Trade a refresh token (RFC 6749, 6)."""
        form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        assert asked.method == "POST" and "authorization" not in asked.headers
        assert form.keys() == {"grant_type", "client_id", "refresh_token"}
        assert (form["grant_type"], form["client_id"]) == ("refresh_token", "cli")
        with self.lock:
            if form["refresh_token"] not in self.refresh:
                self.refused += 1
                return as_json({"error": "invalid_grant"}, 403)
            self.refreshes += 1
            reply = {"access_token": self.new_access(), "expires_in": self.lifetime, "token_type": "Bearer"}
            if self.rotates:
                self.refresh.discard(form["refresh_token"])
                reply["refresh_token"] = self.new_refresh()
            return as_json(reply)


def write_contexts(file: Path, url: str, access: str, refresh: str, **more: str) -> None:
    """Write the `ivcap` program's file, as it does itself: over what was there."""
    fields = {"account-id": ACCOUNT, "access-token": access, "refresh-token": refresh, **more}
    lines = "".join(f"      {name}: {value}\n" for name, value in fields.items())
    text = f"""# my contexts
version: v1
active-context: gov
contexts:
    - api-version: 1
      name: other
      url: https://other.example
    - api-version: 1
      name: gov  # the one for work
      url: {url}
{lines}"""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(0o600)
    file.write_text(text)


def secret(text: str) -> Secret:
    return Secret(text)
