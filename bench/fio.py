"""fio(1): the command for random reads, and what its JSON says.

Used by `bench.works` and `bench.counting`. Pure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.processes import StepFailed

JOBS = 4


@dataclass(frozen=True, slots=True)
class RandomReads:
    """What random reads came to.

    Attributes:
        rate: reads per second, of all jobs together.
        reads: how many there were.
        middle, slow: seconds that one took: the median and the 99th of a hundred.
    """

    rate: float
    reads: int
    middle: float
    slow: float


def command(path: Path, block: int, size: int, *, seconds: int = 0, reads: int = 0) -> list[str]:
    """Return the command for random reads of `block` bytes from a file.

    Args:
        size: the file's size.
        seconds: how long; 0: until `reads` are done by all jobs together.
    """
    bound = ["--time_based", f"--runtime={seconds}"] if seconds else [f"--number_ios={max(reads // JOBS, 1)}"]
    return [
        *("fio", "--name=random", f"--filename={path}", "--readonly", "--rw=randread", f"--bs={block}"),
        *(f"--size={size}", "--ioengine=psync", f"--numjobs={JOBS}", "--thread", "--group_reporting", *bound),
        *("--norandommap", "--randrepeat=0", "--direct=0", "--invalidate=0", "--output-format=json"),
    ]


def parse(text: str) -> RandomReads:
    """Return what fio's JSON says; it may print warnings before it.

    Raises:
        StepFailed: it is no result, or a read failed.
    """
    try:
        result: dict[str, Any] = json.loads(text[text.index("{") :])
        job = result["jobs"][0]
        read = job["read"]
        if job["error"]:
            raise StepFailed(f"fio: a read failed with errno {job['error']}")
        times = read.get("clat_ns", {}).get("percentile", {})
        return RandomReads(
            rate=float(read["iops"]),
            reads=int(read["total_ios"]),
            middle=float(times.get("50.000000", 0)) / 1e9,
            slow=float(times.get("99.000000", 0)) / 1e9,
        )
    except (ValueError, KeyError, IndexError, TypeError) as exc:
        raise StepFailed(f"fio's answer cannot be read: {exc!r}") from exc
