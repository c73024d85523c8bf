"""Answers of a platform gone mad: what it would say, with anything in it exchanged, doubled, cut or made up.

Used by `fuzz`. `Answers` begins with a good answer to each call and then changes its values, its text and its head,
none of it or several times, as a seeded generator says. Hypothesis would spend more time than the client on 100,000.

Threading: an `Answers` belongs to one thread at a time.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from tests.hostile import HOSTILE

UUIDS = tuple(f"{number:08x}-0000-4000-8000-{number:012x}" for number in range(1, 9))
ARTIFACT = "urn:ivcap:artifact:"
SCHEMAS = (
    "urn:ivcap:schema:collection.1", "urn:ivcap:schema:collection-item.1", "urn:ivcap:schema:artifact-collection.1",
    "urn:ivcap:schema:tides.1", "urn:x", "x" * 300,
)  # fmt: skip
COLLECTION = "urn:ivcap:collection:3f2a9c1e-7b4d-4e0a-9c58-1d6f0a2b3c4d"
CONTENT = bytes(range(256)) * 20
MOST_CHANGES = 4


class Raw(str):
    """Text that stands in JSON as it is."""


class Pairs(list[tuple[Any, Any]]):
    """An object whose names may come more than once, and need not be texts."""


def dump(value: Any) -> str:
    """Return JSON, as far as the value is any."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, dict | Pairs):
        pairs = value.items() if isinstance(value, dict) else value
        return "{" + ",".join(f"{dump(name)}:{dump(each)}" for name, each in pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dump, value)) + "]"
    return json.dumps(value)


def _nested(depth: int) -> Raw:
    return Raw("[" * depth + "]" * depth)


def _nested_objects(depth: int) -> Raw:
    return Raw('{"a":' * depth + "1" + "}" * depth)


ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**40, 1.5, -0.0, 1e308,
    Raw("NaN"), Raw("Infinity"), Raw("-Infinity"), Raw("1e999"), Raw("-1e999"), Raw("01"), Raw("9" * 5000),
    Raw('"\\ud800"'), Raw('"\\udc00x"'), Raw('"\\ud83d\\ude00"'), Raw('"\\u0000"'), Raw('"\\x"'), Raw('"\x01"'),
    "", " ", "\n", "x" * 300, "x" * 70_000, "é" * 5000, [], {}, [[]], [None], [{}], {"": ""}, {"id": None},
    *map(_nested, (50, 300, 700, 900, *range(930, 975, 5), 990, 5000)), *map(_nested_objects, (100, 400, 800, 20_000)),
    "ready", "pending", "error", "READY", "gone",
    "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999-23:59", "9999-12-31T23:59:59Z",
    "2026-02-30T00:00:00Z", "2026-06-01", "1970-01-01T00:00:00Z", "1600-01-01T00:00:00Z", "now",
    *(ARTIFACT + uuid for uuid in UUIDS), *(uuid.upper() for uuid in UUIDS[:2]), ARTIFACT, ARTIFACT + "x", COLLECTION,
    "urn:ivcap:aspect:1", "/1/artifacts?page=abc", "/1/artifacts?page=", "?page=" + "y" * 9000, "http://[", "//",
    "http://169.254.169.254/x", "https://example.invalid/x", "ftp://x/y", "javascript:1", "http://a@b/", "\x00", "..",
    "http://127.0.0.1:99999/", "http://\ud800/", "https://xn--a/", "https://xn--zckzah.invalid/", "/1/artifacts/../..",
    *HOSTILE,
)  # fmt: skip
"""Values that something may stumble over."""

HEADERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Content-Length", ("0", "5", "99999", "-1", "+5", "5, 5", "5, 6", "1e3", " ", "9" * 30, "x", "٣")),
    ("Transfer-Encoding", ("chunked", "gzip, chunked", "identity", "chunked, chunked", "x")),
    ("Content-Encoding", ("gzip", "identity", "br", "", "deflate, gzip")),
    ("Content-Range", ("bytes 0-9/10", "bytes 0-0/5120", "bytes */5120", "bytes */0", "bytes 5-1/9", "bytes 0-9/*",
                       "bytes 0-9", "items 0-9/10", "bytes 99999999999999999999-1/2", "bytes 0-5119/5120")),
    ("ETag", ('"a"', 'W/"a"', "", "a", '"\xff"', '"' + "e" * 5000 + '"', '"a" "b"')),
    ("Last-Modified", ("Mon, 01 Jun 2026 00:00:00 GMT", "never", "")),
    ("Location", ("/1/artifacts", "", "http://[::", "//", "http://169.254.1.1/", "\xff", "?hop=1", "https://x.invalid/",
                  "http://u:p@127.0.0.1/", "http://127.0.0.1:0/", "http://127.0.0.1:99999999/", "x" * 9000)),
    ("Retry-After", ("0", "1", "99999999999", "-5", "Mon, 01 Jun 2026 00:00:00 GMT", "Mon, 99 Jun", "\xb2", "nan")),
    ("Upload-Offset", ("0", "5", "5120", "-1", "9" * 40, "x", "")),
    ("Upload-Length", ("0", "5", "5120", "-1", "x")),
    ("Set-Cookie", ("a=b; domain=.com", "=", "a=b; expires=never; max-age=x", "\xff=\xff; path=\xff")),
    ("Connection", ("close", "keep-alive", "upgrade", "close, keep-alive")),
    ("Content-Type", ("application/json", "text/html; charset=utf-7", "x", "", "a/b; charset=\xff")),
    ("X\xff", ("y",)), ("X Y", ("z",)), ("", ("z",)), ("X-Long", ("y" * 70_000,)),
    ("X-Fold", ("a\r\n b", "a\r\nb", "a\nb")),
)  # fmt: skip
STATUSES = (
    *(200, 200, 201, 202, 203, 204, 205, 206, 207, 299, 300, 301, 302, 303, 304, 305, 307, 308, 399, 400, 401, 402),
    *(403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425, 426),
    *(428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 507, 508, 511, 599, 600, 999, 101, 100, 0, 99, 1000),
)


class Answers:
    """A platform whose every answer is a little, or very, wrong.

    Args:
        share: of the answers that are changed at all.
    """

    def __init__(self, seed: int, share: float = 0.9) -> None:
        self._random = random.Random(seed)
        self._share = share
        self.given = 0

    def to(self, method: str, target: str, headers: dict[str, str]) -> tuple[bytes, bool]:
        """Return an answer, and whether the connection is good for another one."""
        self.given += 1
        chance = self._random
        status, named, value = self._good(method, target, headers)
        changes = chance.randint(1, MOST_CHANGES) if chance.random() < self._share else 0
        if isinstance(value, bytes):
            body = value
        else:
            for _ in range(changes):
                value = self._changed(value)
            body = dump(value).encode("utf-8", "surrogatepass")
        text_is_changed = changes and chance.random() < 0.25
        if text_is_changed:
            body = self._garbled(body)
        if method == "HEAD" or status == 204:
            body = b""
        if not changes or chance.random() < 0.6:
            return _text(status, named, body), True
        return self._framed(status, named, body), False

    # -- what a good platform says -------------------------------------------------------------------------------

    def _good(self, method: str, target: str, headers: dict[str, str]) -> tuple[int, list[tuple[str, str]], Any]:
        path = target.partition("?")[0]
        offset = headers.get("upload-offset", "0")
        if path.endswith("/blob"):
            if method == "PATCH":
                reached = int(offset) + int(headers.get("content-length", "0"))
                return 204, [("Upload-Offset", str(reached))], b""
            return self._blob(method, headers)
        named = [("Content-Type", "application/json")]
        if path == "/1/artifacts":
            return (201, named, self._record()) if method == "POST" else (200, named, self._page(self._item))
        if path == "/1/aspects":
            return 200, named, self._page(self._aspect) if method == "GET" else {"id": "urn:ivcap:aspect:9"}
        if path.startswith("/1/aspects/"):
            return (204, [], b"") if method == "DELETE" else (200, named, self._aspect())
        return 200, named, self._record(path.rpartition("%3A")[2])

    def _blob(self, method: str, headers: dict[str, str]) -> tuple[int, list[tuple[str, str]], bytes]:
        named = [("ETag", '"a"'), ("Upload-Offset", "0"), ("Content-Type", "x/y")]
        first, _, last = headers.get("range", "bytes=-").removeprefix("bytes=").partition("-")
        if method == "HEAD" or not first or not last:
            return 200, named, CONTENT
        start, stop = int(first), min(int(last) + 1, len(CONTENT))
        named.append(("Content-Range", f"bytes {start}-{stop - 1}/{len(CONTENT)}"))
        return 206, named, CONTENT[start:stop]

    def _item(self) -> dict[str, Any]:
        name = self._random.choice((*HOSTILE, "tide.csv", "a/b.nc", "plain"))
        return {
            "id": ARTIFACT + self._random.choice(UUIDS), "name": name, "status": "ready", "size": len(CONTENT),
            "mime-type": "text/csv", "created-at": f"2026-06-{self._random.randint(10, 28)}T10:00:00Z",
        }  # fmt: skip

    def _record(self, uuid: str = UUIDS[0]) -> dict[str, Any]:
        more = {"data-href": f"/1/artifacts/{ARTIFACT}{uuid}/blob", "etag": "a", "policy": "urn:ivcap:policy:x"}
        return {**self._item(), "id": ARTIFACT + uuid, **more}

    def _aspect(self) -> dict[str, Any]:
        chance = self._random
        entity = chance.choice((COLLECTION, ARTIFACT + chance.choice(UUIDS)))
        members = [ARTIFACT + uuid for uuid in UUIDS]
        content = {"name": chance.choice(HOSTILE), "item": chance.choice(members), "artifacts": members, "k": [1, {}]}
        return {
            "id": f"urn:ivcap:aspect:{chance.randint(0, 99)}", "entity": entity, "schema": chance.choice(SCHEMAS),
            "content": content, "content-type": "application/json", "valid-from": "2026-06-01T10:00:00Z",
        }  # fmt: skip

    def _page(self, item: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        links: list[Any] = [{"rel": "self", "href": "/1/artifacts"}]
        if self._random.random() < 0.3:
            links.append({"rel": "next", "href": f"/1/artifacts?page={self._random.randint(0, 99)}"})
        items = [item() for _ in range(self._random.randint(0, 6))]
        return {"items": items, "links": links, "at-time": "2026-06-30T00:00:00Z"}

    # -- what this one says --------------------------------------------------------------------------------------

    def _changed(self, value: Any) -> Any:
        """Return a value with one thing changed, somewhere in it."""
        chance = self._random
        if isinstance(value, dict) and value and chance.random() < 0.95:
            name = chance.choice(list(value))
            what = chance.random()
            if what < 0.1:
                return {key: each for key, each in value.items() if key != name}
            if what < 0.2:
                return Pairs([*value.items(), (name, chance.choice(ODD)), (chance.choice(ODD), 1)])
            if what < 0.3 and isinstance(name, str):
                return {(key.replace("-", "_") if key == name else key): each for key, each in value.items()}
            return {**value, name: self._changed(value[name])}
        if isinstance(value, list) and value and chance.random() < 0.9:
            at = chance.randrange(len(value))
            what = chance.random()
            if what < 0.1:
                return value[:at] + value[at + 1 :]
            if what < 0.2:
                return value[: at + 1] * 3 + value[at:]
            return [*value[:at], self._changed(value[at]), *value[at + 1 :]]
        return chance.choice(ODD)

    def _garbled(self, body: bytes) -> bytes:
        chance = self._random
        at = chance.randrange(len(body) + 1)
        return chance.choice((
            lambda: body[:at],
            lambda: body[:at] + bytes([chance.randrange(256)]) + body[at + 1 :],
            lambda: body[:at] + chance.randbytes(4) + body[at:],
            lambda: body + b"{}",
            lambda: b"\xef\xbb\xbf" + body,
            lambda: body.decode("utf-8", "replace").encode("utf-16"),
            lambda: b"[" * 20_000 + body,
            lambda: b"<html>" + body[:100],
            lambda: b" " * 5000 + body,
            lambda: body.replace(b'"', b"'"),
        ))()  # fmt: skip

    def _framed(self, status: int, named: list[tuple[str, str]], body: bytes) -> bytes:
        """Return an answer whose head is changed, too; the connection ends after it."""
        chance = self._random
        if chance.random() < 0.5:
            status = chance.choice(STATUSES)
        named = [pair for pair in named if chance.random() < 0.8]
        for _ in range(chance.randint(0, 3)):
            name, values = chance.choice(HEADERS)
            named.insert(chance.randint(0, len(named)), (name, chance.choice(values)))
        if chance.random() < 0.2:
            named.append(("Transfer-Encoding", "chunked"))
            body = self._chunked(body)
        text = _text(status, named, body, length=chance.random() < 0.7)
        what = chance.random()
        if what < 0.05:
            return chance.randbytes(chance.randrange(200)) + text
        if what < 0.1:
            return text[: chance.randrange(len(text))]
        if what < 0.15:
            return b"HTTP/1.1 103 Hints\r\n\r\n" * chance.choice((1, 3, 50)) + text
        if what < 0.2:
            return text.replace(b"\r\n", b"\n")
        if what < 0.25:
            return text.replace(b"HTTP/1.1", chance.choice((b"HTTP/1.0", b"HTTP/2", b"http/1.1", b"ICY", b"HTTP/1.9")))
        return text

    def _chunked(self, body: bytes) -> bytes:
        chance = self._random
        sizes = (b"%x", b"%X;ext=1", b"-%x", b"0x%x", b" %x ", b"%xg", b"00000000000000000000%x")
        size = sizes[0] if chance.random() < 0.5 else chance.choice(sizes)
        ends = (b"0\r\n\r\n", b"0\r\n\r\n", b"", b"0\r\nX: y\r\n\r\n", b"zz\r\n", b"0\r\n" + b"X: y\r\n" * 300)
        end = chance.choice(ends)
        return size % len(body) + b"\r\n" + body + chance.choice((b"\r\n", b"\r\n", b"", b"xx\r\n")) + end


def _text(status: int, named: list[tuple[str, str]], body: bytes, *, length: bool = True) -> bytes:
    lines = [f"HTTP/1.1 {status} so it is", *(f"{name}: {value}" for name, value in named)]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + body
