"""Hostile artifact names: a list of known ones, and a strategy that makes more."""

from __future__ import annotations

import os

from hypothesis import strategies as st

HEADS = ("0a1b2c3d", "deadbeef", "12345678")
"""First digits that uuids in tests share, and that names in tests pretend to carry."""

HOSTILE = (
    *("/", "//", "/a", "a/", "a//b", "a/b", "a", "a/b/c", "///x///"),
    *(".", "..", "./..", "a/./b", "a/../b", "../../etc/passwd", "...", ".hidden"),
    *("%", "%%", "%2F", "%2f", "a%2Fb", "%252F", "%2", "%2/", "%C2", "%C2%80", "%ED%A0%80", "%2E", "%40", "%00"),
    *("\0", "\n", "\x1b[31m", "\x7f", "\x85", "\u2028", "tab\t", "\r\n"),
    *("\ud800", "\udfff", "\ud83d\ude00", "\N{GRINNING FACE}", "e\u0301", "\u00e9", "\u202egnp.exe", "\ufeff"),
    *("content", "artifact.json", "aspects", "x/content", "aspects/x.json"),
    *(f"x@{head}" for head in HEADS),
    *(f"x@{head}.txt" for head in HEADS),
    *(f"%40{head}" for head in HEADS),
    *("@", "@@", "x@", "x@1234567", "@12345678", "x@12345678/y", "me@example.org", "@12345678@12345678.a.b"),
    *("n" * 255, "n" * 256, "n" * 300, "é" * 150, "\N{GRINNING FACE}" * 1250, "n" * 5000, "x" * 250 + ".tar.gz"),
    *("long" * 75 + "/x", "/".join(["deep"] * 2000), "a/" * 2500 + "x.csv", "\n" * 100, "%" * 255, "@" * 300),
    *(" ", "  ", "a ", "*", "~", "~1", "-rf", "a\\b", "'", '"', "it's 100% \\ done_", "a.b.c.d", ".tar.gz", "a."),
)

_PIECES = (
    *("/", "//", ".", "..", "%", "%2", "%2F", "%25", "%2E", "%C2", "%80", "%ED", "%A0", "%40", "@", "0", "a", "b", "F"),
    *(".txt", ".gz", "\0", "\n", "\x85", "\ud800", "\udc00", "é", "\N{GRINNING FACE}", "~", "content", "x" * 130),
    *(f"@{head}" for head in HEADS),
)
names = st.one_of(
    st.sampled_from(HOSTILE),
    st.lists(st.sampled_from(_PIECES), min_size=1, max_size=8).map("".join),
    st.text(st.characters(exclude_categories=()), min_size=1, max_size=20),
)


def assert_fit(component: str, *, longest: int | None = 255) -> None:
    """Check that Linux takes a component as a name of a directory entry."""
    data = component.encode("utf-8")
    assert data and component not in (".", "..")
    assert b"/" not in data and b"\0" not in data
    assert not any(byte < 0x20 or byte == 0x7F for byte in data)
    assert longest is None or len(data) <= longest
    assert os.fsdecode(data) == component
