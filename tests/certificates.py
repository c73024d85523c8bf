"""Certificates that nobody but a test believes, and what a server shows of them.

Used by all tests over TLS, and by `conftest`, which lets all others believe one of no server: to read the world's
authorities again for each client would be a tenth of the work of all tests.
"""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path


def make(folder: Path, name: str, *more: str) -> tuple[Path, Path]:
    """Make a certificate of its own authority, good for 100 days, as ``key.pem`` and ``cert.pem`` in a folder.

    Args:
        name: of the host.
        more: further hosts, as openssl writes them: ``DNS:name`` or ``IP:address``.
    """
    key, shown = folder / "key.pem", folder / "cert.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "100"]
    hosts = ["-subj", f"/CN={name}", "-addext", "subjectAltName=" + ",".join((f"DNS:{name}", *more))]
    command = ["openssl", "req", "-x509", *kind, *hosts, "-keyout", str(key), "-out", str(shown)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return key, shown


def shown_by(pair: tuple[Path, Path]) -> ssl.SSLContext:
    """Return a server's side of what `make` made."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair[1], pair[0])
    return context
