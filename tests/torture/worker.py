"""One process of the storm: operations on two mounts, each checked against a model of what is allowed.

Run by `tests.torture.storm` as a module, with its job as JSON on standard input; what it found is JSON on standard
output. It ends at the first difference. What may be refused while requests fail is EIO and ETIMEDOUT, and nothing else;
what is answered is right.
"""

from __future__ import annotations

import array
import errno
import json
import os
import random
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.torture.contents import own, shared, shared_name, shared_size, whose
from tests.torture.model import ASPECT, UPLOAD, Own, OwnFiles

REFUSED = {errno.EIO, errno.ETIMEDOUT}
"""What an operation may answer whose requests failed."""
MOST_HANDLES = 12


class Wrong(Exception):
    """An answer that the model does not allow."""


def read_on(fd: int, size: int, at: int) -> bytes:
    """As pread(2), but read on from where that ends short, as it does before bytes that fail: to the error, or the end
    of the file."""
    got = b""
    while len(got) < size and (piece := os.pread(fd, size - len(got), at + len(got))):
        got += piece
    return got


@dataclass
class Job:
    """What a worker is to do.

    Attributes:
        writing, reading: the mounts.
        shared: how many shared artifacts there are.
        operations: how many operations; None: until `seconds` are over.
    """

    index: int
    workers: int
    seed: int
    writing: str
    reading: str
    pool: str
    shared: int
    operations: int | None
    seconds: float | None


@dataclass
class Worker:
    """See the module."""

    job: Job
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    metadata: array.array[float] = field(default_factory=lambda: array.array("d"))
    longest: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.chance = random.Random(f"{self.job.seed}/{self.job.index}")
        self.pool = Path(self.job.pool).read_bytes()
        self.files = OwnFiles(self.job.index)
        self.folder = f"{self.job.writing}/artifacts/w{self.job.index}"
        self.handles: list[tuple[int, int]] = []
        self.inodes: dict[int, int] = {}
        self.aspects: dict[int, list[int | None]] = {}
        self._works: list[tuple[float, str, Callable[[], None], bool]] = [
            (120, "read a part", self.read_part, False),
            (90, "stat", self.stat_shared, True),
            (4, "open", self.open_another, True),
            (5, "read a whole", self.read_whole, False),
            (4, "stat what is not there", self.stat_missing, True),
            (1.5, "list", self.list_shared, True),
            (1, "list own", self.list_own, True),
            (30, "stat own", self.stat_own, True),
            (3, "read own", self.read_own, False),
            (5, "attribute", self.read_attribute, True),
            (0.5, "set an aspect", self.set_aspect, False),
            (1.5, "look at an upload", self.probe, True),
            (1.0, "write", self.write_new, False),
            (0.25, "replace", self.replace, False),
            (0.3, "rename", self.rename, False),
            (0.3, "unlink", self.unlink, False),
            (0.3, "touch", self.touch, False),
            (1.0, "what is not allowed", self.forbidden, True),
            (1.5, "read a neighbour's", self.read_neighbour, False),
        ]

    def run(self) -> None:
        """Do the job."""
        end = None if self.job.seconds is None else time.monotonic() + self.job.seconds
        total, weights = 0, [weight for weight, *_ in self._works]
        while self.job.operations is None or total < self.job.operations:
            for _, name, work, is_metadata in self.chance.choices(self._works, weights, k=50):
                begin = time.monotonic()
                try:
                    work()
                except OSError as exc:
                    if exc.errno not in REFUSED:
                        raise Wrong(f"{name}: {exc!r}") from exc
                    self.refused[f"{name}: {errno.errorcode[exc.errno]}"] += 1
                took = time.monotonic() - begin
                self.done[name] += 1
                self.longest[name] = max(self.longest[name], took)
                if is_metadata:
                    self.metadata.append(took)
            total += 50
            if end is not None and time.monotonic() > end:
                break
        for fd, _ in self.handles:
            os.close(fd)

    # -- what is shared ------------------------------------------------------------------------------------------

    def _shared(self, number: int) -> str:
        mount = self.job.writing if self.chance.random() < 0.5 else self.job.reading
        return f"{mount}/artifacts/{shared_name(number)}"

    def _any(self) -> int:
        return self.chance.randrange(self.job.shared)

    def open_another(self) -> None:
        """Open one more shared file, and close the oldest."""
        number = self._any()
        self.handles.append((os.open(self._shared(number), os.O_RDONLY), number))
        if len(self.handles) > MOST_HANDLES:
            os.close(self.handles.pop(0)[0])

    def read_part(self) -> None:
        """Read some bytes of an open file."""
        if not self.handles:
            return self.open_another()
        fd, number = self.chance.choice(self.handles)
        content = shared(self.pool, number)
        at, size = self.chance.randrange(len(content) + 10), self.chance.choice((1, 512, 4096, 70_000, 200_000))
        if self.chance.random() < 0.05:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        wanted, got = content[at : at + size], read_on(fd, size, at)
        if got != wanted:
            wrong = (place for place, byte in enumerate(got) if wanted[place : place + 1] != bytes([byte]))
            right = next(wrong, len(got))
            what = f"{len(got)} bytes instead of {len(wanted)}, the first {right} of them right"
            raise Wrong(f"{shared_name(number)}, {size} bytes at {at}: {what}")
        return None

    def read_whole(self) -> None:
        """Open a file, read all of it, close it."""
        number = self._any()
        with open(self._shared(number), "rb", buffering=0) as file:
            if self.chance.random() < 0.5:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if file.read() != shared(self.pool, number):
                raise Wrong(f"wrong bytes in {shared_name(number)}")

    def stat_shared(self) -> None:
        """Ask for the attributes of a file."""
        number = self._any()
        told = os.stat(self._shared(number))
        inode = self.inodes.setdefault(number, told.st_ino)
        if told.st_size != shared_size(number) or not stat.S_ISREG(told.st_mode) or told.st_ino != inode:
            raise Wrong(f"{shared_name(number)}: {told}")

    def list_shared(self) -> None:
        """List a folder of which everything is known."""
        group = self._any() // 50
        last = min(self.job.shared, group * 50 + 50)
        names = {os.path.basename(shared_name(number)) for number in range(group * 50, last)}
        if set(os.listdir(os.path.dirname(self._shared(group * 50)))) != names:
            raise Wrong(f"the list of shared/{group:02} is not what is there")

    def stat_missing(self) -> None:
        """Ask for what is not there."""
        name = self.chance.choice(("shared/00/none", "none", f"w{self.job.index}/none"))
        mount = self.chance.choice((self.job.writing, self.job.reading))
        path = f"{mount}/artifacts/{name}-{self.chance.randrange(10_000)}"
        try:
            os.stat(path)
        except FileNotFoundError:
            return
        raise Wrong(f"{path} is there")

    def forbidden(self) -> None:
        """Try what no mount allows."""
        path = f"{self.job.writing}/artifacts/{shared_name(self._any())}"
        folder = os.path.dirname(path)
        tries: list[tuple[int, Callable[[], object]]] = [
            (errno.EPERM, lambda: os.open(path, os.O_RDWR)),
            (errno.EPERM, lambda: os.unlink(path)),
            (errno.EPERM, lambda: os.rename(path, f"{self.folder}/stolen")),
            (errno.EEXIST, lambda: os.mkdir(folder)),
            (errno.EEXIST, lambda: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)),
            (errno.ENOTEMPTY, lambda: os.rmdir(folder)),
            (errno.EROFS, lambda: os.mkdir(f"{self.job.reading}/artifacts/new")),
            (errno.ENOTDIR, lambda: os.listdir(path)),
        ]
        expected, work = self.chance.choice(tries)
        try:
            work()
        except OSError as exc:
            if exc.errno not in {expected, errno.EBUSY} | REFUSED:  # busy: somebody reads it
                raise Wrong(f"{path}: {exc!r}, not {errno.errorcode[expected]}") from exc
            return
        raise Wrong(f"{path}: not refused with {errno.errorcode[expected]}")

    def read_attribute(self) -> None:
        """Read an extended attribute."""
        number = self._any()
        path = f"{self.job.writing}/artifacts/{shared_name(number)}"
        if number % self.job.workers != self.job.index or self.chance.random() < 0.3:
            if os.getxattr(path, "user.ivcap.name").decode() != shared_name(number):
                raise Wrong(f"{path} has another name")
            return
        allowed = self.aspects.get(number, [])
        try:
            value = json.loads(os.getxattr(path, ASPECT))["n"]
        except OSError as exc:
            if exc.errno != errno.ENODATA:
                raise
            value = None
        if (value is None and allowed and None not in allowed) or (value is not None and value not in allowed):
            raise Wrong(f"{path}: its aspect has {value}, allowed are {allowed}")

    def set_aspect(self) -> None:
        """Set an aspect of an artifact that is this worker's to change."""
        number = self._any() // self.job.workers * self.job.workers + self.job.index
        if number >= self.job.shared:
            return
        path = f"{self.job.writing}/artifacts/{shared_name(number)}"
        value = self.chance.randrange(10**9)
        before = self.aspects.get(number, [None])
        self.aspects[number] = [*before, value]
        os.setxattr(path, ASPECT, json.dumps({"n": value}).encode())
        self.aspects[number] = [value]

    def read_neighbour(self) -> None:
        """Read what another worker wrote, by the other mount: whichever version, but whole."""
        other = self.chance.randrange(self.job.workers)
        folder = f"{self.job.reading}/artifacts/w{other}"
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return  # nothing of it is an artifact yet
        name = self.chance.choice(names)
        with open(f"{folder}/{name}", "rb", buffering=0) as file:
            data = file.read()
        found = whose(data)
        is_right = (not data and name.startswith("e")) or (found and data == own(self.pool, *found))
        if not is_right or (found and found[0] != other):
            raise Wrong(f"{folder}/{name}: {len(data)} bytes that nobody wrote")

    # -- what is written -----------------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def write_new(self) -> None:
        """Write a new file."""
        self._write(self.files.new_name("f"))

    def replace(self) -> None:
        """Write a new version of what is an artifact."""
        name = self.files.pick(self.chance, artifact=True)
        if name is not None and not self.files.current[name].is_empty:
            try:
                self._write(name)
            except OSError as exc:
                if exc.errno != errno.EBUSY:  # its last reader's release(2) is on its way still
                    raise

    def _write(self, name: str) -> None:
        version = self.files.next_version()
        data = own(self.pool, self.job.index, version)
        fd = os.open(self._path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self.files.wrote(name, Own(version, len(data)))
        step = self.chance.choice((len(data), 4096, 65_536))
        try:
            if self.chance.random() < 0.2:
                os.pwrite(fd, bytes(len(data)), 0)
            for at in range(0, len(data), max(step, 1)):
                os.pwrite(fd, data[at : at + step], at)
            if self.chance.random() < 0.2:
                try:
                    os.fsync(fd)
                except OSError as exc:
                    if exc.errno not in REFUSED:
                        raise
        finally:
            self._close(name, fd)

    def touch(self) -> None:
        """Make an empty file."""
        name = self.files.new_name("e")
        fd = os.open(self._path(name), os.O_WRONLY | os.O_CREAT, 0o644)
        self.files.wrote(name, Own(self.files.next_version(), 0))
        self._close(name, fd)

    def _close(self, name: str, fd: int) -> None:
        try:
            os.close(fd)
        except OSError as exc:
            if exc.errno not in REFUSED:
                raise
            self.refused[f"close: {errno.errorcode[exc.errno]}"] += 1
            if self.chance.random() < 0.3:
                os.unlink(self._path(name))
                self.files.removed(name)
            else:
                self._retry(name)

    def _retry(self, name: str) -> None:
        """Send a file after all whose close(2) failed."""
        path = self._path(name)
        for _ in range(200):  # release(2), which takes note of the failure, is on its way still
            if os.getxattr(path, UPLOAD).startswith(b"failed"):
                os.setxattr(path, UPLOAD, b"retry")
                return
            time.sleep(0.02)
        raise Wrong(f"{path}: close failed, and it is {os.getxattr(path, UPLOAD)!r}")

    def rename(self) -> None:
        """Rename a file that has not settled."""
        name = self.files.pick(self.chance, artifact=False)
        if name is None:
            return
        new = self.files.new_name(name[0])
        try:
            os.rename(self._path(name), self._path(new))
        except OSError as exc:
            if exc.errno not in {errno.EPERM, errno.EBUSY} | REFUSED:
                raise
        else:
            self.files.renamed(name, new)

    def unlink(self) -> None:
        """Remove a file that has not settled."""
        name = self.files.pick(self.chance, artifact=False)
        if name is None:
            return
        try:
            os.unlink(self._path(name))
        except OSError as exc:
            if exc.errno not in {errno.EPERM, errno.EBUSY} | REFUSED:
                raise
        else:
            self.files.removed(name)

    def probe(self) -> None:
        """Ask how an upload does; now and then set an aspect of it."""
        name = self.files.pick(self.chance, artifact=False)
        if name is None:
            return
        file = self.files.current[name]
        if self.chance.random() < 0.2:
            value = self.chance.randrange(10**9)
            file.aspect = [*(file.aspect or [None]), value]
            os.setxattr(self._path(name), ASPECT, json.dumps({"n": value}).encode())
            file.aspect = [value]
        try:
            state = os.getxattr(self._path(name), UPLOAD).decode()
        except OSError as exc:
            if exc.errno != errno.ENODATA:
                raise
            file.is_artifact = True
            return
        if state not in ("pending", "writing") and not state.startswith("uploading"):
            raise Wrong(f"{name} was closed, and is {state}")

    def stat_own(self) -> None:
        """Ask for the size of a file of its own."""
        if (name := self.files.pick(self.chance)) is not None:
            size = os.stat(self._path(name)).st_size
            if size != self.files.current[name].size:
                raise Wrong(f"{name} has {size} bytes, not {self.files.current[name].size}")

    def read_own(self) -> None:
        """Read a file of its own: the version that it wrote last."""
        if (name := self.files.pick(self.chance)) is None:
            return
        file = self.files.current[name]
        with open(self._path(name), "rb", buffering=0) as stream:
            data = stream.read()
        if data != (b"" if file.is_empty else own(self.pool, self.job.index, file.version)):
            raise Wrong(f"{name}: {len(data)} bytes like {whose(data)}, not version {file.version} of {file.size}")

    def list_own(self) -> None:
        """List its own folder: all that it wrote is there, and nothing else; older versions have their @id."""
        listed = {name for name in os.listdir(self.folder) if "@" not in name}
        if listed != set(self.files.current):
            raise Wrong(f"listed {sorted(listed - set(self.files.current))}, "
                        f"not listed {sorted(set(self.files.current) - listed)}")  # fmt: skip


def main() -> None:
    """Do the job on standard input."""
    job = Job(**json.load(sys.stdin))
    worker = Worker(job)
    difference = ""
    try:
        worker.run()
    except Wrong as exc:
        difference = f"worker {job.index}: {exc}"
    found: dict[str, Any] = {
        "done": worker.done, "refused": worker.refused, "difference": difference,
        "longest": worker.longest, "metadata": worker.metadata.tolist(), "own": worker.files.outcome(),
        "aspects": {shared_name(number): values for number, values in worker.aspects.items()},
    }  # fmt: skip
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
