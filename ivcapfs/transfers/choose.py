"""Which artifacts are meant, and which files they become: names as in `artifacts/`, URNs and uuids.

Used by ``ivcapfs get``. Threading: no state; requests are made on the calling thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ivcapfs.catalog.asking import all_below, all_named
from ivcapfs.catalog.names import Parts, decode, id_in, plain_path, without_id
from ivcapfs.client import Api
from ivcapfs.errors import ConfigError, NotReady
from ivcapfs.models import ArtifactRecord, artifact_uuid

PART = ".part"


@dataclass(frozen=True, slots=True)
class Chosen:
    """An artifact that is to become a file.

    Attributes:
        parts: of the file's path below the folder that it is put into.
    """

    record: ArtifactRecord
    parts: Parts


def choose(api: Api, words: Iterable[str], *, recursive: bool) -> list[Chosen]:
    """Return the artifacts that are meant.

    Args:
        words: names as in `artifacts/`, the newest of that name is meant; `@id` forms; uuids; URNs.
        recursive: whether a name may be a folder's: then everything in it is meant.

    Raises:
        ConfigError: there is none of that name; or it is a folder's; or two artifacts would become one file.
        NotReady: it has no content (yet).
        ApiError, TransportError, ProtocolError: the server did not say.
    """
    found: dict[Parts, ArtifactRecord] = {}
    for word in words:
        for chosen in _meant(api, word, recursive=recursive):
            if found.setdefault(chosen.parts, chosen.record).uuid != chosen.record.uuid:
                raise ConfigError(f"two artifacts would be the file {'/'.join(chosen.parts)}: get them one by one")
    chosen_ones = [Chosen(record, parts) for parts, record in found.items()]
    for each in chosen_ones:
        if (*each.parts[:-1], each.parts[-1].removesuffix(PART)) in found and each.parts[-1].endswith(PART):
            raise ConfigError(f"{'/'.join(each.parts)} is in the way of another file: get it by itself")
    return chosen_ones


def _meant(api: Api, word: str, *, recursive: bool) -> list[Chosen]:
    uuid = artifact_uuid(word)
    if uuid is not None:
        by_id = _ready(api.read_artifact(uuid))
        return [Chosen(by_id, (plain_path(by_id)[-1],))]
    parts = tuple(word.rstrip("/").split("/"))
    if not all(parts):
        raise ConfigError(f"{word!r} is no name: write it as artifacts/ in a mount shows it, or give a uuid")
    if recursive and (below := _below(api, parts)):
        return below
    record = _of_id_form(api, parts) or _newest(all_named(api, decode(parts)))
    if record is not None and not word.endswith("/"):
        return [Chosen(record, (parts[-1],))]
    if not recursive and next(all_below(api, decode(parts)), None) is not None:
        raise ConfigError(f"{word} is a folder: -r gets what is in it")
    raise ConfigError(f"no artifact is called {word}")


def _below(api: Api, parts: Parts) -> list[Chosen]:
    """Return the newest artifact of each name in a folder."""
    by_name: dict[str | None, list[ArtifactRecord]] = {}
    for record in all_below(api, decode(parts)):
        by_name.setdefault(record.name, []).append(record)
    newest = [_newest(records) for records in by_name.values()]
    above = len(parts) - 1
    return [Chosen(each, _within(plain_path(each), above)) for each in newest if each is not None]


def _within(path: Parts, above: int) -> Parts:
    """Return a path without the folders above; one that was too long has lost them already."""
    return path[above:] if len(path) > above + 1 else path[-1:]


def _of_id_form(api: Api, parts: Parts) -> ArtifactRecord | None:
    """Return the artifact that an `@id` form stands for."""
    digits, bare = id_in(parts[-1]), without_id(parts)
    if digits is None or bare is None:
        return None
    if artifact_uuid(digits) is not None:
        return _ready(api.read_artifact(digits))
    found = [record for record in all_named(api, decode(bare)) if record.is_ready and record.uuid.startswith(digits)]
    if len(found) > 1:
        raise ConfigError(f"several artifacts are called {'/'.join(parts)}: give the whole uuid")
    return found[0] if found else None


def _newest(records: Iterable[ArtifactRecord]) -> ArtifactRecord | None:
    """Return which of some artifacts owns the plain name, as in `artifacts/`."""
    ready = [record for record in records if record.is_ready]
    return max(ready, key=lambda record: (record.created_at, record.uuid), default=None)


def _ready(record: ArtifactRecord) -> ArtifactRecord:
    if not record.is_ready:
        raise NotReady(f"artifact {record.uuid} has no readable content: its status is {record.status}")
    return record


def target_in(folder: Path, chosen: Chosen) -> Path:
    """Return the file that an artifact becomes."""
    return folder.joinpath(*chosen.parts)
