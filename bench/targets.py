"""What ivcapfs has promised to reach, and whether a report shows it.

Used by `bench.table` and `bench.markdown`. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.content import KIB
from bench.figures import Report


@dataclass(frozen=True, slots=True)
class Target:
    """A promise: the ratio of two medians is at least, or at most, so much.

    Attributes:
        text: in print.
        of, to: figure and peer of the two medians.
        bound: of the ratio.
        at_least: whether the ratio must reach it, rather than not exceed it.
    """

    text: str
    of: tuple[str, str]
    to: tuple[str, str]
    bound: float
    at_least: bool = True

    def value(self, report: Report) -> float | None:
        """Return the ratio, where both were measured."""
        mine, other = report.median(*self.of), report.median(*self.to)
        return mine / other if mine is not None and other else None


@dataclass(frozen=True, slots=True)
class Limit:
    """A promise about bytes: a count's bytes are at most so many times what was read.

    Attributes:
        what: the count.
        bound: of bytes sent, divided by what the count is held against if `relative`.
    """

    text: str
    what: str
    bound: float
    relative: bool = True
    at_least: bool = False

    def value(self, report: Report) -> float | None:
        """Return what was counted."""
        count = report.count("ivcapfs", self.what)
        return None if count is None else count.sent / count.of if self.relative else float(count.sent)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A promise and what came of it; `met` is None where it was not measured."""

    text: str
    value: float | None
    bound: float
    at_least: bool
    met: bool | None


def _to(figure: str, base: str, bound: float, *, peer: str = "ivcapfs", at_least: bool = True) -> Target:
    sense = "at least" if at_least else "at most"
    return Target(f"{figure}: {peer}, {sense} {bound:g} × {base}", (figure, peer), (figure, base), bound, at_least)


TARGETS: tuple[Target | Limit, ...] = (
    _to("seq-http", "curl", 0.70),
    _to("seq-http", "curl", 0.40, peer="ivcapfs-user"),
    _to("seq-http", "rclone-off", 4.0),
    _to("seq-http", "fsspec", 2.5),
    _to("seq-http", "sdk", 1.0),
    _to("seq-https", "curl", 0.60),
    _to("seq-https", "rclone-off", 2.5),
    Target("parallel: at least one reader's", ("parallel", "ivcapfs"), ("seq-http", "ivcapfs"), 1.0),
    _to("parallel", "rclone-off", 1.0),
    _to("random-4k", "rclone-off", 3.0),
    _to("random-128k", "rclone-off", 1.0),
    _to("small", "rclone-off", 3.0, at_least=False),
    _to("reread", "local", 0.8),
    _to("ls", "rclone-off", 0.25, at_least=False),
    _to("shaped", "curl-8", 0.9),
    _to("shaped", "rclone-best", 1.0),
    Limit("bytes sent for a sequential read: at most 1.02 × its size", "sequential", 1.02),
    Limit("bytes sent for a random 4 KiB read: at most 256 KiB", "random-4k", 256 * KIB),
    Limit("bytes sent for tail -c 1000: at most 512 KiB", "tail", 512 * KIB, relative=False),
)


def judge(report: Report) -> list[Verdict]:
    """Return what came of every promise."""
    verdicts = []
    for target in TARGETS:
        value = target.value(report)
        met = None if value is None else value >= target.bound if target.at_least else value <= target.bound
        verdicts.append(Verdict(target.text, value, target.bound, target.at_least, met))
    return verdicts
