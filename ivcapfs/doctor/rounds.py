"""All checks, in the order in which one depends on the other.

Used by the command ``ivcapfs doctor``. Main thread only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from ivcapfs.config import ClientSettings
from ivcapfs.doctor import deployment, machine, network
from ivcapfs.doctor.result import Level, Result, fail, skip


def rounds(
    client: ClientSettings | None, problem: str, cache: Path, clock: deployment.Clock = time.time
) -> Iterator[Result]:
    """Yield what each check found, as soon as it did.

    Args:
        client: the deployment; None if it is not known which, and `problem` says why.
        cache: the folder for blocks.
    """
    yield from of_machine(cache)
    if client is None:
        yield fail("deployment", problem, "ivcapfs doctor https://HOST")
    yield from _deployment(client, clock)


def _deployment(client: ClientSettings | None, clock: deployment.Clock) -> Iterator[Result]:
    """Yield what the checks of the way and of the deployment found; none is tried after one on the way that fails."""
    why = "no deployment is named" if client is None else ""
    for name, check in (("proxy", network.proxy), ("DNS", network.name), ("TLS", network.connection)):
        result = skip(name, why) if client is None or why else check(client.url)
        if result.level is Level.FAIL:
            why = f"not without {name}"
        yield result
    if client is None or why:
        yield from (skip(name, why) for name in deployment.CHECKS)
    else:
        yield from deployment.deployment(client, clock)


def of_machine(cache: Path) -> Iterator[Result]:
    """Yield what the checks of this machine found."""
    for check in (machine.kernel, machine.device, machine.fusermount, machine.setuid_bit, machine.libfuse):
        yield check()
    yield machine.others()
    yield machine.cache_folder(cache)
    yield machine.stale_mounts()
