"""A world for the tests of the views."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from ivcap_client.ivcap import IVCAP

from tests.fs.views_world import ViewsWorld


@pytest.fixture
def views(tmp_path: Path) -> Iterator[ViewsWorld]:
    """An empty platform, and its views."""
    world = ViewsWorld(tmp_path)
    try:
        yield world
    finally:
        world.close()


@pytest.fixture
def sdk(views: ViewsWorld) -> Iterator[IVCAP]:
    """The official SDK, as its users get it."""
    ivcap = IVCAP(url=views.platform.url, token="any")
    yield ivcap
    ivcap._client.get_httpx_client().close()
    gc.collect()  # the files that it left open, while the test's filter for warnings holds
