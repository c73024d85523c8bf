"""Every HTTP exchange of ivcapfs: one connection pool, bounds on everything, and who gets to see the token.

Used by `api`, `blobs` and `tus`. The way of a request: the address is checked (`origins`), the token is put
on if the address may see it, the answer's redirects are followed by hand so that both happen again on every
hop, what httpx raises is translated (`faults`), and small exchanges are repeated where that helps (`retry`).

Threading: a `Transport` may be used by any number of threads. `_lock` guards `_busy`; no I/O
is done under it. A `Stream` belongs to one thread, except that `Transport.close` may end it from any other.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

import httpx

from ivcapfs import errors
from ivcapfs.client import faults, jsontext, wirelog
from ivcapfs.client.auth import TokenSource, bearer
from ivcapfs.client.connections import Connections
from ivcapfs.client.direct import DirectRequest, DirectTransport
from ivcapfs.client.exchange import (
    Ask,
    Body,
    FileSlice,
    Headers,
    JsonReply,
    Patience,
    Response,
    Stream,
    pieces,
    refuse_encoding,
)
from ivcapfs.client.network import HEADERS, Network
from ivcapfs.client.origins import OriginRules, redact
from ivcapfs.client.retry import Clock, Retries, Sleep, worth_repeating
from ivcapfs.config import KIB, ClientSettings, Secret

log = logging.getLogger(__name__)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SMALL = 64 * KIB
_CLOSE_PATIENCE = 1.0
_MOST_TOKENS = 3
"""How many tokens one request is tried with, each newer than the one before: they may expire between two tries."""


class Transport:
    """The client's one way to the network. Thread-safe.

    Args:
        settings: the deployment, its trusted origins, the bounds.
        tokens: asked before each request.
        transport: replaces the network, in tests; proxies and certificates of the environment are then not
            looked at.
        sleep: waits between two tries; None: a wait that `close` ends.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        settings: ClientSettings,
        tokens: TokenSource,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Sleep | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        wirelog.keep_queries_out_of_logs()
        self.limits = settings.limits
        self.base = settings.url.rstrip("/")
        self._rules = OriginRules(settings)
        self._tokens = tokens
        self._sent: Secret | None = None  # the last one, to be kept out of messages; one assignment, hence no lock
        self._host = settings.host
        self._clock = clock
        self._sleep = sleep or self._sleep_until_closed
        self._closing = threading.Event()
        self._lock = threading.Condition()
        self._connections = Connections(self.check_open)
        self._busy = 0
        self._network = Network(self.limits.connections, transport)
        self._straight = None if transport else DirectTransport(self._connections, self._network.tls)

    def request_json(
        self,
        method: str,
        path_or_url: str,
        *,
        what: str,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        headers: Headers | None = None,
        idempotent: bool,
    ) -> JsonReply:
        """Make one small exchange, repeated where that helps, within `Limits.total` seconds.

        Args:
            method: of HTTP.
            path_or_url: a path below the deployment's URL, beginning with a slash, or a whole address.
            what: the exchange in words, for messages: "listing artifacts".
            params: the query; percent-encoded here.
            json: the body, or None for none.
            headers: further headers.
            idempotent: whether asking twice is as good as once; if not, only what surely did not happen is
                repeated.

        Raises:
            ApiError: the server refused.
            TransportError: no whole answer came within the bounds, or the address is refused.
            ProtocolError: the answer is not a JSON object.
            Closing: the client was closed.
        """
        url = path_or_url if "://" in path_or_url else self.base + path_or_url
        query = urlencode(params, quote_via=quote, errors="replace") if params else ""
        if query and "?" in url:
            url, query = f"{url}&{query}", ""
        sent = dict(headers or {})
        content: Body | None = None
        if json is not None:
            content = jsontext.to_bytes(json, what=what)
            sent.setdefault("Content-Type", "application/json")
        sent.setdefault("Accept", "application/json")
        ask = Ask(method, sent, content, what, direct=method == "GET" and content is None, query=query)
        deadline = self._clock() + self.limits.total
        retries = self.retries(deadline)
        while True:
            try:
                with self._exchange(ask, url, Patience(self.limits, self._clock, deadline)) as stream:
                    return self._small_reply(stream, ask, deadline)
            except (errors.TransportError, errors.Unavailable) as exc:
                if not worth_repeating(exc, idempotent=idempotent):
                    raise
                retries.wait(exc)

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        url: str,
        *,
        what: str,
        headers: Headers | None = None,
        content: Body | None = None,
        accept: frozenset[int] = frozenset(),
        direct: bool = False,
    ) -> Iterator[Stream]:
        """Make one exchange, not repeated, whose answer's body is read by the caller within a ``with``.

        The headers come within `Limits.total` seconds (plus what sending `content` may take at
        `Limits.least_rate`); then no read takes longer than `Limits.idle`. Leaving early ends the connection.

        Args:
            content: sent in pieces; sent again on a redirect that keeps the method.
            accept: refusals (400 and up) that the caller wants to see as answers.
            direct: whether the body comes straight from the socket (see `direct`).

        Raises:
            ApiError, TransportError, Closing: as `request_json`.
        """
        allowance = self.limits.total + (len(content) / self.limits.least_rate if content else 0)
        patience = Patience(self.limits, self._clock, self._clock() + allowance)
        ask = Ask(method, headers or {}, content, what, direct)
        with self._exchange(ask, url, patience, accept) as stream:
            patience.deadline = None
            yield stream

    def retries(self, deadline: float | None = None) -> Retries:
        """Return a fresh count of tries, for one exchange that the caller repeats itself."""
        return Retries(self.limits, sleep=self._sleep, clock=self._clock, deadline=deadline)

    def clock(self) -> float:
        """Return seconds on the clock that all bounds are measured by."""
        return self._clock()

    def check_open(self) -> None:
        """Raise `errors.Closing` if the client was closed."""
        if self._closing.is_set():
            raise errors.Closing("the client is closed")

    def close(self) -> None:
        """End all exchanges, those in other threads too, and refuse further ones. May be called twice."""
        self._closing.set()
        self._tokens.close()
        self._connections.shut_down()
        with self._lock:
            self._lock.wait_for(lambda: self._busy == 0, timeout=_CLOSE_PATIENCE)
        self._network.close()
        if self._straight is not None:
            self._straight.close()

    def fail(self, exc: Exception, what: str) -> NoReturn:
        """Raise our exception for one of `faults.HTTPX_ERRORS`."""
        self.check_open()
        raise faults.translate(exc, what) from exc

    @contextlib.contextmanager
    def _exchange(
        self, ask: Ask, url: str, patience: Patience, accept: frozenset[int] = frozenset()
    ) -> Iterator[Stream]:
        """Send, follow redirects, turn refusals into exceptions; close the response at the end."""
        self.check_open()
        with self._lock:
            self._busy += 1
        try:
            response = self._follow(ask, self._rules.check(url), patience)
            try:
                stream = Stream(response, ask.what, self.check_open, self.fail)
                if not response.is_success and response.status_code not in accept:
                    raise self._refusal(response, ask.what)
                yield stream
            finally:
                response.close()
        finally:
            with self._lock:
                self._busy -= 1
                self._lock.notify_all()

    def _follow(self, ask: Ask, url: httpx.URL, patience: Patience) -> Response:
        """Return the first answer that is no redirect."""
        seen = [(ask, url)]
        for _ in range(self.limits.redirects + 1):
            response = self._send_as_allowed(ask, url, patience)
            location = response.headers.get("location")
            if response.status_code not in _REDIRECTS or not location:
                return response
            try:
                self._drain(response)
                target = url.join(location)
            except (httpx.InvalidURL, ValueError, TypeError) as exc:
                raise errors.OriginRefused(f"{ask.what}: redirected to an address that cannot be read") from exc
            finally:
                response.close()
            ask = ask.redirected(response.status_code)
            url = self._rules.check(target.copy_with(fragment=None))
            if (ask.method, str(url)) in {(before.method, before.at(at)) for before, at in seen}:
                raise errors.OriginRefused(f"{ask.what}: redirects go in a circle")
            seen.append((ask, url))
        raise errors.OriginRefused(f"{ask.what}: more than {self.limits.redirects} redirects")

    def _send_as_allowed(self, ask: Ask, url: httpx.URL, patience: Patience) -> Response:
        """Send with the token if `url` may see it; on 401 again if there is a newer token."""
        if not self._rules.gets_token(url):
            return self._send(ask, url, None, patience)
        for _ in range(_MOST_TOKENS):
            token = self._tokens.token()
            response = self._send(ask, url, token, patience)
            if response.status_code != 401 or token is None:
                if token is not None:
                    self._tokens.accepted(token)
                return response
            try:
                if not self._tokens.rejected(token):
                    return response
            except BaseException:
                response.close()
                raise
            response.close()
        return self._send(ask, url, self._tokens.token(), patience)

    def _send(self, ask: Ask, url: httpx.URL, token: Secret | None, patience: Patience) -> Response:
        """Make one hop."""
        headers = {"Accept": "*/*", **HEADERS, **ask.headers}
        if token is not None:
            headers["Authorization"] = bearer(token)
            self._sent = token
        if self._host and self._rules.is_deployment(url):
            headers["Host"] = self._host
        content: Iterator[bytes] | None = None
        if ask.content is not None:
            headers["Content-Length"] = str(len(ask.content))
            content = self._pieces(ask.content)
        is_file = isinstance(ask.content, FileSlice)
        may_go_straight = is_file or (ask.direct and content is None)
        straight = self._straight if may_go_straight and not self._network.is_proxied(url) else None
        idle = self.limits.idle
        timeouts = {"connect": self.limits.connect, "read": patience, "write": idle, "pool": idle}
        extensions = {"timeout": timeouts, "trace": self._connections.trace, "file": ask.content, "query": ask.query}
        try:
            if straight is not None:
                response: Response = straight.ask(DirectRequest(ask.method, url, headers, extensions))
            else:
                request = httpx.Request(
                    ask.method, ask.at(url), headers=headers, content=content, extensions=extensions
                )
                response = self._network.client_for(url).send(request, stream=True)
        except faults.HTTPX_ERRORS as exc:
            self.fail(exc, ask.what)
        except RuntimeError:
            self.check_open()
            raise
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s %s: %d", ask.method, redact(url), response.status_code)
        return response

    def _pieces(self, content: Body) -> Iterator[bytes]:
        for piece in pieces(content):
            self.check_open()
            yield piece

    def _small_reply(self, stream: Stream, ask: Ask, deadline: float) -> JsonReply:
        """Read the body of a small exchange within its bounds."""
        if ask.method == "HEAD" or stream.status == 204:
            return JsonReply(stream.status, stream.headers, {})
        refuse_encoding(stream, ask.what)
        body = bytearray()
        view = memoryview(bytearray(_SMALL))
        while got := stream.readinto(view):
            body += view[:got]
            if len(body) > self.limits.json_size:
                raise errors.ProtocolError(f"{ask.what}: the answer is over {self.limits.json_size} bytes")
            if self._clock() > deadline:
                raise errors.DeadlineExceeded(f"{ask.what}: no whole answer within {self.limits.total:g} s")
        value = jsontext.parse_object(body, what=ask.what) if body.strip() else {}
        return JsonReply(stream.status, stream.headers, value, bytes(body))

    def _refusal(self, response: Response, what: str) -> errors.ApiError:
        """Return the exception for an answer that is no success, with the server's own words if any."""
        words = ""
        with contextlib.suppress(errors.IvcapfsError):
            body = self._drain(response)
            message = jsontext.parse_object(body, what=what).get("message", "") if body else ""
            words = faults.tidy(str(message), secret=self._sent.reveal() if self._sent else None)
        wait = faults.retry_after_seconds(response.headers)
        return faults.refusal(response.status_code, what, message=words, retry_after=wait)

    def _drain(self, response: Response) -> bytes:
        """Return a short body, so that its connection can be used again; b"" where it is long, or breaks."""
        body = b""
        try:
            for part in response.iter_raw():
                body += part
                if len(body) > _SMALL or self._closing.is_set():
                    return b""
        except faults.HTTPX_ERRORS:
            return b""
        return body

    def _sleep_until_closed(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            self.check_open()
