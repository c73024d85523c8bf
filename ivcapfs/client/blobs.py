"""Reading the contents of artifacts, by ranges.

Used by the block cache of the filesystem and by `Artifact.open`, `as_stream`, `as_local_file`. What a
server shows is verified before a byte of it is handed on (`ranges`); a transfer that breaks goes on where
it broke, with the same content or not at all.

Threading: `Blobs` may be used by any number of threads; `_lock` guards `_places` and `_pattern`, and no request is made
under it. A `RangeStream` belongs to one thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from ivcapfs import errors
from ivcapfs.client import ranges
from ivcapfs.client.api import Api
from ivcapfs.client.exchange import Stream, refuse_encoding
from ivcapfs.client.origins import ANY_UUID, pattern_of, resolve_data_href
from ivcapfs.client.rate import LeastRate, TooSlow
from ivcapfs.client.retry import Retries, Stopped, never_stopped, worth_repeating
from ivcapfs.client.transport import Transport
from ivcapfs.config import KIB
from ivcapfs.models import Content

T = TypeVar("T")

_MOST_PLACES = 4096
_PIECE = 256 * KIB
_ACCEPT = frozenset({416})
_HEAD_REFUSED = (errors.BadRequest, errors.NotPermitted, errors.ServerFault)


class Place(NamedTuple):
    """Where a content is.

    Attributes:
        size: as the record says; a hint for servers that tell no length.
        cached: whether this was known before the present call, and so may be out of date.
        guessed: whether it only follows from where another content is.
    """

    url: str
    size: int | None
    cached: bool
    guessed: bool = False


class Blobs:
    """The contents of artifacts. Thread-safe.

    Args:
        api: for the records, which say where a content is.
        transport: for the bytes.
    """

    def __init__(self, api: Api, transport: Transport) -> None:
        self._api = api
        self._transport = transport
        self._lock = threading.Lock()
        self._places: OrderedDict[str, Place] = OrderedDict()  # guarded by _lock
        self._pattern: str | None = None  # of the addresses of contents; guarded by _lock

    def open_range(
        self,
        uuid: str,
        start: int,
        stop: int,
        *,
        expected: Content | None,
        size: int | None = None,
        stopped: Stopped = never_stopped,
    ) -> RangeStream:
        """Return the bytes `start` (included) to `stop` (excluded) of an artifact, on entering a ``with``.

        Args:
            uuid: the artifact.
            start, stop: byte offsets; `stop` at most the content's size. An empty range with `expected`
                given makes no request.
            expected: what the caller knows the content to be; None: whatever there is.
            size: of the whole content, as its record says, where the caller has it: then the record need not be read
                if the content's address can be guessed.
            stopped: asked for each chunk; True ends the transfer with `errors.Closing`.

        Entering and iterating raise:
            ContentChanged: the server shows other content than `expected`, or than at the start of the
                transfer.
            NotReady: the artifact has no content (yet).
            NotFound, NotPermitted …: the server refused.
            TransportError: the connection broke too often, or was slower than `Limits.least_rate`.
            ProtocolError: the answer is not what was asked for.
            Closing: the client was closed, or `stopped` said so.
        """
        if not 0 <= start <= stop:
            raise ValueError(f"no range of bytes: {start} to {stop}")
        return RangeStream(self, self._transport, uuid, start, stop, expected, size, stopped)

    def head(self, uuid: str) -> Content:
        """Return what content an artifact has now (``HEAD {data-href}``, or a GET of one byte where refused).

        Raises:
            NotReady: the artifact has no content (yet).
            ApiError, TransportError, ProtocolError: as for `open_range`.
        """
        retries = self._transport.retries(self._transport.clock() + self._transport.limits.total)
        while True:
            try:
                return self.at_its_place(uuid, lambda place: self._head(uuid, place))
            except (errors.TransportError, errors.Unavailable) as exc:
                if not worth_repeating(exc, idempotent=True):
                    raise
                retries.wait(exc)

    def at_its_place(self, uuid: str, ask: Callable[[Place], T], size: int | None = None) -> T:
        """Return what `ask` returns for the place of a content; asked once more if a known place is gone.

        Args:
            size: of the content, if it is known; only then is the place guessed, because only then a wrong answer
                can be told from a right one.
        """
        place = self._place(uuid, size)
        try:
            return ask(place)
        except (errors.ApiError, errors.ProtocolError) as exc:
            is_gone = place.cached and isinstance(exc, errors.ApiError) and exc.status in ranges.MOVED
            if not (is_gone or place.guessed):
                raise
        self.forget(uuid)
        return ask(self._read_place(uuid))

    def forget(self, uuid: str) -> None:
        """Drop where the content of an artifact is; the next call asks for the record again."""
        with self._lock:
            self._places.pop(uuid, None)

    def _place(self, uuid: str, size: int | None) -> Place:
        """Return where a content is: where it was, else where the last one suggests, else where its record says.

        A wrong guess costs one request: whatever is answered but a content of the right size, the record is read
        then (`at_its_place`).
        """
        with self._lock:
            known = self._places.get(uuid)
            if known is not None:
                self._places.move_to_end(uuid)
                return known
            if self._pattern is not None and size is not None:
                return Place(self._pattern.replace(ANY_UUID, uuid), size, cached=True, guessed=True)
        return self._read_place(uuid)

    def _read_place(self, uuid: str) -> Place:
        """Return where a content is, as its record says."""
        record = self._api.read_artifact(uuid)
        if not record.is_ready or not record.data_href:
            raise errors.NotReady(f"artifact {uuid} has no readable content: its status is {record.status}")
        url = resolve_data_href(self._transport.base, record.data_href)
        place = Place(url, record.size, cached=True)
        with self._lock:
            self._pattern = pattern_of(url, uuid)
            self._places[uuid] = place
            while len(self._places) > _MOST_PLACES:
                self._places.popitem(last=False)
        return place._replace(cached=False)

    def _head(self, uuid: str, place: Place) -> Content:
        what = f"asking for the content of {uuid}"
        try:
            with self._transport.stream("HEAD", place.url, what=what) as stream:
                refuse_encoding(stream, what)
                size = ranges.content_length(stream.headers)
                # A length of 0 is also what some servers say to any HEAD.
                if size or (size == 0 and place.size in (0, None)):
                    return ranges.content_of(stream.headers, size)
        except _HEAD_REFUSED:
            pass
        with self._transport.stream(
            "GET", place.url, what=what, headers={"Range": "bytes=0-0"}, accept=_ACCEPT
        ) as stream:
            return ranges.shown_content(stream.status, stream.headers, place.size, what)


class RangeStream:
    """Some bytes of a content, on their way; used in a ``with``, and iterated once. One thread.

    The chunks add up to exactly the bytes asked for, or the iteration raises; so what was received counts
    only once the iteration has ended.

    Attributes:
        content: which content they are from, known from entering on.
    """

    content: Content

    def __init__(
        self,
        blobs: Blobs,
        transport: Transport,
        uuid: str,
        start: int,
        stop: int,
        expected: Content | None,
        size: int | None,
        stopped: Stopped,
    ) -> None:
        self._blobs = blobs
        self._transport = transport
        self._uuid = uuid
        self._position = start
        self._stop = stop
        self._known = expected
        self._size = size
        self._stopped = stopped
        self._what = f"reading {uuid}"
        self._rate = LeastRate(transport.limits)
        self._retries: Retries | None = None
        self._exchange = contextlib.ExitStack()
        self._stream: Stream | None = None
        self._answer: ranges.Answer | None = None
        self._skip = self._left = 0  # bytes of the present answer still to be dropped, and to be read
        self._ended_at: float | None = None  # the last answer; from then on the next bytes are waited for

    def __enter__(self) -> Self:
        if self._position == self._stop:
            self.content = self._known or self._blobs.head(self._uuid)
        else:
            self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exchange.close()

    def __iter__(self) -> Iterator[bytes]:
        buffer = memoryview(bytearray(min(_PIECE, max(1, self._stop - self._position))))
        while got := self.readinto(buffer):
            yield bytes(buffer[:got])

    def readinto(self, view: memoryview) -> int:
        """Read what has come, at least one byte, into `view`; 0 once all bytes asked for were read."""
        while self._position < self._stop:
            try:
                got = self._read_some(view[: self._stop - self._position])
            except TooSlow:
                raise
            except errors.TransportError as exc:
                self._ended_at = self._transport.clock()
                self._exchange.close()
                self._pause(exc)
                got = 0
            if got:
                return got
            self._ended_at = self._ended_at or self._transport.clock()
            self._exchange.close()
            self._open()
        return 0

    def _open(self) -> None:
        """Ask for what is missing, until there is an answer that brings it."""
        while True:
            try:
                self._blobs.at_its_place(self._uuid, self._ask, self._size)
                return
            except (errors.TransportError, errors.Unavailable) as exc:
                if not worth_repeating(exc, idempotent=True):
                    raise
                self._pause(exc)

    def _pause(self, error: errors.IvcapfsError) -> None:
        """Wait before the next try; tries are counted, and timed, from the last byte that came."""
        if self._retries is None:
            self._retries = self._transport.retries(self._transport.clock() + self._transport.limits.total)
        self._retries.wait(error)

    def _ask(self, place: Place) -> None:
        """Make the request, and keep its answer if it is what was asked for."""
        self._check_stopped()
        headers = {"Range": f"bytes={self._position}-{self._stop - 1}"}
        if self._known is not None and self._known.strong:
            headers["If-Range"] = self._known.validator
        with contextlib.ExitStack() as exchange:
            stream = exchange.enter_context(
                self._transport.stream("GET", place.url, what=self._what, headers=headers, accept=_ACCEPT, direct=True)
            )
            refuse_encoding(stream, self._what)
            self._answer = ranges.read_answer(
                stream.status,
                stream.headers,
                start=self._position,
                stop=self._stop,
                expected=self._known,
                hint=place.size,
                what=self._what,
            )
            if place.guessed and self._answer.content.size != self._size:
                raise errors.ProtocolError(f"{self._what}: another content, at an address that was guessed")
            self._stream = stream
            self._skip, self._left = self._answer.skip, self._answer.length
            self.content = self._known = self._answer.content
            self._exchange = exchange.pop_all()

    def _read_some(self, view: memoryview) -> int:
        """Read from the present answer; 0 where it has brought all that it will, and that was not all."""
        assert self._answer is not None
        if self._skip:
            scratch = memoryview(bytearray(_PIECE))
            while self._skip:
                self._skip -= self._timed_read(scratch[: self._skip])
        if not self._left:
            return 0
        got = self._timed_read(view[: self._left])
        self._left -= got
        if not self._left and self._answer.ends and self._reads_on():
            raise errors.ProtocolError(f"{self._what}: the server sent more than it said")
        self._position += got
        self._retries = None
        return got

    def _timed_read(self, view: memoryview) -> int:
        """Read at least one byte, watching the rate and whether to stop."""
        assert self._stream is not None
        self._check_stopped()
        began, self._ended_at = self._ended_at or self._transport.clock(), None
        try:
            got = self._stream.readinto(view)
        except errors.DeadlineExceeded:
            self._rate.silent(self._transport.clock() - began)
            raise
        self._rate.waited(self._transport.clock() - began, got)
        if not got:
            raise errors.ConnectionBroken(f"{self._what}: {self._skip + self._left} bytes are missing at the end")
        return got

    def _reads_on(self) -> bool:
        """Return whether the body goes on behind its end; reading on also frees the connection for others."""
        assert self._stream is not None
        try:
            return self._stream.readinto(memoryview(bytearray(1))) > 0
        except errors.TransportError:
            return False

    def _check_stopped(self) -> None:
        if self._stopped():
            raise errors.Closing(f"{self._what}: ended by its reader")
