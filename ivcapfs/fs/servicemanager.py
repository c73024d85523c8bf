"""Telling systemd that a mount in the foreground serves (sd_notify(3)), for units of `Type=notify`.

Used by `ivcapfs.fs.daemon`. Holds no state.
"""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

from ivcapfs.places import notify_socket

log = logging.getLogger(__name__)


def tell_ready(mountpoint: Path) -> None:
    """Send READY=1, if somebody waits for it."""
    address = notify_socket()
    if address is None:
        return
    message = f"READY=1\nMAINPID={os.getpid()}\nSTATUS=serving at {mountpoint}\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect("\0" + address[1:] if address.startswith("@") else address)
            sender.sendall(message.encode("utf-8", "backslashreplace"))
    except OSError as exc:
        log.warning("systemd cannot be told that the mount serves: %s", exc)
