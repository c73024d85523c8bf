"""What a mount that writes has besides: the spool, the uploads, and what happens when a new file is an artifact.

Used by `ivcapfs.fs.floors`, which makes it, and by `writing`. Threading: made and closed by one thread; all else may be
called by any.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from ivcapfs.catalog.interface import Catalog
from ivcapfs.catalog.kepttimes import KeptTimes
from ivcapfs.catalog.store import Store, store_name
from ivcapfs.client import Connection
from ivcapfs.config import MountSettings, WriteSettings
from ivcapfs.crashing import reach
from ivcapfs.errors import IvcapfsError
from ivcapfs.fs.bindings import Bindings
from ivcapfs.fs.draftattributes import DescribedDraft, DraftAttributes
from ivcapfs.fs.nodes import DraftNode, Node, TextNode
from ivcapfs.fs.overlay import OverlaidTree
from ivcapfs.fs.placing import Places
from ivcapfs.fs.renaming import Names
from ivcapfs.fs.tree import Nodes
from ivcapfs.fs.views import Views
from ivcapfs.fs.writer import Writer
from ivcapfs.models import ArtifactRecord
from ivcapfs.spool.describe import UPLOAD, UploadsStatus, uploads_status
from ivcapfs.spool.draft import Draft
from ivcapfs.spool.drafts import Drafts
from ivcapfs.spool.entry import State
from ivcapfs.spool.folder import Owner, this_host
from ivcapfs.spool.sender import Sender
from ivcapfs.spool.spool import Spool
from ivcapfs.spool.uploader import Uploader
from ivcapfs.waits import Check, never

log = logging.getLogger(__name__)

FINISH_SECONDS = 10.0
"""How long a mount that is gone goes on with uploads."""


class Writable:
    """See the module.

    Args:
        forget: makes the kernel drop what it knows of a path.
        stopped: whether the mount is going away for good.

    Attributes:
        hurried: called when somebody asked that what is closed settles no longer; set once, before the mount serves.

    Raises:
        ConfigError: the spool cannot be used.
    """

    def __init__(
        self,
        settings: MountSettings,
        write: WriteSettings,
        connection: Connection,
        catalog: Catalog,
        store: Store,
        views: Views,
        forget: Callable[[str], None],
        stopped: Callable[[], bool],
    ) -> None:
        limits = settings.client.limits
        self.times = KeptTimes(store)
        self.drafts = Drafts()
        self.hurried: Callable[[], None] = never
        self._store = store
        self._forget = forget
        bound = limits.total + limits.idle
        self._collections = views.collections
        self._attributes = DraftAttributes(views.aspects, catalog)
        owner = Owner(this_host(), os.getpid(), str(settings.mountpoint), connection.origin, settings.source)
        self.spool = Spool(write.spool, store_name(connection.origin, connection.identity), owner)
        sender = Sender(connection.api, connection.uploads, policy=write.policy, patience=bound, stopped=stopped)
        self.uploader = Uploader(self.drafts, sender, self, settle=write.settle)

    def recover(self) -> None:
        """Take up what earlier mounts left: what was closed is completed, the rest is shown."""
        for draft in self.spool.recover():
            if draft.entry.is_removed:  # removed while it was open, and now nobody has it open
                draft.folder.remove(draft.entry)
                continue
            self.drafts.put(draft)
            if draft.entry.state is State.CLOSED:
                log.info("%s was left by an earlier mount: completing it", draft.entry.path)
                self.uploader.complete_later(draft, at_once=True)

    def status(self) -> UploadsStatus:
        """Return how the new files do."""
        return uploads_status(self.drafts.all())

    def finish(self) -> None:
        """The mount is gone: complete what can be within a bound; the rest is left to the next mount."""
        self.uploader.hurry(for_good=True)
        left = self.uploader.await_idle(FINISH_SECONDS)
        if left:
            log.warning("%d new files are not sent yet: the next mount with -o write goes on with them", left)

    def close(self) -> None:
        """End the uploads; what is left is in the journal."""
        self.uploader.close()
        self.spool.close()

    # -- for the operations --------------------------------------------------------------------------------------

    def tree(self, below: Nodes) -> OverlaidTree:
        """Return what the mount shows: the platform's tree, and new files over it."""
        return OverlaidTree(below, self.drafts, self._node)

    def rules(self, tree: Nodes, bindings: Bindings, check: Check) -> tuple[Writer, Names]:
        """Return the rules for contents and for names in a tree."""
        places = Places(self._collections, check)
        writer = Writer(self.spool, self.drafts, self.uploader, bindings, places, check)
        names = Names(self.drafts, self.uploader, writer, bindings, places, self._collections, tree, check)
        return writer, names

    def free_bytes(self) -> tuple[int, int]:
        """See `Spool.free_bytes`."""
        return self.spool.free_bytes()

    def set_attribute(self, node: Node, name: str, value: bytes, flags: int, check: Check) -> None:
        """Set an extended attribute; see `DraftAttributes`."""
        if isinstance(node, DraftNode) and (name, value) == (UPLOAD, b"retry"):
            self.uploader.retry(node.draft)
        elif isinstance(node, DraftNode) and (name, value) == (UPLOAD, b"discard"):
            self.uploader.let_go(node.draft)
        elif isinstance(node, TextNode) and (name, value) == (UPLOAD, b"now"):
            self.uploader.hurry()
            self.hurried()
        else:
            self._attributes.set(node, name, value, flags, check)

    def remove_attribute(self, node: Node, name: str, check: Check) -> None:
        """Remove an extended attribute; see `DraftAttributes`."""
        self._attributes.remove(node, name, check)

    def _node(self, draft: Draft) -> DraftNode:
        return DraftNode(draft, DescribedDraft(draft))

    # -- when a file has arrived ---------------------------------------------------------------------------------

    def arrived(self, draft: Draft, record: ArtifactRecord) -> None:
        """See `Arrivals.arrived`: the artifact is listed, has its time, its collection, its aspects."""
        reach("arrival")
        entry = draft.entry
        self._store.write(lambda write: write.put([record]))
        self.times.keep(record.uuid, draft.mtime_ns)
        if entry.collection is not None:
            self._collections.add_by_urn(entry.collection, record.uuid)
        self._attributes.apply(entry.changes, record.urn)

    def seen(self, draft: Draft) -> None:
        """The path of a new file is an artifact's now: the kernel is to ask again."""
        try:
            self._forget(f"/{draft.entry.path}")
        except (IvcapfsError, OSError) as exc:
            log.debug("the kernel was not told of %s: %s", draft.entry.path, exc)

