"""Where a mount logs: a file, the systemd journal, syslog, or a file that is rotated; and debug, switched as it runs.

Used by `ivcapfs.fs.daemon` in the process that serves, after the fork, and by `ivcapfs.fs.mount` for SIGUSR1. Handlers
are those of `logging`, which locks them. A log that cannot be written is never an error of the mount's.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from logging.handlers import RotatingFileHandler, SysLogHandler, WatchedFileHandler
from pathlib import Path

from ivcapfs.config import MIB, MountSettings
from ivcapfs.errors import MountError
from ivcapfs.places import state_folder

JOURNAL = Path("/run/systemd/journal/socket")
SYSLOG = Path("/dev/log")
ROTATE_BYTES = 4 * MIB
ROTATED = 3
"""So many old files are kept beside the one that is written."""
LONGEST_MESSAGE = 48 * 1024
"""A datagram holds about 200 KiB; a longer message is cut."""
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
SHORT_FORMAT = "%(levelname)s %(name)s: %(message)s"
OURS = "ivcapfs"


def start_log(settings: MountSettings) -> str:
    """Send the log where it was asked for, else to standard error (foreground) or to what this machine has.

    Returns:
        Where that is, in words.

    Raises:
        MountError: the log cannot be written.
    """
    try:
        handler, where = _handler(settings)
    except OSError as exc:
        place = settings.log_file or settings.log
        raise MountError(f"the log file {place} cannot be written: {exc.strerror or exc}") from exc
    if handler.formatter is None:
        handler.setFormatter(logging.Formatter(FORMAT))
    root = logging.getLogger(OURS)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if settings.debug else logging.INFO)
    return where


def toggle_debug() -> None:
    """Switch between logging every request and logging what matters; says so in the log."""
    root = logging.getLogger(OURS)
    debug = root.level != logging.DEBUG
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    root.info("debug is %s", "on" if debug else "off")


def _handler(settings: MountSettings) -> tuple[logging.Handler, str]:
    """Return the handler, and in words where it writes to."""
    if settings.log_file is not None:
        return WatchedFileHandler(_private(settings.log_file)), str(settings.log_file)
    kind = settings.log
    if kind == "auto":
        kind = "stderr" if settings.foreground else _best()
    if kind == "stderr":
        return logging.StreamHandler(), "standard error"
    if kind in ("journal", "syslog"):
        (JOURNAL if kind == "journal" else SYSLOG).stat()  # neither says so itself without leaving a socket open
    if kind == "journal":
        return JournalHandler(str(settings.mountpoint), JOURNAL), "journal"
    if kind == "syslog":
        handler = SysLogHandler(str(SYSLOG), SysLogHandler.LOG_DAEMON)
        handler.setFormatter(logging.Formatter(f"{OURS}[{os.getpid()}]: {SHORT_FORMAT}"))
        return handler, "syslog"
    if kind == "file":
        try:
            return _rotating(settings.mountpoint)
        except OSError:
            if settings.log == "file":
                raise
    return logging.NullHandler(), "nowhere"


def _best() -> str:
    """Return what background mounts log to on this machine."""
    return "journal" if JOURNAL.is_socket() else "syslog" if SYSLOG.is_socket() else "file"


def _rotating(mountpoint: Path) -> tuple[logging.Handler, str]:
    """Return the handler for a file in the user's state folder, named for the mount point."""
    folder = state_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = str(mountpoint).strip("/").replace("-", "--").replace("/", "-")[-200:] or "root"
    path = _private(folder / f"{name}.log")
    return _Rotating(path, maxBytes=ROTATE_BYTES, backupCount=ROTATED), str(path)


class _Rotating(RotatingFileHandler):
    """Its files are readable by their owner alone, new ones as well."""

    def doRollover(self) -> None:  # noqa: N802 - the name is logging's
        """Begin a new file."""
        super().doRollover()
        Path(self.baseFilename).chmod(0o600)


def _private(path: Path) -> Path:
    """Make a log file that only its owner reads, where there is none.

    Raises:
        OSError: it cannot be made.
    """
    os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600))
    return path


class JournalHandler(logging.Handler):
    """The systemd journal, by its native protocol: one datagram per record, fields of our own included.

    What the journal does not take at once is dropped: a mount never waits for its log.

    Args:
        mountpoint: becomes the field IVCAPFS_MOUNTPOINT (``journalctl IVCAPFS_MOUNTPOINT=…``).
        address: of the journal's socket.
    """

    def __init__(self, mountpoint: str, address: Path) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        self._mountpoint = mountpoint
        self._address = str(address)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        try:
            fields = {
                "MESSAGE": self.format(record)[:LONGEST_MESSAGE],
                "PRIORITY": str(next(number for level, number in PRIORITIES if record.levelno >= level)),
                "SYSLOG_IDENTIFIER": OURS,
                "SYSLOG_PID": str(os.getpid()),
                "LOGGER": record.name,
                "CODE_FUNC": record.funcName or "",
                "IVCAPFS_MOUNTPOINT": self._mountpoint,
            }
            self._socket.sendto(b"".join(_field(name, value) for name, value in fields.items()), self._address)
        except OSError:
            pass  # the journal is being restarted, or is behind
        except Exception:  # noqa: BLE001 - as every handler of logging
            self.handleError(record)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()
        super().close()


def _field(name: str, value: str) -> bytes:
    """Return one field in the native protocol: with its length, for a value may have several lines."""
    raw = value.encode("utf-8", "backslashreplace")
    return name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n"
