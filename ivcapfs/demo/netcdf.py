"""Writing a NetCDF file of the classic format (CDF-1) with nothing but the standard library.

Used by `ivcapfs.demo.samples`. Enough for one-dimensional variables of fixed length. Pure: any thread.
(The format: https://docs.unidata.ucar.edu/nug/current/file_format_specifications.html)
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NC_DIMENSION, NC_VARIABLE, NC_ATTRIBUTE = 0x0A, 0x0B, 0x0C
NC_CHAR = 2
TYPES = {"i": 4, "f": 5, "d": 6}
"""NC_INT, NC_FLOAT and NC_DOUBLE, by the letters of `struct`."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable along one dimension.

    Attributes:
        kind: of its values: a key of `TYPES`.
        attributes: texts about it.
    """

    name: str
    dimension: str
    kind: str
    values: Sequence[float]
    attributes: Mapping[str, str] = field(default_factory=dict)


def encode(variables: Sequence[Variable], attributes: Mapping[str, str]) -> bytes:
    """Return a whole file.

    Args:
        variables: those of the same dimension have the same number of values.
        attributes: texts about the file.
    """
    data = [_padded(struct.pack(f">{len(one.values)}{one.kind}", *one.values)) for one in variables]
    length = len(_header(variables, attributes, data, start=0))
    return _header(variables, attributes, data, start=length) + b"".join(data)


def _header(variables: Sequence[Variable], attributes: Mapping[str, str], data: Sequence[bytes], start: int) -> bytes:
    """Return the header of a file whose data begins at the byte `start`."""
    sizes = {one.dimension: len(one.values) for one in variables}
    dimensions = [_name(name) + _int(size) for name, size in sizes.items()]
    described = []
    for one, block in zip(variables, data, strict=True):
        index = list(sizes).index(one.dimension)
        placed = _int(1) + _int(index) + _attributes(one.attributes) + _int(TYPES[one.kind])
        described.append(_name(one.name) + placed + _int(len(block)) + _int(start))
        start += len(block)
    records = 0
    parts = (_list(NC_DIMENSION, dimensions), _attributes(attributes), _list(NC_VARIABLE, described))
    return b"CDF\x01" + _int(records) + b"".join(parts)


def _attributes(texts: Mapping[str, str]) -> bytes:
    return _list(NC_ATTRIBUTE, [_name(name) + _int(NC_CHAR) + _name(text) for name, text in texts.items()])


def _list(tag: int, items: Sequence[bytes]) -> bytes:
    return _int(tag) + _int(len(items)) + b"".join(items) if items else _int(0) + _int(0)


def _name(text: str) -> bytes:
    data = text.encode()
    return _int(len(data)) + _padded(data)


def _int(number: int) -> bytes:
    return struct.pack(">i", number)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
