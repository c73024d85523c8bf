"""Mounts that outlive their tokens: renewed under readers, shared, refused, recovered; and no token to be seen."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.client.fakeorigin import Asked, Reply, as_json, ranged, record
from tests.loginworld import CANARY, Deployment, write_contexts
from tests.mount.conftest import Mount, clean_env, daemons, eventually, is_mounted, ivcapfs, process, run

DATA = os.urandom(300_000)


def platform(asked: Asked) -> Reply:
    """A platform that has an artifact of every uuid, and lists none."""
    path = unquote(asked.path)
    if path.endswith("/blob"):
        return ranged(DATA)(asked)
    found = re.fullmatch(r"/1/artifacts/(?:urn:ivcap:artifact:)?([0-9a-f-]{36})", path)
    if found:
        urn = f"urn:ivcap:artifact:{found[1]}"
        return as_json({**record(size=len(DATA)), "id": urn, "name": "data", "data-href": f"/1/artifacts/{urn}/blob"})
    return as_json({"items": [], "links": [], "at-time": "2026-06-01T00:00:00Z"})


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    deployment = Deployment(platform)
    with deployment.origin:
        yield deployment


@pytest.fixture
def file(deployment: Deployment, tmp_path: Path) -> Path:
    path = tmp_path / "home" / "ivcap-cli" / "config.yaml"
    write_contexts(path, deployment.origin.url, *deployment.log_in())
    return path


class ContextMounter:
    """Mounts the context `gov`, and takes all of it down at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[Path] = []

    def environment(self, **more: str) -> dict[str, str]:
        return clean_env(XDG_CONFIG_HOME=str(self.folder / "home"), XDG_CACHE_HOME=str(self.folder / "cache"), **more)

    def __call__(self, *options: str, source: tuple[str, ...] = ("gov",), **environment: str) -> Mount:
        path = self.folder / f"mnt{len(self.made)}"
        mount = Mount(path, self.folder / f"log{len(self.made)}")
        path.mkdir()
        self.made.append(path)
        words = ",".join([f"debug,refresh=1,catalog-dir=none,log-file={mount.log}", *options])
        result = run(*ivcapfs("mount", *source, path, "-o", words), env=self.environment(**environment))
        assert result.returncode == 0, result.stderr
        return mount

    def close(self) -> None:
        for path in self.made:
            if is_mounted(path) and run(*ivcapfs("umount", path)).returncode != 0:
                run("umount", "-l", path)
            eventually(lambda path=path: not daemons(path), f"the process of {path} ends")


@pytest.fixture
def mounted(tmp_path: Path, file: Path) -> Iterator[ContextMounter]:
    mounter = ContextMounter(tmp_path)
    try:
        yield mounter
    finally:
        mounter.close()


def read_something_new(mount: Mount) -> None:
    """Read an artifact that was never asked for before."""
    assert (mount.path / "by-id" / str(uuid.uuid4()) / "content").read_bytes() == DATA


def lines_about_login(mount: Mount) -> list[str]:
    return [line for line in mount.logged().splitlines() if "ivcap context login" in line]


@pytest.mark.parametrize("source", [("gov",), ()])
def test_a_context_is_mounted_by_name_or_because_it_is_active(
    mounted: ContextMounter, deployment: Deployment, source: tuple[str, ...]
) -> None:
    mount = mounted(source=source)
    read_something_new(mount)
    deployment.expire()
    read_something_new(mount)
    assert deployment.refreshes == 1 and not lines_about_login(mount)


def test_readers_notice_nothing_of_expiries(mounted: ContextMounter, deployment: Deployment) -> None:
    mount = mounted()
    with ThreadPoolExecutor(32) as pool:
        for number in range(5):
            list(pool.map(read_something_new, [mount] * 32))
            deployment.expire()
            list(pool.map(read_something_new, [mount] * 32))
            assert deployment.refreshes == number + 1
    assert deployment.refused == 0 and not lines_about_login(mount)


def test_two_mounts_and_their_user_share_one_login(
    mounted: ContextMounter, deployment: Deployment, file: Path
) -> None:
    mounts = [mounted(), mounted()]
    for number in range(4):
        deployment.expire()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read_something_new, mounts * 4))
        assert deployment.refreshes == number + 1
    assert deployment.refused == 0
    assert file.stat().st_mode & 0o777 == 0o600


def test_when_nothing_helps_readers_are_refused_until_the_user_has_logged_in(
    mounted: ContextMounter, deployment: Deployment, file: Path
) -> None:
    mount = mounted()
    open_since_before = (mount.path / "by-id" / str(uuid.uuid4()) / "content").open("rb", buffering=0)
    with open_since_before:
        deployment.log_out()
        for _ in range(4):
            with pytest.raises(OSError) as caught:
                read_something_new(mount)
            assert caught.value.errno == errno.EACCES
        with pytest.raises(OSError) as caught:
            open_since_before.read()
        assert caught.value.errno == errno.EACCES
        assert len(lines_about_login(mount)) == 1
        assert deployment.refused == 1
        write_contexts(file, deployment.origin.url, *deployment.log_in())
        assert open_since_before.read() == DATA
    read_something_new(mount)
    assert len(lines_about_login(mount)) == 1


def test_another_users_login_is_not_taken(mounted: ContextMounter, deployment: Deployment, file: Path) -> None:
    mount = mounted()
    read_something_new(mount)
    deployment.log_out()
    write_contexts(file, deployment.origin.url, *deployment.log_in("bob"))
    with pytest.raises(PermissionError):
        read_something_new(mount)
    assert "another user's" in lines_about_login(mount)[0]


def test_a_token_command_runs_in_the_same_folder_in_the_foreground_too(deployment: Deployment, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    option = f"token-command=sh -c 'pwd > {tmp_path}/folder; echo {deployment.log_in()[0]}'"
    command = ivcapfs("mount", "-f", deployment.origin.url, tmp_path / "mnt", "-o", option)
    with process(*command, env=clean_env(XDG_CACHE_HOME=str(tmp_path)), cwd=tmp_path) as started:
        eventually(lambda: is_mounted(tmp_path / "mnt"), "it serves")
        started.terminate()
        assert started.wait(60) == 0
    assert (tmp_path / "folder").read_text() == "/\n"


def test_a_token_command(mounted: ContextMounter, deployment: Deployment, tmp_path: Path) -> None:
    source = tmp_path / "a token, of mine"
    source.touch(0o600)
    source.write_text(deployment.log_in()[0])
    escaped = str(source).replace(",", "\\,")
    mount = mounted(f"token-command=cat '{escaped}'", source=(deployment.origin.url,))
    deployment.expire()
    source.write_text(deployment.log_in()[0])
    read_something_new(mount)
    assert deployment.refreshes == 0


def test_an_environments_token_that_expires(mounted: ContextMounter, deployment: Deployment) -> None:
    mount = mounted(source=(deployment.origin.url,), IVCAP_JWT=deployment.log_in()[0])
    deployment.expire()
    for _ in range(3):
        with pytest.raises(PermissionError):
            read_something_new(mount)
    assert len(lines_about_login(mount)) == 1


def test_what_is_wrong_with_a_context_is_said_in_one_line(
    mounted: ContextMounter, deployment: Deployment, file: Path, tmp_path: Path
) -> None:
    def refused(*words: object) -> str:
        (tmp_path / "mnt").mkdir(exist_ok=True)
        result = run(*ivcapfs("mount", *words, tmp_path / "mnt"), env=mounted.environment(PATH=os.environ["PATH"]))
        assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (1, "", 1), result
        assert not is_mounted(tmp_path / "mnt") and CANARY not in result.stderr
        return result.stderr

    assert "there is no context 'gvo'" in refused("gvo") and "other, gov" in refused("gvo")
    assert "cannot be reached" in refused("other") or "has no login: ivcap context login" in refused("other")
    deployment.log_out()
    write_contexts(file, deployment.origin.url, "", f"{CANARY}-spent")
    assert "the context gov has an expired login: ivcap context login --context gov" in refused("gov")
    file.unlink()
    assert "no URL" in refused("gov") and "does not exist" in refused("gov")
    assert "no deployment is named" in refused()


def test_no_token_is_anywhere_to_be_seen(
    mounted: ContextMounter, deployment: Deployment, file: Path, tmp_path: Path
) -> None:
    """Not in a log, a command line, the environment of a child, or a file that others can read."""
    seen = tmp_path / "children"
    folder = tmp_path / "bin"
    folder.mkdir()
    stand_in = folder / "ivcap"
    stand_in.write_text(f"#!/bin/sh\ntr '\\0' '\\n' < /proc/$$/cmdline >> {seen}\nenv >> {seen}\nexit 1\n")
    stand_in.chmod(0o755)
    mount = mounted(f"cache-dir={tmp_path / 'blocks'}", PATH=f"{folder}:{os.environ['PATH']}")
    read_something_new(mount)
    deployment.expire()
    read_something_new(mount)
    deployment.fault = lambda asked: as_json({"error": f"no {asked.body.decode()}"}, 400)
    deployment.log_out()
    with pytest.raises(PermissionError):
        read_something_new(mount)
    deployment.fault = None
    write_contexts(file, deployment.origin.url, *deployment.log_in())
    read_something_new(mount)
    (pid,) = daemons(mount.path)
    hiding = {
        "the log": mount.logged(),
        "children": seen.read_text(),
        "the environment": Path(f"/proc/{pid}/environ").read_text(errors="replace"),
    }
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            hiding[str(command)] = command.read_text(errors="replace")
        except OSError:
            continue  # it has ended
    assert "--context" in hiding["children"] and "token" in hiding["the log"]
    assert [where for where, text in hiding.items() if deployment.sign in text] == []
    for path in tmp_path.rglob("*"):
        if path.is_file() and not path.is_relative_to(mount.path) and path.stat().st_mode & 0o077:
            assert deployment.sign.encode() not in path.read_bytes(), path
    assert "Max core file size        0 " in Path(f"/proc/{pid}/limits").read_text()


def test_no_core_dump_is_written_by_whatever_way() -> None:
    code = """
import ctypes, os, resource
from ivcapfs.fs import coredumps
coredumps.forbid()
if os.fork() == 0:
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE), flush=True)
    os._exit(0)
os.wait()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0 (0, 0)"
