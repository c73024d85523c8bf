"""A world for the tests of the views."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fs.views_world import ViewsWorld


@pytest.fixture
def views(tmp_path: Path) -> Iterator[ViewsWorld]:
    """An empty platform, and its views."""
    world = ViewsWorld(tmp_path)
    try:
        yield world
    finally:
        world.close()
