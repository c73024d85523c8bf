"""Changes a few values of one context in the text of the `ivcap` program's file, and nothing else.

Used by `ivcapfs.client.contextfile`. The text is edited where it stands, so that comments, order, unknown keys and
quotes stay; what comes out is read again and compared. Where the text is too unusual for that (anchors, block scalars),
it is written anew from its tree, which keeps everything but the comments. Pure: any thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from ivcapfs.errors import ConfigError

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~+/=-]*")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_STR = "tag:yaml.org,2002:str"
_UNREADABLE = (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError)


def edit(text: str, name: str, changes: Mapping[str, str]) -> str:
    """Return `text` with these values in the context `name`; keys that are not there are added.

    Raises:
        ConfigError: `text` has no such context, or is no YAML.
    """
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        context = _context(root, name)
    except _UNREADABLE:
        raise ConfigError("the file is no YAML") from None
    if context is None:
        raise ConfigError(f"there is no context {name!r} any more")
    wanted = _changed_tree(text, name, changes)
    keys = [key for key, _ in context.value]
    for place in (*keys[1:], *keys[:1]):  # the first one may stand behind a dash
        edited = _edited_in_place(text, context, changes, place.start_mark)
        if edited is not None and _tree(edited) == wanted:
            return edited
    _change_nodes(context, changes)
    return str(yaml.serialize(root, Dumper=yaml.SafeDumper, allow_unicode=True, width=100_000))


def _context(root: Any, name: str) -> yaml.MappingNode | None:
    """Return the node of the first context of that name."""
    for entry in _value(root, "contexts").value:
        if isinstance(entry, yaml.MappingNode):
            found = _value(entry, "name")
            if found is not None and str(found.value).strip() == name:
                return entry
    return None


def _value(mapping: Any, key: str) -> Any:
    """Return the node of a key's value; the last one where the key stands twice, as YAML readers have it."""
    found = [value for each, value in mapping.value if each.value == key]
    return found[-1] if found else None


def _edited_in_place(text: str, context: yaml.MappingNode, changes: Mapping[str, str], start: yaml.Mark) -> str | None:
    """Return the text with the changes at their places, and new keys at `start`; None where there is no place."""
    pieces: list[tuple[int, int, str]] = []
    added = ""
    for key, value in changes.items():
        node = _value(context, key)
        if node is None:
            added += f"{key}: {_scalar(value)}" + (", " if context.flow_style else "\n" + " " * start.column)
        elif isinstance(node, yaml.ScalarNode) and node.style not in ("|", ">"):
            before = text[node.start_mark.index - 1] if node.start_mark.index == node.end_mark.index else ""
            pieces.append((node.start_mark.index, node.end_mark.index, (" " if before == ":" else "") + _scalar(value)))
        else:
            return None
    if added:
        pieces.append((start.index, start.index, added))
    for begin, end, new in sorted(pieces, reverse=True):
        text = text[:begin] + new + text[end:]
    return text


def _scalar(value: str) -> str:
    """Return a text as a YAML scalar that every reader takes for a text, or a time for a time."""
    return value if _is_plain(value) else json.dumps(value)


def _is_plain(value: str) -> bool:
    """Return whether a value needs no quotes."""
    return _TIME.fullmatch(value) is not None or (_PLAIN.fullmatch(value) is not None and _tag(value) == _STR)


def _tag(value: str) -> str:
    """Return what a YAML reader takes a plain scalar for."""
    node = yaml.compose(value, yaml.SafeLoader)
    return node.tag if node is not None else ""


def _tree(text: str) -> Any:
    """Return the whole file as texts, lists and mappings, whatever is in it; None where it cannot be read."""
    try:
        return yaml.load(text, yaml.BaseLoader)  # noqa: S506 - makes texts, lists and mappings only
    except _UNREADABLE:
        return None


def _changed_tree(text: str, name: str, changes: Mapping[str, str]) -> Any:
    """Return what the edited text has to say."""
    tree = yaml.load(text, yaml.BaseLoader)  # noqa: S506
    for index, entry in enumerate(tree["contexts"]):
        if isinstance(entry, dict) and str(entry.get("name", "")).strip() == name:
            tree["contexts"][index] = entry | dict(changes)
            return tree
    return tree


def _change_nodes(context: yaml.MappingNode, changes: Mapping[str, str]) -> None:
    for key, value in changes.items():
        plain = _is_plain(value)
        new = yaml.ScalarNode(_tag(value) if plain else _STR, value, style=None if plain else '"')
        context.value = [(each, old) for each, old in context.value if each.value != key]
        context.value.append((yaml.ScalarNode(_STR, key), new))
