"""How the network is reached: directly or through which proxy, and whose certificates are believed.

Used by `transport` and `oidc`, and by `ivcapfs doctor`. The environment says (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY,
NO_PROXY in either case; SSL_CERT_FILE, SSL_CERT_DIR), it is asked once, and the decision is made here alone: httpx,
whose rules differ from curl's, is only told the result.

Threading: a `Proxies` is immutable but for what it remembers; a `Network`'s clients may be used by any thread.
"""

from __future__ import annotations

import functools
import http.cookiejar
import ipaddress
import ssl
import urllib.request
from collections.abc import Mapping
from typing import Any

import httpx

from ivcapfs.client.origins import redact
from ivcapfs.errors import ConfigError
from ivcapfs.hosts import address_of, is_loopback

_KEEP_ALIVE = 15.0
_REMEMBERED = 256
_PORTS = {"http": 80, "https": 443}
HEADERS = {"User-Agent": "ivcapfs", "Accept-Encoding": "identity"}
"""Of every request."""


def tls_context() -> ssl.SSLContext:
    """Return what certificates are checked against: SSL_CERT_FILE or SSL_CERT_DIR, else the usual authorities.

    Raises:
        ConfigError: what the environment names cannot be read.
    """
    try:
        context = httpx.create_ssl_context()
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"SSL_CERT_FILE or SSL_CERT_DIR names no certificates that can be read: {exc}") from exc
    context.set_alpn_protocols(["http/1.1"])
    return context


class Proxies:
    """Which proxy leads to an address.

    Args:
        found: scheme -> proxy, and ``no`` -> the list of exceptions, as `urllib.request.getproxies` has it.
    """

    def __init__(self, found: Mapping[str, str]) -> None:
        self._found = {scheme: proxy if "://" in proxy else f"http://{proxy}" for scheme, proxy in found.items()}
        self._exceptions = tuple(entry for word in found.get("no", "").split(",") if (entry := word.strip().lower()))
        self._decide = functools.lru_cache(_REMEMBERED)(self._decided)  # a content is asked for block by block

    def proxy_for(self, url: httpx.URL) -> str | None:
        """Return the URL of the proxy through which `url` is asked; None: directly."""
        return self._decide(url.scheme, url.host, url.port)

    def all(self) -> frozenset[str]:
        """Return the URLs of all proxies that addresses may be asked through."""
        ways = (self._found.get(scheme) or self._found.get("all") for scheme in _PORTS)
        return frozenset(way for way in ways if way)

    def _decided(self, scheme: str, host: str, port: int | None) -> str | None:
        """Decide. This machine is never asked for through a proxy, whose own machine would be another one."""
        proxy = self._found.get(scheme) or self._found.get("all")
        if proxy is None or is_loopback(host) or self._is_excepted(host.lower().rstrip("."), port or _PORTS[scheme]):
            return None
        return proxy

    def _is_excepted(self, host: str, port: int) -> bool:
        """Return whether NO_PROXY has this host: ``*``, a name and all below it, an address, a network, ``:port``."""
        address = address_of(host)
        for entry in self._exceptions:
            name, colon, wanted = entry.rpartition(":")
            if colon and wanted.isdigit() and (":" not in name or name.endswith("]")):
                if int(wanted) != port:
                    continue
                entry = name
            if entry == "*":
                return True
            if address is None:
                bare = entry.removeprefix("*").strip(".")
                if bare and (host == bare or host.endswith("." + bare)):
                    return True
            elif _is_within(address, entry.strip("[]")):
                return True
        return False


def _is_within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: str) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def proxy_for(url: str) -> str | None:
    """Return the URL of the proxy through which requests for an address go; None: directly.

    The same decision as a mount's, for those who look at the way to a deployment and make no request.
    """
    return Proxies(urllib.request.getproxies()).proxy_for(httpx.URL(url))


class Network:
    """httpx clients that make requests and nothing more: no redirects, no cookies, no authentication of their own.

    Args:
        connections: at the same time, of each client.
        transport: replaces the network, in tests; the environment is then not looked at.

    Raises:
        ConfigError: a proxy or the certificates that the environment names cannot be used.
    """

    def __init__(self, connections: int, transport: httpx.BaseTransport | None = None) -> None:
        self.tls = tls_context()
        self._proxies = Proxies({} if transport else urllib.request.getproxies())
        limits = httpx.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_KEEP_ALIVE
        )
        common: dict[str, Any] = {"verify": self.tls, "trust_env": False, "limits": limits}
        self._direct = polite_client(transport or httpx.HTTPTransport(**common))
        self._through: dict[str, httpx.Client] = {}
        for proxy in self._proxies.all():
            self._through[proxy] = polite_client(_through(proxy, common))

    def is_proxied(self, url: httpx.URL) -> bool:
        """Return whether requests for this address go through a proxy."""
        return self._proxies.proxy_for(url) is not None

    def client_for(self, url: httpx.URL) -> httpx.Client:
        """Return the client to ask this address with."""
        proxy = self._proxies.proxy_for(url)
        return self._direct if proxy is None else self._through[proxy]

    def close(self) -> None:
        """Close all connections."""
        for client in (self._direct, *self._through.values()):
            client.close()


def polite_client(transport: httpx.BaseTransport) -> httpx.Client:
    """Return a client over a transport that adds nothing to a request but these headers."""
    return httpx.Client(
        transport=transport,
        trust_env=False,
        follow_redirects=False,
        cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
        headers=HEADERS,
    )


def _through(proxy: str, common: Mapping[str, Any]) -> httpx.HTTPTransport:
    """Return a transport through a proxy.

    Raises:
        ConfigError: it is of a kind that is not known.
    """
    try:
        by_way = httpx.Proxy(proxy, ssl_context=common["verify"] if proxy.startswith("https:") else None)
        return httpx.HTTPTransport(**common, proxy=by_way)
    except (ValueError, ImportError, httpx.InvalidURL, TypeError) as exc:
        raise ConfigError(f"the proxy {redact(proxy)} cannot be used: only http:// and https:// ones can") from exc
