"""A spool for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.spool.spool_world import FakeDeployment, Spooled, new_folder


@pytest.fixture
def spooled(tmp_path: Path) -> Iterator[Spooled]:
    """A folder of the spool, and a deployment that takes uploads."""
    folder = new_folder(tmp_path / "spool")
    yield Spooled(folder, FakeDeployment())
    folder.close()
