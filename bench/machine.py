"""What machine this is, and which versions of everything: part of every report.

Used by `bench.cli` and `bench.works`. Reads /proc and asks programs for their versions; one thread.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import platform
import re
import shutil
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.processes import StepFailed, run
from bench.world import ROOT

_PROGRAMS = {
    "nginx": ("nginx", "-v"),
    "curl": ("curl", "--version"),
    "rclone": ("rclone", "version"),
    "fio": ("fio", "--version"),
    "fusermount3": ("fusermount3", "--version"),
    "openssl": ("openssl", "version"),
}
_PACKAGES = ("ivcapfs", "httpx", "mfusepy", "fsspec", "fusepy", "aiohttp", "ivcap-client")
_NUMBER = re.compile(r"\d+(?:\.\d+)+\S*")


def describe() -> dict[str, Any]:
    """Return the machine as a dictionary that JSON can hold."""
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "cpu": _line(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "Linux"),
        "root": os.geteuid() == 0,
        "commit": _commit(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of all programs and packages that are there."""
    found = {"python": platform.python_version()}
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    for name, (program, *words) in _PROGRAMS.items():
        where = shutil.which(program, path=path)
        if where is not None:
            try:
                said = run([where, *words], timeout=20)
                number = _NUMBER.search(said.output + said.errors)
                found[name] = number[0] if number else "unknown"
            except StepFailed:
                found[name] = "unknown"
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """Return the commit that is measured, with a ``+`` where files differ from it."""
    try:
        commit = run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], timeout=20).output.strip()
        changed = run(["git", "-C", ROOT, "status", "--porcelain", "--", "ivcapfs"], timeout=20).output.strip()
    except StepFailed:
        return None
    return commit + ("+" if changed else "")


def _line(path: Path, name: str) -> str | None:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def take_memory(size: int) -> None:
    """Take so many bytes of memory, and give them back at once.

    A virtual machine may have handed its free memory back to its host, and pays for each page that it wants again:
    seconds a GB, which whoever fills the kernel's page cache would pay, and a program that throws bytes away would not.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)
    with contextlib.suppress(OSError, ValueError), mmap.mmap(-1, size, flags=flags):
        pass
