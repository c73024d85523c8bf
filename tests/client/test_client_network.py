"""HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE count for every request: lists, contents, and the issuer of tokens."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from ivcapfs import errors
from ivcapfs.client import Connection, connect
from ivcapfs.client.network import Network, Proxies
from ivcapfs.config import ClientSettings, client_settings
from tests import certificates
from tests.client.fakeorigin import LIMITS, UUID
from tests.client.fakeproxy import Proxy
from tests.client.test_client_login import DATA, platform
from tests.loginworld import Deployment, write_contexts

HOST = "deployment.invalid"
NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir")


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("environment", "url", "proxied"),
    [
        ({}, "https://h.org", False),
        ({"https_proxy": "http://p:1"}, "https://h.org", True),
        ({"HTTPS_PROXY": "http://p:1"}, "https://h.org", True),
        ({"HTTPS_PROXY": "p:1"}, "https://h.org", True),
        ({"http_proxy": "http://p:1"}, "https://h.org", False),
        ({"http_proxy": "http://p:1"}, "http://h.org", True),
        ({"ALL_PROXY": "http://p:1"}, "https://h.org", True),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "h.org"}, "https://h.org", False),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "h.org"}, "https://a.h.org", False),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "h.org"}, "https://ah.org", True),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": ".org"}, "https://a.h.org", False),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "a, *.H.org ,b"}, "https://x.h.ORG", False),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "*"}, "https://h.org", False),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "h.org:444"}, "https://h.org", True),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "h.org:443"}, "https://h.org", False),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "h.org:444"}, "https://h.org:444", False),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "https://10.1.2.3", False),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "https://11.1.2.3", True),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "10.1.2.3"}, "https://10.1.2.3", False),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "2001:db8::/32"}, "https://[2001:db8::1]", False),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "[2001:db8::1]:8"}, "https://[2001:db8::1]:8", False),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": ",, ., :80"}, "https://h.org", True),
        ({"ALL_PROXY": "http://p:1"}, "http://localhost:8", False),
        ({"ALL_PROXY": "http://p:1"}, "http://127.0.0.1:8", False),
        ({"ALL_PROXY": "http://p:1"}, "http://127.1.2.3:8", False),
        ({"ALL_PROXY": "http://p:1"}, "http://[::1]:8", False),
    ],
)
def test_what_goes_through_a_proxy(
    environment: dict[str, str], url: str, proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    network = Network(1)
    try:
        assert network.is_proxied(httpx.URL(url)) is proxied
        assert (network.client_for(httpx.URL(url)) is not network.client_for(httpx.URL("http://127.0.0.1"))) is proxied
    finally:
        network.close()


def test_every_address_has_a_client_whatever_is_excepted() -> None:
    proxies = Proxies({"http": "http://a:1", "all": "http://b:1", "no": "x"})
    assert proxies.all() == {"http://a:1", "http://b:1"}
    assert Proxies({}).all() == frozenset()


@pytest.mark.parametrize("proxy", ["socks5://user:pw@p:1", "ftp://p", "http://p:port"])
def test_a_proxy_of_an_unknown_kind_is_named(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(errors.ConfigError, match=r"proxy .* cannot be used") as caught:
        connect(ClientSettings("https://h.org"))
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_certificates_that_cannot_be_read_are_named(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(errors.ConfigError, match="SSL_CERT_FILE"):
        connect(ClientSettings("https://h.org"))


# -- on the wire -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificates.make(tmp_path_factory.mktemp("tls"), HOST)


def port(deployment: Deployment) -> int:
    return int(deployment.origin.url.rpartition(":")[2])


@pytest.fixture
def plain() -> Iterator[Deployment]:
    deployment = Deployment(platform)
    with deployment.origin:
        yield deployment


@pytest.fixture
def secure(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """A deployment over TLS, whose certificate only SSL_CERT_FILE makes known."""
    deployment = Deployment(platform)
    server = deployment.origin._server
    server.socket = certificates.shown_by(certificate).wrap_socket(server.socket, server_side=True)
    deployment.origin.url = f"https://{HOST}:{port(deployment)}"
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[1]))
    with deployment.origin:
        yield deployment


def log_in(deployment: Deployment, tmp_path: Path, **more: Any) -> Connection:
    write_contexts(tmp_path / "ivcap-cli" / "config.yaml", deployment.origin.url, *deployment.log_in())
    found = client_settings("gov", environ={"XDG_CONFIG_HOME": str(tmp_path), "PATH": "/none"}, **more)
    return connect(replace(found, limits=LIMITS))


def use(connection: Connection) -> None:
    """Make a request of each kind."""
    connection.api.list_artifacts_page(limit=1)
    connection.api.read_artifact(UUID)
    assert connection.blobs.head(UUID).size == len(DATA)
    with connection.blobs.open_range(UUID, 0, len(DATA), expected=None) as stream:
        assert b"".join(stream) == DATA


def test_over_tls_everything_goes_through_the_proxy(
    secure: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name leads nowhere, but through the proxy."""
    with Proxy({HOST: port(secure)}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with log_in(secure, tmp_path) as connection:
            use(connection)
            secure.expire()
            use(connection)
        assert secure.refreshes == 1
        assert set(proxy.connects) == {f"{HOST}:{port(secure)}"} and not proxy.plains
        assert not any("authorization" in head.lower() for head in proxy.heads)


def test_over_plain_http_too(plain: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy({HOST: port(plain)}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        plain.origin.url = f"http://{HOST}"
        with log_in(plain, tmp_path, allow_http=True) as connection:
            use(connection)
        assert len(proxy.plains) == len(plain.origin.asked) >= 4 and not proxy.connects
        assert any(target.endswith("/blob") for target in proxy.plains)
        assert any(target.endswith("/1/artifacts?limit=1") for target in proxy.plains)


def test_what_is_excepted_goes_straight(
    secure: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def here(host: Any, *words: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host == HOST else host, *words, **more)

    monkeypatch.setattr(socket, "getaddrinfo", here)
    with Proxy({HOST: port(secure)}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "other.example,.invalid")
        with log_in(secure, tmp_path) as connection:
            use(connection)
            secure.expire()
            use(connection)
        assert secure.refreshes == 1 and proxy.heads == []


def test_without_its_certificate_nobody_is_believed(
    secure: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with Proxy({HOST: port(secure)}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with log_in(secure, tmp_path) as connection, pytest.raises(errors.ConnectFailed, match="certificate"):
            use(connection)
        assert secure.origin.asked == []


def test_a_proxy_that_refuses_is_no_way_around_it(
    secure: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy({}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with log_in(secure, tmp_path) as connection, pytest.raises(errors.ConnectFailed, match="proxy"):
            use(connection)
        assert secure.origin.asked == []
