"""The platform's JSON to the records of `ivcapfs.models`.

Used by `ivcapfs.client.api`. Pure: any thread. Documents about the platform disagree on spellings: all are
read (``items`` and ``artifacts``, ``mime-type`` and ``mime_type``). What is odd but harmless is replaced by
"not known"; an answer that cannot be used raises `ProtocolError`, and nothing else is ever raised.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from ivcapfs.client import jsontext
from ivcapfs.errors import ProtocolError
from ivcapfs.models import (
    EPOCH,
    ArtifactRecord,
    ArtifactStatus,
    AspectRecord,
    ListedArtifact,
    Page,
    PageText,
    require_artifact_uuid,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

_SELDOM_LISTED = frozenset(
    {"last-modified-at", "last_modified_at", "etag", "policy", "account", "data-href", "data_href"}
)
_STATUSES = {status.value: status for status in ArtifactStatus}
_ARTIFACTS = ("items", "artifacts")
_LARGEST_SIZE = 2**63 - 1
_LONGEST_CURSOR = 8192


def artifact_from_json(value: Any, *, whole: bool = True) -> ArtifactRecord:
    """Return the artifact in a list item (`whole` False) or in the answer to a read.

    Raises:
        ProtocolError: it is no object, or its id is no artifact's.
    """
    item = _object(value, "an artifact")
    if not whole and _SELDOM_LISTED.isdisjoint(item):
        return ArtifactRecord(*listed_from_json(item))
    return ArtifactRecord(
        uuid=require_artifact_uuid(_required(item, "id", "an artifact")),
        name=_string(item, "name", keep_empty=True),
        status=_status(item),
        mime_type=_string(item, "mime-type"),
        size=_size(_field(item, "size")),
        created_at=_time(item, "created-at") or EPOCH,
        last_modified_at=_time(item, "last-modified-at"),
        etag=_string(item, "etag"),
        policy=_string(item, "policy"),
        account=_string(item, "account"),
        data_href=_string(item, "data-href"),
        whole=whole,
    )


def listed_from_json(value: Any) -> ListedArtifact:
    """Return the artifact in a list item; as `artifact_from_json`.

    Lists are long, and nearly all that is in them is as it should be: what is not, goes the way of everything else.
    """
    item = _object(value, "an artifact")
    get = item.get
    id, name, mime, size = get("id"), get("name"), get("mime-type"), get("size")
    return ListedArtifact(
        require_artifact_uuid(id if id.__class__ is str and id else _required(item, "id", "an artifact")),
        name if name.__class__ is str else _string(item, "name", keep_empty=True),
        ArtifactStatus.READY if get("status") == "ready" else _status(item),
        mime if mime.__class__ is str and mime else _string(item, "mime-type"),
        size if size.__class__ is int and 0 <= size <= _LARGEST_SIZE else _size(size),
        _plain_time(get("created-at")) or _time(item, "created-at") or EPOCH,
    )


def aspect_from_json(value: Any) -> AspectRecord:
    """Return the aspect in a list item or in the answer to a read.

    Raises:
        ProtocolError: it is no object, or lacks its id, entity or schema.
    """
    item = _object(value, "an aspect")
    return AspectRecord(
        id=_required(item, "id", "an aspect"),
        entity=_required(item, "entity", "an aspect"),
        schema=_required(item, "schema", "an aspect"),
        content=_field(item, "content"),
        content_type=_string(item, "content-type"),
        valid_from=_time(item, "valid-from") or EPOCH,
        valid_to=_time(item, "valid-to"),
        asserter=_string(item, "asserter"),
        policy=_string(item, "policy"),
    )


def artifact_page_from_json(value: Any) -> Page[ArtifactRecord]:
    """Return one page of ``GET /1/artifacts``; items that are no artifacts are left out, with one warning.

    Raises:
        ProtocolError: it is no page.
    """
    return _page(value, _ARTIFACTS, lambda item: artifact_from_json(item, whole=False))


def page_text_from_json(value: Any, body: bytes) -> PageText:
    """Return one page of ``GET /1/artifacts`` whose items are read later.

    Args:
        value: what `body` says.

    Raises:
        ProtocolError: it is no page.
    """
    page, listed = _listed(value, _ARTIFACTS)
    return PageText(body, listed, _cursor(page.get("links")), _time(page, "at-time"))


def page_text(body: bytes) -> PageText:
    """Return the page that is in the body of an answer; raises as `page_text_from_json`."""
    return page_text_from_json(jsontext.parse_object(body, what="listing artifacts"), body)


def ids_in(page: PageText) -> frozenset[str]:
    """Return the ids of the artifacts on a page, as the server writes them."""
    ids = [item.get("id") for item in page.items if isinstance(item, dict)]
    return frozenset(id for id in ids if isinstance(id, str))


def artifacts_in(page: PageText) -> list[ListedArtifact]:
    """Return the artifacts on a page; items that are no artifacts are left out, with one warning."""
    return _read(page.items, listed_from_json)


def aspect_page_from_json(value: Any) -> Page[AspectRecord]:
    """Return one page of ``GET /1/aspects``; items that are no aspects are left out, with one warning.

    Raises:
        ProtocolError: it is no page.
    """
    return _page(value, ("items", "aspects"), aspect_from_json)


def parse_time(value: Any) -> datetime:
    """Return the aware time in an RFC 3339 text, as leniently as can be: any fraction, no zone (UTC), a
    date alone.

    Nonsense is the epoch.
    """
    try:
        moment = datetime.fromisoformat(value.strip().upper())
        if moment.tzinfo is UTC:  # nearly all
            return moment
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, AttributeError, OverflowError):
        return EPOCH


def format_time(moment: datetime) -> str:
    """Return `moment` in RFC 3339, in UTC; a naive one is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _listed(value: Any, names: tuple[str, ...]) -> tuple[Mapping[str, Any], list[Any]]:
    """Return a page, and the list on it."""
    page = _object(value, "a list page")
    present = [page[name] for name in names if name in page]
    if not present:
        raise ProtocolError("a list page without a list")
    listed = present[0] if present[0] is not None else []
    if not isinstance(listed, list):
        raise ProtocolError("a list page whose list is none")
    return page, listed


def _page(value: Any, names: tuple[str, ...], read: Callable[[Any], T]) -> Page[T]:
    page, listed = _listed(value, names)
    return Page(tuple(_read(listed, read)), _cursor(page.get("links")), _time(page, "at-time"))


def _read(listed: list[Any], read: Callable[[Any], T]) -> list[T]:
    items: list[T] = []
    odd: ProtocolError | None = None
    for entry in listed:
        try:
            items.append(read(entry))
        except ProtocolError as exc:
            odd = exc
    if odd is not None:
        log.warning("%d of %d list items cannot be read, the last: %s", len(listed) - len(items), len(listed), odd)
    return items


def _cursor(links: Any) -> str | None:
    """Return the decoded `page` parameter of the next link; None where there is no next link."""
    if isinstance(links, dict):
        links = [{"rel": rel, "href": href} for rel, href in links.items()]
    if not isinstance(links, list):
        return None
    hrefs = [link.get("href") for link in links if isinstance(link, dict) and link.get("rel") == "next"]
    href = hrefs[0] if hrefs else None
    if not isinstance(href, str) or not href.strip():
        return None
    try:
        cursors = parse_qs(urlsplit(href).query, max_num_fields=50).get("page", [])
    except ValueError as exc:
        raise ProtocolError("a list page whose next link cannot be read") from exc
    if not cursors or len(cursors[0]) > _LONGEST_CURSOR:
        raise ProtocolError("a list page whose next link names no page")
    return cursors[0]


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError(f"{what} that is no JSON object")
    return value


def _field(item: Mapping[str, Any], name: str) -> Any:
    """Return the value under `name` (kebab-case), else under its snake_case, else None."""
    value = item.get(name)
    return item.get(name.replace("-", "_")) if value is None and "-" in name else value


def _status(item: Mapping[str, Any]) -> ArtifactStatus:
    status = item.get("status")
    return _STATUSES.get(status, ArtifactStatus.UNKNOWN) if isinstance(status, str) else ArtifactStatus.UNKNOWN


def _string(item: Mapping[str, Any], name: str, *, keep_empty: bool = False) -> str | None:
    value = _field(item, name)
    return value if isinstance(value, str) and (value or keep_empty) else None


def _required(item: Mapping[str, Any], name: str, what: str) -> str:
    value = _string(item, name)
    if value is None:
        raise ProtocolError(f"{what} without {name}")
    return value


def _size(value: Any) -> int | None:
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_SIZE
    return value if usable else None


def _plain_time(value: Any) -> datetime | None:
    """Return the time in a text such as nearly all are; None for any other value."""
    try:
        moment = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        return None
    return moment if moment.tzinfo is UTC and moment.year > 1 else None


def _time(item: Mapping[str, Any], name: str) -> datetime | None:
    """Return the time under `name`; None where there is none, or Go's zero time, which means the same."""
    value = _field(item, name)
    if value is None or value == "":
        return None
    moment = parse_time(value)
    return None if moment.year == 1 else moment
