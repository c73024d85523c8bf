"""The server, asked for one path: before anybody is told that there is nothing, or while not everything is known yet.

Used by `ivcapfs.catalog.index`. What is found is put into the store, and looked up there, so that a path means the same
however its artifact became known.

Threading: any thread. Requests run on the pool only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor

from ivcapfs.catalog.chain import PAGE
from ivcapfs.catalog.interface import Folder
from ivcapfs.catalog.names import Parts, decode, id_in, without_id
from ivcapfs.catalog.store import Store
from ivcapfs.client import Api
from ivcapfs.errors import NotFound
from ivcapfs.models import ArtifactRecord, artifact_uuid
from ivcapfs.waits import Check, SingleFlight, wait_for


def named(api: Api, name: str) -> list[ArtifactRecord]:
    """Return artifacts of a name, one page of them (``GET /1/artifacts`` with a filter)."""
    answers = api.list_artifacts_page(filter=f"name ~= '{_pattern(name)}'", limit=PAGE).items
    return [record for record in answers if record.name == name]


def all_named(api: Api, name: str) -> list[ArtifactRecord]:
    """Return all artifacts of a name, over all pages (``GET /1/artifacts`` with a filter)."""
    found = api.iter_artifacts(filter=f"name ~= '{_pattern(name)}'", limit=PAGE)
    return [record for record in found if record.name == name]


def all_below(api: Api, name: str) -> Iterator[ArtifactRecord]:
    """Yield all artifacts whose name goes on behind a folder's, over all pages."""
    return (each for each in api.iter_artifacts(filter=_all_in(name), limit=PAGE) if _is_in(name, each))


def is_plausible(parts: Parts) -> bool:
    """Return whether a name is worth a question: programs probe for hidden files that no one ever made."""
    return bool(parts) and not any(part.startswith(".") or len(part.encode()) > 255 for part in parts)


class Asking:
    """Questions about single paths, each asked once at a time.

    Args:
        bound: seconds that a wait lasts at most.
    """

    def __init__(self, api: Api, store: Store, pool: Executor, bound: float) -> None:
        self._api = api
        self._store = store
        self._bound = bound
        self._asks: SingleFlight[tuple[Parts, bool], Folder | ArtifactRecord | None] = SingleFlight(pool)

    def ask(self, parts: Parts, check: Check, *, with_folders: bool) -> Folder | ArtifactRecord | None:
        """Return what the server has at a path below `artifacts/`, in two requests at most.

        Args:
            with_folders: whether it may be a folder that is not known.

        Raises:
            ApiError, TransportError, ProtocolError: the server did not say.
        """
        asked = self._asks.run((parts, with_folders), lambda: self._look(parts, with_folders))
        return wait_for(asked, check, self._bound, f"the artifact named {decode(parts)!r}")

    def _look(self, parts: Parts, with_folders: bool) -> Folder | ArtifactRecord | None:
        """Runs on the pool."""
        self._keep(self._named(decode(parts)))
        found = self._store.find(parts)
        if found is None and (bare := without_id(parts)) is not None:
            self._keep(self._of_id_form(parts, bare))
            return self._store.find(parts)
        if found is None and with_folders:
            self._keep(self._below(decode(parts)))
            found = self._store.find(parts)
        return found

    def _named(self, name: str) -> Iterable[ArtifactRecord]:
        """Ask for the artifacts of a name."""
        return named(self._api, name)

    def _of_id_form(self, parts: Parts, bare: Parts) -> Iterable[ArtifactRecord]:
        """Ask for the artifact that an @id form may stand for."""
        uuid = artifact_uuid(id_in(parts[-1]) or "")
        if uuid is None:
            return self._named(decode(bare))
        try:
            return [self._api.read_artifact(uuid)]
        except NotFound:
            return []

    def _below(self, name: str) -> Iterable[ArtifactRecord]:
        """Ask for artifacts in a folder."""
        answers = self._api.list_artifacts_page(filter=_all_in(name), limit=PAGE).items
        return [each for each in answers if _is_in(name, each)]

    def _keep(self, records: Iterable[ArtifactRecord]) -> None:
        ready = [record for record in records if record.is_ready]
        if ready:
            self._store.write(lambda write: write.put(ready))


def _all_in(folder: str) -> str:
    """Return the filter for the artifacts in a folder; see `_is_in` for what it finds besides."""
    return f"name ~= '{_pattern(folder)}/%'"


def _is_in(folder: str, record: ArtifactRecord) -> bool:
    return record.name is not None and record.name.startswith(folder + "/")


def _pattern(name: str) -> str:
    """Return a pattern for the filter. How its strings are quoted is not documented, so every character with a meaning
    there is sent as LIKE's one-character wildcard, and the answers are compared by us."""
    return "".join("_" if char in "'\"%\\" or not char.isprintable() else char for char in name)
