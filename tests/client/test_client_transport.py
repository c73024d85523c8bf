"""The one way to the network: who gets the token, redirects, repetitions, bounds, refusals, logs, closing."""

# ruff: noqa: SIM117 (what is set up, and what is expected of it, on lines of their own)
from __future__ import annotations

import logging
import socket
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from ivcapfs import errors
from ivcapfs.client import Connection, connect
from ivcapfs.client.auth import TokenSource
from ivcapfs.client.transport import Transport
from ivcapfs.config import ClientSettings, Secret
from tests.client.fakeorigin import CANARY, LIMITS, Answer, Asked, Origin, Reply, as_json, client


def ask(connection: Connection, method: str = "GET", target: str = "/x", **more: Any) -> dict[str, Any]:
    """Make one small exchange."""
    more.setdefault("idempotent", method != "POST")
    return connection.transport.request_json(method, target, what="asking", **more).body


def bearer(asked: Asked) -> str | None:
    return asked.headers.get("authorization")


def in_turn(*replies: Reply) -> Answer:
    """Answer with each reply once, and then with the last for ever."""
    left = list(replies)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def to(url: str, status: int = 302) -> Reply:
    return Reply(status, {"Location": url})


OK = as_json({"ok": True})


# Who gets the token


def test_the_token_goes_to_the_deployment() -> None:
    with Origin(lambda _: OK) as origin, client(origin.url) as connection:
        assert ask(connection) == {"ok": True}
    assert bearer(origin.asked[0]) == f"Bearer {CANARY}"
    assert origin.asked[0].headers["accept-encoding"] == "identity"


def test_no_token_no_header() -> None:
    with Origin(lambda _: OK) as origin, client(origin.url, token=None) as connection:
        ask(connection)
    assert bearer(origin.asked[0]) is None


def test_the_token_never_reaches_another_origin() -> None:
    with (
        Origin(lambda _: OK) as other,
        Origin(lambda _: to(other.url + "/y")) as origin,
        client(origin.url) as connection,
    ):
        ask(connection)
        ask(connection, target=other.url + "/direct")
    assert len(other.asked) == 2
    assert not any(bearer(asked) for asked in other.asked)


def test_a_trusted_origin_gets_the_token() -> None:
    with Origin(lambda _: OK) as other, Origin(lambda _: to(other.url + "/y")) as origin:
        with client(origin.url, trusted_origins=frozenset({other.url})) as connection:
            ask(connection)
    assert bearer(other.asked[0])


def test_a_chain_that_leaves_and_comes_back() -> None:
    """Each hop is judged by its own address."""
    with Origin(lambda _: OK) as other, Origin(lambda asked: OK) as origin, client(origin.url) as connection:
        origin.answer = lambda asked: to(other.url + "/away") if asked.target == "/x" else OK
        other.answer = lambda _: to(origin.url + "/back")
        ask(connection)
    assert [bool(bearer(asked)) for asked in origin.asked] == [True, True]
    assert not bearer(other.asked[0])


def test_userinfo_in_a_location_is_refused_and_not_sent() -> None:
    with Origin(lambda _: OK) as other, Origin(lambda _: OK) as origin, client(origin.url) as connection:
        origin.answer = lambda _: to(other.url.replace("//", "//user:pw@"))
        with pytest.raises(errors.OriginRefused):
            ask(connection)
    assert not other.asked


def test_cookies_are_not_kept() -> None:
    with Origin(lambda _: as_json({}, **{"Set-Cookie": "a=b; Path=/"})) as origin, client(origin.url) as connection:
        ask(connection)
        ask(connection)
    assert not any("cookie" in asked.headers for asked in origin.asked)


class Renewing(TokenSource):
    """A source of tokens whose first one is out of date."""

    def __init__(self) -> None:
        self.current = "old"

    def token(self) -> Secret:
        return Secret(self.current)

    def rejected(self, token: Secret) -> bool:
        self.current = "new"
        return token.reveal() == "old"


def test_a_newer_token_is_tried_once() -> None:
    with Origin(lambda asked: OK if bearer(asked) == "Bearer new" else Reply(401)) as origin:
        with connect(ClientSettings(origin.url, limits=LIMITS), tokens=Renewing()) as connection:
            assert ask(connection) == {"ok": True}
            origin.answer = lambda _: Reply(401)
            with pytest.raises(errors.NotAuthenticated):
                ask(connection)
    assert len(origin.asked) == 3


@pytest.mark.parametrize("token", ["", "two words", "new\nline", "žeton", '"\x00"'])
def test_a_token_that_http_cannot_carry_is_not_shown(token: str) -> None:
    with Origin(lambda _: OK) as origin:
        with connect(ClientSettings(origin.url, Secret(token), limits=LIMITS)) as connection:
            with pytest.raises(errors.ConfigError) as caught:
                ask(connection)
    assert not token or token not in "".join(traceback.format_exception(caught.value))


# Redirects


@pytest.mark.parametrize(
    ("status", "method", "becomes", "keeps_body"),
    [
        (301, "POST", "GET", False), (302, "POST", "GET", False), (303, "POST", "GET", False),
        (303, "PUT", "GET", False),
        (307, "POST", "POST", True), (308, "PUT", "PUT", True), (302, "PUT", "PUT", True), (303, "HEAD", "HEAD", False),
    ],
)  # fmt: skip
def test_redirects_keep_or_change_the_method(status: int, method: str, becomes: str, keeps_body: bool) -> None:
    with (
        Origin(lambda asked: to("y?z=1", status) if asked.path == "/x" else OK) as origin,
        client(origin.url) as connection,
    ):
        ask(connection, method, json={"a": 1} if method != "HEAD" else None)
    assert (origin.asked[1].method, origin.asked[1].target) == (becomes, "/y?z=1")
    assert bool(origin.asked[1].body) is keeps_body


def test_range_is_kept_over_a_redirect() -> None:
    with Origin(lambda asked: to("/y", 307) if asked.path == "/x" else OK) as origin, client(origin.url) as connection:
        with connection.transport.stream("GET", origin.url + "/x", what="asking", headers={"Range": "bytes=1-2"}):
            pass
    assert origin.asked[1].headers["range"] == "bytes=1-2"


@pytest.mark.parametrize(
    "location",
    [
        "/x",
        "http://169.254.169.254/",
        "http://[fe80::1]/",
        "http://example.invalid/",
        "ftp://h/",
        "http://[",
        "//h:99999/",
    ],
)
def test_locations_that_are_refused(location: str) -> None:
    with Origin(lambda _: to(location)) as origin, client(origin.url) as connection:
        with pytest.raises(errors.OriginRefused):
            ask(connection)
    assert len(origin.asked) == 1


@pytest.mark.parametrize("path", ["/x", "/x?at=1"])
def test_a_query_is_for_the_first_address_alone(path: str) -> None:
    answer = {"/x": to("/y?of=its&own", 307), "/y": to("z", 307)}
    with Origin(lambda asked: answer.get(asked.path, OK)) as origin, client(origin.url) as connection:
        ask(connection, "GET", path, params={"a b": "ü&"})
    first = f"{path}{'&' if '?' in path else '?'}a%20b=%C3%BC%26"
    assert [asked.target for asked in origin.asked] == [first, "/y?of=its&own", "/z"]


def test_who_is_sent_back_with_another_query_is_not_in_a_circle() -> None:
    with (
        Origin(lambda asked: {"/x?a=1": to("/x"), "/x": to("/x?b=2")}.get(asked.target, OK)) as origin,
        client(origin.url) as connection,
    ):
        ask(connection, "GET", params={"a": "1"})
    assert [asked.target for asked in origin.asked] == ["/x?a=1", "/x", "/x?b=2"]


def test_a_circle_with_a_query_is_seen() -> None:
    with Origin(lambda asked: to(asked.target)) as origin, client(origin.url) as connection:
        with pytest.raises(errors.OriginRefused, match="circle"):
            ask(connection, "GET", params={"a": "1"})
    assert len(origin.asked) == 1


def test_endless_redirects_are_refused() -> None:
    with Origin(lambda asked: to(asked.target + "x")) as origin, client(origin.url) as connection:
        with pytest.raises(errors.OriginRefused):
            ask(connection)
    assert len(origin.asked) == LIMITS.redirects + 1


def test_a_name_that_leads_to_a_link_local_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the name was resolved to is looked at, not only the name."""
    with Origin(lambda _: OK) as origin, client(origin.url) as connection:
        monkeypatch.setattr("ivcapfs.client.connections.is_link_local", lambda host: host == "127.0.0.1")
        with pytest.raises(errors.OriginRefused):
            ask(connection)
    assert not origin.asked


# Repetitions


def test_unavailable_twice_then_works() -> None:
    with Origin(in_turn(Reply(503), Reply(502), OK)) as origin, client(origin.url) as connection:
        assert ask(connection) == {"ok": True}


def test_a_server_that_gave_up_waiting_for_the_request_is_asked_again_even_for_what_is_not_idempotent() -> None:
    with Origin(in_turn(Reply(408), OK)) as origin, client(origin.url) as connection:
        connection.transport.request_json("POST", "/x", what="asking", idempotent=False)
    assert len(origin.asked) == 2


def test_repetitions_are_bounded() -> None:
    with Origin(lambda _: as_json({"message": "busy"}, 503)) as origin, client(origin.url) as connection:
        with pytest.raises(errors.Unavailable, match="busy"):
            ask(connection)
    assert len(origin.asked) == LIMITS.retries + 1


def waits(origin: Origin, **limits: Any) -> tuple[list[float], Transport]:
    """Return a transport that does not sleep, and the list of its sleeps."""
    slept: list[float] = []
    settings = ClientSettings(origin.url, limits=replace(LIMITS, **limits))
    return slept, Transport(settings, Renewing(), sleep=slept.append)


@pytest.mark.parametrize(("value", "least"), [("2", 2.0), ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0), ("soon", 0.0)])
def test_retry_after_is_honoured(value: str, least: float) -> None:
    with Origin(in_turn(Reply(429, {"Retry-After": value}), OK)) as origin:
        slept, transport = waits(origin)
        transport.request_json("POST", "/x", what="asking", idempotent=False)
        transport.close()
    assert len(slept) == 1 and least <= slept[0] <= least + LIMITS.backoff


def test_retry_after_beyond_the_bound_is_not_waited_for() -> None:
    with Origin(lambda _: Reply(503, {"Retry-After": "3600"})) as origin:
        slept, transport = waits(origin)
        with pytest.raises(errors.Unavailable) as caught:
            transport.request_json("GET", "/x", what="asking", idempotent=True)
        transport.close()
    assert not slept and caught.value.retry_after == 3600


def test_waits_grow_and_are_capped() -> None:
    with Origin(lambda _: Reply(503)) as origin:
        slept, transport = waits(origin, retries=9, backoff=0.1, backoff_max=0.4)
        with pytest.raises(errors.Unavailable):
            transport.request_json("GET", "/x", what="asking", idempotent=True)
        transport.close()
    assert len(slept) == 9
    assert all(0 <= wait <= min(0.4, 0.1 * 2**number) for number, wait in enumerate(slept))


BROKEN = [
    Reply(raw=[]),
    Reply(raw=[b"HTTP/1.1 200 OK\r\n"]),
    Reply(200, {}, b'{"a"', length=50),
    Reply(raw=[b"\x00\xff\r\n\r\n"]),
]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_exchange_is_repeated(broken: Reply) -> None:
    with Origin(in_turn(broken, OK)) as origin, client(origin.url) as connection:
        assert ask(connection) == {"ok": True}


@pytest.mark.parametrize("broken", [*BROKEN, Reply(502), Reply(504)])
def test_what_may_have_happened_is_not_repeated(broken: Reply) -> None:
    with Origin(in_turn(broken, OK)) as origin, client(origin.url) as connection:
        with pytest.raises((errors.ConnectionBroken, errors.Unavailable)):
            ask(connection, "POST")
    assert len(origin.asked) == 1


def test_no_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with client(url) as connection, pytest.raises(errors.ConnectFailed):
            ask(connection)


# Bounds


def drip_body(origin: Origin) -> Reply:
    return Reply(200, {}, origin.drip(b" "), length=90_000)


def drip_header(origin: Origin) -> Reply:
    def parts() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nX: "
        yield from origin.drip(b"x")

    return Reply(raw=parts())


def silence(origin: Origin) -> Reply:
    def parts() -> Iterator[bytes]:
        origin.stopping.wait(30)
        yield b""

    return Reply(raw=parts())


@pytest.mark.parametrize("slow", [drip_body, drip_header, silence])
def test_a_peer_that_drips_cannot_hold_us(slow: Callable[[Origin], Reply]) -> None:
    with Origin(lambda _: OK) as origin:
        origin.answer = lambda _: slow(origin)
        with client(origin.url, limits=replace(LIMITS, total=0.3, retries=0)) as connection:
            with pytest.raises(errors.DeadlineExceeded):
                ask(connection)


@pytest.mark.parametrize("length", [None, -1])
def test_a_huge_answer_is_refused(length: int | None) -> None:
    with (
        Origin(lambda _: Reply(200, {}, b'"' + b"x" * 200_000 + b'"', length)) as origin,
        client(origin.url) as connection,
        pytest.raises(errors.ProtocolError),
    ):
        ask(connection)


@pytest.mark.parametrize("body", [b"[]", b"{", b"[" * 50_000, b'{"a":' + b"9" * 5000 + b"}", b'{"a":NaN}', b"\xff"])
def test_an_answer_that_is_no_json_object(body: bytes) -> None:
    with Origin(lambda _: Reply(200, {}, body)) as origin, client(origin.url) as connection:
        with pytest.raises(errors.ProtocolError):
            ask(connection)


def test_a_compressed_answer_is_refused() -> None:
    with Origin(lambda _: Reply(200, {"Content-Encoding": "gzip"}, b"x")) as origin, client(origin.url) as connection:
        with pytest.raises(errors.ProtocolError):
            ask(connection)


# Refusals


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.BadRequest), (422, errors.BadRequest), (401, errors.NotAuthenticated), (403, errors.NotPermitted),
        (404, errors.NotFound), (410, errors.NotFound), (409, errors.Conflict), (412, errors.Conflict),
        (424, errors.Conflict), (413, errors.TooLarge), (429, errors.Unavailable), (500, errors.ServerFault),
        (408, errors.Unavailable),
        (501, errors.ServerFault), (504, errors.Unavailable), (304, errors.ServerFault), (302, errors.ServerFault),
    ],
)  # fmt: skip
def test_each_status_has_its_exception(status: int, kind: type[errors.ApiError]) -> None:
    with Origin(lambda _: as_json({"message": "be\x1b[31mcause\n" + "x" * 999}, status)) as origin:
        with client(origin.url, limits=replace(LIMITS, retries=0)) as connection:
            with pytest.raises(kind) as caught:
                ask(connection)
    text = str(caught.value)
    assert caught.value.status == status and text.startswith("asking: ")
    assert text.isprintable() and len(text) < 400


@pytest.mark.parametrize("body", [b"<html>", b"{", b'{"message": {"a": "\\ud800"}}', b"", b"x" * 100_000])
def test_a_refusal_in_odd_words(body: bytes) -> None:
    with Origin(lambda _: Reply(404, {}, body)) as origin, client(origin.url) as connection:
        with pytest.raises(errors.NotFound) as caught:
            ask(connection)
    str(caught.value).encode()


# Logs


def test_neither_token_nor_signature_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A server that does all it can to have secrets written down."""
    for name in ("", "ivcapfs", "httpx", "httpcore.http11", "httpcore.connection"):
        caplog.set_level(logging.DEBUG, logger=name)
    told = []
    with Origin(lambda _: OK) as store, Origin(lambda _: OK) as origin, client(origin.url) as connection:
        signed = store.url + "/key?X-Signature=canary-signature"
        echo = {"message": f"your token {CANARY} is no good at {signed} or http://u:canary-password@h/"}
        origin.answer = lambda asked: to(signed) if asked.path == "/x" else as_json(echo, 403)
        for status in (200, 403, 500):
            store.answer = lambda _, status=status: as_json(echo, status)  # type: ignore[misc]
            for target in ("/x", "/y", signed):
                try:
                    ask(connection, target=target)
                except errors.IvcapfsError as exc:
                    told += traceback.format_exception(exc)
        store.answer = lambda _: Reply(raw=[b"HTTP/1.1 200 canary-signature\r\nbad header\r\n\r\n"])
        for bad in (signed, "http://169.254.0.1/?s=canary-signature", "http://h.org/?s=canary-signature"):
            with pytest.raises(errors.IvcapfsError) as caught:
                ask(connection, target=bad)
            told.append(str(caught.value))
    assert told and caplog.records
    assert "canary" not in "".join(told) + caplog.text
    assert any(record.name.startswith("ivcapfs") for record in caplog.records)


# Closing


def test_after_close_every_call_says_so() -> None:
    with Origin(lambda _: OK) as origin:
        connection = client(origin.url)
        ask(connection)
        connection.close()
        connection.close()
        with pytest.raises(errors.Closing):
            ask(connection)
        with pytest.raises(errors.Closing), connection.transport.stream("GET", origin.url, what="asking"):
            pass


def failure_of(call: Callable[[], object]) -> Iterable[BaseException]:
    try:
        call()
    except errors.IvcapfsError as exc:
        return [exc]
    return []


@pytest.mark.parametrize("slow", [silence, drip_body])
def test_close_ends_what_other_threads_wait_for(slow: Callable[[Origin], Reply]) -> None:
    arrived = threading.Event()
    failures: list[BaseException] = []
    with Origin(lambda _: OK) as origin:

        def answer(_: Asked) -> Reply:
            arrived.set()
            return slow(origin)

        origin.answer = answer
        connection = client(origin.url, limits=replace(LIMITS, idle=60.0, total=60.0))
        waiting = threading.Thread(target=lambda: failures.extend(failure_of(lambda: ask(connection))))
        waiting.start()
        assert arrived.wait(10)
        connection.close()
        waiting.join(10)
        assert not waiting.is_alive()
    assert [type(failure) for failure in failures] == [errors.Closing]


def test_close_ends_a_wait_between_two_tries() -> None:
    arrived = threading.Event()
    failures: list[BaseException] = []

    def answer(_: Asked) -> Reply:
        arrived.set()
        return Reply(503, {"Retry-After": "50"})

    with Origin(answer) as origin:
        connection = client(origin.url, limits=replace(LIMITS, total=100.0))
        waiting = threading.Thread(target=lambda: failures.extend(failure_of(lambda: ask(connection))))
        waiting.start()
        assert arrived.wait(10)
        connection.close()
        waiting.join(10)
        assert not waiting.is_alive()
    assert [type(failure) for failure in failures] == [errors.Closing]
