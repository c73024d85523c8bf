"""Addresses: which are asked, which see the token, how data-hrefs are read, how they are shown."""

from __future__ import annotations

import contextlib

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.client.origins import OriginRules, redact, redact_text, resolve_data_href
from ivcapfs.config import ClientSettings
from ivcapfs.errors import OriginRefused
from ivcapfs.hosts import is_link_local

BASE = "https://api.example.org"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "http://169.254.169.254/latest",
        "https://169.254.169.254/latest",
        "https://2852039166/latest",
        "https://0xA9FEA9FE/",
        "https://169.254.43518/",
        "https://[fe80::1]/",
        "https://[febf::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://[::ffff:a9fe:a9fe]/",
        "https://user:secret@example.org/",
        "http://127.0.0.1.example.org/",
        "http://localhost.example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "/no/host",
        "https://",
        "https://exa mple.org\x00/",
        "https://example.org:99999999/",
    ],
)
def test_addresses_that_are_never_asked(url: str) -> None:
    with pytest.raises(OriginRefused) as caught:
        OriginRules(ClientSettings(BASE)).check(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://localhost/x", "http://[::1]:8/", "https://h/"])
def test_addresses_that_are_asked(url: str) -> None:
    assert str(OriginRules(ClientSettings(BASE)).check(url)) == url


def test_plain_http_may_be_allowed_but_link_local_never() -> None:
    rules = OriginRules(ClientSettings("http://ivcap.svc", allow_http=True))
    assert rules.check("http://other.svc/").host == "other.svc"
    with pytest.raises(OriginRefused):
        rules.check("http://169.254.169.254/")


@pytest.mark.parametrize(
    ("url", "sees"),
    [
        ("https://api.example.org/1/x?y=z", True),
        ("https://API.example.org:443/", True),
        ("https://api.example.org./", True),
        ("https://api.example.org:8443/", False),
        ("https://example.org/", False),
        ("https://api.example.org.evil.com/", False),
        ("https://store.example.org/", True),
    ],
)
def test_who_sees_the_token(url: str, sees: bool) -> None:
    rules = OriginRules(ClientSettings(BASE, trusted_origins=frozenset({"https://store.example.org"})))
    assert rules.gets_token(rules.check(url)) is sees


@pytest.mark.parametrize(
    ("base", "href", "asked"),
    [
        (BASE, "/1/artifacts/a/blob", BASE + "/1/artifacts/a/blob"),
        (BASE, "1/artifacts/a/blob?x=1", BASE + "/1/artifacts/a/blob?x=1"),
        ("http://in.svc", "https://ext.org/1/artifacts/a/blob?s=1%2F2", "http://in.svc/1/artifacts/a/blob?s=1%2F2"),
        ("http://in.svc", "https://ext.org/gate/1/artifacts/a/blob", "http://in.svc/1/artifacts/a/blob"),
        ("https://e.org/gate", "https://x.org/gate/1/artifacts/a/blob", "https://e.org/gate/1/artifacts/a/blob"),
        ("https://e.org/gate", "/1/artifacts/a/blob", "https://e.org/gate/1/artifacts/a/blob"),
        ("https://e.org/gate", "/gate/1/artifacts/a/blob", "https://e.org/gate/1/artifacts/a/blob"),
        ("https://e.org/gate", "https://x.org/1/artifacts/a/blob", "https://x.org/1/artifacts/a/blob"),
        (BASE, "https://s3.org/bucket/key?X-Sig=abc", "https://s3.org/bucket/key?X-Sig=abc"),
        (BASE, "//s3.org/bucket/key", "https://s3.org/bucket/key"),
    ],
)
def test_where_a_data_href_is_asked_for(base: str, href: str, asked: str) -> None:
    assert resolve_data_href(base, href) == asked


@given(st.text() | st.from_regex(r"(https?:)?//[^/]*/.*(/1/artifacts/[a-z0-9:-]*/blob)?(\?.*)?", fullmatch=True))
def test_any_data_href_is_read_or_refused(href: str) -> None:
    with contextlib.suppress(OriginRefused):
        OriginRules(ClientSettings(BASE)).check(resolve_data_href(BASE, href))


@given(
    host=st.from_regex(r"[a-z]{1,9}\.org(:[1-9][0-9]{1,3})?", fullmatch=True),
    query=st.from_regex(r"[A-Za-z0-9%=&._~+-]{0,40}", fullmatch=True),
)
def test_the_platforms_own_path_is_asked_at_the_base_whatever_host_it_names(host: str, query: str) -> None:
    asked = httpx.URL(resolve_data_href(BASE, f"https://{host}/1/artifacts/urn:a/blob?{query}"))
    assert (asked.host, asked.path) == ("api.example.org", "/1/artifacts/urn:a/blob")
    sent = httpx.URL(f"https://{host}/1/artifacts/urn:a/blob?{query}")
    assert asked.query == sent.query


@given(st.text())
def test_redact_never_fails_and_never_shows_a_query(text: str) -> None:
    assert "?" not in redact("https://h.org/p?" + text.replace("#", ""))
    redact(text)


def test_redact_text() -> None:
    text = 'GET https://u:pw@h.org/p?X-Sig=abc "HTTP/1.1 200", [(b"location", b"http://o/x?sig=1#f")]'
    assert redact_text(text) == 'GET https://h.org/p "HTTP/1.1 200", [(b"location", b"http://o/x")]'


def test_only_link_local_is_link_local() -> None:
    assert not any(map(is_link_local, ["example.org", "127.0.0.1", "::1", "8.8.8.8", "2001:db8::1", ""]))
