"""Searches: the artifacts that match an expression of the server's, or that carry an aspect of a schema.

Used by `ivcapfs.fs.search`. The text is the server's business; only what cannot be a question is not asked. The whole
answer is fetched, or there is none. It is kept for a while, and the last one is shown while the server is down.

Threading: any thread may call anything. Requests run on the pool only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import TypeVar

from ivcapfs.catalog.gathered import Gathered
from ivcapfs.catalog.index import Index
from ivcapfs.catalog.kept import Kept, Progress
from ivcapfs.catalog.members import Members, Unsynchronized
from ivcapfs.client import Api
from ivcapfs.errors import TooLarge
from ivcapfs.waits import Check

T = TypeVar("T")

ASPECT = "aspect:"
MOST = 200_000
"""The weight of all answers that are kept."""
MOST_FOUND = MOST
"""A search that finds more artifacts than that fails: it would take minutes, and much memory."""

_SLASH = re.compile(r"%((?:25)*)2F", re.IGNORECASE)
_OPERATOR = re.compile(r"[\s=<>~!()'\"]")


def unescaped(component: str) -> str:
    """Return the expression in the name of a folder: ``%2F`` is a slash, and ``%252F`` means ``%2F`` itself.

    No other ``%`` is touched, for the server's filters are full of them.
    """
    return _SLASH.sub(lambda match: "/" if not match[1] else f"%{match[1][2:]}2F", component)


def is_question(expression: str) -> bool:
    """Return whether a text can be a search at all: a bare word, as programs probe for, is none."""
    if expression.startswith("."):
        return False
    if expression.startswith(ASPECT):
        return len(expression) > len(ASPECT)
    return _OPERATOR.search(expression) is not None


class Searches:
    """See the module; arguments as for `ivcapfs.catalog.collections.Collections`."""

    def __init__(
        self, api: Api, index: Index, members: Members, pool: Executor, *, keep: float, bound: float,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._api = api
        self._index = index
        self._members = members
        self._answers: Kept[str, Gathered] = Kept(
            "the search", self._ask, pool, keep=keep, bound=bound, clock=clock, most=MOST,
            weigh=lambda found: min(found.weight, MOST),
        )  # fmt: skip

    def begun(self, expression: str, check: Check) -> Gathered | None:
        """Return what a search found, or None once the server has begun to say so; raises as `found`.

        A lookup holds up all others in its folder, and so must not wait for the whole of a long search.
        """
        return self._answers.peek(expression, check)

    def found(self, expression: str, check: Check) -> Gathered:
        """Return all ready artifacts that an expression finds.

        Raises:
            BadRequest: the server does not understand it.
            TooLarge: it finds more than `MOST_FOUND`.
            ApiError, TransportError, ProtocolError: the server did not say.
        """
        if expression.startswith(ASPECT) and not self._answers.is_fresh(expression) and self._index.is_complete():
            self._index.bring_up_to_date(check)
        try:
            return self._answers.get(expression, check)
        except Unsynchronized:
            self._index.bring_up_to_date(check)
            return self._answers.get(expression, check)

    def _ask(self, expression: str, step: Progress) -> Gathered:
        """Ask the server; runs on the pool."""
        what = f"the search {expression!r}"
        if not expression.startswith(ASPECT):
            listed = self._api.iter_artifacts(filter=expression)
            return Gathered(_counted(listed, what, step), what)
        aspects = self._api.iter_aspects(schema=expression.removeprefix(ASPECT), include_content=False)
        entities = dict.fromkeys(aspect.entity for aspect in _counted(aspects, what, step))
        return Gathered(self._members.records(entities, step), what)


def _counted(items: Iterable[T], what: str, step: Progress) -> Iterable[T]:
    for count, item in enumerate(items):
        if count >= MOST_FOUND:
            raise TooLarge(f"{what} finds more than {MOST_FOUND} artifacts: narrow it")
        step()
        yield item
