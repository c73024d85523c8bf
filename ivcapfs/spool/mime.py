"""The MIME type of a new file: by its suffix, else by how its content begins.

Used by `sender`. Pure: any thread.
"""

from __future__ import annotations

import puremagic

from ivcapfs.catalog.names import TYPES

UNKNOWN = "application/octet-stream"
HEAD = 64 << 10
"""Bytes of the content that are looked at."""
_SCIENCE = {
    ".nc": "application/x-netcdf",
    ".h5": "application/x-hdf5",
    ".hdf5": "application/x-hdf5",
    ".parquet": "application/vnd.apache.parquet",
    ".geojson": "application/geo+json",
    ".md": "text/markdown",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".sqlite": "application/vnd.sqlite3",
    ".db": "application/vnd.sqlite3",
    ".npy": "application/x-npy",
    ".gz": "application/gzip",
    ".zst": "application/zstd",
    ".xz": "application/x-xz",
    ".bz2": "application/x-bzip2",
}
"""What Python's own table lacks, or has differently from version to version."""
_SIGNATURES = {
    b"\x89HDF\r\n\x1a\n": "application/x-hdf5",
    b"CDF\x01": "application/x-netcdf",
    b"CDF\x02": "application/x-netcdf",
    b"CDF\x05": "application/x-netcdf",
    b"SQLite format 3\0": "application/vnd.sqlite3",
    b"PAR1": "application/vnd.apache.parquet",
    b"\x1f\x8b": "application/gzip",
}
"""How the formats of science begin that the library does not know, or calls otherwise than by their suffixes."""


def mime_type(name: str, head: bytes) -> str:
    """Return the MIME type of a file.

    Args:
        name: its name; only its last component counts.
        head: the first `HEAD` bytes of its content, or all.
    """
    leaf = name.rpartition("/")[2].lower()
    stem, dot, suffix = leaf.rpartition(".")
    if dot and stem and (known := _SCIENCE.get(dot + suffix)):
        return known
    guessed, encoding = TYPES.guess_type(leaf, strict=False)
    if guessed and not encoding:
        return guessed
    return _by_content(head)


def _by_content(head: bytes) -> str:
    if not head:
        return UNKNOWN
    for beginning, kind in _SIGNATURES.items():
        if head.startswith(beginning):
            return kind
    try:
        found = puremagic.magic_string(head)
    except (puremagic.PureError, ValueError):
        found = []
    for match in found:
        kind = str(match.mime_type or "")
        if kind and kind.isascii() and kind.isprintable() and "/" in kind:
            return kind
    return "text/plain" if _is_text(head) else UNKNOWN


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as exc:
        return exc.start >= len(head) - 3 and len(head) >= HEAD  # a character cut at the end
    return True
