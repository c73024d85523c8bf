"""A running platform for each test of the server, and clients for it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from ivcap_client.ivcap import IVCAP

from ivcapfs.server.runner import Platform

TOKEN = "a-token-for-tests"


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """A platform that asks for :data:`TOKEN`."""
    with Platform(tmp_path / "data", token=TOKEN) as running:
        yield running


@pytest.fixture
def http(platform: Platform) -> Iterator[httpx.Client]:
    """An HTTP client that carries the token."""
    with httpx.Client(base_url=platform.url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


@pytest.fixture
def sdk(platform: Platform) -> Iterator[IVCAP]:
    """The official SDK, as its users get it."""
    ivcap = IVCAP(url=platform.url, token=TOKEN)
    yield ivcap
    ivcap._client.get_httpx_client().close()
    gc.collect()  # the files that it left open, while the test's filter for warnings holds
