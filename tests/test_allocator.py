"""A mount's threads keep little freed memory; nobody else sees that it was asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ivcapfs import allocator

OURS = "glibc.malloc.tcache_max"
CODE = """
import json, os, pathlib, re, sys
from ivcapfs.allocator import keep_little
keep_little()
begun_with = pathlib.Path("/proc/self/environ").read_text()  # where glibc has cut it at each colon
print(json.dumps([
    [word for word in re.split("[\\0=:]", begun_with) if word.startswith("glibc.")], os.environ.get("GLIBC_TUNABLES"),
    os.getpid(), sys.argv[1:], sys.flags.isolated, os.fstat(int(sys.argv[1])).st_ino,
]))
"""
only_glibc = pytest.mark.skipif(not allocator._is_glibc(), reason="another C library")


def begin(**env: str) -> tuple[list[str], str | None]:
    """Return with what a process was begun in the end, and what its children see; all else must be as it was."""
    with Path(__file__).open("rb") as file:
        os.set_inheritable(file.fileno(), True)
        command = [sys.executable, "-X", "utf8", "-c", CODE, str(file.fileno()), "two words", ""]
        kept = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
        with subprocess.Popen(command, env=kept | env, stdout=subprocess.PIPE, pass_fds=[file.fileno()]) as process:
            assert process.stdout is not None
            begun, seen, pid, words, isolated, inode = json.loads(process.stdout.read())
        assert (pid, words) == (process.pid, [str(file.fileno()), "two words", ""])
        assert not isolated and inode == os.fstat(file.fileno()).st_ino
        return begun, seen


@only_glibc
def test_a_process_begins_again_with_small_caches_and_its_children_do_not() -> None:
    assert begin() == ([OURS], None)


@only_glibc
def test_what_else_is_tuned_stays() -> None:
    other = "glibc.malloc.trim_threshold"
    assert begin(GLIBC_TUNABLES=f"{other}=1000000") == ([other, OURS], f"{other}=1000000")


@only_glibc
def test_who_has_tuned_the_caches_is_not_overruled() -> None:
    own = "glibc.malloc.tcache_count"
    assert begin(GLIBC_TUNABLES=f"{own}=7") == ([own], f"{own}=7")


HEAP = """
import ctypes, json, re, sys
from ivcapfs.allocator import give_back
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
answers = []
for _ in range(1000):  # each with a small piece behind it, which stays
    answers.append(libc.malloc(60_000))
    ctypes.memset(answers[-1], 1, 60_000)
    ctypes.memset(libc.malloc(2000), 1, 2000)
full = resident()
for answer in answers:
    libc.free(answer)
before = resident()
give_back()
print(json.dumps([full - before, before - resident()]))
"""


@only_glibc
def test_free_memory_between_what_stays_is_given_back() -> None:
    found = subprocess.run([sys.executable, "-c", HEAP], capture_output=True, text=True, check=True)
    by_itself, given_back = json.loads(found.stdout)  # MiB
    assert by_itself < 10 and given_back > 40


@pytest.mark.parametrize("name", ["executable", "confstr"])
def test_where_it_cannot_be_done_the_process_goes_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def confstr(_: str) -> str:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("it began again"))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(*{"executable": (sys, "executable", ""), "confstr": (os, "confstr", confstr)}[name])
    allocator.keep_little()
