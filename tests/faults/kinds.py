"""What can go wrong with an answer: every kind of fault, what it spoils, and what a caller may be told of it.

Used by `reads`. Each kind is one function that answers in the platform's place. Where it changes bytes of a content,
it is only in ways that an answer's own words give away: its length, its range, its total, its validator.

`VERSION` is another content of the same length, under an ETag of its own: a reader may get all of it or nothing of it.
"""

from __future__ import annotations

import errno
import gzip
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from tests.faults.faultserver import Answer, Line, Request, Spoil

ANY, BLOB, JSON, LIST = "any", "blob", "json", "list"
USUAL = frozenset({errno.EIO, errno.ETIMEDOUT})
"""What a caller may be told of any fault: no whole answer came, or none that makes sense."""
FLIP = bytes(byte ^ 0x5A for byte in range(256))
HUGE = 3 << 19
"""Bytes of the largest JSON that is sent, half as much again as what the harness's client takes."""
STATUSES = {
    401: errno.EACCES, 403: errno.EACCES, 404: errno.ENOENT, 408: errno.EIO, 410: errno.ENOENT, 412: errno.EBUSY,
    416: errno.ESTALE, 429: errno.EIO, 500: errno.EIO, 502: errno.EIO, 503: errno.EIO, 504: errno.EIO,
}  # fmt: skip
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        scope: what it spoils: `ANY` answer, a `BLOB`'s, `JSON`, or a `LIST`.
        errnos: what a caller may be told, besides `USUAL`.
        lasts: whether it makes sense only if it goes on.
    """

    name: str
    scope: str
    spoil: Spoil
    errnos: frozenset[int] = frozenset()
    lasts: bool = False


class Elsewhere:
    """Addresses that lead nowhere: a port that refuses, and one that takes connections and never says a word."""

    def __init__(self) -> None:
        self._silent = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._held: list[socket.socket] = []
        with socket.create_server(("127.0.0.1", 0)) as closed:
            refusing = closed.getsockname()[1]
        self.refuses = f"http://127.0.0.1:{refusing}"
        self.greets_never = f"https://127.0.0.1:{self._silent.getsockname()[1]}"
        threading.Thread(target=self._hold, name="silent", daemon=True).start()

    def _hold(self) -> None:
        while True:
            try:
                self._held.append(self._silent.accept()[0])
                if len(self._held) > 64:
                    self._held.pop(0).close()
            except OSError:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._silent.shutdown(socket.SHUT_RDWR)
        self._silent.close()
        for connected in self._held:
            connected.close()


def other(data: bytes) -> bytes:
    """Return the same stretch of the other version."""
    return data.translate(FLIP)


# -- the connection --------------------------------------------------------------------------------------------------


def _reset_before(line: Line, request: Request, answer: Answer) -> None:
    line.reset()


def _reset_inside(line: Line, request: Request, answer: Answer) -> None:
    line.send(answer.head() + answer.body[: len(answer.body) // 2])
    line.reset()


def _hang_up(line: Line, request: Request, answer: Answer) -> None:
    line.hang_up()


def _short(line: Line, request: Request, answer: Answer) -> None:
    line.send(answer.head() + answer.body[: len(answer.body) // 2])
    line.hang_up()


def _trickle(line: Line, request: Request, answer: Answer) -> None:
    """A byte, and the end: each answer brings something, and all of them together never enough."""
    line.send(answer.head() + answer.body[:1])
    line.hang_up()


def _behind(line: Line, request: Request, answer: Answer) -> None:
    """What comes behind the body would be the next answer of a connection that is kept."""
    line.send(answer.head() + answer.body + b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n!")


def _stall_before(line: Line, request: Request, answer: Answer) -> None:
    line.stall()


def _stall_inside(line: Line, request: Request, answer: Answer) -> None:
    line.send(answer.head() + answer.body[: len(answer.body) // 2])
    line.stall()


def _drip(line: Line, request: Request, answer: Answer) -> None:
    line.send(answer.head())
    line.drip(answer.body)


def _drip_head(line: Line, request: Request, answer: Answer) -> None:
    line.drip(answer.head())


def _drip_chunk(line: Line, request: Request, answer: Answer) -> None:
    """The line that tells how long a chunk is does not end."""
    line.send(answer.head(chunked=True))
    line.drip(b"1;" + b"x" * 1000)


# -- the framing -----------------------------------------------------------------------------------------------------


def _no_http(line: Line, request: Request, answer: Answer) -> None:
    line.send(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    line.hang_up()


def _endless_head(line: Line, request: Request, answer: Answer) -> None:
    line.send(b"HTTP/1.1 200 OK\r\n" + b"x-filler: %s\r\n" % (b"y" * 1000) * 90)
    line.stall()


def _two_lengths(line: Line, request: Request, answer: Answer) -> None:
    length = str(len(answer.body) + 1)
    line.send(answer.but(content_length=length).head() + answer.body)
    line.hang_up()


def _no_length(line: Line, request: Request, answer: Answer) -> None:
    line.send(answer.head(length=-1) + answer.body[: len(answer.body) // 2])
    line.hang_up()


def _broken_chunks(line: Line, request: Request, answer: Answer) -> None:
    half = answer.body[: len(answer.body) // 2]
    line.send(answer.head(chunked=True) + b"%x\r\n" % len(half) + half + b"\r\nzz\r\n")
    line.hang_up()


def _cut_chunks(line: Line, request: Request, answer: Answer) -> None:
    half = answer.body[: len(answer.body) // 2]
    line.send(answer.head(chunked=True) + b"%x\r\n" % len(answer.body) + half)
    line.hang_up()


def _gzip(line: Line, request: Request, answer: Answer) -> None:
    line.answer(answer.but(gzip.compress(answer.body, 1), content_encoding="gzip"))


# -- refusals and redirects ------------------------------------------------------------------------------------------


def _refuse(status: int) -> Spoil:
    def spoil(line: Line, request: Request, answer: Answer) -> None:
        line.answer(Answer(status, {"content-type": "application/json"}, b'{"message": "a fault"}'))

    return spoil


def _come_back_late(line: Line, request: Request, answer: Answer) -> None:
    line.answer(Answer(503, {"retry-after": "86400"}, b""))


def _redirect(location: Callable[[Request], str], status: int = 302) -> Spoil:
    def spoil(line: Line, request: Request, answer: Answer) -> None:
        line.answer(Answer(status, {"location": location(request)}, b"elsewhere"))

    return spoil


def _next_hop(request: Request) -> str:
    """Return this address with one more hop in its query."""
    path, _, query = request.target.partition("?")
    kept = [word for word in query.split("&") if word and not word.startswith("hop=")]
    hop = re.search(r"hop=(\d+)", query)
    return f"{path}?{'&'.join([*kept, f'hop={int(hop[1]) + 1 if hop else 1}'])}"


# -- ranges and validators -------------------------------------------------------------------------------------------


def _span(answer: Answer) -> tuple[int, int, int]:
    found = _RANGE.fullmatch(answer.headers.get("content-range", ""))
    return (int(found[1]), int(found[2]), int(found[3])) if found else (0, len(answer.body) - 1, len(answer.body))


def _blob(change: Callable[[Answer, int, int, int], Answer]) -> Spoil:
    """Change the answer to a ranged GET, given its first and last byte and the total; any other is only broken off."""

    def spoil(line: Line, request: Request, answer: Answer) -> None:
        if answer.status != 206:
            line.hang_up()
        line.answer(change(answer, *_span(answer)))

    return spoil


def _shifted(answer: Answer, first: int, last: int, total: int) -> Answer:
    """Other bytes than those asked for; the range says so."""
    body = answer.body[1:] + b"?"
    return answer.but(body, content_range=f"bytes {first + 1}-{last + 1}/{total + 1}")


def _longer(answer: Answer, first: int, last: int, total: int) -> Answer:
    return answer.but(answer.body + b"?" * 100, content_range=f"bytes {first}-{last + 100}/{total + 100}")


def _misfit(answer: Answer, first: int, last: int, total: int) -> Answer:
    """The range is as asked for, and the body is shorter than it says."""
    return answer.but(other(answer.body)[:-1])


def _another_total(answer: Answer, first: int, last: int, total: int) -> Answer:
    return answer.but(content_range=f"bytes {first}-{last}/{total + 1}")


def _multipart(answer: Answer, first: int, last: int, total: int) -> Answer:
    part = b"--x\r\ncontent-range: bytes %d-%d/%d\r\n\r\n" % (first, last, total) + answer.body + b"\r\n--x--\r\n"
    return answer.but(part, content_range=None, content_type="multipart/byteranges; boundary=x")


def _without_range(line: Line, request: Request, answer: Answer) -> None:
    line.answer(answer.but(other(answer.body), content_range=None))


def _half_as_whole(answer: Answer, first: int, last: int, total: int) -> Answer:
    """A 200 whose body is not all of the content."""
    return answer.but(status=200, content_range=None, body=other(answer.body)[: total - 1])


# -- JSON ------------------------------------------------------------------------------------------------------------


def _text(change: Callable[[bytes], bytes]) -> Spoil:
    def spoil(line: Line, request: Request, answer: Answer) -> None:
        line.answer(answer.but(change(answer.body)))

    return spoil


def _value(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Change the object that was answered, in place; a refusal stays as it is."""

    def spoil(line: Line, request: Request, answer: Answer) -> None:
        try:
            value = json.loads(answer.body or b"{}")
        except ValueError:  # a content, which somebody still reads
            line.hang_up()
        change(value)
        line.answer(answer.but(json.dumps(value).encode()))

    return spoil


def _deep(body: bytes) -> bytes:
    return b'{"deep": ' + b"[" * 100_000 + b"]" * 100_000 + b", " + body.lstrip()[1:]


def _huge(body: bytes) -> bytes:
    return b'{"padding": "' + b"x" * HUGE + b'", ' + body.lstrip()[1:]


def _digits(body: bytes) -> bytes:
    return b'{"number": ' + b"9" * 5000 + b", " + body.lstrip()[1:]


def _nan(body: bytes) -> bytes:
    return b'{"number": NaN, ' + body.lstrip()[1:]


def _twice(body: bytes) -> bytes:
    """The wrong value comes first: who takes the last of a name has the right one."""
    return b'{"id": "urn:x", "name": "wrong", "size": 1, "items": [], "links": [], ' + body.lstrip()[1:]


def _surrogates(value: dict[str, Any]) -> None:
    """Halves of characters wherever a text is that nobody needs to find an artifact."""
    for each in [value, *value.get("items", [])]:
        each.update({"policy": "urn:\ud800", "account": "\udfff", "mime-type": "text/\ud800", "odd": "\ud800"})


class _Paging:
    """A list whose next link never ends: to a page that was there already, or each time to a new one.

    Threading: the lists are asked for by many; `_lock` guards `_page` and the count.
    """

    def __init__(self, *, fresh: bool) -> None:
        self._fresh = fresh
        self._lock = threading.Lock()
        self._page: dict[str, Any] = {}
        self._count = 0

    def __call__(self, line: Line, request: Request, answer: Answer) -> None:
        with self._lock:
            if "page=again" not in request.target:
                self._page = json.loads(answer.body)
            self._count += self._fresh
            link = {"rel": "next", "href": f"/1/artifacts?page=again-{self._count}"}
            value = {**self._page, "links": [link]}
        line.answer(answer.but(json.dumps(value).encode(), status=200))


def _bad_next(value: dict[str, Any]) -> None:
    value["links"] = [{"rel": "next", "href": "http://[/1/artifacts?x=y"}]


def kinds(elsewhere: Elsewhere) -> tuple[Kind, ...]:
    """Return all kinds of faults."""
    stale = frozenset({errno.ESTALE})
    refused = frozenset({errno.EPERM})
    return (
        Kind("reset before the answer", ANY, _reset_before),
        Kind("reset inside the body", ANY, _reset_inside),
        Kind("hung up without an answer", ANY, _hang_up),
        Kind("short body", ANY, _short),
        Kind("one byte per answer", ANY, _trickle),
        Kind("bytes behind the body", ANY, _behind),
        Kind("stall before the answer", ANY, _stall_before),
        Kind("stall inside the body", ANY, _stall_inside),
        Kind("drip of the body", ANY, _drip),
        Kind("drip of the head", ANY, _drip_head),
        Kind("drip of a chunk's length", ANY, _drip_chunk),
        Kind("no HTTP", ANY, _no_http),
        Kind("endless head", ANY, _endless_head),
        Kind("two lengths", ANY, _two_lengths),
        Kind("half a body without length", ANY, _no_length, stale),
        Kind("chunks that are none", ANY, _broken_chunks),
        Kind("chunks that end too early", ANY, _cut_chunks),
        Kind("gzip", ANY, _gzip),
        *(Kind(f"status {status}", ANY, _refuse(status), frozenset({told})) for status, told in STATUSES.items()),
        Kind("Retry-After of a day", ANY, _come_back_late),
        Kind("redirect in a circle", ANY, _redirect(lambda asked: asked.target), refused),
        Kind("redirects without end", ANY, _redirect(_next_hop, 307), refused),
        Kind("redirect to link-local", ANY, _redirect(lambda _: "http://169.254.169.254/latest"), refused),
        Kind("redirect to plain http elsewhere", ANY, _redirect(lambda _: "http://example.org/"), refused),
        Kind("redirect to no address", ANY, _redirect(lambda _: "http://[::bad/"), refused),
        Kind("connection refused", ANY, _redirect(lambda asked: elsewhere.refuses + asked.target)),
        Kind("no TLS greeting", ANY, _redirect(lambda asked: elsewhere.greets_never + asked.target)),
        Kind("no such host", ANY, _redirect(lambda asked: "https://nowhere.invalid" + asked.target)),
        Kind("status 304", ANY, _refuse(304)),
        Kind("range of other bytes", BLOB, _blob(_shifted), stale),
        Kind("longer range", BLOB, _blob(_longer), stale),
        Kind("shorter than its range", BLOB, _blob(_misfit)),
        Kind("several ranges", BLOB, _blob(_multipart)),
        Kind("no Content-Range", BLOB, _without_range, stale),
        Kind("a part as the whole", BLOB, _blob(_half_as_whole), stale),
        Kind("another total", BLOB, _blob(_another_total), stale),
        Kind("other content, its own ETag", BLOB, _blob(lambda a, *_: a.but(other(a.body), etag='"b"')), stale),
        Kind("no ETag", BLOB, _blob(lambda a, *_: a.but(etag=None)), stale),
        Kind("weak ETag", BLOB, _blob(lambda a, *_: a.but(etag="W/" + a.headers["etag"])), stale),
        Kind("truncated JSON", JSON, _text(lambda body: body[:-3])),
        Kind("deep JSON", JSON, _text(_deep)),
        Kind("huge JSON", JSON, _text(_huge)),
        Kind("number of 5,000 digits", JSON, _text(_digits)),
        Kind("NaN", JSON, _text(_nan)),
        Kind("names twice", JSON, _text(_twice)),
        Kind("half surrogate pairs", JSON, _value(_surrogates)),
        Kind("a list, no object", JSON, _text(lambda body: b"[" + body + b"]")),
        Kind("HTML", JSON, _text(lambda _: b"<html>Welcome to the Wi-Fi</html>")),
        Kind("no text", JSON, _text(lambda body: b"\xff\xfe\x00" + body)),
        Kind("next page for ever", LIST, _Paging(fresh=True), lasts=True),
        Kind("next page in a circle", LIST, _Paging(fresh=False), lasts=True),
        Kind("next page that is no address", LIST, _value(_bad_next)),
    )
