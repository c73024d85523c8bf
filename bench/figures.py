"""Samples become figures: medians, spreads, ratios; and all of it as JSON and back.

Used by `bench.runner`, which fills a `Report`, and by the modules that show one. Pure; one thread.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

VERSION = 1


@dataclass(frozen=True, slots=True)
class Figure:
    """Something that is measured.

    Attributes:
        title: in print.
        unit: ``MB/s`` (10^6), ``reads/s`` or ``s``.
        more_is_better: of two values, whether the larger is the better one.
        yardstick: the peer that shows what is possible, if one does.
    """

    name: str
    title: str
    unit: str
    more_is_better: bool = True
    yardstick: str | None = None


FIGURES = {
    figure.name: figure
    for figure in (
        Figure("seq-http", "cold sequential read, http", "MB/s", yardstick="curl"),
        Figure("seq-https", "cold sequential read, https", "MB/s", yardstick="curl"),
        Figure("parallel", "four files, four readers", "MB/s", yardstick="curl"),
        Figure("random-4k", "random 4 KiB reads, 4 threads", "reads/s"),
        Figure("random-128k", "random 128 KiB reads, 4 threads", "reads/s"),
        Figure("small", "many small files, cat all", "s", more_is_better=False, yardstick="curl"),
        Figure("reread", "second read of the same file", "MB/s", yardstick="local"),
        Figure("shaped", "slow link, sequential read", "MB/s", yardstick="curl-8"),
        Figure("ls-first", "ls -l of many, right after mounting", "s", more_is_better=False),
        Figure("ls", "ls -l of many, kernel caches cold", "s", more_is_better=False),
    )
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement.

    Attributes:
        figure: its name.
        value: in the figure's unit.
        cpu: CPU seconds per 10^9 bytes, where bytes were counted.
        memory: the peak of the peer's memory, in bytes.
    """

    figure: str
    value: float
    cpu: float | None = None
    memory: int | None = None


@dataclass
class Series:
    """All samples of one figure and one peer. `failed` says why there are not more."""

    figure: str
    peer: str
    samples: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    failed: str | None = None

    def add(self, sample: Sample) -> None:
        """Take one more."""
        self.samples.append(sample.value)
        if sample.cpu is not None:
            self.cpu.append(sample.cpu)
        if sample.memory is not None:
            self.memory.append(sample.memory)

    @property
    def median(self) -> float | None:
        """The median of its samples, if it has any."""
        return statistics.median(self.samples) if self.samples else None


@dataclass(frozen=True, slots=True)
class Count:
    """What a peer asked of the server to do one thing.

    Attributes:
        what: ``sequential`` (`of` bytes were read), ``random-4k`` (`of` reads) or ``tail`` (`of` bytes).
        requests: for content; `other` counts those for listings and records.
        sent: bytes of content that the server sent.
        of: what the bytes are held against.
    """

    peer: str
    what: str
    requests: int = 0
    other: int = 0
    sent: int = 0
    of: int = 1
    failed: str | None = None


@dataclass
class Report:
    """A whole run.

    Attributes:
        machine: what it ran on, see `bench.machine`.
        sizes: how much was read.
        settings: what the run was asked to do.
        series: in the order in which they were measured.
        left_out: peer -> why it did not take part.
        verified: peer -> ``same bytes``, or what was wrong.
    """

    machine: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    series: list[Series] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    verified: dict[str, str] = field(default_factory=dict)

    def find(self, figure: str, peer: str) -> Series | None:
        """Return the series of a figure and a peer."""
        return next((one for one in self.series if (one.figure, one.peer) == (figure, peer)), None)

    def take(self, figure: str, peer: str) -> Series:
        """Return the series of a figure and a peer, a new one if need be."""
        found = self.find(figure, peer)
        if found is None:
            found = Series(figure, peer)
            self.series.append(found)
        return found

    def of_figure(self, figure: str) -> list[Series]:
        """Return a figure's series, one for each peer."""
        return [one for one in self.series if one.figure == figure]

    def median(self, figure: str, peer: str) -> float | None:
        """Return a median, if it was measured."""
        found = self.find(figure, peer)
        return found.median if found else None

    def ratio(self, figure: str, peer: str, base: str) -> float | None:
        """Return a peer's median divided by another's: of the figures as they are, also where less is better."""
        mine, other = self.median(figure, peer), self.median(figure, base)
        return mine / other if mine is not None and other else None

    def count(self, peer: str, what: str) -> Count | None:
        """Return what a peer asked of the server."""
        return next((one for one in self.counts if (one.peer, one.what) == (peer, what) and not one.failed), None)


def to_json(report: Report) -> str:
    """Return the report as JSON, with medians and spreads beside the samples."""
    whole = {"version": VERSION, **asdict(report)}
    for told, series in zip(whole["series"], report.series, strict=True):
        if series.samples:
            told |= {
                "unit": FIGURES[series.figure].unit,
                "median": series.median,
                "min": min(series.samples),
                "max": max(series.samples),
            }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> Report:
    """Return the report that `to_json` wrote.

    Raises:
        ValueError: it is something else.
    """
    try:
        whole = json.loads(text)
        if whole["version"] != VERSION:
            raise ValueError(f"a report of version {whole['version']}, not {VERSION}")
        names = ("figure", "peer", "samples", "cpu", "memory", "failed")
        return Report(
            machine=whole["machine"],
            sizes=whole["sizes"],
            settings=whole["settings"],
            series=[Series(**{name: one[name] for name in names}) for one in whole["series"]],
            counts=[Count(**one) for one in whole["counts"]],
            left_out=whole["left_out"],
            verified=whole["verified"],
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"no report of this benchmark: {exc!r}") from exc


def printed(value: float | None, unit: str = "") -> str:
    """Return a number with three digits that count, and its unit; a dash for none."""
    if value is None:
        return "–"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}{' ' + unit if unit else ''}"
