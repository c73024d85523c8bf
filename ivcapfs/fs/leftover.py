"""New files that a mount left in the spool, sent without one: what the next mount would do with them.

Used by ``ivcapfs uploads retry``. Such a file becomes an artifact, gets its collection, its aspects and its time, and
leaves the spool; where that fails, it stays there with the reason.

Threading: a `LeftOver` belongs to one thread; requests run on its own pool.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ivcapfs.catalog.kepttimes import KeptTimes
from ivcapfs.catalog.memberships import Memberships
from ivcapfs.catalog.store import Store, store_name
from ivcapfs.client import Connection
from ivcapfs.errors import CatalogError, Closing, ConfigError, CredentialError, IvcapfsError, NotAuthenticated
from ivcapfs.fs.aspectchange import Change
from ivcapfs.fs.aspectwriter import AspectWriter
from ivcapfs.models import ArtifactRecord
from ivcapfs.spool.admin import Spooled, entry_in, taken, wanted
from ivcapfs.spool.describe import draft_state
from ivcapfs.spool.draft import Draft
from ivcapfs.spool.entry import State
from ivcapfs.spool.folder import Folder
from ivcapfs.spool.sender import Sender, is_passing
from ivcapfs.spool.spool import as_found, size_of
from ivcapfs.waits import never, wait_for

log = logging.getLogger(__name__)

LONGEST = 7 * 86_400.0
"""Seconds that one file may take; what bounds a wait is that each request has its own bound."""


class LeftOver:
    """See the module. Close it, or use it in a ``with``.

    Args:
        connection: to the deployment that the files are for.
        policy: URN of the policy of new artifacts; None: the platform's own.
        catalog: the folder of catalogs, for the times of files; None: they are not kept.
        patience: seconds without progress after which a failure is told.
    """

    def __init__(
        self, connection: Connection, *, policy: str | None = None, catalog: Path | None = None, patience: float = 50.0
    ) -> None:
        self._connection = connection
        self._catalog = catalog
        self._patience = patience
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="leftover")
        self._sender = Sender(
            connection.api, connection.uploads, policy=policy, patience=patience, stopped=self._stopped.is_set
        )
        self._memberships = Memberships(connection.api)
        self._aspects = AspectWriter(connection.api, self._pool, patience, never)

    def fits(self, file: Spooled) -> bool:
        """Return whether a file was written for this deployment, by this user."""
        return file.folder.parent.name == store_name(self._connection.origin, self._connection.identity)

    def send(self, file: Spooled, tell: Callable[[str], None] = never) -> str:
        """Make a file an artifact; return its URN. Call it again where it fails: it goes on where it got to.

        Args:
            tell: called again and again with where it stands.

        Raises:
            ConfigError: it is for another deployment, or another user's.
            FileSystemError: it is in use, or not there any more, or the spool cannot be written.
            ApiError, TransportError, ProtocolError: the platform does not take it.
        """
        if not self.fits(file):
            raise _not_ours(file, self._connection.origin)
        with taken(file) as folder:
            entry = entry_in(folder, file)
            size = size_of(folder, entry)
            draft = Draft(folder, wanted(as_found(entry, size), size))
            draft.note(lambda present: present, durable=True)
            future = self._pool.submit(self._send, draft)
            try:
                record = wait_for(future, lambda: tell(draft_state(draft)), LONGEST, file.entry.path)
            except IvcapfsError as exc:
                _keep_reason(draft, exc)
                raise
            except BaseException:  # Ctrl-C: the folder is ours until the last request has ended
                self.close()
                raise
            self._finish(folder, draft, record)
        return record.urn

    def close(self) -> None:
        """End what is under way, in all threads."""
        self._stopped.set()
        self._connection.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> LeftOver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, draft: Draft) -> ArtifactRecord:
        """Runs on the pool."""
        known = draft.entry.record
        record = self._sender.record(known) if known else self._sender.complete(draft)
        if known is None:
            draft.note(lambda entry: replace(entry, record=record.uuid, begun=None), durable=True)
        entry = draft.entry
        if entry.collection is not None:
            self._memberships.add(entry.collection, record.uuid)
        for change in entry.changes:
            self._aspects.apply(Change.from_json(change), record.urn)
        return record

    def _finish(self, folder: Folder, draft: Draft, record: ArtifactRecord) -> None:
        """It is an artifact: keep its time, and take it out of the spool."""
        if self._catalog is not None:
            store = Store(self._catalog, store_name(self._connection.origin, self._connection.identity))
            try:
                KeptTimes(store).keep(record.uuid, draft.entry.mtime_ns)
            except (CatalogError, ConfigError) as exc:
                log.info("the time of %s is not kept: %s", draft.entry.path, exc)
            finally:
                store.close()
        folder.remove(draft.entry)


def _keep_reason(draft: Draft, exc: IvcapfsError) -> None:
    """Note why a file was refused; one that only the network kept back goes on with the next mount."""
    if is_passing(exc) or isinstance(exc, Closing | NotAuthenticated | CredentialError):
        return
    reason = str(exc)
    draft.note(lambda entry: replace(entry, state=State.FAILED, reason=reason))


def _not_ours(file: Spooled, origin: str) -> ConfigError:
    owner = file.owner
    whose = f"{owner.url}, mounted as {owner.source}" if owner and owner.source else owner.url if owner else "nobody"
    if owner is not None and owner.url == origin:
        return ConfigError(f"it was written by another user of {whose}: name that context with --source")
    return ConfigError(f"it was written for {whose}, and not for {origin}: name that with --source")
