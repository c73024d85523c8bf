"""A report as a plot: one panel a figure, one bar a peer, written by hand as SVG.

Used by `bench.cli`. Pure. The colours follow the reader's light or dark scheme; the plot brings its own ground, so that
it can be read wherever it is embedded.
"""

from __future__ import annotations

from html import escape

from bench.figures import FIGURES, Figure, Report, Series, printed
from bench.peer import TITLES

_WIDTH = 860
_LEFT = 210  # where the bars begin
_RIGHT = 190  # what is kept for the values
_BAR = 16
_ROW = 24
_HEAD = 34
_GAP = 18
_EDGE = 20
_TITLE = 58

_STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #24292f; }
  .ground { fill: #ffffff; stroke: #d0d7de; }
  .title { font-size: 17px; font-weight: 600; }
  .head { font-weight: 600; }
  .soft { fill: #57606a; }
  .peer { fill: #afb8c1; }
  .yard { fill: #d4a72c; }
  .ours { fill: #0969da; }
  .spread { stroke: #24292f; stroke-opacity: .55; stroke-width: 1.5; }
  .mine { font-weight: 600; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .ground { fill: #0d1117; stroke: #30363d; }
    .soft { fill: #8b949e; }
    .peer { fill: #484f58; }
    .yard { fill: #9e7a17; }
    .ours { fill: #2f81f7; }
    .spread { stroke: #e6edf3; }
  }
"""


def draw(report: Report) -> str:
    """Return the plot of all figures that have a bar."""
    parts: list[str] = []
    y = _TITLE
    for figure in FIGURES.values():
        rows = [series for series in report.of_figure(figure.name) if series.samples]
        if rows:
            parts += _panel(figure, rows, y)
            y += _HEAD + len(rows) * _ROW + _GAP
    machine = report.machine
    about = " · ".join(
        str(word)
        for word in (
            machine.get("cpu"),
            f"{machine.get('cores', '?')} cores",
            f"Linux {machine.get('kernel', '?')}",
            f"medians of {report.settings.get('repeat', '?')}",
            "quick sizes" if report.settings.get("quick") else None,
        )
        if word
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}" '
            'role="img" aria-label="ivcapfs beside its peers">',
            f"<style>{_STYLE}</style>",
            f'<rect class="ground" x=".5" y=".5" width="{_WIDTH - 1}" height="{y - 1}" rx="8"/>',
            _text(_EDGE, 28, "ivcapfs beside its peers", "title"),
            _text(_EDGE, 47, about, "soft"),
            *parts,
            "</svg>",
            "",
        ]
    )


def _panel(figure: Figure, rows: list[Series], top: int) -> list[str]:
    sense = "" if figure.more_is_better else " (shorter is better)"
    parts = [_text(_EDGE, top + 22, f"{figure.title}, {figure.unit}{sense}", "head")]
    scale = (_WIDTH - _LEFT - _RIGHT) / max(max(series.samples) for series in rows)
    for number, series in enumerate(rows):
        parts += _bar(figure, series, top + _HEAD + number * _ROW, scale)
    return parts


def _bar(figure: Figure, series: Series, y: int, scale: float) -> list[str]:
    ours = series.peer.startswith("ivcapfs")
    kind = "ours" if ours else "yard" if series.peer == figure.yardstick else "peer"
    median = series.median or 0.0
    middle = y + _BAR / 2
    low, high = (_LEFT + value * scale for value in (min(series.samples), max(series.samples)))
    parts = [
        _text(_LEFT - 10, y + 13, TITLES.get(series.peer, series.peer), "mine" if ours else "", anchor="end"),
        f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{max(median * scale, 1):.1f}" height="{_BAR}" rx="2"/>',
        _text(round(max(high, _LEFT + median * scale)) + 8, y + 13, printed(median), "mine" if ours else "soft"),
    ]
    if len(series.samples) > 1:
        parts.append(f'<path class="spread" d="M{low:.1f} {middle}H{high:.1f}"/>')
    return parts


def _text(x: float, y: float, text: str, kind: str, *, anchor: str = "start") -> str:
    where = f' text-anchor="{anchor}"' if anchor != "start" else ""
    look = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}"{look}{where}>{escape(text)}</text>'
