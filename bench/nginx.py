"""nginx on loopback, with a configuration, a certificate and a log of its own: nothing of the system's is used.

Used by `bench.world`. Three ports serve the same: plain, TLS, and plain with an access log (for counting). Below
/files/ are the files by folder and name, with listings; below /blobs/ the same by URN; all else is the platform's.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from bench.processes import Daemon, StepFailed, run

_START_SECONDS = 15.0

_CONFIG = """\
{user}worker_processes 2;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  log_format counted '$request_method $status $body_bytes_sent $request_uri';
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  default_type application/octet-stream;
  sendfile on;
  tcp_nodelay on;
  keepalive_timeout 75s;
  keepalive_requests 1000000;
  upstream platform {{ server {platform}; keepalive 32; }}
  server {{
    listen 127.0.0.1:{plain} backlog=1024;
    listen 127.0.0.1:{tls} ssl backlog=1024;
    ssl_certificate {folder}/certificate.pem;
    ssl_certificate_key {folder}/key.pem;
    ssl_session_cache shared:tls:1m;
    include {folder}/locations.conf;
  }}
  server {{
    listen 127.0.0.1:{counted} backlog=1024;
    access_log {folder}/access.log counted;
    include {folder}/locations.conf;
  }}
}}
"""

_LOCATIONS = """\
location /files/ {{ alias {files}/; autoindex on; }}
location /blobs/ {{ alias {blobs}/; }}
location / {{
  proxy_pass http://platform;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-Proto $scheme;
}}
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where it listens."""

    plain: int
    tls: int
    counted: int


class Nginx:
    """A running nginx.

    Args:
        folder: an empty folder for what it needs.
        files, blobs: what it serves.
        platform: ``host:port`` of the platform behind it.

    Raises:
        StepFailed: it is missing or did not start.
    """

    def __init__(self, folder: Path, files: Path, blobs: Path, platform: str) -> None:
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if program is None:
            raise StepFailed("nginx is missing: scripts/bench --setup")
        folder.mkdir()
        self.certificate = make_certificate(folder)
        self.access_log = folder / "access.log"
        self.ports = Ports(*free_ports(3))
        (folder / "nginx.conf").write_text(config(folder, self.ports, platform))
        (folder / "locations.conf").write_text(_LOCATIONS.format(files=files, blobs=blobs))
        command = [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
        self._daemon = Daemon(command, folder / "output.log")
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it."""
        self._daemon.stop()

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not all(_answers(port) for port in (self.ports.plain, self.ports.tls, self.ports.counted)):
            self._daemon.check()
            if time.monotonic() > deadline:
                raise StepFailed(f"nginx does not answer after {_START_SECONDS:g} s")
            time.sleep(0.02)


def config(folder: Path, ports: Ports, platform: str) -> str:
    """Return nginx's configuration. Its workers stay who we are: they read our temporary files."""
    user = "user root;\n" if os.geteuid() == 0 else ""
    return _CONFIG.format(
        user=user, folder=folder, platform=platform, plain=ports.plain, tls=ports.tls, counted=ports.counted
    )


def make_certificate(folder: Path) -> Path:
    """Make a key and a certificate for loopback, which is its own authority; return the certificate's file."""
    certificate = folder / "certificate.pem"
    run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
            *("-keyout", folder / "key.pem", "-out", certificate),
        ],
        timeout=30,
    )
    certificate.chmod(0o644)
    return certificate


def free_ports(number: int) -> list[int]:
    """Return TCP ports of loopback that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    try:
        return [listener.getsockname()[1] for listener in sockets]
    finally:
        for listener in sockets:
            listener.close()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
