"""No test touches the user's own cache folder, or sees what another test left in it; and how tests are shared out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling

ONE_WORLD = ("test_mount_tools.py", "test_server_synthetic.py")
"""Modules whose world is dear: one worker has them as a whole, and makes it once."""


class Scheduling(LoadScopeScheduling):
    """Tests one by one to whichever worker is free, but for the modules of `ONE_WORLD`."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if path.endswith(ONE_WORLD) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Say how the tests are shared out."""
    return Scheduling(config, log)


@pytest.fixture(scope="session")
def _cache_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield folders that nobody has used."""
    base = tmp_path_factory.mktemp("cache-homes")
    return (base / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _cache_folder_of_its_own(_cache_folders: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test, and the processes that it starts, a user's cache folder of its own."""
    folder = next(_cache_folders)
    folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
