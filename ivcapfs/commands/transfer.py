"""``ivcapfs put`` and ``ivcapfs get``: whole files to and from a deployment, without a mount.

Used by `ivcapfs.cli`. Runs on the main thread, which alone prints; what a command needs is imported when it runs. What
is done is in `ivcapfs.transfers`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from ivcapfs.commands.access import access_options, client_of, shown
from ivcapfs.commands.oneline import one_line_errors
from ivcapfs.errors import ConfigError

if TYPE_CHECKING:
    from ivcapfs.client import Connection
    from ivcapfs.commands.progress import Shown
    from ivcapfs.models import ArtifactRecord
    from ivcapfs.transfers.choose import Chosen
    from ivcapfs.transfers.put import Sending

JOBS = click.option(
    "-j", "--jobs", type=click.IntRange(1, 64), default=4, show_default=True, help="Transfers at the same time."
)
AGAIN = "interrupted: the same command goes on from there"

T = TypeVar("T")
V = TypeVar("V")


@click.command()
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@JOBS
@click.option("-r", "--recursive", is_flag=True, help="Send what is in folders; their names become part of names.")
@click.option("--name", metavar="NAME", help="The artifact's name; with a slash at its end it goes before all names.")
@click.option("--collection", metavar="C", help="Put the artifacts into this collection: its name or URN.")
@click.option("--policy", metavar="URN", help="The policy of the artifacts.")
@access_options
@one_line_errors
def put(
    files: tuple[Path, ...], jobs: int, recursive: bool, name: str | None, collection: str | None,
    policy: str | None, source: str | None, options: tuple[str, ...],
) -> None:  # fmt: skip
    """Make artifacts of files, and print the URN and the name of each.

    Without a mount, to the deployment that mount would take. Interrupted, the same command goes on: files that have
    not changed since are not sent twice, and the one that was under way goes on where the server has got to.
    """
    from ivcapfs.client import connect
    from ivcapfs.commands.progress import Shown
    from ivcapfs.config import transfers_folder
    from ivcapfs.transfers.notes import forget_old
    from ivcapfs.transfers.put import Putter, collection_urn, gather

    chosen = gather(files, recursive=recursive, name=name, skipped=_skipped)
    notes, stop = transfers_folder(), threading.Event()
    forget_old(notes)
    with connect(client_of(source, options)) as connection:
        urn = collection_urn(connection, collection) if collection else None
        putter = Putter(connection, notes, policy=policy, collection=urn, stopped=stop.is_set)
        with Shown(sum(each.path.stat().st_size for each in chosen), len(chosen)) as show:

            def send(file: Sending) -> ArtifactRecord:
                with show.file(file.name, file.path.stat().st_size) as tell:
                    return putter.put(file, tell)

            def done(file: Sending, record: ArtifactRecord) -> None:
                show.done(f"{record.urn}  {shown(file.name)}")

            _run(chosen, send, jobs, connection, stop, show, done, lambda file: str(file.path))
        if not show.failures:
            putter.forget(chosen)
    sys.exit(1 if show.failures else 0)


@click.command()
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@JOBS
@click.option("-r", "--recursive", is_flag=True, help="A NAME may be a folder's: get what is in it.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@access_options
@one_line_errors
def get(
    names: tuple[str, ...], folder: Path, jobs: int, recursive: bool, force: bool, source: str | None,
    options: tuple[str, ...],
) -> None:  # fmt: skip
    """Get artifacts as files into DIR, and print the path of each.

    A NAME is as in artifacts/ of a mount (the newest of that name), a uuid, or a URN. Large ones come in parallel
    ranges. Interrupted, the same command fetches what is still missing. A file that is there with the same size and
    time stays.
    """
    from ivcapfs.client import connect
    from ivcapfs.commands.progress import Shown
    from ivcapfs.config import transfers_folder
    from ivcapfs.transfers.choose import choose, target_in
    from ivcapfs.transfers.get import Getter
    from ivcapfs.transfers.notes import forget_old

    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder: make it first, it is where the files are put")
    notes, stop, where = transfers_folder(), threading.Event(), folder.resolve()
    forget_old(notes)
    with connect(client_of(source, options)) as connection:
        chosen = choose(connection.api, names, recursive=recursive)
        total = sum(each.record.size or 0 for each in chosen)
        with (
            Getter(connection, notes, jobs=jobs, force=force, stopped=stop.is_set) as getter,
            Shown(total, len(chosen)) as show,
        ):

            def fetch(each: Chosen) -> bool:
                with show.file("/".join(each.parts), each.record.size) as tell:
                    return getter.get(each.record, target_in(where, each), tell)

            def done(each: Chosen, is_new: bool) -> None:
                show.done(shown(str(target_in(folder, each))))

            _run(chosen, fetch, jobs, connection, stop, show, done, lambda each: "/".join(each.parts))
    sys.exit(1 if show.failures else 0)


def _skipped(path: Path, why: str) -> None:
    click.echo(f"ivcapfs: passed over {shown(str(path))}: {why}", err=True)


def _run(
    items: Iterable[T], work: Callable[[T], V], jobs: int, connection: Connection, stop: threading.Event, show: Shown,
    done: Callable[[T, V], None], named: Callable[[T], str],
) -> None:  # fmt: skip
    """Transfer files; what fails is told, and the others go on."""
    from ivcapfs.transfers.work import run_all

    def failed(item: T, exc: Exception) -> None:
        show.failed(named(item), str(exc) if not isinstance(exc, OSError) else exc.strerror or str(exc))

    try:
        run_all(items, work, jobs=jobs, connection=connection, stop=stop, done=done, failed=failed)
    except KeyboardInterrupt:
        show.say(AGAIN)
        raise
