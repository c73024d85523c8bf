"""A report as a page: docs/PERFORMANCE.md.

Used by `bench.cli`. Pure.
"""

from __future__ import annotations

from bench.content import GIB, KIB, MIB
from bench.figures import FIGURES, Report, printed
from bench.peer import TITLES
from bench.table import COLUMNS, WHATS, cells, failures, heading, yardsticks
from bench.targets import judge

_METHOD = """\
nginx on loopback serves random bytes (plain and with TLS; two workers, sendfile) that lie in its page cache; the API
is the embedded platform's, whose data-hrefs point at nginx. All peers read the same files, in turn and repeated
(A B C, A B C, …), each from a fresh mount, so that neither the kernel nor the peer knows anything yet. Before, each
mount's bytes were compared with the source's (sha256), and each read is held to the right number of bytes.

* *rclone* is `rclone mount` of an `http` remote, with the `--vfs-cache-mode` in brackets; *best* is what was fastest
  over the slow link (`full`, a large buffer and read-ahead, and parallel chunks where its version has them).
* *fsspec FUSE* is `fsspec.fuse` with its `HTTPFileSystem`; *SDK* is `as_local_file` of `ivcap-client` into memory.
* *ivcapfs (user)* is mounted and read by an ordinary user, who cannot raise the kernel's read-ahead.
* A *local file* lies in the page cache of its filesystem, which may keep it in large pieces; *a file in tmpfs* has
  pages of 4 KiB, as FUSE's page cache has, and shows what that costs.
* The slow link is a proxy that adds 50 ms to each request and carries 20 MB/s a connection; *curl, 8 ranges at once*
  shows what eight connections can carry.
* `ls -l` is timed right after mounting, and once more with the kernel's caches dropped but not the peer's.
* Before each whole read the machine takes as much memory as the page cache will need and frees it again: a virtual
  machine that had given it back to its host would pay for it in the middle, and only where something is cached.
* CPU is that of the process that mounts or fetches, per 10^9 bytes; memory is its peak.
* MB is 10^6 bytes; ratios are of medians, and for times less is better. `!` marks a peer that failed in a later run.
"""


def page(report: Report, plot: str | None = None) -> str:
    """Return the page.

    Args:
        report: what was measured.
        plot: where the plot is, seen from the page; None: none.
    """
    parts = [
        "# Performance",
        "Written by `scripts/bench`; do not edit. `scripts/bench --setup --json bench.json --svg docs/performance.svg "
        "--markdown docs/PERFORMANCE.md` makes it anew.",
    ]
    if plot:
        parts.append(f"![Bars: ivcapfs beside its peers]({plot})")
    parts += ["## Promised", _promises(report), "## Measured", f"The yardstick is {yardsticks()}."]
    for figure in FIGURES.values():
        rows = report.of_figure(figure.name)
        if rows:
            body = [[_name(series.peer), *cells(report, figure, series)] for series in rows]
            parts += [f"### {heading(figure)}", table(["", *COLUMNS], body)]
    if report.counts:
        parts += ["### Asked of the server", _counted(report)]
    parts += ["## How", _METHOD.rstrip(), f"Read were {_sizes(report)}.", "## The machine", _machine(report)]
    if failed := failures(report):
        parts += ["## Failed", "\n".join(f"* {line}" for line in failed)]
    if report.left_out:
        lines = (f"* {TITLES.get(peer, peer)}: {why}" for peer, why in report.left_out.items())
        parts += ["## Left out", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown, its first column to the left and the others to the right."""
    lines = [head, [":--", *("--:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(_cell(text) for text in row)} |" for row in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _promises(report: Report) -> str:
    rows = []
    for verdict in judge(report):
        bound = f"{'≥' if verdict.at_least else '≤'} {printed(verdict.bound)}"
        met = "not measured" if verdict.met is None else "yes" if verdict.met else "**no**"
        rows.append([verdict.text, printed(verdict.value), bound, met])
    return table(["", "value", "bound", "met"], rows)


def _counted(report: Report) -> str:
    rows = []
    for count in sorted(report.counts, key=lambda one: list(WHATS).index(one.what)):
        start = [WHATS[count.what], _name(count.peer)]
        if count.failed:
            rows.append([*start, "", "", "", "failed"])
        else:
            per = printed(count.sent / count.of)
            rows.append([*start, f"{count.requests:,}", f"{count.other:,}", f"{count.sent:,}", per])
    return table(["", "peer", "requests", "others", "bytes sent", "bytes per byte or read"], rows)


def _sizes(report: Report) -> str:
    sizes = report.sizes
    return (
        f"{_size(sizes['one'])} in one file, 4 × {_size(sizes['four'])}, {_size(sizes['big'])} at random, "
        f"{sizes['small']:,} files of {_size(sizes['small_size'])}; listed were {sizes['many']:,}"
    )


def _size(size: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} bytes"


def _machine(report: Report) -> str:
    machine = report.machine
    rows = [
        ["when", str(machine.get("when", ""))],
        ["CPU", f"{machine.get('cpu', '')}, {machine.get('cores', '?')} cores"],
        ["memory", _size(int(machine.get("memory", 0)) // MIB * MIB)],
        ["system", f"{machine.get('system', '')}, kernel {machine.get('kernel', '')}"],
        ["run by", "root" if machine.get("root") else "an ordinary user"],
        ["commit", str(machine.get("commit") or "unknown")],
        ["settings", ", ".join(f"{name} {value}" for name, value in report.settings.items() if value != "")],
        ["versions", ", ".join(f"{name} {number}" for name, number in machine.get("versions", {}).items())],
    ]
    return table(["", ""], rows)


def _name(peer: str) -> str:
    title = TITLES.get(peer, peer)
    return f"**{title}**" if peer.startswith("ivcapfs") else title
