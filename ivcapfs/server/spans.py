"""Sets of numbers as lists of ranges, and the numbers that a pattern leaves possible.

Used by :mod:`ivcapfs.server.formula`. Pure, hence safe in any thread.
"""

from __future__ import annotations

Spans = list[range]
"""Ranges that are not empty, do not overlap, and go up; all of one step, and in step with one another."""


def intersection(one: Spans, other: Spans) -> Spans:
    """Return what is in both."""
    step = max((span.step for span in (*one, *other)), default=1)
    common = (range(max(a.start, b.start), min(a.stop, b.stop), step) for a in one for b in other)
    return [span for span in common if span]


def union(one: Spans, other: Spans) -> Spans:
    """Return what is in either."""
    whole: Spans = []
    for span in sorted([*one, *other], key=lambda span: span.start):
        if whole and span.start <= whole[-1].stop:
            whole[-1] = range(whole[-1].start, max(whole[-1].stop, span.stop), span.step)
        else:
            whole.append(span)
    return whole


def like_prefix(pattern: str) -> str:
    """Return what every text begins with that SQL's ``LIKE pattern ESCAPE '\\'`` takes."""
    prefix = ""
    characters = iter(pattern)
    for character in characters:
        if character in "%_\0":  # SQLite reads a pattern up to a NUL
            break
        prefix += next(characters, "") if character == "\\" else character
    return prefix
