"""The checks of the way to a deployment: proxy, name, connection, TLS. No token is sent.

Used by `ivcapfs.doctor.rounds`. Each function is one check and returns one `Result` within a bound. What blocks and
cannot be ended (asking for a name) runs on a thread of its own that is left behind.
"""

from __future__ import annotations

import http.client
import queue
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from ivcapfs.client.network import proxy_for, tls_context
from ivcapfs.doctor.result import Result, fail, ok, skip, warn
from ivcapfs.errors import ConfigError
from ivcapfs.hosts import is_loopback

T = TypeVar("T")
SECONDS = 10.0
"""The bound of each step."""
DAYS_LEFT = 14


def proxy(url: str) -> Result:
    """The proxy, if there is one, takes connections."""
    given = proxy_for(url)
    if given is None:
        return ok("proxy", "none for this address")
    try:
        host, port = _place(urlsplit(given))
    except ValueError as exc:
        return fail("proxy", f"it cannot be used ({exc})", "in HTTPS_PROXY or its like, http://HOST:PORT")
    name = f"{host}:{port}"  # without its user and password
    try:
        socket.create_connection((host, port), timeout=SECONDS).close()
    except OSError as exc:
        remedy = "correct HTTPS_PROXY, or put the deployment's name into NO_PROXY"
        return fail("proxy", f"{name} cannot be reached ({exc.strerror or exc})", remedy)
    return ok("proxy", f"{name} takes connections")


def name(url: str) -> Result:
    """The deployment's name has an address."""
    host = urlsplit(url).hostname or ""
    if proxy_for(url) is not None:
        return ok("DNS", f"the proxy asks for {host}")
    try:
        found = within(SECONDS, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except OSError as exc:
        remedy = "check the address and /etc/resolv.conf; behind a proxy, set HTTPS_PROXY"
        return fail("DNS", f"{host} has no address ({exc.strerror or exc})", remedy)
    return ok("DNS", f"{host} is {', '.join(sorted({str(address[4][0]) for address in found}))}")


def connection(url: str) -> Result:
    """There is a connection, with TLS where the address says so, and a certificate that is believed."""
    parts = urlsplit(url)
    try:
        return _https(url) if parts.scheme == "https" else _plain(url)
    except ConfigError as exc:
        return fail("TLS", str(exc), "correct SSL_CERT_FILE or SSL_CERT_DIR, or unset them")
    except ssl.SSLCertVerificationError as exc:
        remedy = "check the clock; for a certificate of your own, SSL_CERT_FILE=/path/of/the/authority.pem"
        return fail("TLS", f"the certificate is not believed ({exc.verify_message})", remedy)
    except ssl.SSLError as exc:
        return fail("TLS", f"no TLS is spoken there ({exc.reason})", "check the address and its port")
    except (OSError, http.client.HTTPException) as exc:
        said = f"no connection ({getattr(exc, 'strerror', None) or exc})"
        return fail("TLS", said, "check the address, the network and the firewall")


def _https(url: str) -> Result:
    parts, given = urlsplit(url), proxy_for(url)
    host, port = parts.hostname or "", parts.port or 443
    context = tls_context()
    if given is None:
        asked = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)
    else:
        through = urlsplit(given)
        if through.scheme == "https":
            return skip("TLS", "within the proxy's own TLS it cannot be looked at")
        asked = http.client.HTTPSConnection(*_place(through), timeout=SECONDS, context=context)
        asked.set_tunnel(host, port, _credentials(through))
    try:
        asked.connect()
        assert isinstance(asked.sock, ssl.SSLSocket)
        version, certificate = asked.sock.version(), asked.sock.getpeercert() or {}
    finally:
        asked.close()
    days = int((ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86400)
    if days < DAYS_LEFT:
        return warn("TLS", f"the certificate ends in {days} days", "tell who runs the deployment")
    return ok("TLS", f"{version}, the certificate is good for {days} days")


def _plain(url: str) -> Result:
    parts = urlsplit(url)
    if proxy_for(url) is None:
        socket.create_connection((parts.hostname or "", parts.port or 80), timeout=SECONDS).close()
    if is_loopback(parts.hostname or ""):
        return ok("TLS", "plain http, within this machine")
    return warn("TLS", "plain http: the token can be read on the way", "https, unless the network can be trusted")


def _place(proxy: SplitResult) -> tuple[str, int]:
    """Return host and port of a proxy.

    Raises:
        ValueError: there are none, or it is of a kind that is not known.
    """
    if proxy.scheme not in ("http", "https") or not proxy.hostname:
        raise ValueError("only http:// and https:// ones can" if proxy.hostname else "no host is named")
    return proxy.hostname, proxy.port or (443 if proxy.scheme == "https" else 80)


def _credentials(proxy: SplitResult) -> dict[str, str]:
    """Return the header for a proxy that wants to know who asks (RFC 9110, 11.7.2)."""
    if proxy.username is None:
        return {}
    who = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(who.encode()).decode()}"}


def within(seconds: float, ask: Callable[[], T]) -> T:
    """Return what a function returns, or raise what it raises; TimeoutError if that takes too long."""
    answers: queue.SimpleQueue[tuple[T | None, OSError | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((ask(), None))
        except OSError as exc:
            answers.put((None, exc))

    threading.Thread(target=run, name="doctor", daemon=True).start()
    try:
        answer, problem = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if problem is not None:
        raise problem
    assert answer is not None
    return answer
