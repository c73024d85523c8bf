"""Extended attributes set and removed: the aspects of artifacts and collections, changed on the platform.

Used by `xattrs` for setfattr(1), and by the spool for what was set on a file before it was uploaded. What is asked for
is in `aspectchange`.

Threading: any thread may call anything. Requests run on the pool only; the changes of one entity are made in turn, as
each looks at what stands before it writes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import Executor

from ivcapfs.client import Api, aspectedits
from ivcapfs.errors import AlreadyThere, AttributesUnsupported, Invalid, NoSuchAttribute
from ivcapfs.fs.aspectchange import Action, Change, parse, parse_removal
from ivcapfs.fs.described import label_of, labels
from ivcapfs.models import AspectRecord
from ivcapfs.waits import Check, InTurn, never

log = logging.getLogger(__name__)


class AspectWriter:
    """See the module.

    Args:
        pool: runs the requests.
        bound: seconds that one wait lasts at most.
        changed: told the URN and the schema after each change that was tried, so that no older answer is shown.
    """

    def __init__(self, api: Api, pool: Executor, bound: float, changed: Callable[[str, str], None]) -> None:
        self._api = api
        self._bound = bound
        self._changed = changed
        self._turns: InTurn[str] = InTurn(pool)

    def set(self, urn: str, name: str, value: bytes, flags: int, check: Check) -> None:
        """Set an attribute of an entity (setxattr(2)): replace the aspect of that label, or add one.

        Args:
            urn: the artifact's or the collection's.
            flags: ``XATTR_CREATE``, ``XATTR_REPLACE`` or 0.

        Raises:
            AlreadyThere, NoSuchAttribute: the flags do not allow it.
            AttributesUnsupported: no attribute of that name can be set.
            Invalid: the value is no content of an aspect, or does not fit the name.
            ApiError, TransportError, ProtocolError: the server refused, or did not say.
        """
        try:
            self._make(parse(name, value), urn, flags, check)
        except Invalid as exc:  # the caller gets no more than an errno, and this is for a person to mend
            log.warning("nothing is set on %s: %s", urn, exc)
            raise

    def remove(self, urn: str, name: str, check: Check) -> None:
        """Remove an attribute of an entity (removexattr(2)): retract the aspect of that label.

        Raises:
            NoSuchAttribute: there is none.
            NotAllowed: the platform sets it.
            Invalid, AttributesUnsupported, ApiError, TransportError, ProtocolError: as `set`.
        """
        self._make(parse_removal(name), urn, os.XATTR_REPLACE, check)

    def apply(self, change: Change, urn: str, check: Check = never) -> None:
        """Make a change, perhaps for the second time: what stands as it asks for, or is gone, is left so.

        A removal takes away what has the label by then.

        Raises:
            as `set`, but for the flags.
        """
        self._make(change, urn, 0, check)

    def _make(self, change: Change, urn: str, flags: int, check: Check) -> None:
        what = f"the aspect {change.label or change.schema!r} of {urn}"
        self._turns.wait(urn, lambda: self._change(change, urn, flags), check, self._bound, what)

    def _change(self, change: Change, urn: str, flags: int) -> None:
        """Runs on the pool, alone for this entity."""
        standing = aspectedits.standing(self._api, urn, change.pattern)
        old = labels(standing).get(change.label) if change.label else None
        if old is not None and change.names_schema and old.schema != change.schema:
            old = None  # of another schema, whose second or third it is
        schema = change.schema if old is None else old.schema
        if flags & os.XATTR_REPLACE and old is None:
            raise NoSuchAttribute(f"{urn} has no aspect {change.label!r}")
        if flags & os.XATTR_CREATE and old is not None:
            raise AlreadyThere(f"the aspect {change.label!r} of {urn} is there already")
        if schema is None or (change.content is None and old is None):
            return  # it is gone already
        if change.describes_collection:
            _check_description(change, old)
        try:
            if change.content is not None:
                self._put(change, urn, schema, old, [each for each in standing if each.schema == schema])
            elif old is not None:
                aspectedits.retract(self._api, old.id)
        finally:
            self._changed(urn, schema)

    def _put(
        self, change: Change, urn: str, schema: str, old: AspectRecord | None, standing: list[AspectRecord]
    ) -> None:
        """Add an aspect or replace one.

        Args:
            standing: those of its schema, newest first.
        """
        content = aspectedits.content_of(urn, schema, change.content or {})
        # A plain label means the newest. With any other one, what was set last became the newest, and so is found by
        # another label when it is set again.
        looked_at = standing if change.action is Action.ADD or change.label != label_of(schema) else standing[:1]
        if any(aspectedits.same_content(each.content, content) for each in looked_at):
            log.debug("%s: an aspect %r with that content stands already", urn, schema)
        elif old is None:
            aspectedits.add(self._api, urn, schema, content)
        else:
            aspectedits.replace(self._api, old, schema, content, alone=len(standing) == 1)


def _check_description(change: Change, old: AspectRecord | None) -> None:
    """Refuse to make a collection by its description, or to rename it."""
    described = old.content if old is not None and isinstance(old.content, dict) else {}
    if described.get("name") != (change.content or {}).get("name"):
        raise AttributesUnsupported("collections are made by mkdir and renamed by mv, not by attributes")
