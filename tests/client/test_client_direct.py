"""The transport for contents: HTTP as servers speak it, well and badly, on real sockets."""

# ruff: noqa: SIM117 (what is set up, and what is expected of it, on lines of their own)
from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest

from ivcapfs import errors
from ivcapfs.client import Connection
from ivcapfs.client.connections import Connections
from ivcapfs.client.direct import DirectRequest, DirectTransport
from ivcapfs.client.exchange import FileSlice
from ivcapfs.config import Limits
from tests import certificates
from tests.client.fakeorigin import LIMITS, UUID, Asked, Origin, Reply, as_json, client, record

DATA = random.Random(9).randbytes(300_000)
PATIENCE = 20.0
PATIENT = replace(LIMITS, idle=60.0, total=60.0)


class Peer:
    """The server's end of one connection."""

    def __init__(self, server: Server, connected: socket.socket) -> None:
        self.server = server
        self._socket = connected

    def head(self) -> bytes:
        """Return the next request's head; nothing where the client has hung up."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self._socket.recv(1)
            if not byte:
                return b""
            head += byte
        self.server.heads.append(head)
        return head

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self._socket.sendall(part)

    def stall(self) -> None:
        """Say nothing more."""
        self.server.stopping.wait(PATIENCE)


Script = Callable[[Peer], None]


class Server:
    """Each connection is served by a script of its own, the last of them by those of all further ones."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self._scripts = scripts
        self._tls = tls
        self.heads: list[bytes] = []
        self.accepted = 0
        self.arrived = threading.Event()
        self.stopping = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"{'https' if tls else 'http'}://localhost:{self._socket.getsockname()[1]}"
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connected in self._sockets:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connected, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _start(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connected = self._socket.accept()[0]
                self._sockets.append(connected)
                script = self._scripts[min(self.accepted, len(self._scripts) - 1)]
                self.accepted += 1
                self.arrived.set()
                self._start(self._serve, script, connected)

    def _serve(self, script: Script, connected: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(connected)
            if self._tls is not None:
                connected = stack.enter_context(self._tls.wrap_socket(connected, server_side=True))
                self._sockets.append(connected)
            script(Peer(self, connected))


def ok(body: bytes = DATA, *headers: str, length: int | None = None) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(body: bytes = DATA, size: int = 9999, end: bytes = b"0\r\n\r\n") -> bytes:
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end


def again_and_again(*replies: bytes) -> Script:
    """Answer every request on the connection with the same bytes."""

    def serve(peer: Peer) -> None:
        while peer.head():
            peer.send(*replies)

    return serve


def once(*replies: bytes) -> Script:
    """Answer one request and hang up."""

    def serve(peer: Peer) -> None:
        peer.head()
        peer.send(*replies)

    return serve


def then_stall(*replies: bytes) -> Script:
    def serve(peer: Peer) -> None:
        peer.head()
        peer.send(*replies)
        peer.stall()

    return serve


def fetch(connection: Connection, url: str, room: int = 1 << 20) -> bytes:
    """Read a body to its end, `room` bytes at a time."""
    body, buffer = bytearray(), memoryview(bytearray(room))
    with connection.transport.stream("GET", url + "/x", what="reading", direct=True) as stream:
        while got := stream.readinto(buffer):
            body += buffer[:got]
    return bytes(body)


# -- bodies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 65_536, 300_000])
@pytest.mark.parametrize("room", [7000, 8192, 1 << 20])
@pytest.mark.parametrize("form", ["counted", "split", "closing", "chunked", "to the end"])
def test_any_body_into_any_view(size: int, room: int, form: str) -> None:
    body = DATA[:size]
    whole = {
        "counted": [ok(body)],
        "split": [ok(body)[:20], ok(body)[20:50], ok(body)[50:9000], ok(body)[9000:]],
        "closing": [ok(body, "Connection: close")],
        "chunked": [chunked(body)],
        "to the end": [b"HTTP/1.1 200 OK\r\n\r\n" + body],
    }[form]
    reused = form in ("counted", "split", "chunked")
    with Server(again_and_again(*whole) if reused else once(*whole)) as server, client(server.url) as connection:
        for _ in range(2):
            assert fetch(connection, server.url, room) == body
        assert server.accepted == (1 if reused else 2)


def test_a_body_can_be_iterated_too() -> None:
    with Server(again_and_again(ok())) as server, client(server.url) as connection:
        with connection.transport.stream("GET", server.url, what="reading", direct=True) as stream:
            assert b"".join(stream.chunks()) == DATA


def test_leaving_early_ends_the_connection() -> None:
    with Server(again_and_again(ok())) as server, client(server.url) as connection:
        with connection.transport.stream("GET", server.url, what="reading", direct=True) as stream:
            assert stream.readinto(memoryview(bytearray(10))) == 10
        assert fetch(connection, server.url) == DATA
        assert server.accepted == 2


@pytest.mark.parametrize(
    "short",
    [
        ok(DATA[:-1], length=len(DATA)),
        ok(b"", length=5),
        ok(DATA[:9000], "Connection: close", length=9001),
        chunked(end=b""),
        chunked(end=b"5\r\nab"),
        chunked(end=b"no number\r\n"),
    ],
)
def test_a_body_that_ends_too_early_is_no_body(short: bytes) -> None:
    with Server(once(short)) as server, client(server.url) as connection:
        with pytest.raises(errors.ConnectionBroken):
            fetch(connection, server.url)


def test_what_comes_behind_a_body_is_not_taken_for_the_next_answer() -> None:
    smuggled = ok(b"not what was asked for")
    with Server(once(ok(b"first") + smuggled), again_and_again(ok())) as server, client(server.url) as connection:
        assert fetch(connection, server.url) == b"first"
        assert fetch(connection, server.url) == DATA
    with Server(then_stall(ok() + b"x" + smuggled), again_and_again(ok())) as server, client(server.url) as connection:
        assert fetch(connection, server.url) == DATA
        assert fetch(connection, server.url) == DATA
        assert server.accepted == 2


# -- kept connections --------------------------------------------------------------------------------------------


def test_a_kept_connection_that_was_closed_meanwhile_is_replaced() -> None:
    with Server(once(ok())) as server, client(server.url) as connection:
        for _ in range(5):
            assert fetch(connection, server.url) == DATA
        assert server.accepted == len(server.heads) == 5


@pytest.mark.parametrize("instead", [b"", b"garbage\r\n\r\n"])
def test_a_kept_connection_that_ends_with_the_next_request_gets_one_fresh_try(instead: bytes) -> None:
    def serve(peer: Peer) -> None:
        peer.head()
        peer.send(ok())
        peer.head()
        peer.send(instead)

    with Server(serve, once(ok()), once()) as server, client(server.url) as connection:
        assert [fetch(connection, server.url) for _ in range(2)] == [DATA] * 2
        assert (server.accepted, len(server.heads)) == (2, 3)
        with pytest.raises(errors.ConnectionBroken):
            fetch(connection, server.url)
        assert server.accepted == 3  # a fresh connection that ends is the caller's business


@pytest.mark.parametrize(
    ("instead", "failure"),
    [(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200, errors.ConnectionBroken), (b"HTTP/1", errors.DeadlineExceeded)],
)
def test_what_goes_wrong_on_a_kept_connection_has_our_names(instead: bytes, failure: type[Exception]) -> None:
    def serve(peer: Peer) -> None:
        peer.head()
        peer.send(ok())
        peer.head()
        peer.send(instead)
        peer.stall()

    with Server(serve) as server, client(server.url, limits=replace(LIMITS, idle=0.3)) as connection:
        assert fetch(connection, server.url) == DATA
        with pytest.raises(failure):
            fetch(connection, server.url)
        assert server.accepted == 1


def test_connections_kept_too_long_are_closed_whatever_origin_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    hung_up = threading.Event()

    def serve(peer: Peer) -> None:
        again_and_again(ok())(peer)
        hung_up.set()

    with Server(serve) as old, Server(again_and_again(ok())) as new, client(new.url) as connection:
        fetch(connection, old.url)
        monkeypatch.setattr("ivcapfs.client.direct._KEEP_SECONDS", -1.0)
        fetch(connection, new.url)
        assert hung_up.wait(PATIENCE)


def test_a_connection_given_back_after_the_end_is_closed() -> None:
    with Server(again_and_again(ok())) as server:
        transport = DirectTransport(Connections(lambda: None))
        timeouts = {"connect": 5.0, "read": Still(replace(LIMITS, idle=5.0))}
        answer = transport.ask(DirectRequest("GET", httpx.URL(server.url), {}, {"timeout": timeouts}))
        transport.close()
        assert b"".join(answer.iter_raw()) == DATA
        answer.close()
        assert not transport._idle


class Still:
    """A patience that does not shrink."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def left(self) -> float:
        return self._limits.idle


# -- heads -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["100 Continue", "102 Processing", "103 Early Hints"])
def test_what_comes_before_the_answer_is_dropped(status: str) -> None:
    hint = f"HTTP/1.1 {status}\r\nLink: </x>\r\n\r\n".encode()
    with Server(again_and_again(hint, hint, ok())) as server, client(server.url) as connection:
        assert [fetch(connection, server.url) for _ in range(2)] == [DATA] * 2
        assert server.accepted == 1


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 " + b"2" * 70_000 + b"\r\n\r\n",
        b"\x00\xff\r\n\r\n",
        b"",
    ],
)
def test_heads_that_are_none(head: bytes) -> None:
    with Server(once(head)) as server, client(server.url) as connection:
        with pytest.raises(errors.ConnectionBroken):
            fetch(connection, server.url)


@pytest.mark.parametrize("drop", [b"A", b"A: b\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_head_that_never_ends_is_given_up_within_the_bound(drop: bytes) -> None:
    def serve(peer: Peer) -> None:
        peer.head()
        while not peer.server.stopping.wait(0.03):
            peer.send(drop)

    limits = replace(LIMITS, idle=0.4, total=0.5)
    with Server(serve) as server, client(server.url, limits=limits) as connection:
        with pytest.raises((errors.DeadlineExceeded, errors.ConnectionBroken)):
            fetch(connection, server.url)


# -- silence -----------------------------------------------------------------------------------------------------

STALLS = {
    "before the head": (),
    "in the head": (b"HTTP/1.1 200 OK\r\n",),
    "before the body": (ok(b"", length=500),),
    "behind the head": (ok(b"x", length=500_000),),
    "in the body": (ok(DATA, length=500_000),),
    "in a chunk": (chunked()[:200_000],),
    "between chunks": (chunked(end=b""),),
}


@pytest.mark.parametrize("replies", STALLS.values(), ids=STALLS)
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
def test_silence_is_given_up(replies: tuple[bytes, ...], encrypted: bool, trusted: ssl.SSLContext) -> None:
    limits = replace(LIMITS, idle=0.3)
    with Server(then_stall(*replies), tls=trusted if encrypted else None) as server:
        with client(server.url, limits=limits) as connection, pytest.raises(errors.DeadlineExceeded):
            fetch(connection, server.url)


@pytest.mark.parametrize("encrypted", [False, True])
def test_what_never_becomes_a_byte_is_silence(encrypted: bool, trusted: ssl.SSLContext) -> None:
    """The line before a chunk, and a record of TLS, come byte by byte, and are nothing before they are whole."""

    def serve(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        if not encrypted:
            peer.send(b"5;")
        for byte in (b"\x17\x03\x03\x40\x00" if encrypted else b"") + b"x" * 3000:
            socket.socket.send(peer._socket, bytes([byte]))
            if peer.server.stopping.wait(0.03):
                return

    limits = replace(LIMITS, idle=0.3, retries=0)
    with Server(serve, tls=trusted if encrypted else None) as server, client(server.url, limits=limits) as connection:
        with pytest.raises(errors.DeadlineExceeded):
            fetch(connection, server.url)


@pytest.mark.timeout(15)
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
def test_a_server_that_takes_nothing_is_given_up(encrypted: bool, trusted: ssl.SSLContext, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(32 * 1024 * 1024))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(then_stall(), tls=trusted if encrypted else None))
        file = stack.enter_context((tmp_path / "file").open("rb"))
        connection = stack.enter_context(client(server.url, limits=replace(LIMITS, idle=0.5, total=60.0)))
        with pytest.raises(errors.DeadlineExceeded):
            content = FileSlice(file.fileno(), 0, 32 * 1024 * 1024)
            stack.enter_context(connection.transport.stream("PATCH", server.url, what="sending", content=content))


@pytest.mark.parametrize("replies", STALLS.values(), ids=STALLS)
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
def test_close_wakes_who_reads(replies: tuple[bytes, ...], encrypted: bool, trusted: ssl.SSLContext) -> None:
    sent = threading.Event()

    def serve(peer: Peer) -> None:
        peer.head()
        peer.send(*replies)
        sent.set()
        peer.stall()

    with Server(serve, tls=trusted if encrypted else None) as server:
        assert_woken_by_close(server, sent)


def test_close_wakes_who_greets() -> None:
    """The server takes the connection, and says nothing to TLS's greeting."""
    with Server(lambda peer: peer.stall()) as server:
        assert_woken_by_close(server, server.arrived, server.url.replace("http:", "https:"))


def assert_woken_by_close(server: Server, ready: threading.Event, url: str | None = None) -> None:
    connection, failures = client(server.url, limits=replace(PATIENT, connect=60.0)), list[BaseException]()

    def work() -> None:
        try:
            fetch(connection, url or server.url)
        except BaseException as exc:  # noqa: BLE001 - looked at below
            failures.append(exc)

    reading = threading.Thread(target=work)
    reading.start()
    assert ready.wait(PATIENCE)
    connection.close()
    reading.join(PATIENCE)
    assert not reading.is_alive()
    assert [type(failure) for failure in failures] == [errors.Closing]


def test_a_stall_in_the_middle_is_resumed_over_tls_too(trusted: ssl.SSLContext) -> None:
    head = f'HTTP/1.1 206 P\r\nETag: "1"\r\nContent-Range: bytes %d-{len(DATA) - 1}/{len(DATA)}\r\n\r\n'

    def serve(peer: Peer) -> None:
        asked = peer.head()
        start = int(asked.split(b"bytes=")[1].split(b"-")[0])
        peer.send((head % start).encode(), DATA[start : start + 200_000])
        peer.stall() if start + 200_000 < len(DATA) else None

    with (
        Server(serve, tls=trusted) as store,
        Origin(lambda _: as_json(record(**{"data-href": store.url + "/k"}))) as at,
    ):
        with client(at.url, limits=replace(LIMITS, idle=0.3)) as connection:
            with connection.blobs.open_range(UUID, 0, len(DATA), expected=None) as stream:
                assert b"".join(stream) == DATA
        assert store.accepted == 2


# -- TLS ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificates.make(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture
def presented(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    """The server's side of a certificate that nobody knows."""
    return certificates.shown_by(certificate)


@pytest.fixture
def trusted(
    presented: ssl.SSLContext, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> ssl.SSLContext:
    """The server's side of a certificate that the environment names as good."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[1]))
    return presented


def test_tls_with_a_certificate_that_is_known(trusted: ssl.SSLContext) -> None:
    with Server(again_and_again(ok()), tls=trusted) as server, client(server.url) as connection:
        for room in (7000, 8192, 1 << 20):
            assert fetch(connection, server.url, room) == DATA
        assert server.accepted == 1


def test_a_kept_tls_connection_that_was_closed_is_replaced(trusted: ssl.SSLContext) -> None:
    with Server(once(ok()), tls=trusted) as server, client(server.url) as connection:
        assert [fetch(connection, server.url) for _ in range(3)] == [DATA] * 3


def test_a_certificate_that_nobody_knows_is_refused(presented: ssl.SSLContext) -> None:
    with Server(again_and_again(ok()), tls=presented) as server, client(server.url) as connection:
        with pytest.raises(errors.ConnectFailed, match="certificate"):
            fetch(connection, server.url)
        assert not server.heads


def test_a_certificate_for_another_name_is_refused(trusted: ssl.SSLContext) -> None:
    with Server(again_and_again(ok()), tls=trusted) as server, client(server.url) as connection:
        with pytest.raises(errors.ConnectFailed, match="certificate"):
            fetch(connection, server.url.replace("localhost", "127.0.0.1"))


# -- where it connects to ----------------------------------------------------------------------------------------


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("no_proxies")
def test_behind_a_proxy_contents_go_through_it_and_loopback_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def proxy(asked: Asked) -> Reply:
        return Reply(200, {}, asked.target.encode())

    with Origin(proxy) as through, Server(again_and_again(ok())) as server:
        monkeypatch.setenv("http_proxy", through.url)
        with client(server.url, allow_http=True) as connection:
            assert fetch(connection, "http://content.invalid") == b"http://content.invalid/x"
            assert fetch(connection, server.url) == DATA
        assert len(through.asked) == 1


@pytest.mark.parametrize("scheme", ["http:", "https:"])
def test_a_name_that_leads_to_a_link_local_address_is_not_even_greeted(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    greeting: list[bytes] = []
    done = threading.Event()

    def serve(peer: Peer) -> None:
        with contextlib.suppress(OSError):
            greeting.append(peer._socket.recv(1))
        done.set()

    with Server(serve) as server, client(server.url) as connection:
        monkeypatch.setattr("ivcapfs.client.connections.is_link_local", lambda host: host == "127.0.0.1")
        with pytest.raises(errors.OriginRefused):
            fetch(connection, server.url.replace("http:", scheme))
        assert done.wait(PATIENCE) and b"".join(greeting) == b""


def test_no_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with client(url) as connection, pytest.raises(errors.ConnectFailed):
            fetch(connection, url)


# -- what is left behind -----------------------------------------------------------------------------------------


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_two_hundred_transfers_leave_no_descriptor_behind(trusted: ssl.SSLContext) -> None:
    small = DATA[:20_000]
    scripts: list[Script] = [
        once(ok(small)), once(ok(small, "Connection: close")), once(chunked(small)), once(ok(small, length=30_000)),
        once(), once(b"garbage\r\n\r\n"), once(ok(small)[:10]), once(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200),
    ]  # fmt: skip
    before = descriptors()
    with Server(*scripts * 25) as server, Server(*scripts * 4, tls=trusted) as secure:
        seen = []
        with client(server.url) as connection:
            for number in range(200):
                with contextlib.suppress(errors.ConnectionBroken):
                    seen.append(fetch(connection, server.url if number % 8 else secure.url))
        assert seen.count(small) >= 50
    wait_for_descriptors(before)


def wait_for_descriptors(most: int) -> None:
    for _ in range(200):
        if descriptors() <= most:
            return
        threading.Event().wait(0.02)
    raise AssertionError(f"{descriptors()} descriptors, {most} before")


def test_many_threads_share_the_connections() -> None:
    wrong: list[object] = []
    with Server(again_and_again(ok())) as server, client(server.url) as connection:

        def work(seed: int) -> None:
            dice = random.Random(seed)
            for _ in range(10):
                got = fetch(connection, server.url, dice.choice((7000, 8192, 100_000)))
                if got != DATA:
                    wrong.append(seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert not wrong
        assert server.accepted <= 8 and len(server.heads) == 80
