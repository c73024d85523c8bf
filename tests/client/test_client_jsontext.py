"""JSON text: how deep it may be nested, told without a parser."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.client.jsontext import MOST_DEPTH, MOST_READ_DEPTH, nested_over, parse_given, parse_object
from ivcapfs.errors import Invalid, ProtocolError

_TEXTS = st.text(st.sampled_from('[]{}"\\,: aü\n'), max_size=6)
_VALUES = st.recursive(
    st.none() | st.integers() | _TEXTS, lambda each: st.lists(each) | st.dictionaries(_TEXTS, each), max_leaves=12
)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


@given(value=_VALUES, wraps=st.lists(_TEXTS, max_size=25), most=st.integers(8, 30), ascii_only=st.booleans())
def test_the_depth_is_that_of_the_value(value: Any, wraps: list[str], most: int, ascii_only: bool) -> None:
    for name in wraps:
        value = {name: value} if name else [value]
    assert nested_over(json.dumps(value, ensure_ascii=ascii_only).encode(), most) == (_depth(value) > most)


@given(st.binary(max_size=400) | st.text(st.sampled_from('[]{}"\\,')).map(str.encode))
def test_what_is_no_json_is_told_too(text: bytes) -> None:
    assert nested_over(text, 8) in (True, False)


def _nested(depth: int) -> bytes:
    """Return an object that is nested so deep, with texts that look like the ends of its levels."""
    inner = b"[" * (depth - 1) + b'"]]]\\"}}"' + b"]" * (depth - 1)
    return b'{"}]": ' + inner + b"}"


def test_an_answer_may_be_nested_so_deep_and_no_deeper() -> None:
    assert parse_object(_nested(MOST_READ_DEPTH), what="reading it")
    for depth in (MOST_READ_DEPTH + 1, 900, 100_000):
        with pytest.raises(ProtocolError, match="reading it: the answer is nested too deeply"):
            parse_object(_nested(depth), what="reading it")
    with pytest.raises(ProtocolError, match="nested too deeply"):
        parse_object(b'{"a": ' + b"[" * 5000, what="reading it")


def test_levels_that_look_like_texts_in_another_encoding_are_too_many_all_the_same() -> None:
    """Half of the character U+2241 is the byte of a quotation mark."""
    body = '{"a": "\u2241", "b": ' + "[" * 5000 + '"\u2241"' + "]" * 5000 + "}"
    with pytest.raises(ProtocolError, match="nested too deeply"):
        parse_object(body.encode("utf-16-le"), what="reading it")


def test_a_given_value_may_be_nested_less_deep() -> None:
    assert parse_given(_nested(MOST_DEPTH), what="the value")
    for depth in (MOST_DEPTH + 1, 900, 100_000):
        with pytest.raises(Invalid, match="the value is nested more than 100 deep"):
            parse_given(_nested(depth), what="the value")


def test_a_finalizer_that_runs_while_the_deepest_answer_is_parsed_has_room() -> None:
    """The garbage collector runs finalizers on whatever thread allocates, however deep it is."""

    class Kept:
        """Refers to itself: only the collector finds it."""

        def __init__(self) -> None:
            self.itself = self

    ran: list[int] = []
    before = gc.get_threshold()
    gc.collect()
    try:
        for number in range(50):
            weakref.finalize(Kept(), ran.append, number)
        gc.set_threshold(60)  # a list for each level: the collector comes in the middle
        parse_object(_nested(MOST_READ_DEPTH), what="reading it")
    finally:
        gc.set_threshold(*before)
    assert sorted(ran) == list(range(50))
