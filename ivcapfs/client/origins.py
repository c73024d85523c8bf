"""Which addresses ivcapfs talks to, which of them may see the token, and how an address is shown in a log.

Used by `ivcapfs.client.transport` before every hop, and by the modules that are handed addresses by a server
(data-hrefs, upload locations). Pure and immutable: any thread may use it.

Addresses are parsed with httpx's own parser only, so that what was checked is what is sent.
"""

from __future__ import annotations

import functools
import re

import httpx

from ivcapfs.config import ClientSettings
from ivcapfs.errors import OriginRefused
from ivcapfs.hosts import is_link_local, is_loopback

_PORTS = {"http": 80, "https": 443}
_URL_TAIL = re.compile(r"(https?://)(?:[^\s/?#\"'@]*@)?([^\s?#\"']*)(?:[?#][^\s\"']*)?", re.IGNORECASE)
_BLOBS = "/1/artifacts/"
_REMEMBERED = 1024
ANY_UUID = "{uuid}"
"""Stands for an artifact's uuid in a pattern of addresses."""


def redact(url: str | httpx.URL) -> str:
    """Return `url` without user, query and fragment: fit for a log line or an exception."""
    try:
        parsed = httpx.URL(url)
        return str(parsed.copy_with(query=None, fragment=None, userinfo=b""))[:500]
    except (httpx.InvalidURL, ValueError, TypeError):
        return "<unreadable address>"


def redact_text(text: str) -> str:
    """Return `text` with every address in it cut down as `redact` does."""
    return _URL_TAIL.sub(r"\1\2", text)


def origin_of(url: httpx.URL) -> str:
    """Return `scheme://host:port` in one spelling, the port always given."""
    host = f"[{url.host}]" if ":" in url.host else url.host.lower().rstrip(".")
    return f"{url.scheme}://{host}:{url.port or _PORTS.get(url.scheme, 0)}"


class OriginRules:
    """What the settings say about addresses. Immutable, but for what it remembers of `check`.

    Args:
        settings: the deployment, the further trusted origins, and whether plain http is allowed.

    Raises:
        OriginRefused: the deployment itself, or a trusted origin, is no usable address.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._allow_http = settings.allow_http
        self.check = functools.lru_cache(_REMEMBERED)(self._check)  # a content is asked for block by block
        self.base = self.check(settings.url)
        trusted = {origin_of(self.check(origin)) for origin in settings.trusted_origins}
        self._own = origin_of(self.base)
        self._may_see_token = frozenset(trusted | {self._own})

    def _check(self, url: str | httpx.URL) -> httpx.URL:
        """Return `url`, parsed, if ivcapfs may talk to it at all.

        Raises:
            OriginRefused: no http(s) address, one with a user in it, link-local, or plain http beyond
                loopback.
        """
        try:
            parsed = httpx.URL(url)
            host = parsed.host
        except (httpx.InvalidURL, ValueError, TypeError) as exc:
            raise OriginRefused("the server named an address that cannot be read") from exc
        if parsed.scheme not in _PORTS or not host or not 0 <= (parsed.port or 0) < 65536:
            raise OriginRefused(f"not an http(s) address: {redact(parsed)}")
        if parsed.userinfo:
            raise OriginRefused(f"the address carries a user name: {redact(parsed)}")
        if is_link_local(host):
            raise OriginRefused(f"link-local addresses are never asked: {redact(parsed)}")
        if parsed.scheme == "http" and not (self._allow_http or is_loopback(host)):
            raise OriginRefused(f"plain http is not allowed (option allow-http): {redact(parsed)}")
        return parsed

    def is_deployment(self, url: httpx.URL) -> bool:
        """Return whether `url` is of the deployment's own origin."""
        return origin_of(url) == self._own

    def gets_token(self, url: httpx.URL) -> bool:
        """Return whether the token may be sent to `url`."""
        return origin_of(url) in self._may_see_token


def resolve_data_href(base_url: str, href: str) -> str:
    """Return the address at which a data-href's content is to be asked for.

    A relative href joins the base. An absolute one whose path is the platform's own (it has the base's path
    and then ``/1/artifacts/``) is asked at the base, query kept, whatever host it names: inside the
    platform, hrefs name the external host. Any other absolute href stays as it is.

    Args:
        base_url: the deployment's URL, without a trailing slash.
        href: as the server wrote it.

    Raises:
        OriginRefused: `href` cannot be read as an address.
    """
    try:
        base = httpx.URL(base_url.rstrip("/"))
        parsed = httpx.URL(href.strip())
        own = base.raw_path.decode("ascii").rstrip("/") if base.path != "/" else ""
        if not parsed.is_absolute_url and own and parsed.raw_path.startswith(_BLOBS.encode()):
            joined = base.copy_with(raw_path=own.encode() + parsed.raw_path)
        else:
            joined = base.copy_with(raw_path=own.encode() + b"/").join(parsed)
        path, mark, query = joined.raw_path.decode("ascii").partition("?")
        at = path.rfind(own + _BLOBS)
        if at < 0:
            return str(joined.copy_with(fragment=None))
        return str(base.copy_with(raw_path=(path[at:] + mark + query).encode("ascii")))
    except (httpx.InvalidURL, ValueError, TypeError) as exc:
        raise OriginRefused("the record's data-href cannot be read as an address") from exc


def pattern_of(url: str, uuid: str) -> str | None:
    """Return an address with the uuid left open; None for one that is an artifact's alone, as a signed one is."""
    return url.replace(uuid, ANY_UUID) if url.count(uuid) == 1 and "?" not in url else None
