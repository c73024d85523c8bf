"""Artifact names -> file names. A name is any string at all, a path is not; this is the mapping between them.

Used by the listing and the tree. Pure: no I/O, no clock, no state; any thread may call it.

A name becomes a path by these rules (property-tested: every listing succeeds, every entry opens, no two share a path):

* ``/`` makes folders. A slash that would make an empty component is written ``%2F``: ``a//b`` is ``a/%2Fb``.
* Control characters, lone surrogates and the components ``.`` and ``..`` are percent-encoded (UTF-8, upper case).
  A ``%`` is encoded only where it could be taken for such an escape, so ``50%20off`` stays as it is.
* ``@`` before eight hexadecimal digits is written ``%40``: no real name can be mistaken for an `@id` form.
* The newest artifact of a name owns the plain path. Each artifact can also be opened by its **@id form**,
  ``<stem>@<8 or more first digits of the uuid><suffix>``, which depends on the artifact alone and never changes.
  Older namesakes, and a file whose name is also a folder, are listed by it (whole uuid where 8 digits are not unique).
* A file name over 255 bytes is cut before its suffix and carries the ``@id``; a folder name is cut and carries
  ``~`` and 16 digits of its hash, so that all its members stay together. A path over 2,048 bytes loses its folders.
* No name: the uuid and the usual suffix of the MIME type.
"""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Sequence

from ivcapfs.models import ArtifactRecord, ListedArtifact

MAX_COMPONENT = 255
"""Bytes; NAME_MAX of Linux."""
MAX_PATH = 2048
"""Bytes of a path below `artifacts/`; leaves room for the mount point within PATH_MAX."""
SHORT_ID = 8
RESERVED = frozenset({"content", "artifact.json", "aspects"})
"""What every `by-id/<uuid>/` folder holds besides the file itself."""

Parts = tuple[str, ...]

_ESCAPED = re.compile(
    r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]|@(?=[0-9a-f]{8})|%(?=[01][0-9A-F]|2[5EF]|40|7F|C2|ED)"
)
_ESCAPES = re.compile(r"%(?:[01][0-9A-F]|2[5EF]|40|7F|C2%[89][0-9A-F]|ED%[AB][0-9A-F]%[89AB][0-9A-F])")
_PACKED = frozenset({".gz", ".bz2", ".xz", ".zst", ".lz4", ".z"})
_SUFFIX = re.compile(r"\.[A-Za-z0-9_+~-]{1,16}\Z")
_ID_FORM = re.compile(
    r"(?P<stem>.*)@(?P<id>[0-9a-f]{8}[0-9a-f-]{0,28})(?P<suffix>(?:\.[A-Za-z0-9_+~-]{1,16}){0,2})", re.DOTALL
)
_SIMPLE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_. -]*(?:/[A-Za-z0-9_-][A-Za-z0-9_. -]*)*")
"""Names that are their own path, if they are short: nearly all."""
TYPES = mimetypes.MimeTypes(filenames=())
"""The types that Python itself knows, whatever this machine's /etc/mime.types says."""


def plain_path(record: ArtifactRecord | ListedArtifact) -> Parts:
    """Return the path that the record's artifact owns if no other has a better claim to it."""
    name = record.name
    if name and len(name) <= MAX_COMPONENT and _SIMPLE.fullmatch(name):
        return tuple(name.split("/"))
    parts = _encoded(record)
    if _length(parts) > MAX_PATH:
        return (_with_id(parts[-1], record.uuid, SHORT_ID),)
    if len(_bytes(parts[-1])) > MAX_COMPONENT:
        return (*map(_fit_folder, parts[:-1]), _with_id(parts[-1], record.uuid, SHORT_ID))
    return (*map(_fit_folder, parts[:-1]), parts[-1])


def id_path(record: ArtifactRecord, digits: int = SHORT_ID) -> Parts:
    """Return the path with the `@id` form.

    Args:
        digits: characters of the uuid in it, dashes counted: 8 to 36.
    """
    parts = _encoded(record)
    last = _with_id(parts[-1], record.uuid, digits)
    return (last,) if _length(parts) > MAX_PATH else (*map(_fit_folder, parts[:-1]), last)


def id_leaf(leaf: str, name: str | None, uuid: str, digits: int = SHORT_ID) -> str:
    """Return the last component of `id_path`, from the last component of `plain_path`.

    Args:
        leaf: of the artifact's `plain_path`.
        name: the artifact's; looked at only where the leaf had to be cut.
    """
    if name is not None and id_in(leaf) is not None:  # an `@` of a name's own is escaped: it was cut
        leaf = encode(name)[-1]
    return _with_id(leaf, uuid, digits)


def leaf_name(record: ArtifactRecord) -> str:
    """Return the file's name in its own `by-id/<uuid>/` folder: never one of `RESERVED`."""
    leaf = plain_path(record)[-1]
    return id_path(record)[-1] if leaf in RESERVED else leaf


def id_in(component: str) -> str | None:
    """Return the digits of the uuid in a component of the `@id` form, or None if it has another form."""
    match = _ID_FORM.fullmatch(component)
    return match["id"] if match else None


def without_id(parts: Parts) -> Parts | None:
    """Return the path that an @id form stands beside, as far as it was not cut; None where there is no @id."""
    match = _ID_FORM.fullmatch(parts[-1]) if parts else None
    return (*parts[:-1], match["stem"] + match["suffix"]) if match else None


def encode(name: str) -> Parts:
    """Return a name as path components that Linux takes, lengths aside. Injective: `decode` is its inverse."""
    parts: list[str] = []
    slashes = ""
    for component in name.split("/"):
        if component:
            parts.append(slashes + encode_component(component))
            slashes = ""
        else:
            slashes += "%2F"
    if not parts:
        return ("%2F" * name.count("/"),)
    parts[-1] += slashes
    return tuple(parts)


def encode_component(text: str) -> str:
    """Return one component with everything escaped that a directory entry cannot hold, or that would be ambiguous."""
    if text in (".", ".."):
        return "%2E" * len(text)
    return _ESCAPED.sub(_escape, text)


def decode(parts: Sequence[str]) -> str:
    """Return the name that `encode` made these components of."""
    return _ESCAPES.sub(_unescape, "/".join(parts))


def split_suffix(component: str) -> tuple[str, str]:
    """Return (stem, suffix): `data.csv` -> `.csv`, `a.tar.gz` -> `.tar.gz`, `.bashrc` -> no suffix."""
    stem, suffix = _split_one(component)
    if suffix.lower() in _PACKED:
        inner, inner_suffix = _split_one(stem)
        return inner, inner_suffix + suffix
    return stem, suffix


def _encoded(record: ArtifactRecord | ListedArtifact) -> Parts:
    if record.name:
        return encode(record.name)
    bare_type = (record.mime_type or "").partition(";")[0].strip()
    return (record.uuid + (TYPES.guess_extension(bare_type, strict=False) or ""),)


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def _unescape(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "surrogatepass")


def _split_one(component: str) -> tuple[str, str]:
    match = _SUFFIX.search(component)
    if match is None or match.start() == 0:
        return component, ""
    return component[: match.start()], match[0]


def _with_id(component: str, uuid: str, digits: int) -> str:
    stem, suffix = split_suffix(component)
    mark = f"@{uuid[:digits]}{suffix}"
    return _cut(stem, MAX_COMPONENT - len(_bytes(mark))) + mark


def _fit_folder(component: str) -> str:
    if len(_bytes(component)) <= MAX_COMPONENT:
        return component
    mark = "~" + hashlib.sha256(_bytes(component)).hexdigest()[:16]
    return _cut(component, MAX_COMPONENT - len(mark)) + mark


def _cut(text: str, size: int) -> str:
    return _bytes(text)[:size].decode("utf-8", "ignore")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8")


def _length(parts: Parts) -> int:
    return sum(len(_bytes(part)) + 1 for part in parts)
