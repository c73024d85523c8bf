"""The token goes to the deployment's origin and to no other, wherever the server sends its client.

    python -m tests.faults.canary                  every way times every address
    python -m tests.faults.canary --self-check     the harness finds what is planted

A deployment hands out addresses: as a data-href, as a next link, as the Location of an upload, as redirects of every
kind of request. They lead to other ports, addresses, names, schemes and spellings; on all of them servers listen, on
loopback, and keep every byte that they are sent. The client's token must not be among them: plain, in base64, or
percent-encoded. That the harness sees anything is shown by how many of the ways lead there, and by the deployment,
which is sent the token.

`--self-check` breaks ivcapfs in this process (`PLANTS`: the rule of the origin switched off, ports not compared, the
token put on by the HTTP client) and fails unless each is found. Prints figures as JSON; exit code 1 if anything was
wrong.

Threading: the calls are made by one thread; each server has a thread, and one per connection. `Listener._lock` guards
what was heard. Names that end in ``.test`` lead to this machine as long as a run lasts (`socket.getaddrinfo` is
replaced).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import logging
import os
import random
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import httpx

from ivcapfs.client import Connection, connect, network
from ivcapfs.client.origins import OriginRules
from ivcapfs.client.tus import Upload
from ivcapfs.config import ClientSettings, Limits, Secret
from ivcapfs.errors import IvcapfsError
from tests import certificates
from tests.faults.listening import Listening
from tests.faults.worlds import logging_only_to, private_folder

CANARY = "canary-9f3c-token-of-nobody-else"
SIGNS = (CANARY.encode(), base64.b64encode(CANARY.encode()), b"canary%2D9f3c", CANARY.upper().encode())
UUID = "5b6e1f9c-1111-4222-8333-444444444444"
URN = f"urn:ivcap:artifact:{UUID}"
LIMITS = Limits(connect=0.3, idle=0.3, total=1.0, retries=0, redirects=4)
OWN_NAME = "deploy.test"
STATUSES = (301, 302, 303, 307, 308)

Reply = Callable[[bytes], bytes]
"""Answers a request, given all of its head."""

TARGETS = (
    "http://127.0.0.1:{o}/x", "http://127.0.0.2:{p}/x", "http://localhost:{o}/x", "http://localhost.:{o}/x",
    "http://[::1]:{o6}/x", "http://[0:0:0:0:0:0:0:1]:{o6}/x", "http://[::ffff:127.0.0.1]:{o}/x", "http://[::]:{o6}/x",
    "http://2130706433:{o}/x", "http://0x7f.1:{o}/x", "http://0177.0.0.1:{o}/x", "http://127.1:{o}/x",
    "http://0:{o}/x", "http://0.0.0.0:{o}/x", "http://127.0.0.1:0{o}/x", "http://%31%32%37.0.0.1:{o}/x",
    "http://{host}:{p}@127.0.0.1:{o}/x", "http://{host}@127.0.0.1:{o}/x", "http://u:w@{host}:{p}/x",
    "http://@127.0.0.1:{o}/x",
    "http://127.0.0.1:{o}\\@{host}:{p}/x", "http://{host}:{p}\\@127.0.0.1:{o}/x", "http://{host}:{p}#@127.0.0.1:{o}/x",
    "http://{host}:{p}?@127.0.0.1:{o}/x", "http://{host}:{p};@127.0.0.1:{o}/x", "http://{host}:{p}%40127.0.0.1:{o}/x",
    "//127.0.0.1:{o}/x", "\\\\127.0.0.1:{o}/x", "/\\127.0.0.1:{o}/x", "///127.0.0.1:{o}/x", "http:127.0.0.1:{o}/x",
    "http:/127.0.0.1:{o}/x", "http:///127.0.0.1:{o}/x", "HTTP://127.0.0.1:{o}/x", " http://127.0.0.1:{o}/x ",
    "http://127.0.0.1:\t{o}/x", "http://127.0.0.1:{o}%00/x", "http://127.0.0.1:{o}\x00/x",
    "http://127.0.0.1:{o}\r\nX: y",
    "https://localhost:{t}/x", "hTTpS://LOCALHOST:{t}/x", "http://localhost:{t}/x", "https://127.0.0.1:{o}/x",
    "https://{host}:{o}/x", "http://{host}:{o}/x", "https://{host}:{t}/x", "https://{host}:{p}/x", "http://{host}:{p}/x",
    "http://evil.test:{o}/x", "http://deploy.test:{o}/x", "http://deploy.test.evil.test:{o}/x", "http://DEPLOY.TEST:{o}/x",
    "http://deploy.test.:{o}/x", "http://xn--dploy-6pa.test:{o}/x", "http://d\u00e9ploy.test:{o}/x",
    "http://\uff44eploy.test:{o}/x", "http://deploy\u3002test:{o}/x", "http://deplo\u212a.test:{o}/x", "http://127.0.0.2:{p2}/x",
    "http://{host}:{p}.evil.test:{o}/x", "http://{host}.evil.test:{o}/x", "http://{host}%2eevil.test:{o}/x",
    "http://evil.test:{o}/1/artifacts/" + URN + "/x", "http://evil.test:{o}/{host}:{p}/1/aspects", "ws://127.0.0.1:{o}/x",
    "ftp://127.0.0.1:{o}/x", "javascript://127.0.0.1:{o}/%0ax", "http://127.0.0.1:{o}", "http://127.0.0.1:{o}?x=http://{host}:{p}/",
)  # fmt: skip
"""Addresses; `host` and `p` are the deployment's, `o`, `o6`, `t` and `p2` the ports of the others."""


class Listener(Listening):
    """A server that keeps what it is sent.

    Args:
        address: host and port; 0: any.
        tls: what it shows; None: it speaks plainly.
    """

    def __init__(self, address: tuple[str, int], reply: Reply, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(address)
        self._tls = tls
        self._lock = threading.Lock()
        self._heard: list[bytes] = []  # guarded by _lock
        self._taken = 0
        self.reply = reply

    def take(self) -> list[bytes]:
        """Return what was heard since this was asked last, one piece per request; what is still coming is in `all`."""
        with self._lock:
            heard, self._taken = self._heard[self._taken :], len(self._heard)
        return heard

    def all(self) -> list[bytes]:
        """Return all that was ever heard."""
        with self._lock:
            return self._heard.copy()

    def _serve(self, connected: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(connected)
            connected.settimeout(2.0)
            if self._tls is not None:
                connected = stack.enter_context(self._tls.wrap_socket(connected, server_side=True))
            while text := self._hear(connected):
                connected.sendall(self.reply(text))

    def _hear(self, connected: socket.socket) -> bytes:
        """Read a request, or whatever it is; what came is kept piece by piece, so that nothing is missed."""
        text = b""
        with self._lock:
            self._heard.append(text)
            at = len(self._heard) - 1
        while b"\r\n\r\n" not in text:
            more = connected.recv(65536)
            if not more:
                return b""
            text += more
            with self._lock:
                self._heard[at] = text
            if text.startswith(b"\x16\x03"):
                return b""  # the greeting of TLS, to one that speaks plainly
        head, _, body = text.partition(b"\r\n\r\n")
        lengths = [line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        left = int(lengths[0]) - len(body) if lengths else 0
        while left > 0 and (more := connected.recv(65536)):
            text, left = text + more, left - len(more)
            with self._lock:
                self._heard[at] = text
        return text


def answer(status: int, value: Any = None, **headers: str) -> bytes:
    """Return an answer as it is sent."""
    body = b"" if value is None else json.dumps(value).encode()
    named = [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
    lines = [f"HTTP/1.1 {status} so", *named, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + body


@dataclass(frozen=True)
class Way:
    """How an address is handed out: what the deployment answers, and what the client is asked to do."""

    name: str
    replies: Callable[[str], Reply]
    work: Callable[[Connection], object]


def record(href: str | None = None) -> dict[str, Any]:
    """Return a record whose content is at an address."""
    return {"id": URN, "status": "ready", "size": 10, "data-href": href or f"/1/artifacts/{URN}/blob"}


def _first_line(request: bytes) -> bytes:
    return request.split(b"\r\n", 1)[0]


def _hrefs(target: str) -> Reply:
    return lambda request: answer(200, record(target))


def _links(target: str) -> Reply:
    links = [{"rel": "next", "href": target + ("&" if "?" in target else "?") + "page=2"}]
    return lambda request: answer(200, {"items": [record()], "links": [] if b"page=" in request else links})


def _created(target: str) -> Reply:
    bare = {name: value for name, value in record().items() if name != "data-href"}
    return lambda request: answer(201, bare, Location=target)


def _redirects(status: int, which: bytes = b"") -> Callable[[str], Reply]:
    """Redirect the requests whose first line holds `which`; a record's own request is answered."""

    def replies(target: str) -> Reply:
        def reply(request: bytes) -> bytes:
            if which in _first_line(request):
                return answer(status, Location=target)
            return answer(200, record())

        return reply

    return replies


def _read(connection: Connection) -> None:
    with connection.blobs.open_range(UUID, 0, 10, expected=None) as stream:
        list(stream)


def _upload(connection: Connection) -> None:
    made = connection.uploads.begin(name="n", content_type="text/plain", size=5)
    with contextlib.suppress(IvcapfsError):
        connection.uploads.offset_of(made)
    connection.uploads.bring(made, 0, b"12345", bool)


def _patch(connection: Connection) -> None:
    blob = f"{connection.origin}/1/artifacts/{URN}/blob"
    connection.uploads.bring(Upload(UUID, blob, 5), 0, b"12345", bool)


def ways() -> tuple[Way, ...]:
    """Return all ways in which a server sends its client somewhere."""
    made = [
        Way("data-href, read", _hrefs, _read),
        Way("data-href, HEAD", _hrefs, lambda connection: connection.blobs.head(UUID)),
        Way("data-href of a new artifact", lambda target: lambda _: answer(201, record(target)), _upload),
        Way("Location of a new artifact", _created, _upload),
        Way("next link of artifacts", _links, lambda connection: list(connection.api.iter_artifacts())),
        Way("next link of aspects", _links, lambda connection: list(connection.api.iter_aspects())),
    ]
    for status in STATUSES:
        redirects, blobs = _redirects(status), _redirects(status, b"/blob")
        made += [
            Way(f"{status} of a record", redirects, lambda connection: connection.api.read_artifact(UUID)),
            Way(f"{status} of a read", blobs, _read),
            Way(f"{status} of a HEAD", blobs, lambda connection: connection.blobs.head(UUID)),
            Way(f"{status} of a POST", redirects, _upload),
            Way(f"{status} of a PATCH", blobs, _patch),
            Way(f"{status} of a PUT", redirects, lambda connection: connection.api.replace_aspect(URN, "urn:s:x", {})),
            Way(f"{status} of a DELETE", redirects, lambda connection: connection.api.retract_aspect("urn:a")),
        ]
    return tuple(made)


# -- the places ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def names() -> Iterator[None]:
    """Names in ``.test`` lead to this machine."""
    ask = socket.getaddrinfo

    def asked(host: Any, *args: Any, **kwargs: Any) -> Any:
        bare = host.decode() if isinstance(host, bytes) else host
        is_ours = isinstance(bare, str) and bare.rstrip(".").lower().endswith(".test")
        return ask("127.0.0.1" if is_ours else host, *args, **kwargs)

    with mock.patch("socket.getaddrinfo", asked):
        yield


@dataclass
class Places:
    """Who listens: the deployment, plain and with TLS, and everybody else."""

    plain: Listener
    secure: Listener
    others: list[Listener]

    def address(self, target: str, host: str, port: int) -> str:
        """Return a target with hosts and ports put in."""
        other, other6, tls, same = self.others[:4]
        return target.format(host=host, p=port, o=other.port, o6=other6.port, t=tls.port, p2=same.port)


@contextlib.contextmanager
def places(folder: Path) -> Iterator[Places]:
    """Have all of them listen."""
    certificate = certificates.make(folder, "localhost", "DNS:deploy.test", "DNS:evil.test", "IP:127.0.0.1")
    shows, believed = certificates.shown_by(certificate), certificate[1]

    def lost(_: bytes) -> bytes:
        return answer(404, {"message": "not here"})

    with contextlib.ExitStack() as stack, mock.patch.dict(os.environ, {"SSL_CERT_FILE": str(believed)}), names():
        plain = stack.enter_context(Listener(("127.0.0.1", 0), lost))
        secure = stack.enter_context(Listener(("127.0.0.1", 0), lost, shows))
        others = [
            Listener(("127.0.0.1", 0), lost),
            Listener(("::1", 0), lost),
            Listener(("127.0.0.1", 0), lost, shows),
            Listener(("127.0.0.2", 0), lost),
            Listener(("127.0.0.2", plain.port), lost),
            Listener(("127.0.0.2", secure.port), lost, shows),
        ]
        yield Places(plain, secure, [stack.enter_context(other) for other in others])


# -- a run -----------------------------------------------------------------------------------------------------------


def run(most: int = 1_000_000, seed: int = 1) -> dict[str, Any]:
    """Go every way to every address, or `most` of them; return the figures."""
    outcomes: Counter[str] = Counter()
    hits: list[str] = []
    began, reached, legitimate, unexpected = time.monotonic(), 0, 0, []
    quiet = logging_only_to(logging.NullHandler(), logging.CRITICAL)
    with quiet, private_folder() as folder, places(folder) as there:
        bases = (
            ("http", "127.0.0.1", there.plain, False), ("http", OWN_NAME, there.plain, True),
            ("https", "localhost", there.secure, False), ("https", OWN_NAME, there.secure, True),
        )  # fmt: skip
        combinations = [(base, way, target) for base in bases for way in ways() for target in TARGETS]
        random.Random(seed).shuffle(combinations)
        for (scheme, host, deployment, allow_http), way, target in combinations[:most]:
            there_is = there.address(target, host, deployment.port)
            deployment.reply = way.replies(there_is)
            url = f"{scheme}://{host}:{deployment.port}"
            settings = ClientSettings(url, Secret(CANARY), limits=LIMITS, allow_http=allow_http)
            with connect(settings) as connection:
                try:
                    way.work(connection)
                    outcomes["done"] += 1
                except IvcapfsError as exc:
                    outcomes[type(exc).__name__] += 1
                except Exception as exc:  # noqa: BLE001 - that is looked for, too
                    unexpected.append(f"{way.name}, {url}, {there_is!r}: {exc!r}")
            heard = [text for other in there.others for text in other.take()]
            reached += any(heard)
            hits += [f"{way.name}, {url}, {there_is!r}" for text in heard if any(sign in text for sign in SIGNS)]
            legitimate += any(SIGNS[0] in text for text in deployment.take())
            there.plain.take(), there.secure.take()
        told = [text for other in there.others for text in other.all() if any(sign in text for sign in SIGNS)]
    return {
        "combinations": min(most, len(combinations)),
        "ways": len(ways()),
        "addresses": len(TARGETS),
        "seconds": round(time.monotonic() - began, 1),
        "reached_others": reached,
        "token_at_the_deployment": legitimate,
        "token_elsewhere": len(told),
        "unexpected": len(unexpected),
        "outcomes": dict(outcomes.most_common()),
        "examples": hits[:10] + unexpected[:10],
    }


def is_clean(figures: dict[str, Any]) -> bool:
    """Return whether nothing was wrong, and something was looked at."""
    return not (figures["token_elsewhere"] or figures["unexpected"]) and bool(figures["reached_others"])


# -- what is planted -------------------------------------------------------------------------------------------------


def _same_host(self: OriginRules, url: httpx.URL) -> bool:
    return url.host == self.base.host


PLANTS: dict[str, Callable[[], Any]] = {
    "the rule of the origin is switched off": lambda: mock.patch.object(OriginRules, "gets_token", lambda *_: True),
    "ports are not compared": lambda: mock.patch.object(OriginRules, "gets_token", _same_host),
    "the token is one of the headers of all requests": lambda: mock.patch.dict(
        network.HEADERS, {"Authorization": f"Bearer {CANARY}"}
    ),
}


def self_check(most: int = 400) -> dict[str, Any]:
    """Plant each bug; return what was found of it."""
    found = {}
    for name, plant in PLANTS.items():
        with plant():
            found[name] = run(most)["token_elsewhere"]
    return found


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description="Who gets to see the token.")
    parser.add_argument("--most", type=int, default=1_000_000, help="of all combinations")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--self-check", action="store_true")
    given = parser.parse_args()
    if given.self_check:
        found = self_check()
        print(json.dumps(found, indent=2))
        return 0 if all(found.values()) else 1
    figures = run(given.most, given.seed)
    print(json.dumps(figures, indent=2))
    return 0 if is_clean(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
