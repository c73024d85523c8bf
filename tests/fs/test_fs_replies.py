"""What a read answers the kernel with: the bytes where they are, or in memory that libfuse can free."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.fs.directreplies import COPIED, FIRST, LAST, MOST_PIECES, Device
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
            reply.add([memoryview(bytearray(piece) if is_writable else piece)], False)
    assert taken(reply) == whole


def test_long_pieces_too() -> None:
    data = bytes(range(256)) * (SHORT // 64)
    reply = Reply(len(data))
    reply.add([memoryview(bytearray(data[:5])), memoryview(bytearray(data[5:-5]))], False)
    reply.add([memoryview(bytearray(data[-5:]))], True)
    assert taken(reply) == data


def test_more_than_was_asked_for_is_refused_before_it_is_written() -> None:
    reply = Reply(10)
    reply.add([memoryview(b"12345678")], False)
    with pytest.raises(ValueError, match="more than"):
        reply.add([memoryview(b"abc")], True)
    assert taken(reply) == b"12345678"


def test_what_is_dropped_is_not_handed_over() -> None:
    reply = Reply(10)
    reply.add([memoryview(b"1")], True)
    reply.drop()
    reply.drop()


SESSION, NUMBER = 0x7F0012345678, 4711
LONG = bytes(range(256)) * (SHORT // 256 + 1)
GetContext = ctypes.CFUNCTYPE(ctypes.c_void_p)


class FakeFuse:
    """A request as libfuse has it, and a pipe in place of the device."""

    def __init__(self) -> None:
        self.request = ctypes.create_string_buffer(struct.pack("@PQ", SESSION, NUMBER))
        self.context = ctypes.create_string_buffer(
            struct.pack("@PIIiPIP", 1, 0, 0, 0, 0, 0, ctypes.addressof(self.request))
        )
        self._function = GetContext(lambda: ctypes.addressof(self.context))
        self.reads, self.writes = os.pipe()
        fcntl.fcntl(self.writes, fcntl.F_SETPIPE_SZ, 4 * len(LONG))

    def device(self, session: int = SESSION, version: tuple[int, int] = LAST) -> Device:
        return Device(self._function, session, self.writes, version)

    def close(self) -> None:
        os.close(self.reads)
        os.close(self.writes)


@pytest.fixture
def fuse() -> Iterator[FakeFuse]:
    fake = FakeFuse()
    yield fake
    fake.close()


def test_a_long_answer_goes_to_the_device_at_once_with_the_number_of_its_request(fuse: FakeFuse) -> None:
    reply = Reply(len(LONG), fuse.device())
    reply.add([memoryview(LONG[:1000]), memoryview(bytearray(LONG[1000:]))], True)
    assert reply.is_sent
    came = os.read(fuse.reads, len(LONG) + 100)
    assert struct.unpack_from("=IiQ", came) == (16 + len(LONG), 0, NUMBER)
    assert came[16:] == LONG


@pytest.mark.parametrize(
    "pieces", [[LONG[:SHORT]], [LONG, b"more"], [b"x" * 2000] * (MOST_PIECES + 1)], ids=["short", "parts", "many"]
)
def test_other_answers_are_copied(fuse: FakeFuse, pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    reply = Reply(len(whole), fuse.device())
    if pieces[-1] == b"more":
        reply.add([memoryview(pieces[0])], False)
        reply.add([memoryview(pieces[1])], True)
    else:
        reply.add([memoryview(piece) for piece in pieces], True)
    assert not reply.is_sent
    assert taken(reply) == whole


def test_where_libfuse_is_another_one_all_is_copied_and_the_log_says_so_once(
    fuse: FakeFuse, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for made in ({"session": SESSION + 8}, {"version": (LAST[0], LAST[1] + 1)}, {"version": (FIRST[0] - 1, 9)}):
        caplog.clear()
        device = fuse.device(**made)  # type: ignore[arg-type]
        for _ in range(2):
            reply = Reply(len(LONG), device)
            reply.add([memoryview(LONG)], True)
            assert not reply.is_sent
            assert taken(reply) == LONG
        assert [record.message.startswith(COPIED) for record in caplog.records] == [True]


def test_a_request_that_is_not_there_is_answered_by_a_copy(fuse: FakeFuse) -> None:
    ctypes.memset(fuse.context, 0, ctypes.sizeof(fuse.context))
    assert not fuse.device().send([memoryview(LONG)])


def test_what_the_device_does_not_take_is_left_to_libfuse(fuse: FakeFuse) -> None:
    device = fuse.device()
    os.close(fuse.writes)
    fuse.writes = os.open(os.devnull, os.O_RDONLY)  # has the same number
    reply = Reply(len(LONG), device)
    reply.add([memoryview(LONG)], True)
    assert not reply.is_sent
    assert taken(reply) == LONG
