"""A world for the tests of transfers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transfers.transferworld import TransferWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TransferWorld]:
    """An empty platform, and a client of it."""
    world = TransferWorld(tmp_path)
    try:
        yield world
    finally:
        world.close()
