"""The sample files: a small survey of the tide, as a scientist might have it, in files of several kinds.

Used by `ivcapfs.demo.stage`, which uploads them. Everything is made here, the same on every run, with the standard
library only; the readings are invented. Pure but for the files that it writes: any thread.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import sqlite3
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ivcapfs.demo import netcdf

START = datetime(2026, 6, 1, tzinfo=UTC)
HOURS = 72
TIDES = "survey/2026/tides.csv"
README = """\
Tide survey 2026

Hourly sea levels of three gauges, in metres above the lowest astronomical tide.
tides.csv is the table, sea-level.nc the same for Hobart, stations.db says where the gauges are.
The readings are invented: do not sail by them.
"""


@dataclass(frozen=True)
class Station:
    """A tide gauge; `amplitudes` in metres and `phases` in radians are of the constituents in `PERIODS`."""

    name: str
    latitude: float
    longitude: float
    mean: float
    amplitudes: tuple[float, ...]
    phases: tuple[float, ...]

    def level(self, hour: float) -> float:
        """Return the sea level in metres, so many hours after `START`."""
        waves = zip(self.amplitudes, PERIODS, self.phases, strict=True)
        return self.mean + sum(size * math.cos(2 * math.pi * hour / period - phase) for size, period, phase in waves)


PERIODS = (12.4206, 12.0, 23.9345, 25.8193)
"""Hours of M2, S2, K1 and O1."""
STATIONS = (
    Station("Hobart", -42.88, 147.33, 0.98, (0.30, 0.09, 0.21, 0.14), (0.4, 1.1, 2.0, 0.7)),
    Station("Fremantle", -32.05, 115.74, 0.75, (0.05, 0.05, 0.17, 0.12), (2.9, 0.3, 1.4, 2.2)),
    Station("Darwin", -12.47, 130.85, 4.10, (1.96, 1.00, 0.58, 0.35), (1.7, 0.2, 2.6, 0.9)),
)


@dataclass(frozen=True)
class Sample:
    """One file to upload.

    Attributes:
        name: the artifact's, with folders.
        path: the file itself.
        aspects: metadata to add.
    """

    name: str
    path: Path
    content_type: str
    aspects: tuple[dict[str, Any], ...] = field(default=())


def make(folder: Path) -> list[Sample]:
    """Write all sample files into a folder; return them in the order in which they are to be uploaded."""
    kinds: list[tuple[str, str, Callable[[], bytes]]] = [
        ("survey/README.txt", "text/plain", README.encode),
        (TIDES, "text/csv", lambda: table(STATIONS[:1], 24)),
        (TIDES, "text/csv", lambda: table(STATIONS, HOURS)),
        ("survey/2026/sea-level.nc", "application/x-netcdf", series),
        ("survey/2026/quicklook.png", "image/png", picture),
        ("survey/2026/stations.db", "application/vnd.sqlite3", lambda: database(folder)),
        ("survey/raw/loggers.tar.gz", "application/gzip", tarball),
        ("survey/raw/field-notes.zip", "application/zip", archive),
    ]
    samples = []
    for number, (name, content_type, content) in enumerate(kinds):
        path = folder / f"{number}-{Path(name).name}"
        path.write_bytes(content())
        newest = number == 2
        samples.append(Sample(name, path, content_type, ASPECTS if newest else ()))
    return samples


ASPECTS: tuple[dict[str, Any], ...] = (
    {
        "$schema": "urn:example:schema:tide-gauge.1",
        "stations": [station.name for station in STATIONS],
        "datum": "lowest astronomical tide",
        "unit": "m",
    },
    {"$schema": "urn:example:schema:review.1", "state": "accepted", "reviewer": "A. Kelvin"},
)
"""What is known of the newest table."""


def table(stations: tuple[Station, ...], hours: int) -> bytes:
    """Return the readings as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("time", "station", "level_m"))
    for hour in range(hours):
        time = f"{START + timedelta(hours=hour):%Y-%m-%dT%H:%MZ}"
        writer.writerows((time, station.name, f"{station.level(hour):.3f}") for station in stations)
    return text.getvalue().encode()


def series() -> bytes:
    """Return Hobart's readings as NetCDF."""
    hours = range(HOURS)
    since = f"hours since {START:%Y-%m-%d %H:%M:%S}"
    level = {"long_name": "sea level above the lowest astronomical tide", "units": "m"}
    variables = (
        netcdf.Variable("time", "time", "i", hours, {"units": since, "calendar": "standard"}),
        netcdf.Variable("sea_level", "time", "f", [STATIONS[0].level(hour) for hour in hours], level),
    )
    return netcdf.encode(variables, {"title": "Sea level at Hobart (invented)", "Conventions": "CF-1.8"})


def picture(width: int = 360, height: int = 120) -> bytes:
    """Return Hobart's curve as a PNG of three colours."""
    hobart = STATIONS[0]
    levels = [hobart.level(x * HOURS / width) for x in range(width)]
    low, high = min(levels), max(levels)
    tops = [round((high - level) / (high - low) * (height - 20)) + 10 for level in levels]
    rows = [bytes([0, *(_colour(y, top) for top in tops)]) for y in range(height)]  # each row begins with its filter: 0
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    palette = bytes.fromhex("f7fbff 08306b 6baed6")
    chunks = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(b"".join(rows), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def database(folder: Path) -> bytes:
    """Return the stations, and what each measured, as an SQLite database; a folder is needed to make it in."""
    path = folder / "making.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE station (name TEXT PRIMARY KEY, latitude REAL, longitude REAL)")
        connection.execute("CREATE TABLE reading (station TEXT REFERENCES station, hour INTEGER, level_m REAL)")
        for one in STATIONS:
            connection.execute("INSERT INTO station VALUES (?, ?, ?)", (one.name, one.latitude, one.longitude))
            readings = ((one.name, hour, round(one.level(hour), 3)) for hour in range(HOURS))
            connection.executemany("INSERT INTO reading VALUES (?, ?, ?)", readings)
    data = path.read_bytes()
    path.unlink()
    return data


def tarball() -> bytes:
    """Return what each gauge's logger recorded, as a tar.gz."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as tar,
    ):
        for station in STATIONS:
            data = "".join(f"{hour:03} {station.level(hour):.4f}\n" for hour in range(HOURS)).encode()
            member = tarfile.TarInfo(f"loggers/{station.name.lower()}.log")
            member.size, member.mtime = len(data), int(START.timestamp())
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def archive() -> bytes:
    """Return some notes as a zip."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as notes:
        for station in STATIONS:
            member = zipfile.ZipInfo(f"field-notes/{station.name.lower()}.txt", START.timetuple()[:6])
            notes.writestr(member, f"{station.name}: gauge cleaned, clock checked, benchmark levelled.\n")
    return packed.getvalue()


def _colour(y: int, top: int) -> int:
    return 0 if y < top - 1 else 1 if y <= top + 1 else 2


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
