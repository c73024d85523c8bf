"""Between the read engine's blocks and the disk tier's: pieces of fixed sizes, and which content an artifact had.

Used by `ivcapfs.cache.transfer`. The engine's blocks begin and end wherever a reader needed them; what is kept on disk
must be found again by the next mount, whose blocks begin elsewhere. So the disk has pieces of two sizes: long ones of
`LONG` smallest blocks, which reading on leaves behind, and short ones of one, which jumping about does.

The validator that is part of every key is known only from an answer of the server. It is kept on disk too, so that a
second mount can read what is there without any request; an artifact whose content turned out to be another one is not
looked up again.

Threading: any thread; holds no state but the tier's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Protocol

from ivcapfs.models import BlockKey, Content

LONG = 8
"""Smallest blocks in a long piece."""
PATIENCE_SECONDS = 5.0
"""How long a transfer waits for a disk that is slower than the server: that beats fetching the bytes again."""
FLUSH_SECONDS = 10.0
NOTE_SIZE = 512
"""Bytes of the note of a content; a validator that does not fit is not kept."""
_NOTE = "content"


class Tier(Protocol):
    """Keeps blocks of bytes under their keys; `ivcapfs.cache.disk.DiskTier`, or a fake."""

    def get(self, key: BlockKey, into: memoryview) -> bool:
        """Fill `into` with a block, if it is there whole."""
        ...

    def put(self, key: BlockKey, block: memoryview | bytes, patience: float = 0.0) -> None:
        """Keep a block, some time soon, if there is room within `patience` seconds."""
        ...

    def forget(self, key: BlockKey) -> None:
        """Remove a block."""
        ...

    def flush(self, seconds: float) -> None:
        """Wait until what was put is kept, or that time is over."""
        ...

    def close(self) -> None:
        """Take and give nothing more. May be called again."""
        ...


class Shelf:
    """An artifact's bytes in a tier.

    Args:
        unit: bytes of the smallest block.
        origin, identity: whose bytes these are.
    """

    def __init__(self, tier: Tier, unit: int, origin: str, identity: str) -> None:
        self._tier = tier
        self._unit = unit
        self._scope = (origin, identity)

    def content(self, uuid: str) -> Content | None:
        """Return which content the artifact had when it was last read, if that was noted."""
        note = bytearray(NOTE_SIZE)
        if not self._tier.get(self._key(uuid, _NOTE, 0), memoryview(note)):
            return None
        try:
            validator, size, strong = json.loads(note.rstrip(b" \0"))
        except ValueError:
            return None
        return Content(str(validator), int(size), bool(strong))

    def note(self, uuid: str, content: Content, *, again: bool = False) -> None:
        """Keep which content the artifact has.

        Args:
            again: whether another content may be noted, which was not true.
        """
        if again:
            self._tier.forget(self._key(uuid, _NOTE, 0))
        text = json.dumps([content.validator, content.size, content.strong]).encode()
        if len(text) <= NOTE_SIZE:
            self._tier.put(self._key(uuid, _NOTE, 0), text.ljust(NOTE_SIZE))

    def restore(self, uuid: str, content: Content, start: int, room: memoryview) -> Iterator[int]:
        """Fill `room` with the bytes from `start` on, as far as they are there without a gap.

        Yields:
            How many bytes each piece brought.
        """
        done = 0
        while done < len(room):
            got = self._restore_piece(uuid, content, start + done, room[done:])
            if not got:
                return
            done += got
            yield got

    def keep(self, uuid: str, content: Content, start: int, data: memoryview) -> None:
        """Keep the bytes from `start` on: as long pieces where they are whole, as short ones where not."""
        position, end = start, start + len(data)
        while position < end:
            size = self._piece(content, position, self._unit * LONG)
            if position % (self._unit * LONG) or position + size > end:
                size = self._piece(content, position, self._unit)
            if position + size <= end:
                self._put(uuid, content, position, data[position - start :][:size])
            position += size

    def close(self) -> None:
        """See to it that everything is kept, within bounds, and end. May be called again."""
        self._tier.flush(FLUSH_SECONDS)
        self._tier.close()

    def _restore_piece(self, uuid: str, content: Content, start: int, room: memoryview) -> int:
        """Fill in what a piece with the byte at `start` has of `room`; return how many bytes, 0 if there is none."""
        long = self._unit * LONG
        first = start - start % long
        size = self._piece(content, first, long)
        if first == start and size <= len(room):
            if self._tier.get(self._piece_key(uuid, content, first, size), room[:size]):
                return size
            return self._restore_short(uuid, content, start, room)
        return self._restore_short(uuid, content, start, room) or self._restore_part(uuid, content, first, start, room)

    def _restore_short(self, uuid: str, content: Content, start: int, room: memoryview) -> int:
        size = self._piece(content, start, self._unit)
        if size > len(room) or not self._tier.get(self._piece_key(uuid, content, start, size), room[:size]):
            return 0
        return size

    def _restore_part(self, uuid: str, content: Content, first: int, start: int, room: memoryview) -> int:
        """As `_restore_piece`, of a long piece that begins before `start` or is longer than `room`."""
        size = self._piece(content, first, self._unit * LONG)
        whole = memoryview(bytearray(size))
        if not self._tier.get(self._piece_key(uuid, content, first, size), whole):
            return 0
        part = whole[start - first :][: len(room)]
        room[: len(part)] = part
        return len(part)

    def _put(self, uuid: str, content: Content, start: int, data: memoryview) -> None:
        self._tier.put(self._piece_key(uuid, content, start, len(data)), data, PATIENCE_SECONDS)

    def _piece(self, content: Content, start: int, size: int) -> int:
        """Return how long a piece of `size` is where the content may end before."""
        return min(size, content.size - start)

    def _piece_key(self, uuid: str, content: Content, start: int, size: int) -> BlockKey:
        return self._key(uuid, f"{content.size}:{size}:{content.validator}", start // self._unit)

    def _key(self, uuid: str, validator: str, number: int) -> BlockKey:
        return BlockKey(*self._scope, uuid, validator, number)
