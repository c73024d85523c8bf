"""An artifact becomes a file of this machine: in parallel ranges, and so that it can be gone on with.

Used by ``ivcapfs get``. The bytes go into ``<name>.part``, which gets its name when it is complete; a note (`notes`)
says which ranges of which content are in it, so that the next ``get`` fetches the others alone. A range is noted only
once its bytes are on the disk. Another content than the noted one begins anew.

Threading: a `Getter` may be used by any number of threads, a file belongs to one; its ranges are fetched on a pool that
all files share.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from ivcapfs.catalog.schema import nanoseconds
from ivcapfs.catalog.store import store_name
from ivcapfs.client import Connection
from ivcapfs.client.retry import Stopped, never_stopped
from ivcapfs.config import MIB
from ivcapfs.errors import AlreadyThere, Closing, ContentChanged
from ivcapfs.models import ArtifactRecord
from ivcapfs.spool.folder import write_all
from ivcapfs.transfers.notes import Note
from ivcapfs.transfers.part import Part, opened, part_path

RANGE = 8 * MIB
"""Bytes that are fetched by one request."""
PIECE = MIB
"""Bytes of each transfer that are in memory at a time."""
SAME_TIME_NS = 2_000_000_000
"""How far the times of a file may be off on a file system that keeps them coarsely."""

Tell = Callable[[int], None]


class Getter:
    """See the module. Close it, or use it in a ``with``.

    Args:
        notes: the folder of notes.
        jobs: transfers at the same time, of all files together.
        force: replace files that are there.
        stopped: asked now and then; True ends everything with `Closing`.
    """

    def __init__(
        self,
        connection: Connection,
        notes: Path,
        *,
        jobs: int,
        force: bool = False,
        range_size: int = RANGE,
        stopped: Stopped = never_stopped,
    ) -> None:
        self._blobs = connection.blobs
        self._deployment = store_name(connection.origin, connection.identity)
        self._notes = notes
        self._jobs = jobs
        self._force = force
        self._range = range_size
        self._stopped = stopped
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="range")

    def get(self, record: ArtifactRecord, target: Path, tell: Tell = lambda done: None) -> bool:
        """Make an artifact a file, or go on where it was left; return False where the file was there already.

        Args:
            target: absolute; the folders above are made.
            tell: called with the bytes that are here, again and again; from several threads.

        Raises:
            AlreadyThere: there is another file.
            InUse: another process is at it.
            OSError: the disk refuses.
            ApiError, TransportError, ProtocolError, NotReady: the server does not give it.
            Closing: `stopped` said so.
        """
        content = None if record.size is not None else self._blobs.head(record.uuid)
        size = record.size if content is None else content.size
        assert size is not None
        time_ns = nanoseconds(record.created_at)
        if self._is_there(target, size, time_ns):
            tell(size)
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        with Note(self._notes, "get", self._deployment, record.uuid, str(target)) as note:
            if content is None and (size > self._range or note.value is not None):
                content = self._blobs.head(record.uuid)
            if content is not None and content.size != size:
                raise ContentChanged(f"artifact {record.uuid} has {content.size} bytes, its record says {size}")
            with opened(note, part_path(target), content, size, self._range, force=self._force) as part:
                self._fetch(record.uuid, part, tell)
                os.utime(part.fd, ns=(time_ns, time_ns))
                self._name(part.path, target)
                note.remove()
        return True

    def close(self) -> None:
        """End the pool; what is under way ends by `stopped`."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _is_there(self, target: Path, size: int, time_ns: int) -> bool:
        try:
            status = target.lstat()
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(status.st_mode):
            raise AlreadyThere(f"{target} is a folder, and the artifact's content would be a file")
        if self._force:
            return False
        is_same_time = abs(status.st_mtime_ns - time_ns) < SAME_TIME_NS
        if stat.S_ISREG(status.st_mode) and status.st_size == size and is_same_time:
            return True
        raise AlreadyThere(f"{target} is there already, and is another file: --force replaces it")

    def _fetch(self, uuid: str, part: Part, tell: Tell) -> None:
        """Fetch the ranges that are missing; what came is noted, also where this fails."""
        tell(part.here())
        missing = part.missing()
        taking = threading.Lock()

        def pull() -> None:
            while True:
                with taking:
                    number = next(missing, None)
                if number is None or part.failed:
                    return
                try:
                    self._bring(uuid, part, number, tell)
                except BaseException:
                    part.failed = True
                    raise

        try:
            futures = [self._pool.submit(pull) for _ in range(min(self._jobs, part.count))]
        except RuntimeError as exc:
            raise Closing("ended by its caller") from exc
        wait(futures)
        part.note_all()
        for future in futures:
            future.result()

    def _bring(self, uuid: str, part: Part, number: int, tell: Tell) -> None:
        """Fetch one range; runs on the pool."""
        start, stop = part.bounds(number)
        buffer = memoryview(bytearray(min(PIECE, stop - start)))
        stream = self._blobs.open_range(
            uuid, start, stop, expected=part.content, size=part.size, stopped=self._stopped
        )
        offset = start
        with stream:
            if stream.content.size != part.size:
                raise ContentChanged(f"artifact {uuid} has {stream.content.size} bytes, its record says {part.size}")
            while got := stream.readinto(buffer):
                write_all(part.fd, buffer[:got], offset)
                offset += got
                tell(part.came(number, offset - start))
        part.done(number)

    def _name(self, part: Path, target: Path) -> None:
        """Give a complete file its name; one that appeared there meanwhile stays, unless it is to be replaced."""
        if not self._force:
            try:
                os.link(part, target)
            except FileExistsError as exc:
                raise AlreadyThere(f"{target} is there already, and is another file: --force replaces it") from exc
            except OSError:
                part.rename(target)  # a file system without hard links
            else:
                part.unlink()
        else:
            part.replace(target)

    def __enter__(self) -> Getter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
