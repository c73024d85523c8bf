"""A world for the tests of catalogs. No test leaves a database open: Python 3.13 warns of it, in whichever test it is
noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.catalog.catalog_world import MADE, World


@pytest.fixture(autouse=True)
def _stores_are_closed() -> Iterator[None]:
    """Close the stores that a test made by itself."""
    yield
    while MADE:
        MADE.pop().close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A catalog in a folder of its own, over a platform in memory."""
    with ThreadPoolExecutor(8) as pool:
        world = World(pool, tmp_path / "catalog")
        yield world
        world.close()
