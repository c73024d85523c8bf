"""Whose bytes are whose: an identity outlives its tokens, and tells nothing."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.client.auth import identity_of
from ivcapfs.config import Secret


def jwt(**claims: Any) -> Secret:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return Secret(f"eyJhbGciOiJub25lIn0.{body}.signature")


def test_the_next_token_of_the_same_subject_has_the_same_identity() -> None:
    first, second = jwt(iss="i", sub="ada", exp=1), jwt(iss="i", sub="ada", exp=2)
    assert identity_of(first) == identity_of(second)


@pytest.mark.parametrize("other", [jwt(iss="i", sub="bob"), jwt(iss="j", sub="ada"), Secret("opaque"), None])
def test_others_have_others(other: Secret | None) -> None:
    assert identity_of(other) != identity_of(jwt(iss="i", sub="ada"))


def test_accounts_of_one_subject_are_told_apart() -> None:
    token = jwt(iss="i", sub="ada")
    assert identity_of(token, "urn:ivcap:account:1") != identity_of(token, "urn:ivcap:account:2")


@given(text=st.text(st.characters(codec="ascii", exclude_characters=" "), min_size=1))
def test_any_token_has_an_identity_that_does_not_tell_it(text: str) -> None:
    for token in (text, f"a.{text}.b"):
        assert identity_of(Secret(token)) == identity_of(Secret(token))
        assert len(token) < 4 or token not in identity_of(Secret(token))
