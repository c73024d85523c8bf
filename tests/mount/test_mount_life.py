"""The life of a mount: it is listed, killed, cleared, replaced, held busy, sent signals, and handed a device."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    output,
    process,
    run,
)
from tests.mount.test_mount_command import nothing_is_left, refused
from tests.mount.test_mount_faults import add, is_blob, stalled

ROUNDS = int(os.environ.get("IVCAPFS_ROUNDS", "3"))
"""Of killing and clearing; IVCAPFS_ROUNDS=100 is the long form."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder to mount at; whatever happens, nothing is mounted there afterwards."""
    path = tmp_path / "here"
    path.mkdir()
    yield path
    while is_mounted(path):
        subprocess.run(["umount", "-l", path], check=True)
    eventually(lambda: not daemons(path), "the process ends")


def listed(path: Path) -> dict[str, Any] | None:
    """Return what `ivcapfs list` says of the mount at a path."""
    rows = json.loads(output(*ivcapfs("list", "--json")))
    return next((row for row in rows if row["mountpoint"] == str(path)), None)


def kill(path: Path) -> None:
    """Kill the process of a mount as the kernel does when memory is short."""
    (pid,) = daemons(path)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}/task").exists(), "the process ends, with all it had open")


def start(platform: Platform, folder: Path, *options: str) -> None:
    """Mount in the background."""
    words = ["-o", ",".join(options)] if options else []
    result = run(*ivcapfs("mount", platform.url, folder, *words), env=clean_env(IVCAP_JWT=TOKEN))
    assert result.returncode == 0, result.stderr


def test_a_running_mount_is_listed_and_then_no_longer(mount: Mount, platform: Platform) -> None:
    (pid,) = daemons(mount.path)
    row = listed(mount.path)
    assert row is not None
    assert row["started"] > 1.6e9
    assert {name: row[name] for name in ("source", "url", "state", "pid", "log")} == {
        "source": platform.url,
        "url": platform.url,
        "state": "serving",
        "pid": pid,
        "log": str(mount.log),
    }
    line = next(line for line in output(*ivcapfs("list")).splitlines() if line.startswith(str(mount.path)))
    assert f"serving, process {pid}, since " in line
    assert run(*ivcapfs("umount", mount.path)).returncode == 0
    assert listed(mount.path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set it")
def test_the_kernels_read_ahead_is_raised_with_the_first_open(mount: Mount, platform: Platform) -> None:
    urn = add(platform, "data.bin")
    device = mount.path.stat().st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    if not os.access(setting, os.W_OK):
        pytest.skip("there is no such setting here")
    with open(mount.by_id(urn) / "content", "rb"):
        assert setting.read_text() == "1024\n"


@pytest.mark.timeout(60 + 10 * ROUNDS)
def test_the_process_of_a_mount_waits_for_nothing_of_its_own(folder: Path, platform: Platform) -> None:
    """A process that waits for its own answer when it is killed would never end, and its mount with it."""
    for _ in range(ROUNDS):
        start(platform, folder, "refresh=0")
        kill(folder)
        assert run(*ivcapfs("umount", folder)).returncode == 0
    nothing_is_left(folder)


def test_umount_returns_once_the_process_is_gone(folder: Path, platform: Platform) -> None:
    """Also where that takes its time."""
    program = (
        "import sys, time; import ivcapfs.cache.reader as r; r.Reader.shutdown = lambda self: time.sleep(1.5)\n"
        "from ivcapfs.cli import main; main(prog_name='ivcapfs')"
    )
    command = [sys.executable, "-c", program, "mount", platform.url, folder]
    assert run(*command, env=clean_env(IVCAP_JWT=TOKEN)).returncode == 0
    assert daemons(folder)
    assert run(*ivcapfs("umount", folder)).returncode == 0
    assert daemons(folder) == []


def test_a_mount_that_is_out_of_the_tree_is_listed_as_long_as_it_is_in_use(mount: Mount) -> None:
    with process("sleep", "60", cwd=mount.artifacts):
        subprocess.run(["umount", "-l", mount.path], check=True)
        row = listed(mount.path)
        assert row is not None and row["state"] == "elsewhere"
    eventually(lambda: listed(mount.path) is None, "its last user and its process end")


def test_a_killed_mount_is_listed_as_stale_and_its_file_goes(mount: Mount) -> None:
    from ivcapfs.places import runtime_folder

    before = set(runtime_folder().iterdir())
    (own,) = [path for path in before if str(mount.path) in path.read_text()]
    assert stat.S_IMODE(runtime_folder().stat().st_mode) == 0o700
    kill(mount.path)
    row = listed(mount.path)
    assert row is not None
    assert (row["state"], row["pid"]) == ("stale", None)
    assert not own.exists()
    assert f"ivcapfs umount {mount.path}" in output(*ivcapfs("list"))


@pytest.mark.timeout(60 + 10 * ROUNDS)
@pytest.mark.parametrize("by", ["umount", "replace"])
def test_kill_and_clear_again_and_again(folder: Path, platform: Platform, by: str) -> None:
    """What is found is always one mount and one process, and at the end none."""
    for _ in range(ROUNDS):
        start(platform, folder, *(["replace"] if by == "replace" else []))
        assert "artifacts" in os.listdir(folder)
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        assert sum(line.split()[4] == str(folder) for line in lines) == 1
        kill(folder)
        if by == "umount":
            result = run(*ivcapfs("umount", folder))
            assert (result.returncode, "had died" in result.stderr) == (0, True)
    if by == "replace":
        assert run(*ivcapfs("umount", folder)).returncode == 0
    nothing_is_left(folder)
    assert os.listdir(folder) == []


def test_a_stale_mount_is_cleared_also_while_somebody_stands_in_it(mount: Mount, platform: Platform) -> None:
    with process("sleep", "60", cwd=mount.artifacts):
        kill(mount.path)
        assert run(*ivcapfs("umount", mount.path)).returncode == 0
        assert not is_mounted(mount.path)


def test_replace_leaves_a_living_mount_alone(mount: Mount, platform: Platform) -> None:
    assert "already mounted" in refused("mount", platform.url, mount.path, "-o", "replace", IVCAP_JWT=TOKEN)
    assert os.listdir(mount.artifacts) == []


def test_replace_touches_no_other_filesystem(folder: Path, platform: Platform) -> None:
    """A stale mount of another kind stays."""
    device = mount_fuse(folder, subtype="")
    os.close(device)
    assert "but fuse" in refused("mount", platform.url, folder, "-o", "replace", IVCAP_JWT=TOKEN)
    assert is_mounted(folder)


def test_a_busy_mount_names_who_holds_it(mount: Mount, platform: Platform) -> None:
    urn = add(platform, "data.bin")
    with process("sleep", "60", cwd=mount.artifacts) as sleeper:
        said = refused("umount", mount.path)
        assert f"sleep (process {sleeper.pid}, working folder)" in said
    with open(mount.by_id(urn) / "content", "rb") as file:
        said = refused("umount", mount.path)
        assert f"(process {os.getpid()}, open file {os.path.realpath(file.name)})" in said
    below = mount.artifacts
    subprocess.run(["mount", "-t", "tmpfs", "none", below], check=True)
    try:
        assert f"a mount at {below}" in refused("umount", mount.path)
    finally:
        subprocess.run(["umount", below], check=True)
    assert run(*ivcapfs("umount", mount.path)).returncode == 0


def test_a_file_in_memory_holds_a_mount_too(mount: Mount, platform: Platform) -> None:
    urn = add(platform, "data.bin")
    program = (
        "import mmap, sys, time; f = open(sys.argv[1], 'rb')\n"
        "m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); f.close(); import os\n"
        "[os.close(int(n)) for n in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}') "
        "and os.readlink(f'/proc/self/fd/{n}').startswith(sys.argv[2])]\n"
        "print('there', flush=True); time.sleep(60)"
    )
    with process(sys.executable, "-c", program, mount.by_id(urn) / "data.bin", mount.path) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"there\n"
        said = refused("umount", mount.path)
        assert f"(process {holder.pid}, file in memory {mount.by_id(urn) / 'data.bin'})" in said


def test_usr1_switches_debug(platform: Platform, mounter: Mounter, tmp_path: Path, folder: Path) -> None:
    log = tmp_path / "quiet.log"
    start(platform, folder, f"log-file={log}", "refresh=0")
    (pid,) = daemons(folder)

    def requests() -> int:
        return log.read_text().count("DEBUG")

    os.listdir(folder / "artifacts")
    assert requests() == 0
    os.kill(pid, signal.SIGUSR1)
    eventually(lambda: "debug is on" in log.read_text(), "it is switched on")
    os.listdir(folder / "artifacts")
    assert requests() > 0
    os.kill(pid, signal.SIGUSR1)
    eventually(lambda: "debug is off" in log.read_text(), "it is switched off")
    before = requests()
    os.listdir(folder / "artifacts")
    assert requests() == before
    assert run(*ivcapfs("umount", folder)).returncode == 0


def test_a_mount_gives_memory_back_every_now_and_then(platform: Platform, folder: Path, tmp_path: Path) -> None:
    program = (
        "import ivcapfs.fs.mount as mount; mount.TIDY_SECONDS = 0.05\n"
        f"mount.give_back = lambda: open({str(tmp_path / 'given')!r}, 'a').write('.')\n"
        "from ivcapfs.catalog.store import Store\n"
        f"Store.shrink = lambda self: open({str(tmp_path / 'shrunk')!r}, 'a').write('.')\n"
        "from ivcapfs.cli import main; main(prog_name='ivcapfs')"
    )
    command = [sys.executable, "-c", program, "mount", platform.url, folder]
    assert run(*command, env=clean_env(IVCAP_JWT=TOKEN)).returncode == 0
    for name in ("given", "shrunk"):
        told = tmp_path / name
        eventually(lambda told=told: told.exists() and len(told.read_text()) > 2, f"again and again: {name}")
    assert os.listdir(folder)
    assert run(*ivcapfs("umount", folder)).returncode == 0
    assert daemons(folder) == []


def test_a_background_mount_logs_to_a_rotating_file_of_the_users(
    platform: Platform, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    start(platform, folder, "log=file", "debug")
    row = listed(folder)
    assert row is not None
    log = Path(row["log"])
    assert log.parent == tmp_path / "state" / "ivcapfs"
    assert f"serving {platform.url}" in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert TOKEN not in log.read_text()


SIGNAL_IN_INIT = """
import os, runpy, signal, sys, time
import ivcapfs.fs.binding as binding
def first_word(self, conn, config, then=binding.Kernel.init_fuse_3):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1.0)
    then(self, conn, config)
binding.Kernel.init_fuse_3 = first_word
sys.argv[0] = "ivcapfs"
runpy.run_module("ivcapfs", run_name="__main__")
"""


@pytest.mark.parametrize("foreground", [(), ("-f",)])
def test_a_signal_before_the_kernels_first_word_leaves_no_mount(
    folder: Path, platform: Platform, foreground: tuple[str, ...]
) -> None:
    """mount(2) is done by then, and the connection has not begun."""
    command = [sys.executable, "-c", SIGNAL_IN_INIT, "mount", *foreground, platform.url, folder]
    result = run(*command, env=clean_env(IVCAP_JWT=TOKEN))
    assert (result.returncode, result.stderr) == (1, "ivcapfs: the mount was ended by a signal before it served\n")
    nothing_is_left(folder)


STUBBORN = """
import sys, time
import ivcapfs.fs.mount as mount
import ivcapfs.fs.binding as binding
mount.END_SECONDS = 0.5
binding.Kernel.exit = lambda self: None
{more}
sys.argv[0] = "ivcapfs"
from ivcapfs.cli import main
main(prog_name="ivcapfs")
"""


def test_a_mount_that_does_not_end_is_taken_away(folder: Path, platform: Platform) -> None:
    command = [sys.executable, "-c", STUBBORN.format(more=""), "mount", "-f", platform.url, folder]
    with process(*command, env=clean_env(IVCAP_JWT=TOKEN)) as stubborn:
        eventually(lambda: is_mounted(folder) and os.listdir(folder), "it serves")
        stubborn.send_signal(signal.SIGTERM)
        assert b"taking it away" in stubborn.communicate(timeout=30)[1]
    assert not is_mounted(folder)


def test_the_last_resort_leaves_alone_what_took_the_place(folder: Path, platform: Platform) -> None:
    """The old process lingers after its mount was taken away; the new one in its place is not touched."""
    lingering = "import ivcapfs.cache.reader as r; r.Reader.shutdown = lambda self: time.sleep(600)"
    command = [sys.executable, "-c", STUBBORN.format(more=lingering), "mount", "-f", platform.url, folder]
    with process(*command, env=clean_env(IVCAP_JWT=TOKEN)) as old:
        eventually(lambda: is_mounted(folder) and os.listdir(folder), "it serves")
        subprocess.run(["umount", folder], check=True)
        start(platform, folder)
        old.send_signal(signal.SIGTERM)
        assert b"the mount is gone, but its process" in old.communicate(timeout=30)[1]
        assert "artifacts" in os.listdir(folder)
    assert run(*ivcapfs("umount", folder)).returncode == 0


def mount_fuse(folder: Path, *, subtype: str = "ivcapfs", user: int = 0) -> int:
    """Do as a privileged starter does: open the device, mount it, and return it for whoever is to serve."""
    opened = os.open("/dev/fuse", os.O_RDWR)
    # Its number is the mount's name, so it is to be no other test's meanwhile.
    device = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 300 + os.getpid() % 500)
    os.close(opened)
    data = f"fd={device},rootmode=40000,user_id={user},group_id={user},default_permissions,allow_other"
    kind = b"fuse" + (b"." + subtype.encode() if subtype else b"")
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"ivcap", os.fsencode(folder), kind, 1 | 2 | 4, data.encode()) == 0, ctypes.get_errno()
    return device


def test_a_descriptor_of_the_device_is_a_mount_point(folder: Path, platform: Platform) -> None:
    """Nothing is looked for that only mounting needs; without any privilege: see test_mount_helper."""
    add(platform, "data.bin")
    device = mount_fuse(folder)
    command = ivcapfs("mount", "-f", platform.url, f"/dev/fd/{device}", "-o", "uid=0")
    with process(*command, env=clean_env(IVCAP_JWT=TOKEN, PATH="/nowhere"), pass_fds=[device]) as served:
        os.close(device)
        assert os.listdir(folder / "artifacts") == ["data.bin"]
        assert (folder / "artifacts" / "data.bin").read_bytes()
        row = listed(Path(f"/dev/fd/{device}"))
        assert row is not None and (row["pid"], row["state"]) == (served.pid, "serving")
        subprocess.run(["umount", folder], check=True)
        assert served.wait(timeout=30) == 0


def test_a_descriptor_in_the_background_and_its_end_by_a_signal(folder: Path, platform: Platform) -> None:
    device = mount_fuse(folder)
    where = f"/dev/fd/{device}"
    command, env = ivcapfs("mount", platform.url, where), clean_env(IVCAP_JWT=TOKEN)
    started = subprocess.run(command, env=env, pass_fds=[device], timeout=60, check=False)
    assert started.returncode == 0
    os.close(device)
    assert "artifacts" in os.listdir(folder)
    (pid,) = daemons(Path(where))
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not daemons(Path(where)), "the process ends")


@pytest.mark.parametrize("where", ["/dev/fd/0", "/dev/fd/99", "/dev/fd/123456789012345678901"])
def test_a_descriptor_that_is_no_device(platform: Platform, where: str) -> None:
    assert f"{where} is no open /dev/fuse" in refused("mount", platform.url, where, IVCAP_JWT=TOKEN)


def test_systemd_is_told_when_the_mount_serves(folder: Path, platform: Platform, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        env = clean_env(IVCAP_JWT=TOKEN, NOTIFY_SOCKET=str(tmp_path / "notify"))
        with process(*ivcapfs("mount", "-f", platform.url, folder), env=env) as served:
            said = manager.recv(4096).decode().splitlines()
            assert said == ["READY=1", f"MAINPID={served.pid}", f"STATUS=serving at {folder}"]
            assert is_mounted(folder)
            served.send_signal(signal.SIGTERM)
            assert served.wait(timeout=30) == 0


def test_a_background_mount_holds_no_pipe_of_its_starters(folder: Path, platform: Platform) -> None:
    """`ivcapfs mount … | cat` ends, and so does whoever reads from a descriptor that was inherited."""
    reading, writing = os.pipe()
    command, env = ivcapfs("mount", platform.url, folder), clean_env(IVCAP_JWT=TOKEN)
    result = subprocess.run(command, env=env, pass_fds=[writing], timeout=60, check=False)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert result.returncode == 0
        assert select.select([pipe], [], [], 20)[0], "it is still held open"
        assert pipe.read() == b""


def test_a_stalled_server_does_not_hold_up_the_list(mount: Mount, platform: Platform, faults: Faults) -> None:
    urn = add(platform, "data.bin")
    with stalled(faults, is_blob), process("cat", mount.by_id(urn) / "content"):
        eventually(lambda: faults.asked(r"GET .*/blob"), "the reader waits")
        row = listed(mount.path)
        assert row is not None and row["state"] == "serving"
