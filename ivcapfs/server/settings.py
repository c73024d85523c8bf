"""How a platform is to be run, as one value.

Used by :func:`ivcapfs.server.runner.run_forever` and whoever builds its settings (command line, demo).
Nothing in this package reads the environment. Immutable, hence safe to share between threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ivcapfs.server.synthetic import Synthetic


@dataclass(frozen=True)
class ServeSettings:
    """The settings of one platform.

    Args:
        data_dir: where artifacts and the database are kept; created with mode 0700 when absent.
        host: the address to listen on.
        port: the TCP port, 0 for any free one.
        token: the bearer token to ask for, ``None`` to let everybody in.
        data_href_base: replaces scheme and host of every ``data-href``, e.g. ``http://files.example:8080``.
        synthetic: what there is by formula besides.
        latency: how much later each request is answered, in seconds.
    """

    data_dir: Path
    host: str
    port: int
    token: str | None
    data_href_base: str | None = None
    synthetic: Synthetic | None = None
    latency: float = 0.0

    def __repr__(self) -> str:
        token = "None" if self.token is None else "'…'"
        return (
            f"ServeSettings(data_dir={self.data_dir!r}, host={self.host!r}, port={self.port}, token={token}, "
            f"data_href_base={self.data_href_base!r}, synthetic={self.synthetic!r}, latency={self.latency})"
        )
