"""The command behind ``scripts/torture``: which harness, how long, and the figures as JSON on standard output.

Exit codes: 0 no difference, 1 there is one (said on standard error, with the seed), 2 wrong usage. One thread.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ivcapfs.crashing import POINTS
from tests.torture.crashes import Crashes
from tests.torture.full import FullDisks
from tests.torture.storm import Storm
from tests.torture.world import Difference, World

WARM_MINUTES = 20.0
"""From this length on a storm begins with mounts that have filled the tables of what they remember."""
CHECKED_OPERATIONS = 60_000
"""After so many at most the storm must have found a planted bug."""


def say(line: str) -> None:
    """Tell whoever waits how far it is."""
    click.echo(line, err=True)


@contextmanager
def world(**options: Any) -> Iterator[World]:
    """A world in a folder of its own, in TMPDIR; see `World`."""
    with (
        tempfile.TemporaryDirectory(prefix="ivcapfs-torture-", ignore_cleanup_errors=True) as folder,
        World(Path(folder), **options) as made,
    ):
        yield made


def storm(
    seed: int, percent: float, operations: int | None, minutes: float | None, planted: str = "", workers: int = 12
) -> dict[str, Any]:
    """Run the storm; return its figures."""
    with world(rate=percent / 100, seed=seed, planted=planted) as place:
        run = Storm(place, seed, workers, warm=minutes is not None and minutes >= WARM_MINUTES)
        try:
            run.run(say, operations, None if minutes is None else minutes * 60)
        except Difference:
            say(json.dumps(run.figures()))
            raise
        return run.figures() | {"differences": 0}


def crashes(seed: int, count: int, minutes: float | None, planted: str = "") -> dict[str, Any]:
    """Run the crashes; return their figures."""
    until = float("inf") if minutes is None else time.monotonic() + minutes * 60
    with world(seed=seed, planted=planted) as place:
        run = Crashes(place, seed)
        run.run(count, say, until, check_every=2)
        return run.figures()


def full_disks(seed: int, levels: list[int], planted: str = "") -> dict[str, Any]:
    """Run the full disks; return their figures."""
    if os.geteuid() != 0:
        raise click.UsageError("--full makes small disks, and needs root")
    with world(seed=seed, planted=planted) as place:
        run = FullDisks(place, seed)
        run.run(levels, say)
        return run.figures()


SELF_CHECKS: dict[str, Callable[[int], object]] = {
    "flipped byte": lambda seed: storm(seed, 0, CHECKED_OPERATIONS, None, "flipped byte"),
    "leak": lambda seed: storm(seed, 0, CHECKED_OPERATIONS, None, "leak"),
    "early close": lambda seed: crashes(seed, len(POINTS), None, "early close"),
    "silent loss": lambda seed: full_disks(seed, [90, 92, 94, 96, 97, 98], "silent loss"),
}


def self_check(seed: int) -> dict[str, str]:
    """Plant each bug; return what was found.

    Raises:
        Difference: one was not found.
    """
    found: dict[str, str] = {}
    for bug, harness in SELF_CHECKS.items():
        try:
            harness(seed)
        except Difference as exc:
            found[bug] = str(exc)[:200]
            say(f"{bug}: found: {found[bug]}")
        else:
            raise Difference(f"the planted bug {bug!r} was not found")
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--seed", type=int, help="Of all chance; one of today's unless given. It is printed.")
@click.option("--minutes", type=float, help="How long (5, unless something else bounds it).")
@click.option("--operations", type=click.IntRange(1), help="How many operations of the storm.")
@click.option("--faults", type=click.FloatRange(0, 50), default=5.0, show_default=True, help="Percent of requests.")
@click.option("--crashes", "crash_count", type=click.IntRange(1), help="Instead: let so many mounts die.")
@click.option("--full", is_flag=True, help="Instead: full disks, at 100 levels; root only.")
@click.option("--self-check", "checks", is_flag=True, help="Instead: plant a bug for each harness, and see it found.")
def main(
    seed: int | None, minutes: float | None, operations: int | None, faults: float, crash_count: int | None, full: bool,
    checks: bool,
) -> None:  # fmt: skip
    """Work on real mounts against a model while requests fail; print figures as JSON."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and so take the mounts down
    seed = int(time.time()) % 1_000_000 if seed is None else seed
    say(f"seed {seed}")
    try:
        if checks:
            figures: dict[str, Any] = dict(self_check(seed))
        elif crash_count is not None:
            figures = crashes(seed, crash_count, minutes)
        elif full:
            figures = full_disks(seed, list(range(100)))
        else:
            figures = storm(seed, faults, operations, minutes or (None if operations else 5.0))
    except Difference as exc:
        say(f"a difference, seed {seed}: {exc}")
        sys.exit(1)
    click.echo(json.dumps({"seed": seed} | figures, indent=2))
