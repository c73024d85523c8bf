"""The extended attributes of new files, and the setting of those of artifacts and collections.

What is set on a file that is not an artifact yet is journalled with it, and sent once it is one.

Used by `writable`. Threading: any thread may call anything; requests run on the aspect writer's pool.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ivcapfs.catalog.interface import Catalog
from ivcapfs.errors import AttributesUnsupported, InUse, NoSuchAttribute
from ivcapfs.fs.aspectchange import Action, Change, parse, parse_removal
from ivcapfs.fs.aspectwriter import AspectWriter
from ivcapfs.fs.nodes import DraftNode, Node
from ivcapfs.fs.xattrs import MIME_TYPE, PREFIX, ExtendedAttributes, attribute
from ivcapfs.models import ARTIFACT_URN, EPOCH, AspectRecord
from ivcapfs.spool.describe import UPLOAD, draft_state
from ivcapfs.spool.draft import Draft
from ivcapfs.spool.mime import HEAD, mime_type
from ivcapfs.waits import Check


class DraftAttributes:
    """See the module."""

    def __init__(self, aspects: AspectWriter, catalog: Catalog) -> None:
        self._aspects = aspects
        self._xattrs = ExtendedAttributes(catalog, aspects)

    def set(self, node: Node, name: str, value: bytes, flags: int, check: Check) -> None:
        """Set an attribute (setxattr(2)). Raises as `ExtendedAttributes.set`."""
        if isinstance(node, DraftNode):
            change = parse(name, value)
            self._journal(node.draft, change)
            if (uuid := _artifact(node.draft)) is not None:
                self._aspects.apply(change, ARTIFACT_URN + uuid, check)
        else:
            self._xattrs.set(node, name, value, flags, check)

    def remove(self, node: Node, name: str, check: Check) -> None:
        """Remove an attribute (removexattr(2)). Raises as `ExtendedAttributes.remove`."""
        if isinstance(node, DraftNode):
            if node.draft.entry.record is not None:
                raise InUse(f"{node.draft.entry.path} is becoming an artifact: try again in a moment")
            self._journal(node.draft, parse_removal(name))
        else:
            self._xattrs.remove(node, name, check)

    def apply(self, changes: tuple[dict[str, Any], ...], urn: str) -> None:
        """Make the changes that were journalled, on the artifact that the file has become."""
        for change in changes:
            self._aspects.apply(Change.from_json(change), urn)

    def _journal(self, draft: Draft, change: Change) -> None:
        """Put a change into the journal, in place of an earlier one of the same aspect.

        Raises:
            AttributesUnsupported: it is for collections alone.
            NoSuchAttribute: it takes away what was not set.
        """
        if change.describes_collection:
            raise AttributesUnsupported("an artifact is no collection")
        if change.action is Action.REMOVE and all(each["label"] != change.label for each in draft.entry.changes):
            raise NoSuchAttribute(f"no aspect {change.label!r} was set")
        draft.note(lambda entry: replace(entry, changes=_with(entry.changes, change)))


def _artifact(draft: Draft) -> str | None:
    """Return the uuid of the artifact that a new file is by now, so that what it is told comes too late for it."""
    return draft.entry.record if draft.is_gone else None


def _with(changes: tuple[dict[str, Any], ...], change: Change) -> tuple[dict[str, Any], ...]:
    """Return the changes with one more, which stands for all earlier ones of its label."""
    kept = tuple(each for each in changes if not change.label or each["label"] != change.label)
    return kept if change.action is Action.REMOVE else (*kept, change.to_json())


@dataclass(frozen=True, slots=True)
class DescribedDraft:
    """What a new file tells of itself; see `ivcapfs.fs.nodes.Described`."""

    draft: Draft
    urn = None
    names = frozenset({MIME_TYPE, UPLOAD, PREFIX + "name", PREFIX + "size"})

    def at_hand(self) -> dict[str, bytes]:
        """See `Described.at_hand`; the MIME type is not, the content has to be read for it."""
        told = {
            UPLOAD: draft_state(self.draft),
            PREFIX + "name": self.draft.entry.name,
            PREFIX + "size": str(self.draft.size),
        }
        return {name: attribute(text) for name, text in told.items()}

    def known(self) -> tuple[dict[str, bytes], tuple[AspectRecord, ...]]:
        """See `Described.known`."""
        return self._all(), self._pending()

    def everything(self, check: Check) -> tuple[dict[str, bytes], tuple[AspectRecord, ...]]:
        """See `Described.everything`."""
        return self.known()

    def fields(self, check: Check) -> dict[str, bytes]:
        """See `Described.fields`."""
        return self._all()

    def aspects(self, check: Check) -> tuple[AspectRecord, ...]:
        """See `Described.aspects`: what was set, and is sent once it is an artifact."""
        return self._pending()

    def _all(self) -> dict[str, bytes]:
        return {MIME_TYPE: attribute(self._mime_type()), **self.at_hand()}

    def _pending(self) -> tuple[AspectRecord, ...]:
        changes = [Change.from_json(value) for value in reversed(self.draft.entry.changes)]
        return tuple(
            AspectRecord("", "", change.schema or change.label, change.content, None, EPOCH) for change in changes
        )

    def _mime_type(self) -> str:
        self.draft.acquire()
        try:
            return mime_type(self.draft.entry.name, self.draft.read(HEAD, 0))
        finally:
            self.draft.release()
