"""For all tests: nobody touches the user's own cache folder, or believes the world's authorities; who runs which."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling

from tests import certificates

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


@pytest.fixture(scope="session", autouse=True)
def _authorities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let every client of every process believe one certificate, which no server shows."""
    with mock.patch.dict(os.environ):
        os.environ["SSL_CERT_FILE"] = str(certificates.make(tmp_path_factory.mktemp("tls"), "nobody.invalid")[1])
        yield
