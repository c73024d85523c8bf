"""The commands: ``ivcapfs mount``, ``status``, ``serve``, ``demo`` and ``cache``; others are in `ivcapfs.commands`.

Turns words into settings and errors into one line and an exit code: 0 done, 1 could not, 2 wrong usage, 130 Ctrl-C.
Everything runs on the main thread; what a command needs is imported when it runs, so that each starts quickly.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ivcapfs import __version__
from ivcapfs.commands.completion import complete_options, complete_words, completion
from ivcapfs.commands.doctor import doctor
from ivcapfs.commands.helperlink import install_helper
from ivcapfs.commands.mounts import list_mounts, umount
from ivcapfs.commands.oneline import one_line_errors
from ivcapfs.commands.transfer import get, put
from ivcapfs.commands.uploads import uploads
from ivcapfs.config import parse_size, read_token
from ivcapfs.errors import ConfigError
from ivcapfs.options import OPTIONS, mount_settings

if TYPE_CHECKING:
    from ivcapfs.server.synthetic import Synthetic


def _need_server() -> None:
    """See that the embedded platform, which is an extra, can be imported."""
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} missing: pip install 'ivcapfs[server]'")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ivcapfs")
def main() -> None:
    """Your IVCAP artifacts are just files."""


@main.command(epilog="\b\nOptions for -o:\n" + "\n".join(f"  {name:<18}{text}" for name, text in OPTIONS.items()))
@click.argument("words", metavar="[SOURCE] MOUNTPOINT", nargs=-1, required=True, shell_complete=complete_words)
@click.option(
    "-o", "options", metavar="OPT[,OPT…]", multiple=True, help="Mount options, see below.",
    shell_complete=complete_options,
)  # fmt: skip
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground; Ctrl-C unmounts.")
@one_line_errors
def mount(words: tuple[str, ...], options: tuple[str, ...], foreground: bool) -> None:
    """Mount a deployment at MOUNTPOINT, an empty folder.

    SOURCE is the deployment's URL, or the name of a context of the ivcap program (ivcap context list). Without it, the
    environment names it: IVCAP_URL with IVCAP_JWT or IVCAP_ACCESS_TOKEN, or, inside the platform, IVCAP_BASE_URL;
    else it is the active context. Returns once the mount serves.
    """
    if len(words) > 2:
        raise click.UsageError("more than a SOURCE and a MOUNTPOINT were given")
    from ivcapfs.fs.daemon import mount as start

    source = words[0] if len(words) == 2 else None
    settings = mount_settings(source, words[-1], options, foreground=foreground)
    where = settings.mountpoint
    start(settings, lambda: click.echo(f"{settings.client.url} is at {where}; Ctrl-C unmounts", err=True))


@main.command()
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As the mount tells it.")
@click.option("--watch", is_flag=True, help="Again every second, until Ctrl-C.")
@one_line_errors
def status(mountpoint: Path, as_json: bool, watch: bool) -> None:
    """Tell how the mount at MOUNTPOINT does: its list of artifacts, its cache, its transfers."""
    from ivcapfs.options import absolute
    from ivcapfs.statusreport import show

    show(absolute(mountpoint), as_json=as_json, watch=watch)


@main.command()
@click.option("--data", type=click.Path(path_type=Path), default="ivcap-data", show_default=True, help="Its folder.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0, the default: any free port.")
@click.option("--token-file", type=click.Path(path_type=Path), help="A file (mode 0600) with the token to ask for.")
@click.option("--synthetic", metavar="N[,SIZE]", help="N artifacts by formula besides, of SIZE bytes (4K) each.")
@click.option("--latency", type=click.FloatRange(0, 60_000), default=0, help="Answer so many milliseconds later.")
@one_line_errors
def serve(
    data: Path, host: str, port: int, token_file: Path | None, synthetic: str | None, latency: float
) -> None:
    """Run a local IVCAP platform for development.

    The first line on standard output is its URL, printed once it answers.
    """
    _need_server()
    from ivcapfs.server.runner import run_forever
    from ivcapfs.server.settings import ServeSettings

    token = read_token(token_file).reveal() if token_file else None
    made = None if synthetic is None else _synthetic(synthetic)
    settings = ServeSettings(data, host, port, token, synthetic=made, latency=latency / 1000)
    try:
        run_forever(settings, click.echo)
    except OSError as exc:
        raise ConfigError(f"cannot serve: {exc}") from exc


def _synthetic(text: str) -> Synthetic:
    """Return what ``N[,SIZE]`` stands for."""
    from ivcapfs.server.synthetic import DEFAULT_SIZE, Synthetic

    count, comma, size = text.partition(",")
    if not (count.isascii() and count.isdigit() and len(count) < 19):
        raise ConfigError(f"--synthetic takes N or N,SIZE, e.g. 1000000,64K, not {text!r}")
    try:
        return Synthetic(int(count), parse_size(size) if comma else DEFAULT_SIZE)
    except ValueError as exc:
        raise ConfigError(f"--synthetic {text}: {exc}") from exc


@main.command()
@click.argument("mountpoint", required=False, type=click.Path(path_type=Path))
@click.option("--keep", is_flag=True, help="Stay until Ctrl-C instead of cleaning up at the end of the tour.")
@one_line_errors
def demo(mountpoint: Path | None, keep: bool) -> None:
    """Show the main job: a local platform with sample files, mounted at MOUNTPOINT, and a short tour."""
    _need_server()
    from ivcapfs.demo.tour import run

    run(mountpoint, keep=keep)


FOLDER = click.argument("folder", type=click.Path(path_type=Path))


@main.group()
def cache() -> None:
    """Look after a folder of cached blocks (the mount option cache-dir)."""


@cache.command()
@FOLDER
@one_line_errors
def info(folder: Path) -> None:
    """Tell how much FOLDER holds."""
    from ivcapfs.cache import diskadmin

    found = diskadmin.info(folder)
    click.echo(f"{found.files} blocks, {found.bytes} bytes")


@cache.command()
@FOLDER
@one_line_errors
def verify(folder: Path) -> None:
    """Read every block in FOLDER and remove those that are damaged. Mounts may be using it."""
    from ivcapfs.cache import diskadmin

    report = diskadmin.verify(folder)
    click.echo(f"{report.files} blocks, {report.bytes} bytes; {report.bad} damaged blocks removed")


@cache.command()
@FOLDER
@one_line_errors
def clear(folder: Path) -> None:
    """Remove all blocks from FOLDER. Mounts may be using it."""
    from ivcapfs.cache import diskadmin

    click.echo(f"{diskadmin.clear(folder)} blocks removed")


for command in (umount, list_mounts, uploads, put, get, doctor, install_helper, completion):
    main.add_command(command)
