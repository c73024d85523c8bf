"""Writing into the `ivcap` program's file: the values change, and nothing else does, whatever else stands there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ivcapfs.client.contextedit import edit
from ivcapfs.contexts import parse
from ivcapfs.errors import ConfigError

CHANGES = {
    "access-token": "eyJ.new.token",
    "access-token-expiry": "2026-06-01T00:00:00Z",
    "refresh-token": "v1.new-refresh_token",
}
HAND_MADE = """\
# top
version: v1   # the version
active-context: gov
contexts:
  # first
  - name: other
    access-token: &old old-token   # theirs
  - url: https://a.example   # an address
    name: gov
    # before the token
    access-token: "old-token"  # behind the token
    future-key: [1, 2, {a: b}]
    refresh-token: 'old-refresh'

    email: ada@example.org
  - {name: flow, access-token: x}
# the end
"""


def tree(text: str) -> Any:
    return yaml.load(text, yaml.BaseLoader)


def changed(text: str, name: str, changes: dict[str, str]) -> Any:
    whole = tree(text)
    entry = next(entry for entry in whole["contexts"] if entry["name"] == name)
    entry.update(changes)
    return whole


def comments(text: str) -> list[str]:
    return [line.partition("#")[2] for line in text.splitlines() if "#" in line]


@pytest.mark.parametrize("name", ["gov", "flow", "other"])
def test_comments_order_and_unknown_keys_stay(name: str) -> None:
    edited = edit(HAND_MADE, name, CHANGES)
    assert tree(edited) == changed(HAND_MADE, name, CHANGES)
    assert comments(edited) == comments(HAND_MADE)
    lines = edited.splitlines()
    kept = [line for line in HAND_MADE.splitlines() if "token" not in line and f"name: {name}" not in line]
    assert [line for line in lines if line in kept] == kept


def test_only_the_values_are_written_anew() -> None:
    edited = edit(HAND_MADE, "gov", {"access-token": "new", "refresh-token": "newer"})
    assert edited == HAND_MADE.replace('"old-token"', "new").replace("'old-refresh'", "newer")


@pytest.mark.parametrize(
    "text",
    [
        "contexts:\n- name: gov\n  access-token: |\n    old\n  refresh-token: >-\n    older\n    still\n  z: 1\n",
        "contexts:\n- name: a\n  access-token: &t old\n- name: gov\n  access-token: *t\n",
        "base: &b {access-token: old}\ncontexts:\n- <<: *b\n  name: gov\n",
        "contexts:\n- name: gov\n  access-token:\n  refresh-token:   \n  z: 1\n",
        "contexts:\n- name: gov\n  access-token:",
        "contexts:\n- &anchor !!map\n  ? name\n  : gov\n",
        "{contexts: [{name: gov}]}",
        '{"contexts": [{"name": "gov", "access-token": "x", "z": [1]}]}',
        "contexts:\r\n- name: gov\r\n  access-token: old\r\n",
        "\ufeffcontexts:\n- name: gov\n  access-token: old\n",
        "--- # a document\ncontexts:\n- name: gov\n...\n",
        "contexts:\n- name: gov\n  access-token: old\n  access-token: twice\n",
        "contexts:\n- name: 'gov'\n  access-token-expiry: 0001-01-01T00:00:00Z\n",
    ],
)
def test_unusual_files_are_changed_as_well(text: str) -> None:
    edited = edit(text, "gov", CHANGES)
    assert tree(edited) == changed(text, "gov", CHANGES)
    others = [entry for entry in tree(edited)["contexts"] if entry["name"] != "gov"]
    assert others == [entry for entry in tree(text)["contexts"] if entry["name"] != "gov"]


@pytest.mark.parametrize("text", ["", "contexts:", "contexts: []", "contexts: [{name: other}]", "- a", "a: [", "x"])
def test_a_context_that_is_gone(text: str) -> None:
    with pytest.raises(ConfigError):
        edit(text, "gov", CHANGES)


PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=("Cc",)), max_size=20)
PLAIN = st.sampled_from(["v1", "1", "yes", "null", "~", "2026-01-01", "0x10", "- a", "a: b", "#", "", "'", '"', "é"])
TEXTS = st.one_of(PRINTABLE, PLAIN)
VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=5,
)
OURS = ["access-token", "refresh-token", "access-token-expiry"]
ENTRIES = st.tuples(
    st.dictionaries(TEXTS.filter(lambda key: key != "name"), VALUES, max_size=4),
    st.dictionaries(st.sampled_from(OURS), TEXTS, max_size=3),
)
TOKENS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


@st.composite
def files(draw: st.DrawFn) -> str:
    """A file with the context gov among others, in any style, with comments between the lines."""
    others = enumerate(draw(st.lists(ENTRIES, max_size=2)))
    entries = [{"name": f"other{number}", **some, **more} for number, (some, more) in others]
    extra, ours = draw(ENTRIES)
    fields = list({"name": "gov", **extra, **ours}.items())
    entries.insert(draw(st.integers(0, len(entries))), dict(draw(st.permutations(fields))))
    whole = {"version": "v1", **draw(st.dictionaries(TEXTS, VALUES, max_size=2)), "contexts": entries}
    text = yaml.safe_dump(
        whole,
        sort_keys=False,
        allow_unicode=draw(st.booleans()),
        default_flow_style=draw(st.sampled_from([True, False, None])),
        default_style=draw(st.sampled_from([None, '"', "'"])),
        indent=draw(st.integers(2, 6)),
        width=10_000,
    )
    lines = text.split("\n")
    for at in sorted(draw(st.lists(st.integers(0, len(lines) - 1), max_size=3)), reverse=True):
        lines.insert(at, f"# comment {at}")
    commented = "\n".join(lines)
    try:
        same = tree(commented) == tree(text)
    except yaml.YAMLError:
        same = False
    return commented if same else text


@settings(deadline=None)
@given(text=files(), access=TOKENS, refresh=TOKENS)
def test_whatever_else_stands_there_stays(text: str, access: str, refresh: str) -> None:
    changes = {"access-token": access, "access-token-expiry": "2026-06-01T00:00:00Z", "refresh-token": refresh}
    edited = edit(text, "gov", changes)
    assert tree(edited) == changed(text, "gov", changes)
    assert [line for line in edited.splitlines() if line.startswith("# comment")] == [
        line for line in text.splitlines() if line.startswith("# comment")
    ]


@settings(deadline=None)
@given(access=TOKENS, refresh=TOKENS)
def test_what_was_written_is_read_again(access: str, refresh: str) -> None:
    edited = edit(HAND_MADE, "gov", {"access-token": access, "refresh-token": refresh})
    found = parse(edited, Path("f")).find("gov")
    assert found.access_token is not None and found.access_token.reveal() == access
    assert found.refresh_token is not None and found.refresh_token.reveal() == refresh
    assert yaml.safe_load(edited)["contexts"][1]["access-token"] == access, "a text to every reader"
