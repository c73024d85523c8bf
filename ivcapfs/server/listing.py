"""What the two list calls share: refusals, links, and the reply.

Used by the artifact and aspect calls. Stateless.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from ivcapfs.server.clock import to_rfc3339
from ivcapfs.server.context import base_url
from ivcapfs.server.errors import bad_request, invalid_parameter
from ivcapfs.server.filters import FilterError
from ivcapfs.server.jsonpath import PathError
from ivcapfs.server.paging import Key, ListQuery, OrderError

_Record = TypeVar("_Record")
Link = dict[str, str]


def link(rel: str, href: str) -> Link:
    """Return one of a reply's ``links``."""
    return {"rel": rel, "href": href, "type": "application/json"}


async def fetch(
    select: Callable[[ListQuery], tuple[list[_Record], Key | None]], query: ListQuery
) -> tuple[list[_Record], Key | None]:
    """Return the page that ``select`` finds.

    Raises:
        ApiError: the query is refused (400 for filter and content path, 422 for the order).
    """
    try:
        return await run_in_threadpool(select, query)
    except (FilterError, PathError) as exc:
        raise bad_request(str(exc)) from exc
    except OrderError as exc:
        raise invalid_parameter("order-by", ",".join(name for name, _ in query.order), str(exc)) from exc


def reply(request: Request, query: ListQuery, items: list[dict[str, object]], key: Key | None) -> dict[str, object]:
    """Return the body of a list call's reply.

    Args:
        request: the request.
        query: what it asked for.
        items: the page.
        key: of the page's last item when there are more.
    """
    # The query part begins with "page=" and holds nothing else: the SDK takes all that follows as the cursor.
    there = f"{base_url(request)}{request.url.path}?page="
    links = [link("self", str(request.url)), link("first", there + query.first().cursor())]
    if key is not None:
        links.append(link("next", there + query.following(key).cursor()))
    return {"items": items, "links": links, "at-time": to_rfc3339(query.at_time)}
