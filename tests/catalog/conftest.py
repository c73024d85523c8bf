"""No test leaves a database open: Python 3.13 warns of it, in whichever test it is noticed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.catalog.catalog_world import MADE


@pytest.fixture(autouse=True)
def _stores_are_closed() -> Iterator[None]:
    """Close the stores that a test made by itself."""
    yield
    while MADE:
        MADE.pop().close()
