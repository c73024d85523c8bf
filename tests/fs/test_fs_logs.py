"""Where a mount logs: the journal's protocol, syslog, the rotated file, and what is taken where nothing is said."""

from __future__ import annotations

import logging
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivcapfs.config import ClientSettings, MountSettings
from ivcapfs.errors import MountError
from ivcapfs.fs import logs

SETTINGS = MountSettings(ClientSettings("https://api.example.org"), Path("/mnt/my-data/ivcap"))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[logging.Logger]:
    """Our logger, as it was before, whatever the test does to it."""
    logger = logging.getLogger("ivcapfs")
    level, handlers = logger.level, list(logger.handlers)
    yield logger
    for handler in set(logger.handlers) - set(handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A journal that a test reads from."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "journal"))
        listening.settimeout(30)
        monkeypatch.setattr(logs, "JOURNAL", tmp_path / "journal")
        yield listening


def fields(datagram: bytes) -> dict[str, str]:
    """Return what a datagram says, in the journal's native protocol."""
    found = {}
    while datagram:
        name, _, rest = datagram.partition(b"\n")
        (length,) = struct.unpack("<Q", rest[:8])
        found[name.decode()] = rest[8 : 8 + length].decode()
        assert rest[8 + length : 9 + length] == b"\n"
        datagram = rest[9 + length :]
    return found


def made(journal: socket.socket) -> logs.JournalHandler:
    return logs.JournalHandler("/mnt/ivcap", logs.JOURNAL)


def record(message: str, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("ivcapfs.fs.mount", level, __file__, 1, message, None, None)


def test_the_journal_gets_a_datagram_per_record(journal: socket.socket) -> None:
    handler = made(journal)
    handler.handle(record("two\nlines"))
    told = fields(journal.recv(2**17))
    assert told["MESSAGE"] == "ivcapfs.fs.mount: two\nlines"
    assert (told["PRIORITY"], told["SYSLOG_IDENTIFIER"], told["IVCAPFS_MOUNTPOINT"]) == ("4", "ivcapfs", "/mnt/ivcap")
    handler.close()


@pytest.mark.parametrize(
    ("level", "priority"), [(logging.DEBUG, "7"), (logging.INFO, "6"), (logging.ERROR, "3"), (logging.CRITICAL, "2")]
)
def test_levels_are_the_journals(journal: socket.socket, level: int, priority: str) -> None:
    handler = made(journal)
    handler.handle(record("x", level))
    assert fields(journal.recv(2**17))["PRIORITY"] == priority
    handler.close()


def test_what_the_journal_does_not_take_is_dropped_and_nothing_waits(journal: socket.socket) -> None:
    handler = made(journal)
    for _ in range(2000):  # more than its queue holds
        handler.handle(record("x" * 200_000 + "\udcff"))
    assert fields(journal.recv(2**18))["MESSAGE"].startswith("ivcapfs.fs.mount: xxx")
    journal.close()
    handler.handle(record("nobody is there"))
    handler.close()


def test_the_journal_is_taken_before_syslog_and_that_before_a_file(
    journal: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: logging.Logger
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert logs.start_log(SETTINGS) == "journal"
    quiet.warning("hello")
    assert fields(journal.recv(2**17))["MESSAGE"] == "ivcapfs: hello"
    monkeypatch.setattr(logs, "JOURNAL", tmp_path / "none")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "syslog"))
        listening.settimeout(30)
        monkeypatch.setattr(logs, "SYSLOG", tmp_path / "syslog")
        assert logs.start_log(SETTINGS) == "syslog"
        quiet.warning("hello")
        assert listening.recv(4096).rstrip(b"\0").endswith(b"WARNING ivcapfs: hello")
    monkeypatch.setattr(logs, "SYSLOG", tmp_path / "none")
    assert logs.start_log(SETTINGS) == str(tmp_path / "state" / "ivcapfs" / "mnt-my--data-ivcap.log")


def test_the_file_is_rotated_and_stays_its_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: logging.Logger
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(logs, "ROTATE_BYTES", 1000)
    monkeypatch.setattr(logs, "SYSLOG", tmp_path / "none")
    monkeypatch.setattr(logs, "JOURNAL", tmp_path / "none")
    logs.start_log(SETTINGS)
    for number in range(100):
        quiet.warning("line %d", number)
    files = sorted((tmp_path / "ivcapfs").iterdir())
    assert len(files) == 1 + logs.ROTATED
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "ivcapfs").stat().st_mode) == 0o700


@pytest.mark.parametrize("log", ["journal", "syslog"])
def test_what_is_asked_for_and_not_there_is_an_error(
    log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "SYSLOG", tmp_path / "none")
    monkeypatch.setattr(logs, "JOURNAL", tmp_path / "none")
    with pytest.raises(MountError, match=f"the log file {log} cannot be written"):
        logs.start_log(MountSettings(SETTINGS.client, SETTINGS.mountpoint, log=log))


def test_no_place_for_a_log_is_no_reason_not_to_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ivcapfs").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(logs, "SYSLOG", tmp_path / "none")
    monkeypatch.setattr(logs, "JOURNAL", tmp_path / "none")
    assert logs.start_log(SETTINGS) == "nowhere"


def test_none_is_nowhere() -> None:
    assert logs.start_log(MountSettings(SETTINGS.client, SETTINGS.mountpoint, log="none")) == "nowhere"
