"""What the demo shows: commands on the mounted sample files, each with its true output.

Used by the command line. Main thread only. A command whose program is missing is skipped with a word; one that fails,
or does not show what it should, fails the demo.
"""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ivcapfs.demo.processes import (
    IVCAPFS,
    Stopped,
    environment,
    eventually,
    loopback_without_proxy,
    signals_noted,
    start,
)
from ivcapfs.demo.samples import TIDES
from ivcapfs.demo.stage import Stage, stage
from ivcapfs.errors import IvcapfsError
from ivcapfs.fs.mountpoint import mount_at

COMMAND_SECONDS = 20.0


@dataclass(frozen=True)
class Step:
    """One command of the tour.

    Attributes:
        words: what it is to show, for the reader.
        command: for sh(1), in the folder of the mount.
        shows: what its output must contain.
    """

    words: str
    command: str
    shows: tuple[str, ...] = ()

    @property
    def program(self) -> str:
        """The program that it needs."""
        return shlex.split(self.command)[0]


def steps(scene: Stage) -> Iterator[Step]:
    """Yield the tour."""
    newest = scene.artifact(TIDES)
    uuid = newest.id.rpartition(":")[2]
    older = next(artifact for sample, artifact in scene.samples if sample.name == TIDES)
    aside = f"tides@{older.id.rpartition(':')[2][:8]}.csv"
    netcdf = "survey/2026/sea-level.nc"
    yield Step(
        "Artifacts are files, slashes in names are folders; the older of two namesakes carries its id.",
        "ls -l artifacts/survey/2026",
        ("-r--r--r--", f"{newest.size}", "tides.csv", aside),
    )
    yield Step("Programs read them as they are.", f"head -n 4 artifacts/{TIDES}", ("time,station,level_m",))
    yield Step("", "file -b artifacts/survey/2026/sea-level.nc artifacts/survey/2026/quicklook.png", ("NetCDF", "PNG"))
    yield Step(
        "", "sqlite3 -readonly -column -header artifacts/survey/2026/stations.db "
        "'SELECT station, count(*) AS readings, max(level_m) AS highest FROM reading GROUP BY station'",
        ("Hobart", "72"),
    )  # fmt: skip
    yield Step("", "tar -tzf artifacts/survey/raw/loggers.tar.gz", ("loggers/hobart.log",))
    original = scene.original(netcdf)
    yield Step(
        "Not a byte differs from what was uploaded.",
        f"sha256sum artifacts/{netcdf} {shlex.quote(str(original))}",
        (f"{hashlib.sha256(original.read_bytes()).hexdigest()}  artifacts/{netcdf}",),
    )
    yield Step(
        "Records and metadata are extended attributes …",
        f"getfattr -d artifacts/{TIDES}",
        (f'user.ivcap.id="{newest.id}"', 'user.mime_type="text/csv"', "user.ivcap.aspect.urn:example:schema:review.1"),
    )
    yield Step("… and files.", f"ls -l by-id/{uuid} by-id/{uuid}/aspects", ("content -> tides.csv", "review.1.json"))
    yield Step("", f"cat by-id/{uuid}/artifact.json", (f'"id": "{newest.id}"', '"status": "ready"'))
    yield Step("", f"cat by-id/{uuid}/aspects/urn:example:schema:tide-gauge.1.json", ("lowest astronomical tide",))
    yield Step("", "df -h .", (scene.url,))


def run(mountpoint: Path | None, *, keep: bool) -> None:
    """Give the demo.

    Args:
        mountpoint: an empty folder, or one to be made; None: one in a temporary folder.
        keep: leave everything up after the tour, until a signal.

    Raises:
        IvcapfsError: a command failed, or the mount did not begin or end as it should.
        SystemExit: a signal ended the tour; the code is 128 and its number, as a shell has it.
    """
    console = Console(highlight=False, soft_wrap=True)
    with loopback_without_proxy(), signals_noted() as signals:
        failed: list[str] = []
        say(console, "A platform on this machine, which asks for a token; our Python client uploads eight files to it.")
        try:
            with stage(mountpoint, signals, lambda command, output: tell(console, command, output)) as scene:
                tell(console, f"cd {shlex.quote(str(scene.mountpoint))}", "")
                failed = [step.program for step in steps(scene) if not perform(step, scene, console)]
                if keep:
                    stay(scene, console)
                leave(scene, console)
        except Stopped:
            raise SystemExit(128 + (signals.received or signal.SIGINT)) from None
    if failed:
        raise IvcapfsError(f"these commands did not show what they should: {', '.join(failed)}")
    say(console, "Everything is taken down again: no mount and no process is left.")


def perform(step: Step, scene: Stage, console: Console) -> bool:
    """Run a command and show it; return whether it showed what it should, or was skipped.

    Raises:
        Stopped: a signal came.
    """
    if step.words:
        say(console, step.words)
    if shutil.which(step.program) is None:
        say(console, f"(skipped, because {step.program} is not installed: {step.command})")
        return True
    try:
        process = start(["sh", "-c", step.command], scene.folder / "output", environment(), scene.mountpoint)
    except OSError as exc:
        tell(console, step.command, f"cannot be run: {exc.strerror}")
        return False
    try:
        code = process.wait(COMMAND_SECONDS, scene.signals)
    finally:
        process.end(seconds=1.0)
    output = process.output()
    tell(console, step.command, output)
    missing = [text for text in step.shows if text not in output]
    if code != 0:
        say(console, f"FAILED: {'not done in time' if code is None else f'exit code {code}'}")
    elif missing:
        say(console, f"FAILED: it does not show {', '.join(missing)}")
    return code == 0 and not missing


def stay(scene: Stage, console: Console) -> None:
    """Wait for a signal, or for somebody to unmount."""
    say(console, f"The mount stays at {scene.mountpoint}, its platform at {scene.url}.")
    say(console, f"The token is in {scene.token_file}, the log in {scene.folder / 'mount.log'}. Ctrl-C ends all of it.")
    with contextlib.suppress(Stopped):
        while not eventually(lambda: mount_at(scene.mountpoint) is None, 3600.0, scene.signals):
            pass


def leave(scene: Stage, console: Console) -> None:
    """Unmount, in front of the audience; should it fail, the stage sees to it."""
    if mount_at(scene.mountpoint) is None:
        return
    command = [*IVCAPFS, "umount", str(scene.mountpoint)]
    process = start(command, scene.folder / "output", environment())
    process.wait(COMMAND_SECONDS)
    process.end()
    tell(console, f"cd; ivcapfs umount {shlex.quote(str(scene.mountpoint))}", process.output())


def tell(console: Console, command: str, output: str) -> None:
    """Show a command and its output."""
    console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
    if output.strip():
        console.print(Text(output.rstrip("\n")))


def say(console: Console, words: str) -> None:
    """Show a remark."""
    console.print(Text(f"\n# {words}", "dim"))
