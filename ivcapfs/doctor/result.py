"""The outcome of one check, and how it is shown.

Used by the checks of `ivcapfs.doctor` and by its command. Immutable: any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """It works, but not for everything."""
    FAIL = "fail"
    SKIP = "skip"
    """It could not be tried, because of another one."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one check found.

    Attributes:
        check: its name.
        said: what was found.
        remedy: what to do about it; empty where nothing is to be done.
    """

    check: str
    level: Level
    said: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level:<4}  {self.check}: {self.said}" + (f". Remedy: {self.remedy}" if self.remedy else "")


def ok(check: str, said: str) -> Result:
    """Return that all is well."""
    return Result(check, Level.OK, said)


def warn(check: str, said: str, remedy: str) -> Result:
    """Return that it works with a limit."""
    return Result(check, Level.WARN, said, remedy)


def fail(check: str, said: str, remedy: str) -> Result:
    """Return that it does not work."""
    return Result(check, Level.FAIL, said, remedy)


def skip(check: str, said: str) -> Result:
    """Return that it could not be tried."""
    return Result(check, Level.SKIP, said)
