"""The benchmark's own parts, without its peers: figures, outputs, parsers, the slow link, child processes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from bench import cli, content, counting, fio, markdown, nginx, peers, platforms, svg, table, targets, works
from bench.figures import FIGURES, Count, Report, Sample, from_json, printed, to_json
from bench.peer import TITLES
from bench.processes import StepFailed, cost_of, run, run_together
from bench.shaper import Pace, Shaper

MIB = 1024 * 1024


@pytest.fixture
def report() -> Report:
    report = Report(
        machine={"cpu": "A <CPU> & more", "cores": 2, "kernel": "6.1", "memory": 8 << 30, "versions": {"curl": "8"}},
        sizes=dict.fromkeys(("one", "four", "big", "small", "small_size", "many"), 1024),
        settings={"quick": False, "repeat": 3, "ivcapfs options": ""},
        left_out={"sdk": "ivcap_client is missing"},
        verified={"ivcapfs": "same bytes"},
        counts=[
            Count("ivcapfs", "sequential", requests=4, other=2, sent=1010, of=1000),
            Count("rclone-off", "tail", failed="tail: exit code 1"),
        ],
    )
    for peer, values in {"curl": (900, 1100, 1000), "rclone-off": (200,), "ivcapfs": (800, 700, 900)}.items():
        for value in values:
            report.take("seq-http", peer).add(Sample("seq-http", value, cpu=0.5, memory=100 * MIB))
    report.take("small", "rclone-off").add(Sample("small", 2.0))
    report.take("small", "ivcapfs").add(Sample("small", 3.0))
    report.take("seq-http", "fsspec").failed = "timed out | after 5 s"
    return report


# --- figures -------------------------------------------------------------------------------------------------------


def test_ratios_are_of_medians(report: Report) -> None:
    assert report.median("seq-http", "ivcapfs") == 800
    assert report.ratio("seq-http", "ivcapfs", "curl") == 0.8
    assert report.ratio("seq-http", "ivcapfs", "rclone-off") == 4.0
    assert report.ratio("small", "ivcapfs", "rclone-off") == 1.5
    assert report.ratio("seq-http", "ivcapfs", "fsspec") is None
    assert report.ratio("seq-http", "nobody", "curl") is None


def test_a_report_survives_json(report: Report) -> None:
    text = to_json(report)
    assert from_json(text) == report
    assert {"median": 800, "min": 700, "max": 900}.items() <= json.loads(text)["series"][2].items()


@pytest.mark.parametrize("text", ["{}", "[]", "no", '{"version": 99}', '{"version": 1}'])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        from_json(text)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.123, "0.12"), (1.0, "1.00"), (12.34, "12.3"), (1234.5, "1,234")]
)
def test_numbers_have_three_digits_that_count(value: float | None, text: str) -> None:
    assert printed(value) == text


def test_promises_are_judged(report: Report) -> None:
    verdicts = {verdict.text: verdict for verdict in targets.judge(report)}
    met = {text: verdict.met for text, verdict in verdicts.items() if verdict.met is not None}
    assert met == {
        "seq-http: ivcapfs, at least 0.7 × curl": True,
        "seq-http: ivcapfs, at least 4 × rclone-off": True,
        "small: ivcapfs, at most 3 × rclone-off": True,
        "bytes sent for a sequential read: at most 1.02 × its size": True,
    }
    report.take("seq-http", "curl").samples = [10_000]
    assert targets.judge(report)[0].met is False


# --- outputs -------------------------------------------------------------------------------------------------------


def test_the_table_shows_ratios_failures_and_who_is_left_out(report: Report) -> None:
    console = Console(width=140, record=True, file=open(os.devnull, "w"))
    table.show(report, console)
    console.file.close()
    text = console.export_text()
    row = next(line for line in text.splitlines() if re.match(r"│\s+ivcapfs\s", line))
    assert [cell.strip() for cell in row.split("│")[2:-1]] == [
        "800", "700 – 900", "3", "0.80", "4.00", "–", "0.50", "100",
    ]  # fmt: skip
    assert "failed: seq-http, fsspec FUSE: timed out | after 5 s" in text
    assert "sdk is left out: ivcap_client is missing" in text
    assert "…" not in text


def test_the_plot_is_well_formed_and_to_scale(report: Report) -> None:
    root = ET.fromstring(svg.draw(report))
    ns = "{http://www.w3.org/2000/svg}"
    bars = [rect for rect in root.iter(f"{ns}rect") if rect.get("class") in ("peer", "yard", "ours")]
    widths = [float(bar.get("width", "0")) for bar in bars]
    assert [bar.get("class") for bar in bars] == ["yard", "peer", "ours", "peer", "ours"]
    assert widths[2] / widths[0] == pytest.approx(0.8, rel=0.01)
    texts = [text.text or "" for text in root.iter(f"{ns}text")]
    assert any("A <CPU> & more" in text for text in texts)
    assert "800" in texts
    height = float(root.get("height", "0"))
    assert all(float(text.get("y", "0")) < height for text in root.iter(f"{ns}text"))
    assert "prefers-color-scheme: dark" in svg.draw(report)


def test_the_page_has_a_table_for_each_figure_and_says_what_failed(report: Report) -> None:
    page = markdown.page(report, "performance.svg")
    assert "![Bars: ivcapfs beside its peers](performance.svg)" in page
    assert "| **ivcapfs** | 800 | 700 – 900 | 3 | 0.80 | 4.00 | – | 0.50 | 100 |" in page
    assert page.count("### ") == 3
    assert "* seq-http, fsspec FUSE: timed out | after 5 s" in page
    assert "* SDK as_local_file: ivcap_client is missing" in page


def test_cells_cannot_break_a_table() -> None:
    assert markdown.table(["a"], [["b|c\nd"]]).splitlines()[2] == "| b\\|c d |"


def test_the_command_shows_a_report_of_before(report: Report, tmp_path: Path) -> None:
    given = tmp_path / "a.json"
    given.write_text(to_json(report), encoding="utf-8")
    page, plot = tmp_path / "docs" / "P.md", tmp_path / "p.svg"
    page.parent.mkdir()
    result = CliRunner().invoke(cli.main, ["--from", str(given), "--markdown", str(page), "--svg", str(plot)])
    assert result.exit_code == 0, result.output
    assert "](../p.svg)" in page.read_text(encoding="utf-8")
    assert plot.read_text(encoding="utf-8").startswith("<svg")


def test_the_command_refuses_unknown_names() -> None:
    result = CliRunner().invoke(cli.main, ["--only", "seq-http,seqhttp"])
    assert result.exit_code == 2
    assert "'seqhttp' is none of: seq-http" in result.output


# --- what goes together --------------------------------------------------------------------------------------------


def test_works_figures_peers_and_promises_know_each_other() -> None:
    names = set(TITLES)
    assert {peer for work in works.WORKS for peer in work.peers} <= names
    assert {figure for work in works.WORKS for figure in work.figures} == set(FIGURES)
    assert {figure.yardstick for figure in FIGURES.values() if figure.yardstick} <= names
    assert set(counting.PEERS) <= names
    for target in targets.TARGETS:
        if isinstance(target, targets.Target):
            assert {target.of[0], target.to[0]} <= set(FIGURES)
            assert {target.of[1], target.to[1]} <= names


# --- parsers -------------------------------------------------------------------------------------------------------


def fio_says(error: int = 0) -> str:
    read = {"iops": 1234.5, "total_ios": 6000, "clat_ns": {"percentile": {"50.000000": 2_000_000}}}
    return "fio: a warning\n" + json.dumps({"jobs": [{"error": error, "read": read}]})


def test_fio_is_understood() -> None:
    assert fio.parse(fio_says()) == fio.RandomReads(rate=1234.5, reads=6000, middle=0.002, slow=0.0)


@pytest.mark.parametrize("text", ["", "no json", "{}", '{"jobs": []}', fio_says(error=5)])
def test_a_failure_of_fio_is_one_of_the_step(text: str) -> None:
    with pytest.raises(StepFailed, match="fio"):
        fio.parse(text)


def test_fio_is_bound_by_time_or_by_number() -> None:
    timed = fio.command(Path("/m/f"), 4096, 1 << 30, seconds=5)
    counted = fio.command(Path("/m/f"), 4096, 1 << 30, reads=400)
    assert "--runtime=5" in timed and "--time_based" in timed
    assert "--number_ios=100" in counted and "--time_based" not in counted


def test_the_access_log_is_counted() -> None:
    log = (
        "GET 206 1048576 /blobs/urn:ivcap:artifact:1\n"
        "GET 200 99 /files/one/one.bin?x=1\n"
        "HEAD 200 0 /files/one/one.bin\n"
        "GET 200 512 /files/one/\n"
        "GET 200 812 /1/artifacts?limit=50\n"
    )
    assert counting.parse_log(log) == counting.Asked(requests=2, other=3, sent=1048675)


def test_ranges_make_up_the_file() -> None:
    assert peers._ranges(10, 3) == ["0-2", "3-5", "6-9"]


# --- the world's parts ---------------------------------------------------------------------------------------------


def test_files_have_their_sizes_and_no_two_blocks_are_alike(tmp_path: Path) -> None:
    sizes = content.Sizes(one=3 * MIB + 5, four=MIB, big=2 * MIB, small=3, small_size=100, many=4)
    content.make_files(tmp_path, sizes)
    blocks = []
    for folder in content.folders(sizes).values():
        for name in folder.files:
            data = (tmp_path / folder.name / name).read_bytes()
            assert len(data) == folder.size
            if folder.name != content.MANY:
                blocks += [data[at : at + MIB] for at in range(0, len(data), MIB)]
    assert len(set(blocks)) == len(blocks) == 4 + 4 + 2 + 3


def test_nginx_gets_a_configuration_of_its_own(tmp_path: Path) -> None:
    text = nginx.config(tmp_path, nginx.Ports(1001, 1002, 1003), "127.0.0.1:1004")
    for wanted in ("127.0.0.1:1001 ", "127.0.0.1:1002 ssl", "127.0.0.1:1003 ", "server 127.0.0.1:1004;"):
        assert wanted in text
    assert all(str(tmp_path) in line for line in text.splitlines() if re.search(r"_path|pid|error_log|include", line))


def test_the_data_href_leads_where_the_client_came_from(tmp_path: Path) -> None:
    folder = content.Folder("one", ("one.bin",), 5)
    platform = platforms.start_platform(tmp_path / "data", [folder], None)
    try:
        urn = platforms.urn_of("one/one.bin")
        link = HTTPConnection("127.0.0.1", int(platform.url.rpartition(":")[2]), timeout=5)
        link.request("GET", f"/1/artifacts/{urn}", headers={"Host": "front:81", "X-Forwarded-Proto": "https"})
        record = json.loads(link.getresponse().read())
        link.request("GET", "/1/artifacts/urn:ivcap:artifact:00000000-0000-4000-8000-00000000000f")
        missing = link.getresponse()
        missing.read()
        link.close()
    finally:
        platform.close()
    assert record["data-href"] == f"https://front:81/blobs/{urn}"
    assert record["size"] == 5
    assert missing.status == 404


# --- the slow link -------------------------------------------------------------------------------------------------


def test_the_pace_keeps_the_rate_and_does_not_save_up_idle_time() -> None:
    pace = Pace(rate=1000)
    assert pace.wait(100.0, 100, first=True) == pytest.approx(0.1)
    assert pace.wait(100.1, 100, first=False) == pytest.approx(0.1)
    assert pace.wait(100.21, 100, first=False) == pytest.approx(0.09)  # catches up
    assert pace.wait(100.9, 100, first=False) == pytest.approx(0.08)  # by 20 ms at most
    assert pace.wait(200.0, 100, first=True) == pytest.approx(0.1)


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    body = bytes(range(256)) * 1024

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def slow_link(delay: float, rate: float) -> Iterator[int]:
    """Serve `Answers` through a shaper; give its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    shaper = Shaper(("127.0.0.1", server.server_port), delay, rate)
    listener = shaper.listen()
    loop = asyncio.new_event_loop()
    task = loop.create_task(shaper.serve(listener))
    shaping = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([task])))
    shaping.start()
    try:
        yield listener.getsockname()[1]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        shaping.join()
        listener.close()
        loop.close()
        server.shutdown()
        serving.join()
        server.server_close()


def fetch(link: HTTPConnection) -> tuple[float, float, bytes]:
    """Return the seconds to the first byte and to the last, and the body."""
    started = time.monotonic()
    link.request("GET", "/")
    reply = link.getresponse()
    first = time.monotonic() - started
    body = reply.read()
    return first, time.monotonic() - started, body


def test_each_request_waits_and_each_connection_has_its_rate() -> None:
    with slow_link(delay=0.05, rate=len(Answers.body) / 0.2) as port:
        link = HTTPConnection("127.0.0.1", port, timeout=5)
        for _ in range(2):  # on one connection
            first, whole, body = fetch(link)
            assert body == Answers.body
            assert first >= 0.05
            assert whole >= 0.24
        links = [HTTPConnection("127.0.0.1", port, timeout=5) for _ in range(4)]
        started = time.monotonic()
        threads = [threading.Thread(target=fetch, args=(one,)) for one in links]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - started < 4 * 0.24
        for one in [link, *links]:
            one.close()


def test_a_link_without_a_server_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()[1]
    shaper = Shaper(("127.0.0.1", nobody))

    async def ask() -> bytes:
        with shaper.listen() as listener:
            serving = asyncio.create_task(shaper.serve(listener))
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            try:
                return await asyncio.wait_for(reader.read(), 5)
            finally:
                writer.close()
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)

    assert asyncio.run(ask()) == b""


# --- child processes -----------------------------------------------------------------------------------------------


def test_a_program_is_run_and_its_cost_known() -> None:
    done = run([sys.executable, "-c", "print(sum(range(3_000_000)))"], timeout=20)
    assert done.output == "4499998500000\n"
    assert 0 < done.cpu < 20
    assert 0 < done.seconds < 20


def test_a_failing_program_says_why() -> None:
    with pytest.raises(StepFailed, match=r"sh: exit code 3, no such thing$"):
        run(["sh", "-c", "echo start >&2; echo no such thing >&2; exit 3"], timeout=20)
    with pytest.raises(StepFailed, match="could not be started"):
        run(["/nonexistent/program"], timeout=20)


def test_a_program_that_takes_too_long_is_ended_with_its_children() -> None:
    started = time.monotonic()
    with pytest.raises(StepFailed, match=r"timed out after 0\.3 s"):
        run_together([["sh", "-c", "sleep 30 & wait"], ["sleep", "30"]], timeout=0.3)
    assert time.monotonic() - started < 5


def test_what_runs_is_measured_with_its_memory() -> None:
    cost = cost_of(os.getpid())
    assert cost.cpu > 0
    assert cost.memory > 10 * MIB
