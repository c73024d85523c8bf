"""Heads of answers: what they say, and what is not taken for one."""

from __future__ import annotations

import contextlib

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.client.heads import Head, NoAnswer, parse

TOKEN = st.text("abcXYZ019-_.!#", min_size=1, max_size=12)
VALUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20)


def head(*lines: str, status: str = "HTTP/1.1 200 OK", method: str = "GET") -> Head:
    return parse("\r\n".join([status, *lines]).encode("latin-1"), method)


@given(st.lists(st.tuples(TOKEN, VALUE), max_size=20), st.integers(100, 999))
def test_fields_are_read_as_they_were_written(fields: list[tuple[str, str]], status: int) -> None:
    told = parse(f"HTTP/1.1 {status} words of any kind".encode() + b"".join(
        f"\r\n{name}: {value} \t".encode("latin-1") for name, value in fields
    ), "HEAD")  # fmt: skip
    assert told.status == status
    expected: dict[str, list[str]] = {}
    for name, value in fields:
        expected.setdefault(name.lower(), []).append(httpx.Headers([(name, value.encode("latin-1"))])[name])
    assert dict(told.headers) == {name: ", ".join(values) for name, values in expected.items()}


@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_refused(text: bytes) -> None:
    for whole in (text, b"HTTP/1.1 200 OK\r\n" + text):
        try:
            told = parse(whole, "GET")
        except httpx.RemoteProtocolError:
            continue
        assert 100 <= told.status <= 999


@pytest.mark.parametrize(
    ("lines", "length", "is_chunked", "keeps"),
    [
        (["Content-Length: 5"], 5, False, True),
        (["Content-Length: 5", "Connection: Keep-Alive, Close"], 5, False, False),
        (["content-length:5", "CONTENT-LENGTH: 5"], 5, False, True),
        (["Content-Length: 5, 5"], 5, False, True),
        ([], None, False, False),
        (["Transfer-Encoding: Chunked"], None, True, True),
        (["Transfer-Encoding: chunked", "Content-Length: 5"], None, True, False),  # a smuggler's answer: used once
    ],
)
def test_where_the_body_ends(lines: list[str], length: int | None, is_chunked: bool, keeps: bool) -> None:
    told = head(*lines)
    assert (told.length, told.is_chunked, told.keeps) == (length, is_chunked, keeps)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304), ("GET", 103)])
def test_answers_without_a_body(method: str, status: int) -> None:
    assert head("Content-Length: 5", status=f"HTTP/1.1 {status} X", method=method).length == 0


def test_an_older_server_keeps_the_connection_only_if_it_says_so() -> None:
    assert not head("Content-Length: 5", status="HTTP/1.0 200 OK").keeps
    assert head("Content-Length: 5", "Connection: keep-alive", status="HTTP/1.0 200 OK").keeps


def test_a_folded_header_is_one() -> None:
    assert dict(head("A: b", "\t c", "D: e").headers) == {"a": "b c", "d": "e"}


@pytest.mark.parametrize(
    "line",
    [
        "Content-Length: -5", "Content-Length: +5", "Content-Length: 0x5", "Content-Length:", "Content-Length: 5, 6",
        "Content-Length: 9999999999999999999", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: identity",
        "A : b", "A", ": b", "A: b\x00c", "A: b\nContent-Length: 5", "A: b\rC: d", "Ä: b",
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_refused(line: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError) as refused:
        head(line)
    assert not isinstance(refused.value, NoAnswer)


@pytest.mark.parametrize("status", ["", "HTTP/2 200", "HTTP/1.1 20", "HTTP/1.1 099 X", "http/1.1 200 OK", "SSH-2.0-x"])
def test_what_does_not_begin_like_an_answer(status: str) -> None:
    with pytest.raises(NoAnswer):
        head(status=status)


def test_headers_are_found_by_name_in_whichever_case() -> None:
    lines = [b'ETag: "1"', b"Vary: a", b"VARY: b", b"X-Name: caf\xe9", b"X-Other: caf\xc3\xa9", b"Content-Length: 0"]
    named = parse(b"\r\n".join([b"HTTP/1.1 200 OK", *lines]), "GET").headers
    assert (named["etag"], named["ETag"], named.get("vary")) == ('"1"', '"1"', "a, b")
    assert (named["x-name"], named["x-other"]) == ("caf\xe9", "caf\xe9"), "bytes that are no UTF-8 are Latin-1"
    assert named.get("location") is None and named.get("location", "") == ""
    assert "location" not in named and "Vary" in named
    assert sorted(named) == ["content-length", "etag", "vary", "x-name", "x-other"] and len(named) == 5
    with pytest.raises(KeyError):
        named["location"]


@given(st.lists(st.tuples(st.sampled_from(["A", "a", "B-c", "b-C"]), st.text("xyz ,", max_size=5)), max_size=6))
def test_they_are_what_httpx_makes_of_them(fields: list[tuple[str, str]]) -> None:
    told = head(*(f"{name}: {value}" for name, value in fields))
    assert dict(told.headers) == dict(httpx.Headers([(name, value.strip(" ")) for name, value in fields]))


@pytest.mark.parametrize("text", [b"HTTP/1.1 99 X", b"", b"nothing"])
def test_who_is_told_of_no_status_line_is_told_no_header(text: bytes) -> None:
    with pytest.raises(NoAnswer) as caught:
        parse(text + b"\r\nLocation: canary", "GET")
    assert "canary" not in str(caught.value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "line", [b"A:" + b" " * 60_000 + b"\0", b"A" * 60_000, b"\t" * 60_000, b"A:" + b"\t " * 30_000 + b"b"]
)
def test_a_head_of_blanks_is_read_in_one_pass(line: bytes) -> None:
    with contextlib.suppress(httpx.RemoteProtocolError):  # in two, it would take a minute, and all threads with it
        assert parse(b"HTTP/1.1 200 OK\r\nB: c\r\n" + line, "GET").headers["b"].startswith("c")
