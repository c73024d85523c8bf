"""What setting or removing an extended attribute asks for: one change of an entity's aspects.

Used by `aspectwriter`, which makes the change, and by the spool, which keeps it in its journal until the artifact that
it is about is there. Pure.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Any

from ivcapfs.catalog.names import decode
from ivcapfs.client.jsontext import parse_given
from ivcapfs.errors import AttributesUnsupported, Invalid, NoSuchAttribute, NotAllowed
from ivcapfs.fs.described import MAX_LABEL, label_of
from ivcapfs.fs.xattrs import ASPECT_PREFIX, MIME_TYPE, PREFIX
from ivcapfs.models import ARTIFACT_COLLECTION_SCHEMA, COLLECTION_ITEM_SCHEMA, COLLECTION_SCHEMA

ADDING = ASPECT_PREFIX.removesuffix(".")
"""The attribute that adds an aspect beside those that stand."""

_COLLECTING = frozenset({COLLECTION_SCHEMA, COLLECTION_ITEM_SCHEMA, ARTIFACT_COLLECTION_SCHEMA})
_NUMBERED = re.compile(r"(?P<base>.+)~(?:[2-9]|[1-9][0-9]{1,5})", re.DOTALL)
_CUT = re.compile(r".+~[0-9a-f]{16}", re.DOTALL)
_SHORTEST_CUT = MAX_LABEL - 20 - 3 + 17
"""Bytes: a cut loses up to three of a character, and gets 17 at its end."""
_SCHEMA = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")


class Action(enum.StrEnum):
    """What is done: set the aspect of a label, add one beside those that stand, or remove that of a label."""

    SET = "set"
    ADD = "add"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of an entity's aspects.

    Attributes:
        label: of the aspect that is set or removed (see `described.labels`); empty where one is added.
        schema: of the aspect where none of that label stands; None: of a removal whose label was cut.
        content: a JSON object as it was given; None for a removal.
    """

    action: Action
    label: str
    schema: str | None
    content: dict[str, Any] | None = None

    @property
    def names_schema(self) -> bool:
        """Whether the content itself says which schema it has."""
        return self.content is not None and "$schema" in self.content

    @property
    def describes_collection(self) -> bool:
        """Whether it is of the aspect that describes a collection, which has its name: artifacts have none."""
        return self.schema in _COLLECTING

    @property
    def pattern(self) -> str:
        """What to ask the server for: the schema, with ``%`` for anything, of all aspects that the label may mean."""
        base = _base(self.label)
        if self.schema is not None and base == self.label:
            return self.schema
        if not _is_cut(base):
            return decode([base]) + "%"
        start = base.rpartition("~")[0]
        return decode([start.rpartition("%")[0] or start]) + "%"

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` makes the same change of."""
        return {"action": str(self.action), "label": self.label, "schema": self.schema, "content": self.content}

    @classmethod
    def from_json(cls, value: Any) -> Change:
        """Return the change that `to_json` told.

        Raises:
            Invalid: it is none.
        """
        match value:
            case {
                "action": "set" | "add" | "remove" as action,
                "label": str(label),
                "schema": str() | None as schema,
                "content": dict() | None as content,
            } if (content is None) == (action == "remove") and (label or schema):
                return cls(Action(action), label, schema, content)
        raise Invalid("a change of aspects in the journal cannot be read")


def parse(name: str, value: bytes) -> Change:
    """Return what setting an attribute asks for (setxattr(2)).

    Raises:
        AttributesUnsupported: no attribute of that name can be set. cp(1) and mv(1) pass over this errno in silence,
            and any other makes them complain of each attribute that they bring along.
        Invalid: the value is no content of an aspect, or does not fit the name.
    """
    if name == ADDING:
        content = _content(name, value)
        if "$schema" not in content:
            raise Invalid(f"{name}: an aspect needs a schema: put it into the value under '$schema'")
        return _settable(Change(Action.ADD, "", _checked(content["$schema"]), content))
    if not name.startswith(ASPECT_PREFIX):
        raise AttributesUnsupported(f"{name!r} cannot be set, only user.ivcap.aspect.<schema>")
    label = _label(name)
    content = _content(name, value)
    schema = _schema(label, content)
    if schema is None:
        raise Invalid(f"{name}: the schema is cut: put the whole of it into the value under '$schema'")
    return _settable(Change(Action.SET, label, schema, content))


def parse_removal(name: str) -> Change:
    """Return what removing an attribute asks for (removexattr(2)).

    Raises:
        NotAllowed: the platform sets it.
        NoSuchAttribute: no file here has it.
        AttributesUnsupported: not in the `user.` namespace.
        Invalid: the name cannot be a schema's.
    """
    if name.startswith(ASPECT_PREFIX):
        label = _label(name)
        change = Change(Action.REMOVE, label, _schema(label, {}))
        if change.describes_collection:
            raise NotAllowed(f"{name!r} makes a collection or its members: that is what rmdir and rm are for")
        return change
    if name == MIME_TYPE or (name.startswith(PREFIX) and name != ADDING):
        raise NotAllowed(f"{name!r} is set by the platform, and stays")
    if name.startswith("user."):
        raise NoSuchAttribute(f"no attribute {name!r} here")
    raise AttributesUnsupported(f"only user attributes are kept, not {name!r}")


def _settable(change: Change) -> Change:
    """Return a change unless it makes, renames or fills a collection, as ``cp -a`` of a folder would ask for."""
    is_description = change.label == change.schema == COLLECTION_SCHEMA and bool((change.content or {}).get("name"))
    if change.describes_collection and not is_description:
        raise AttributesUnsupported("collections are made by mkdir, and members by ln or cp, not by attributes")
    return change


def _content(name: str, value: bytes) -> dict[str, Any]:
    return parse_given(value, what=f"the value of {name!r}")


def _label(name: str) -> str:
    """Return the label in an attribute's name, if a schema can have it."""
    label = name.removeprefix(ASPECT_PREFIX)
    if not label.isprintable():
        raise Invalid(f"{name!r} names no schema")
    base = _base(label)
    canonical = label if _is_cut(base) else label_of(decode([base])) + label[len(base) :]
    if canonical != label:
        raise Invalid(f"no aspect is called {label!r}: that schema is written {canonical!r}")
    _checked(decode([base]))
    return label


def _base(label: str) -> str:
    """Return a label without the number that it may end in."""
    numbered = _NUMBERED.fullmatch(label)
    return numbered["base"] if numbered else label


def _is_cut(label: str) -> bool:
    """Return whether a label may be that of a schema that is longer."""
    return len(label.encode()) >= _SHORTEST_CUT and _CUT.fullmatch(label) is not None


def _schema(label: str, content: dict[str, Any]) -> str | None:
    """Return the schema that the content names, if it fits the label; else the one that the label tells."""
    base = _base(label)
    if "$schema" in content:
        schema = _checked(content["$schema"])
        if label_of(schema) not in (label, base):
            raise Invalid(f"the value says '$schema': {schema!r}, and the name says {label!r}")
        return schema
    return None if _is_cut(base) else decode([base])


def _checked(schema: Any) -> str:
    if not isinstance(schema, str) or not schema.isprintable() or _SCHEMA.fullmatch(schema) is None:
        raise Invalid(f"{str(schema)[:100]!r} is no schema: that is a URN, as urn:example:schema:note.1")
    return schema
