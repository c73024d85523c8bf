"""One rotating login, two mounts and the `ivcap` program: the file stays whole, and nobody is left logged out."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.client.test_client_login import platform, stands
from tests.loginworld import Deployment, write_contexts

KINDS = ("mount", "mount", "program")


class Watcher:
    """Reads a file as often as it can."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.times = self.empty = 0
        self.damaged: list[str] = []

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        last = ""
        while not self._ended.wait(0.0005):
            text = self._file.read_text()
            self.times += 1
            if text == last:
                continue
            last = text
            self.empty += not text
            try:
                found = yaml.safe_load(text)
                names = [context["name"] for context in found["contexts"]] if text else ["other", "gov"]
                assert names == ["other", "gov"], names
            except (yaml.YAMLError, AssertionError, KeyError, TypeError) as exc:
                self.damaged.append(f"{exc}: {text}")


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    deployment = Deployment(platform, lifetime=1.0)
    with deployment.origin:
        yield deployment


@pytest.mark.parametrize("manners", ["careful", "as it is"])
@pytest.mark.parametrize("seconds", [3.0, pytest.param(60.0, marks=[pytest.mark.long, pytest.mark.timeout(240)])])
def test_all_share_one_rotating_login(deployment: Deployment, tmp_path: Path, seconds: float, manners: str) -> None:
    file = tmp_path / "ivcap-cli" / "config.yaml"
    write_contexts(file, deployment.origin.url, *deployment.log_in())
    mode = file.stat().st_mode
    environment = {"DEPLOYMENT": deployment.origin.url.removeprefix("http://"), "PYTHONPATH": ":".join(sys.path)}
    workers: list[subprocess.Popen[str]] = []
    try:
        with Watcher(file) as watcher:
            for kind in KINDS:
                words = [sys.executable, "-m", "tests.client.loginworker", kind, tmp_path, str(seconds), manners]
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
                workers.append(subprocess.Popen(words, env=environment, text=True, cwd=tmp_path, **pipes))
            reports = [json.loads(line_of(worker)) for worker in workers]
        figures = {"refreshes": deployment.refreshes, "refused": deployment.refused, "reads of the file": watcher.times}
        print(figures, dict(zip(("mount 1", "mount 2", "program"), reports, strict=True)))
        assert watcher.damaged == []
        assert watcher.empty == 0 or manners == "as it is"
        assert file.stat().st_mode == mode
        assert all(report["ok"] > 1 for report in reports[:2]), "a mount that never worked"
        for worker in (*workers, *workers):
            deployment.expire()
            assert recovers(worker)
        assert stands(file)[1] in deployment.refresh
        assert deployment.refreshes > seconds
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def line_of(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline()


def recovers(worker: subprocess.Popen[str]) -> bool:
    """Return whether a worker makes a good request again, within some tries."""
    assert worker.stdin is not None
    for _ in range(20):
        worker.stdin.write("again\n")
        worker.stdin.flush()
        if line_of(worker).strip() == "ok":
            return True
        time.sleep(0.5)
    return False
