"""A spool with new files in it, as mounts would have left them, or have them at present."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from ivcapfs.spool.admin import Spooled, spooled
from ivcapfs.spool.entry import Entry, State
from ivcapfs.spool.folder import Folder, Owner, open_new, this_host

URL = "http://127.0.0.1:1"


class SpoolWorld:
    """See the module. `leave` lets go of the folder, as a mount does that is killed."""

    def __init__(self, root: Path, deployment: str = "deployment", url: str = URL, mountpoint: str = "/mnt/x") -> None:
        self.root = root
        self.folder: Folder | None = open_new(root, deployment, Owner(this_host(), 1, mountpoint, url, "gov"))

    def new(self, name: str, content: bytes = b"", state: State = State.CLOSED, **more: object) -> Entry:
        """Make a new file, of that name in `artifacts/`."""
        assert self.folder is not None
        parts = ("artifacts", *name.split("/"))
        entry = Entry(parts, below=len(parts) - 1, state=state, size=len(content), **more)  # type: ignore[arg-type]
        fd = self.folder.create(entry)
        with open(fd, "wb") as file:
            file.write(content)
        return entry

    def leave(self) -> None:
        """The mount is gone."""
        if self.folder is not None:
            self.folder.close()
            self.folder = None

    def files(self) -> dict[str, Spooled]:
        """Return what is in the spool, by name."""
        return {each.entry.name: each for each in spooled(self.root)}


def of_another_host(path: Path, owner: Owner) -> None:
    """Have a folder that nobody holds be another machine's."""
    (path / "owner").write_text(json.dumps(asdict(replace(owner, host="elsewhere"))))
