"""What a read answers the kernel with: the bytes, in memory that libfuse can free."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.fs.replies import SHORT, Reply


class _Buffer(ctypes.Structure):
    """``struct fuse_buf`` of libfuse 3."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("mem", ctypes.c_void_p),
        ("fd", ctypes.c_int),
        ("pos", ctypes.c_int64),
    )


class _Vector(ctypes.Structure):
    """``struct fuse_bufvec`` of libfuse 3."""

    _fields_ = (
        ("count", ctypes.c_size_t),
        ("idx", ctypes.c_size_t),
        ("off", ctypes.c_size_t),
        ("buf", _Buffer * 1),
    )


def taken(reply: Reply) -> bytes:
    """Return the bytes of a reply as libfuse sends them, and free it as libfuse does."""
    address = reply.hand_over()
    vector = _Vector.from_address(address)
    buffer = vector.buf[0]
    assert (vector.count, vector.idx, vector.off, buffer.flags) == (1, 0, 0, 0)
    data = ctypes.string_at(buffer.mem, buffer.size) if buffer.size else b""
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]
    free(buffer.mem)
    free(address)
    return data


@given(st.lists(st.binary(max_size=100), max_size=5), st.booleans())
def test_the_pieces_are_one_after_the_other(pieces: list[bytes], is_writable: bool) -> None:
    whole = b"".join(pieces)
    reply = Reply(len(whole) + 7)
    for piece in pieces:
        if piece:
            reply.add(memoryview(bytearray(piece) if is_writable else piece))
    assert taken(reply) == whole


def test_long_pieces_too() -> None:
    data = bytes(range(256)) * (SHORT // 64)
    reply = Reply(len(data))
    reply.add(memoryview(bytearray(data[:-5])))
    reply.add(memoryview(bytearray(data[-5:])))
    assert taken(reply) == data


def test_more_than_was_asked_for_is_refused_before_it_is_written() -> None:
    reply = Reply(10)
    reply.add(memoryview(b"12345678"))
    with pytest.raises(ValueError, match="more than"):
        reply.add(memoryview(b"abc"))
    assert taken(reply) == b"12345678"


def test_what_is_dropped_is_not_handed_over() -> None:
    reply = Reply(10)
    reply.add(memoryview(b"1"))
    reply.drop()
    reply.drop()
