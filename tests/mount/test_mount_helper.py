"""mount(8), umount(8) and fstab(5), as root and as an ordinary user, on a machine of the test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivcapfs.server.runner import Platform
from tests.mount.conftest import TOKEN
from tests.mount.private import NOBODY, Machine, in_a_chroot, made
from tests.mount.test_mount_faults import add

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces of its own")

READ = 'test "$(cat mnt/artifacts/data.bin | wc -c)" -gt 0'

def outside() -> list[object]:
    """Return what of this machine itself must stay as it is."""
    fstab = Path("/etc/fstab")
    return [
        sorted(Path("/sbin").glob("mount*")),
        fstab.read_bytes() if fstab.exists() else None,
        *(Path(name).exists() for name in ("/etc/ivcapfs", "/var/log/ivcapfs", f"/tmp/ivcapfs-{NOBODY}")),
    ]


@pytest.fixture(scope="module", autouse=True)
def nothing_shows_outside() -> Iterator[None]:
    """The machine itself, outside of the tests' own, is as it was."""
    before = outside()
    yield
    assert outside() == before


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine with the token in a file of root's and in one of nobody's."""
    with made() as folder:
        machine = Machine(Path(folder))
        for name, owner in (("token", 0), ("token-of-nobody", NOBODY)):
            (machine.folder / name).write_text(TOKEN + "\n")
            (machine.folder / name).chmod(0o600)
            os.chown(machine.folder / name, owner, owner)
        yield machine


@pytest.fixture
def url(platform: Platform) -> str:
    """The platform's address, with a file data.bin on it."""
    add(platform, "data.bin")
    return platform.url


def test_mount_and_umount_as_root(machine: Machine, url: str) -> None:
    machine.succeed(f"""
        ivcapfs install-helper
        mount -t ivcapfs {url} mnt -o token-file={machine.folder}/token,refresh=1
        {READ}
        test "$(findmnt -n -o SOURCE,FSTYPE mnt | tr -s ' ')" = "{url} fuse.ivcapfs"
        findmnt -n -o OPTIONS mnt | grep -w nosuid | grep -w nodev | grep -w ro
        umount mnt
        gone; ended
        mount -t fuse.ivcapfs {url} mnt -o token-file={machine.folder}/token,noexec
        findmnt -n -o OPTIONS mnt | grep -w noexec
        {READ}
        umount mnt
        gone; ended
    """)


def test_a_line_of_fstab_and_mount_a(machine: Machine, url: str) -> None:
    fstab = (
        f"{url} {machine.mnt} ivcapfs "
        f"_netdev,nofail,x-systemd.automount,comment=notes,uid=1234,token-file={machine.folder}/token 0 0\n"
    )
    machine.succeed(
        f"""
        ivcapfs install-helper
        mount -a
        {READ}
        test "$(stat -c %u mnt/artifacts/data.bin)" = 1234
        mount -a
        test "$(findmnt -n mnt | wc -l)" = 1
        umount mnt
        gone; ended
        """,
        fstab=fstab,
    )


def test_noauto_is_left_to_whoever_names_it(machine: Machine, url: str) -> None:
    machine.succeed(
        f"""
        ivcapfs install-helper
        mount -a; gone
        mount {machine.mnt}
        {READ}
        umount {machine.mnt}
        gone; ended
        """,
        fstab=f"{url} {machine.mnt} ivcapfs noauto,owner,group,token-file={machine.folder}/token 0 0\n",
    )


def test_an_fstab_of_another_name(machine: Machine, url: str) -> None:
    (machine.folder / "other").write_text(f"{url} {machine.mnt} ivcapfs token-file={machine.folder}/token 0 0\n")
    machine.succeed(f"ivcapfs install-helper; mount --fstab other -a; {READ}; umount mnt; gone")


def test_an_ordinary_user_by_fstab(machine: Machine, url: str) -> None:
    fstab = f"{url} {machine.mnt} ivcapfs noauto,user,token-file={machine.folder}/token-of-nobody 0 0\n"
    machine.succeed(
        f"""
        ivcapfs install-helper
        as_nobody mount {machine.mnt}
        as_nobody sh -c '{READ}'
        findmnt -n -o OPTIONS mnt | grep -w user_id={NOBODY} | grep -w noexec
        as_nobody umount {machine.mnt}
        gone; ended
        as_nobody mount {machine.mnt}
        umount {machine.mnt}
        gone; ended
        """,
        fstab=fstab,
    )


def test_a_fake_mount_mounts_nothing(machine: Machine, url: str) -> None:
    said = machine.succeed(f"""
        ivcapfs install-helper
        mount -f -v -t ivcapfs {url} mnt -o token-file={machine.folder}/token
        gone
        mount.ivcapfs -f -n -v {url} mnt -o token-file={machine.folder}/token
        gone
    """)
    assert f"mount.ivcapfs: {url} at {machine.mnt} (fake)" in said


def test_without_home_and_with_the_machines_own_token(machine: Machine, url: str) -> None:
    """As mount(8) runs at boot: hardly any environment, and the token where root keeps it."""
    machine.succeed(f"""
        ivcapfs install-helper
        install -m 600 token /etc/ivcapfs/token
        env -i /bin/mount -t ivcapfs {url} mnt
        {READ}
        env -i /bin/umount mnt
        gone; ended
    """)


def test_the_machines_own_token_is_not_sent_where_a_context_is_named(machine: Machine) -> None:
    from ivcapfs.commands import mounthelper

    assert mounthelper._system_token("production", []) == []


@pytest.mark.skipif(in_a_chroot(), reason="whoever enters a namespace leaves the chroot")
def test_another_mount_namespace(machine: Machine, url: str) -> None:
    machine.succeed(f"""
        ivcapfs install-helper
        unshare --mount --propagation private sleep 60 & other=$!
        while [ "$(readlink /proc/$other/ns/mnt)" = "$(readlink /proc/self/ns/mnt)" ]; do sleep 0.05; done
        mount -N $other -t ivcapfs {url} {machine.mnt} -o token-file={machine.folder}/token
        gone
        nsenter -m -t $other sh -c 'cd {machine.folder} && {READ}'
        umount -N $other {machine.mnt}
        ended
        kill $other
    """)


def test_unknown_options_are_an_error_unless_sloppy(machine: Machine, url: str) -> None:
    script = f"""
        ivcapfs install-helper >/dev/null
        mount.ivcapfs {{flags}} {url} mnt -o frobnicate=1,token-file={machine.folder}/token
    """
    result = machine.run(script.format(flags=""))
    assert (result.returncode, "frobnicate" in result.stderr) == (1, True)
    machine.succeed(script.format(flags="-s") + f"{READ}; umount mnt; gone")


ERRORS = [
    ("", 1, "usage: mount.ivcapfs"),
    ("-x a b", 1, "usage: mount.ivcapfs"),
    ("http://127.0.0.1:9 mnt -o timeout=1", 32, "cannot be reached"),
    ("http://127.0.0.1:9 nowhere", 32, "does not exist"),
    ("http://127.0.0.1:9 mnt -o remount,ro", 1, "cannot be changed"),
    ("http://127.0.0.1:9 mnt -N /nowhere", 32, "cannot be entered"),
]


def test_errors_are_one_line_and_one_of_mounts_exit_codes(machine: Machine) -> None:
    calls = "; ".join(f"code=0; mount.ivcapfs {words} 2>&1 || code=$?; echo $code" for words, _, _ in ERRORS)
    lines = machine.succeed(f"ivcapfs install-helper >/dev/null; {calls}").splitlines()
    assert len(lines) == 2 * len(ERRORS), lines
    for (_, code, said), line, told in zip(ERRORS, lines[::2], lines[1::2], strict=True):
        assert (int(told), line.startswith("mount.ivcapfs: "), said in line) == (code, True, True), line


def test_the_helper_is_removed_without_a_trace_and_nothing_foreign_is_touched(machine: Machine) -> None:
    machine.succeed("""
        ls -a /sbin > before
        ivcapfs install-helper
        ivcapfs install-helper
        test -x /sbin/mount.ivcapfs -a -x /sbin/mount.fuse.ivcapfs
        ivcapfs install-helper --remove
        ivcapfs install-helper --remove
        ls -a /sbin | diff before -
    """)
    script = "echo precious > /sbin/mount.ivcapfs; ivcapfs install-helper --remove || cat /sbin/mount.ivcapfs"
    result = machine.run(script)
    assert result.stdout == "precious\n"
    assert "not touched" in result.stderr


def test_mount8_clears_a_killed_mount_where_replace_says_so(machine: Machine, url: str) -> None:
    """With a line of fstab, by its mount point alone, and by hand; root's and nobody's."""
    machine.succeed(
        f"""
        ivcapfs install-helper
        killed() {{ pkill -KILL -f 'help_[m]ount'; ended; ! stat -f mnt 2>/dev/null; }}
        mount {machine.mnt}
        killed
        mount {machine.mnt}
        {READ}
        killed
        mount -t ivcapfs {url} {machine.mnt} -o replace,token-file={machine.folder}/token
        {READ}
        test "$(findmnt -n mnt | wc -l)" = 1
        killed
        umount {machine.mnt}
        gone
        """,
        fstab=f"{url} {machine.mnt} ivcapfs replace,token-file={machine.folder}/token 0 0\n",
    )


def test_an_ordinary_user_lists_clears_and_replaces(machine: Machine, url: str) -> None:
    fstab = f"{url} {machine.mnt} ivcapfs noauto,user,replace,token-file={machine.folder}/token-of-nobody 0 0\n"
    machine.succeed(
        f"""
        theirs() {{ as_nobody env PYTHONPATH=$PYTHONPATH $python -P -m ivcapfs "$@"; }}
        killed() {{ pkill -KILL -f 'help_[m]ount'; ended; }}
        ivcapfs install-helper
        as_nobody mount {machine.mnt}
        theirs list | grep "^{machine.mnt}  {url}  (serving, process "
        ivcapfs list | grep "^{machine.mnt}  {url}  (serving, process "
        test "$(stat -c %a /run/user/{NOBODY}/ivcapfs)" = 700
        killed
        theirs list | grep "^{machine.mnt}  {url}  (stale"
        as_nobody mount {machine.mnt}
        as_nobody sh -c '{READ}'
        killed
        theirs umount mnt
        gone
        as_nobody mount {machine.mnt}
        ivcapfs umount mnt
        gone; if running; then exit 9; fi
        test -z "$(ls /run/user/{NOBODY}/ivcapfs)"
        """,
        fstab=fstab,
    )


STARTER = """
import ctypes, os, sys
device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=40000,user_id=65534,group_id=65534,default_permissions"
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mount(b"ivcap", sys.argv[1].encode(), b"fuse.ivcapfs", 7, options.encode()) == 0, ctypes.get_errno()
os.chmod("/dev/fuse", 0o600)
os.set_inheritable(device, True)
os.environ["XDG_RUNTIME_DIR"] = "/run/user/65534"
who = ["--reuid", "65534", "--regid", "65534", "--clear-groups"]
drop = ["setpriv", *who, "--no-new-privs", "--bounding-set=-all", "--"]
os.execvp(drop[0], [*drop, *sys.argv[2:], f"/dev/fd/{device}", "-o", f"token-file={os.getcwd()}/token-of-nobody"])
"""


def test_whoever_was_handed_the_device_needs_no_privilege(machine: Machine, url: str) -> None:
    """A user who can neither open /dev/fuse nor gain a privilege serves what root mounted."""
    (machine.folder / "starter.py").write_text(STARTER)
    machine.succeed(f"""
        $python starter.py {machine.mnt} $python -P -m ivcapfs mount -f {url} & served=$!
        as_nobody sh -c 'until {READ}; do sleep 0.1; done' 2>/dev/null
        grep -q "^NoNewPrivs:.1" /proc/$served/status
        grep -q "^Uid:.65534" /proc/$served/status
        umount mnt
        wait $served
    """)
