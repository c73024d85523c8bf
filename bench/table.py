"""A report on the terminal, as tables of rich.

Used by `bench.cli`. Pure, but for what it prints.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from bench.figures import FIGURES, Figure, Report, Series, printed
from bench.peer import TITLES
from bench.targets import judge

BASES = ("rclone-off", "fsspec")
WHATS = {"sequential": "sequential read", "random-4k": "a random 4 KiB read", "tail": "tail -c 1000"}


def show(report: Report, console: Console) -> None:
    """Print everything."""
    console.print(_timed(report))
    if report.counts:
        console.print(_counted(report))
    if (promises := _promises(report)).row_count:
        console.print(promises)
    for line in failures(report):
        console.print(f"failed: {line}", style="red", highlight=False, markup=False)
    for peer, why in report.left_out.items():
        console.print(f"{peer} is left out: {why}", style="yellow", highlight=False)
    wrong = {peer: said for peer, said in report.verified.items() if said != "same bytes"}
    if report.verified and not wrong:
        console.print("checked: every mount gave the same bytes as the source (sha256)", highlight=False)
    for peer, said in wrong.items():
        console.print(f"{peer}: {said}", style="red", highlight=False)


def cells(report: Report, figure: Figure, series: Series) -> list[str]:
    """Return the texts of one peer's row: median, spread, runs, ratios, CPU, memory."""
    if not series.samples:
        return ["failed", *("" for _ in COLUMNS[1:])]
    spread = f"{printed(min(series.samples))} – {printed(max(series.samples))}"
    yardstick = report.ratio(figure.name, series.peer, figure.yardstick) if figure.yardstick else None
    bases = [report.ratio(figure.name, series.peer, base) for base in BASES]
    cpu = sorted(series.cpu)[len(series.cpu) // 2] if series.cpu else None
    memory = max(series.memory) / 2**20 if series.memory else None
    runs = f"{len(series.samples)}{'!' if series.failed else ''}"
    return [
        printed(series.median), spread, runs, *(printed(ratio) for ratio in (yardstick, *bases)), printed(cpu),
        printed(memory),
    ]  # fmt: skip


def failures(report: Report) -> list[str]:
    """Return a line for everything that failed."""
    timed = [f"{one.figure}, {TITLES[one.peer]}: {one.failed}" for one in report.series if one.failed]
    return timed + [f"{WHATS[one.what]}, {TITLES[one.peer]}: {one.failed}" for one in report.counts if one.failed]


def heading(figure: Figure) -> str:
    """Return what a figure's rows stand under."""
    sense = "" if figure.more_is_better else ", less is better"
    return f"{figure.title} [{figure.unit}{sense}]"


COLUMNS = ("median", "min – max", "runs", "÷ yardstick", "÷ rclone off", "÷ fsspec", "CPU s/GB", "peak MiB")


def _timed(report: Report) -> Table:
    table = Table(title="Medians and ratios; the yardstick is " + yardsticks(), title_justify="left")
    table.add_column("", min_width=26)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for figure in FIGURES.values():
        rows = report.of_figure(figure.name)
        if not rows:
            continue
        table.add_section()
        table.add_row(heading(figure).replace("[", "\\["), style="bold")
        for series in rows:
            style = "green" if series.peer.startswith("ivcapfs") else "red" if series.failed else None
            table.add_row(f"  {TITLES[series.peer]}", *cells(report, figure, series), style=style)
    return table


def yardsticks() -> str:
    """Return which figures are held against whom."""
    named: dict[str, list[str]] = {}
    for figure in FIGURES.values():
        if figure.yardstick:
            named.setdefault(TITLES[figure.yardstick], []).append(figure.name)
    last = max(named, key=lambda name: len(named[name]))
    others = [f"{name} ({', '.join(figures)})" for name, figures in named.items() if name != last]
    return ", ".join([*others, f"else {last}"])


def _counted(report: Report) -> Table:
    table = Table(title="Asked of the server", title_justify="left")
    table.add_column("")
    for column in ("peer", "requests", "others", "bytes sent", "bytes per byte or read"):
        table.add_column(column, justify="right")
    for count in sorted(report.counts, key=lambda one: list(WHATS).index(one.what)):
        style = "green" if count.peer.startswith("ivcapfs") else None
        if count.failed:
            table.add_row(WHATS[count.what], TITLES[count.peer], "", "", "", "failed", style="red")
        else:
            per = printed(count.sent / count.of)
            numbers = (f"{count.requests:,}", f"{count.other:,}", f"{count.sent:,}", per)
            table.add_row(WHATS[count.what], TITLES[count.peer], *numbers, style=style)
    return table


def _promises(report: Report) -> Table:
    table = Table(title="Promised", title_justify="left")
    for column in ("", "value", "bound", "met"):
        table.add_column(column, justify="left" if not column else "right")
    for verdict in judge(report):
        if verdict.met is not None:
            bound = f"{'≥' if verdict.at_least else '≤'} {printed(verdict.bound)}"
            met = "[green]yes[/]" if verdict.met else "[red]no[/]"
            table.add_row(verdict.text, printed(verdict.value), bound, met)
    return table
