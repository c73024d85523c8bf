"""The commands as a shell sees them: one line that says what is wrong and what to do, the right exit code, and no
mount, process or traceback left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivcapfs.server.runner import Platform
from tests.mount.conftest import (
    TOKEN,
    Faults,
    Mount,
    Mounter,
    clean_env,
    daemons,
    eventually,
    is_mounted,
    ivcapfs,
    process,
    run,
)
from tests.mount.test_mount_faults import add, is_blob, stalled


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder to mount at; whatever happens, it is none of the tests' business afterwards."""
    path = tmp_path / "here"
    path.mkdir()
    yield path
    run("umount", "-l", path)


def refused(*words: object, **env: str) -> str:
    """Run a command that must fail, and return its one line."""
    result = run(*ivcapfs(*words), env=clean_env(**env), timeout=60)
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in lines[0]
    assert TOKEN not in lines[0]
    return lines[0]


def nothing_is_left(folder: Path) -> None:
    assert not is_mounted(folder)
    eventually(lambda: not daemons(folder), "the process ends")


def test_nothing_is_configured(folder: Path) -> None:
    assert "IVCAP_URL" in refused("mount", folder)
    nothing_is_left(folder)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://example.org", "https://HOST"),
        ("nonsense", "https://HOST"),
        ("http://ivcap.example.org", "plain http"),
        ("http://127.0.0.1:9", "cannot be reached"),
    ],
)
def test_a_wrong_url(folder: Path, url: str, said: str) -> None:
    assert said in refused("mount", url, folder)
    nothing_is_left(folder)


def test_a_server_that_is_no_deployment(folder: Path, platform: Platform, faults: Faults) -> None:
    from starlette.responses import HTMLResponse

    faults.rule = lambda scope: HTMLResponse("<html>welcome</html>")
    assert "does not answer like an IVCAP deployment" in refused("mount", platform.url, folder, IVCAP_JWT=TOKEN)
    nothing_is_left(folder)


@pytest.mark.parametrize("foreground", [(), ("-f",)])
def test_a_refused_token(folder: Path, platform: Platform, foreground: tuple[str, ...]) -> None:
    said = refused("mount", *foreground, platform.url, folder, IVCAP_JWT="wrong")
    assert "refuses the token" in said
    assert "wrong" not in said
    nothing_is_left(folder)


def test_a_token_file_that_others_can_read(folder: Path, platform: Platform, tmp_path: Path) -> None:
    file = tmp_path / "open-token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    assert "chmod 600" in refused("mount", platform.url, folder, "-o", f"token-file={file}")


def test_a_missing_mount_point(tmp_path: Path, platform: Platform) -> None:
    assert "mkdir" in refused("mount", platform.url, tmp_path / "nowhere", IVCAP_JWT=TOKEN)


def test_a_mount_point_that_is_a_file(tmp_path: Path, platform: Platform) -> None:
    file = tmp_path / "file"
    file.touch()
    assert "no folder" in refused("mount", platform.url, file, IVCAP_JWT=TOKEN)


def test_a_mount_point_that_is_not_empty(folder: Path, platform: Platform) -> None:
    (folder / "precious").touch()
    assert "not empty" in refused("mount", platform.url, folder, IVCAP_JWT=TOKEN)
    assert (folder / "precious").exists()


def test_a_mount_point_that_is_taken(mount: Mount, platform: Platform) -> None:
    assert "already mounted" in refused("mount", platform.url, mount.path, IVCAP_JWT=TOKEN)
    assert os.listdir(mount.artifacts) == []


def test_an_unknown_option_and_a_log_inside_the_mount(folder: Path, platform: Platform) -> None:
    assert "frobnicate" in refused("mount", platform.url, folder, "-o", "ro,frobnicate=1")
    assert "inside the mount" in refused("mount", platform.url, folder, "-o", f"log-file={folder}/log")


def test_a_machine_without_the_device(folder: Path, platform: Platform) -> None:
    """In a mount namespace of its own, with nothing in /dev but null."""
    prepare = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec"
    inner = " ".join([prepare, *ivcapfs("mount", platform.url, folder)])
    result = run("unshare", "--mount", "sh", "-c", inner, env=clean_env(IVCAP_JWT=TOKEN))
    assert result.returncode == 1
    assert "/dev/fuse" in result.stderr
    assert "modprobe fuse" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    nothing_is_left(folder)


def test_a_machine_without_libfuse(folder: Path, platform: Platform) -> None:
    """The FUSE library's search finds nothing."""
    program = (
        "import ctypes.util; ctypes.util.find_library = lambda name: None\n"
        "import runpy, sys; sys.argv[0] = 'ivcapfs'; runpy.run_module('ivcapfs', run_name='__main__')"
    )
    command = [sys.executable, "-c", program, "mount", platform.url, str(folder)]
    result = run(*command, env=clean_env(IVCAP_JWT=TOKEN))
    assert (result.returncode, result.stderr) == (1, "ivcapfs: libfuse 3 is missing: apt install fuse3\n")
    nothing_is_left(folder)


def test_umount_of_what_is_not_mounted(folder: Path) -> None:
    assert "no ivcapfs is mounted" in refused("umount", folder)


def test_umount_of_a_busy_mount_says_so(mount: Mount) -> None:
    with process("sleep", "60", cwd=mount.artifacts):
        assert "cannot be unmounted" in refused("umount", mount.path)
    assert run(*ivcapfs("umount", mount.path)).returncode == 0
    nothing_is_left(mount.path)


def test_the_deployment_comes_from_the_environment(folder: Path, platform: Platform) -> None:
    env = clean_env(IVCAP_URL=platform.url, IVCAP_ACCESS_TOKEN=TOKEN)
    assert run(*ivcapfs("mount", folder), env=env).returncode == 0
    assert {"artifacts", "by-id"} <= set(os.listdir(folder))
    assert run(*ivcapfs("umount", folder)).returncode == 0
    nothing_is_left(folder)


def test_a_relative_mount_point(tmp_path: Path, folder: Path, platform: Platform) -> None:
    env = clean_env(IVCAP_URL=platform.url, IVCAP_JWT=TOKEN)
    assert subprocess.run(ivcapfs("mount", "here"), cwd=tmp_path, env=env, timeout=60, check=False).returncode == 0
    assert {"artifacts", "by-id"} <= set(os.listdir(folder))


def test_owner_and_modes_are_the_mounts_own(platform: Platform, mounter: Mounter) -> None:
    add(platform, "data.bin")
    mount = mounter(platform.url, uid=1234, gid=2345, umask="027")
    found = (mount.artifacts / "data.bin").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (1234, 2345, 0o440)
    assert mount.artifacts.stat().st_mode & 0o7777 == 0o550


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unmounts_cleanly_while_a_read_is_stalled(
    folder: Path, platform: Platform, faults: Faults, sent: signal.Signals
) -> None:
    urn = add(platform)
    command = ivcapfs("mount", "-f", platform.url, folder, "-o", "timeout=600")
    with stalled(faults, is_blob), process(*command, env=clean_env(IVCAP_JWT=TOKEN)) as mount:
        eventually(lambda: is_mounted(folder), "it is mounted")
        with process("cat", folder / "by-id" / urn / "content") as reader:
            eventually(lambda: faults.asked(r"GET .*/blob"), "the reader waits")
            mount.send_signal(sent)
            assert mount.wait(timeout=20) == 0
            assert reader.wait(timeout=20) != 0
    nothing_is_left(folder)


def test_a_background_mount_ends_by_a_signal_too(mount: Mount) -> None:
    (pid,) = daemons(mount.path)
    os.kill(pid, signal.SIGTERM)
    nothing_is_left_soon(mount.path)


def nothing_is_left_soon(folder: Path) -> None:
    eventually(lambda: not daemons(folder), "the process ends")
    assert not is_mounted(folder)


def test_ctrl_c_during_a_slow_start_leaves_nothing(folder: Path, platform: Platform, faults: Faults) -> None:
    command = ivcapfs("mount", platform.url, folder, "-o", "timeout=600")
    with stalled(faults, lambda scope: True), process(*command, env=clean_env(IVCAP_JWT=TOKEN)) as mount:
        eventually(lambda: faults.seen, "the server is asked")
        mount.send_signal(signal.SIGINT)
        assert mount.wait(timeout=20) != 0
        nothing_is_left_soon(folder)


def test_a_mount_whose_process_was_killed_is_explained_and_cleared(mount: Mount, platform: Platform) -> None:
    (pid,) = daemons(mount.path)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not daemons(mount.path), "the process ends")
    assert "ivcapfs umount" in refused("mount", platform.url, mount.path, IVCAP_JWT=TOKEN)
    assert run(*ivcapfs("umount", mount.path)).returncode == 0
    assert not is_mounted(mount.path)


def test_the_token_is_nowhere_to_be_seen(mount: Mount, mounter: Mounter, platform: Platform) -> None:
    urn = add(platform)
    assert (mount.by_id(urn) / "content").read_bytes()
    (pid,) = daemons(mount.path)
    assert TOKEN.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert TOKEN.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    assert TOKEN not in mount.logged()
    assert mount.log.stat().st_mode & 0o777 == 0o600
    assert "Max core file size        0 " in Path(f"/proc/{pid}/limits").read_text()


def test_the_daemon_keeps_nothing_of_its_parent(mount: Mount) -> None:
    (pid,) = daemons(mount.path)
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    for descriptor in ("0", "1", "2"):
        assert os.readlink(f"/proc/{pid}/fd/{descriptor}") == "/dev/null"
    assert os.getsid(pid) == pid


def test_serve_prints_its_url_first_and_ends_by_ctrl_c(tmp_path: Path) -> None:
    with process(*ivcapfs("serve", "--data", tmp_path / "data")) as server:
        assert server.stdout is not None
        url = server.stdout.readline().decode().strip()
        assert url.startswith("http://127.0.0.1:")
        result = run(sys.executable, "-c", f"import httpx; print(httpx.get({url!r} + '/1/artifacts').status_code)")
        assert result.stdout.strip() == "200"
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=20) == 0


def test_serve_with_a_taken_port_says_so(tmp_path: Path, platform: Platform) -> None:
    port = platform.url.rpartition(":")[2]
    assert port in refused("serve", "--data", tmp_path / "other", "--port", port)


def test_help_names_every_command() -> None:
    told = run(*ivcapfs("--help")).stdout
    assert all(command in told for command in ("mount", "umount", "serve", "demo"))
