"""Who holds a mount, read from a /proc of the test's own making, and from the real one."""

from __future__ import annotations

import os
from pathlib import Path

from ivcapfs.fs.holders import MOST, Holder, holders, in_words


def process(proc: Path, pid: int, command: str, **links: str) -> None:
    """Make a process that has a file, a folder or a mapping somewhere."""
    folder = proc / str(pid)
    (folder / "fd").mkdir(parents=True)
    (folder / "comm").write_text(command + "\n")
    (folder / "maps").write_text(links.pop("maps", ""))
    for name, target in links.items():
        (folder / (f"fd/{name[2:]}" if name.startswith("fd") else name)).symlink_to(target)


def test_each_way_of_holding_is_found_once(tmp_path: Path) -> None:
    process(tmp_path, 10, "bash", cwd="/mnt/ivcap", root="/", fd0="/mnt/ivcap/artifacts/a")
    process(tmp_path, 9, "chrooted", cwd="/", root="/mnt/ivcap/artifacts")
    process(tmp_path, 11, "less", cwd="/", root="/", fd0="/dev/null", fd3="/mnt/ivcap/artifacts/a b")
    maps = "7f00-7f01 r--p 00000000 00:4d 12    /mnt/ivcap/artifacts/a b\n7f02-7f03 rw-p 0 00:00 0\n"
    process(tmp_path, 12, "python3", cwd="/", root="/", maps=maps)
    process(tmp_path, 13, "other", cwd="/mnt/ivcap2", root="/", fd0="/mnt", fd1="socket:[1]")
    assert holders("/mnt/ivcap", tmp_path) == [
        Holder(9, "chrooted", "root folder"),
        Holder(10, "bash", "working folder"),
        Holder(11, "less", "open file /mnt/ivcap/artifacts/a b"),
        Holder(12, "python3", "file in memory /mnt/ivcap/artifacts/a b"),
    ]


def test_a_process_that_ends_meanwhile_is_passed_over(tmp_path: Path) -> None:
    process(tmp_path, 10, "bash", cwd="/mnt/ivcap")
    (tmp_path / "10" / "comm").unlink()
    (tmp_path / "11").mkdir()
    assert holders("/mnt/ivcap", tmp_path) == []


def test_names_are_fit_for_a_terminal(tmp_path: Path) -> None:
    process(tmp_path, 10, "evil\x1b[31m", cwd="/", fd0="/mnt/ivcap/\x1b]0;x")
    (holder,) = holders("/mnt/ivcap", tmp_path)
    assert str(holder) == "evil?[31m (process 10, open file /mnt/ivcap/?]0;x)"


def test_only_so_many_are_named(tmp_path: Path) -> None:
    files = [(tmp_path / str(number)).open("w") for number in range(3)]
    try:
        assert in_words(str(tmp_path)).count(f"(process {os.getpid()}, open file ") == 1
    finally:
        for file in files:
            file.close()
    assert in_words(str(tmp_path)) == ""
    assert MOST == 5
