"""What the demo is shown on: a platform with the sample files, mounted; and how all of it goes away again.

Used by `ivcapfs.demo.tour`. Main thread only. Each thing is a context that removes what it made, so that whatever
happens (an error, a signal) it is undone in reverse order: mount, platform, mount point, temporary folder.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ivcapfs.client import IVCAP, Artifact
from ivcapfs.demo import samples
from ivcapfs.demo.processes import IVCAPFS, Process, Signals, end_tagged, environment, eventually, start
from ivcapfs.errors import ConfigError, MountError
from ivcapfs.fs.mountpoint import check_machine, check_mountpoint, mount_at, mounts
from ivcapfs.fs.unmounting import unmount, unmount_lazily
from ivcapfs.options import absolute

START_SECONDS = 15.0
MOUNT_SECONDS = 60.0
"""More than any bound of `ivcapfs mount` itself, which says why it fails."""
UNMOUNT_SECONDS = 3.0
"""How long a mount may stay busy: a program may be just ending there."""
END_SECONDS = 5.0
TAG = "IVCAPFS_DEMO_MOUNT"

Show = Callable[[str, str], None]
"""Shows a command and what it said."""


@dataclass(frozen=True)
class Stage:
    """Everything in its place.

    Attributes:
        samples: what was uploaded, with the artifacts made of it.
        folder: temporary; programs may write here.
    """

    url: str
    token_file: Path
    mountpoint: Path
    folder: Path
    samples: list[tuple[samples.Sample, Artifact]]
    signals: Signals

    def artifact(self, name: str) -> Artifact:
        """Return the newest artifact of a name."""
        return next(artifact for sample, artifact in reversed(self.samples) if sample.name == name)

    def original(self, name: str) -> Path:
        """Return the file that the newest artifact of a name was made of."""
        return next(sample.path for sample, _ in reversed(self.samples) if sample.name == name)


@contextlib.contextmanager
def stage(mountpoint: Path | None, signals: Signals, show: Show) -> Iterator[Stage]:
    """Set everything up, and take it down at the end.

    Args:
        mountpoint: an empty folder, or one to be made; None: one in the temporary folder.
        show: told of each command.

    Raises:
        MountError: the mount cannot begin, or did not come down cleanly.
        ConfigError: the platform did not start.
        Stopped: a signal came.
    """
    check_machine(others=False)
    with (
        temporary_folder() as folder,
        folder_at(absolute(mountpoint or folder / "ivcap")) as where,
        platform(folder, signals, show) as (url, token_file),
    ):
        uploaded = upload(folder, url, token_file, signals)
        with mounted(url, where, folder, token_file, signals, show):
            yield Stage(url, token_file, where, folder, uploaded, signals)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of our own, removed with all that is in it; never through a mount."""
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="ivcapfs-demo-")))
    try:
        yield folder
    finally:
        if not any(Path(mount.mountpoint).is_relative_to(folder) for mount in mounts()):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def folder_at(path: Path) -> Iterator[Path]:
    """A folder that something can be mounted at; removed again if it was not there before.

    Raises:
        MountError: there is something that does not fit.
    """
    try:
        path.mkdir()
        made = True
    except FileExistsError:
        made = False
    except OSError as exc:
        raise MountError(f"the mount point {path} cannot be made: {exc.strerror}") from exc
    try:
        check_mountpoint(path)
        yield path
    finally:
        if made:
            with contextlib.suppress(OSError):
                path.rmdir()


@contextlib.contextmanager
def platform(folder: Path, signals: Signals, show: Show) -> Iterator[tuple[str, Path]]:
    """A platform that asks for a token; gives its URL and the file with the token.

    Raises:
        ConfigError: it did not start.
    """
    token_file = folder / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(secrets.token_urlsafe(24) + "\n", encoding="ascii")
    words = ("serve", "--data", str(folder / "platform"), "--token-file", str(token_file))
    server = start([*IVCAPFS, *words], folder / "serve.log", environment())
    try:
        eventually(lambda: server.output().endswith("\n") or server.code() is not None, START_SECONDS, signals)
        url = server.output().partition("\n")[0]
        if server.code() is not None or not url.startswith("http"):
            raise ConfigError(f"the local platform did not start: {_last_line(server) or 'no answer'}")
        show(f"ivcapfs {' '.join(words)} &", url)
        yield url, token_file
    finally:
        server.end()


def upload(
    folder: Path, url: str, token_file: Path, signals: Signals
) -> list[tuple[samples.Sample, Artifact]]:
    """Upload the sample files and add their metadata; return each with its artifact."""
    originals = folder / "originals"
    originals.mkdir()
    uploaded = []
    with IVCAP(url, token_file.read_text(encoding="ascii").strip()) as ivcap:
        for sample in samples.make(originals):
            signals.check()
            artifact = ivcap.upload_artifact(
                name=sample.name, file_path=sample.path, content_type=sample.content_type
            )
            for aspect in sample.aspects:
                artifact.add_metadata(aspect)
            uploaded.append((sample, artifact))
    return uploaded


@contextlib.contextmanager
def mounted(
    url: str, where: Path, folder: Path, token_file: Path, signals: Signals, show: Show
) -> Iterator[None]:
    """The platform, mounted in the background.

    Raises:
        MountError: the mount did not begin, or did not come down cleanly.
    """
    tag = f"{TAG}={where}"
    options = f"refresh=2,token-file={token_file},log-file={folder / 'mount.log'}"
    words = ("mount", url, str(where), "-o", options)
    command = start([*IVCAPFS, *words], folder / "mount.out", environment(**{TAG: str(where)}))
    try:
        code = command.wait(MOUNT_SECONDS, signals)
        if code != 0:
            raise MountError(_last_line(command).removeprefix("ivcapfs: ") or "the mount did not begin in time")
        show(f"ivcapfs {' '.join(words)}", "")
        yield
    finally:
        command.wait(MOUNT_SECONDS)  # were it ended, the background process that it made could mount later
        command.end()
        take_down(where, tag)


def take_down(where: Path, tag: str) -> None:
    """Unmount, if that was not done before, and see that the mount's process ends.

    Raises:
        MountError: it is gone, but not cleanly: it was busy, or its process did not end.
    """
    problem = None
    try:
        eventually(lambda: _unmounted(where), UNMOUNT_SECONDS)
        if mount_at(where) is not None:
            unmount(where)
    except MountError as exc:
        problem = exc
        if (left := mount_at(where)) is not None:
            unmount_lazily(left)
    ended = end_tagged(tag, patience=END_SECONDS if problem is None else 0.0, seconds=END_SECONDS)
    if problem is not None:
        raise MountError(f"the mount was taken away while in use: {problem}")
    if not ended:
        raise MountError(f"the process of the mount at {where} did not end by itself, and was ended")


def _unmounted(where: Path) -> bool:
    """Unmount, unless it is busy; return whether nothing is mounted."""
    if mount_at(where) is not None:
        with contextlib.suppress(MountError):
            unmount(where)
    return mount_at(where) is None


def _last_line(process: Process) -> str:
    return (process.output().strip().splitlines() or [""])[-1]
