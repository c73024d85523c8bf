"""Numbers scattered over uuids: each has its own, they spread evenly, and none is kept anywhere.

The number, multiplied by an odd constant, is written backwards into the first 40 bits of the uuid. As a bit of a
product depends only on that bit and the lower ones, the numbers below a bound form a binary tree over the uuids'
first bits, of which every subtree is known to be empty or not at a glance: they can be walked in the order of
their uuids from any place. The other bits are a second product; version 8 of RFC 9562 marks such a uuid.
Used by :mod:`ivcapfs.server.synthetic` and :mod:`ivcapfs.server.formula`. Pure, hence safe in any thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

BITS = 40
LIMIT = 1 << BITS
"""Numbers are below this."""

_MASK = LIMIT - 1
_FACTOR = 0x9E3779B97F | 1
_INVERSE = pow(_FACTOR, -1, LIMIT)
_TAIL_FACTOR = 0xD1342543DE82EF95B97F4B
_TAIL_MARK = 0x8 << 76 | 0xA << 60  # version and variant, where RFC 9562 wants them
_TAIL_MASK = (1 << 88) - 1 ^ 0xF << 76 ^ 0xF << 60
_BACKWARDS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def uuid_of(number: int, salt: int) -> str:
    """Return a number's uuid.

    Args:
        number: from 0 to below :data:`LIMIT`.
        salt: what tells the uuids of one kind from those of another, in all but the first 40 bits.
    """
    tail = (number * _TAIL_FACTOR + salt & _TAIL_MASK | _TAIL_MARK).to_bytes(11, "big")
    text = (_head(number) + tail).hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _head(number: int) -> bytes:
    return (number * _FACTOR & _MASK).to_bytes(5, "little").translate(_BACKWARDS)


def number_of(text: str) -> int | None:
    """Return the number whose uuid begins like this text, ``None`` when it is no uuid's beginning."""
    digits = text[:8] + text[9:11]
    try:
        head = bytes.fromhex(digits)
    except ValueError:
        return None
    if len(head) != BITS // 8:
        return None
    return int.from_bytes(head.translate(_BACKWARDS), "little") * _INVERSE & _MASK


def walk(numbers: range, *, descending: bool, start: int | None = None) -> Iterator[int]:
    """Iterate numbers in the order of their uuids, at a cost that depends on how far is gone and not on how many.

    Args:
        numbers: from 0 up; its step is a power of two.
        descending: the other direction.
        start: where to begin: the first 40 bits of a uuid. The number with just these bits is included.
    """
    stack = [(0, 0, 0)]  # subtrees yet to be walked: depth, the bits from the top, the same backwards
    while stack:
        depth, head, product = stack.pop()
        size = 1 << depth
        least = product * _INVERSE & (size - 1)  # of the numbers in this subtree
        if least >= numbers.stop or least % min(size, numbers.step):
            continue
        shift = BITS - depth
        if size >= numbers.step and least + size >= numbers.stop:  # it is the only one
            head, shift = int.from_bytes(_head(least), "big"), 0
        if start is not None and (head << shift > start if descending else (head + 1) << shift <= start):
            continue
        if not shift:
            yield least
            continue
        children = [(depth + 1, head << 1, product), (depth + 1, head << 1 | 1, product | size)]
        stack.extend(children if descending else reversed(children))


def seek(text: str) -> int:
    """Return where a walk from some place must begin, in either direction: the first 40 bits of a uuid.

    Args:
        text: the place: a uuid, or any text, for only how it compares with uuids counts. Numbers with just the
            bits that are returned may lie on either side of it.
    """
    return max(bisect_left(range(LIMIT), text, key=_head_text) - 1, 0)


def _head_text(head: int) -> str:
    digits = f"{head:010x}"
    return f"{digits[:8]}-{digits[8:]}"
