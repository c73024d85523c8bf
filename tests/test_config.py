"""Settings: which deployment and whose token, in which order; and no token ever shows."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.config import (
    ClientSettings,
    Secret,
    check_url,
    client_settings,
    parse_size,
    read_token,
)
from ivcapfs.errors import ConfigError
from ivcapfs.hosts import is_loopback

OUTSIDE = {"IVCAP_URL": "https://outside.example", "IVCAP_JWT": "jwt-token", "IVCAP_ACCESS_TOKEN": "access-token"}
INSIDE = {"IVCAP_BASE_URL": "http://inside.svc.cluster.local"}


def token_file(tmp_path: Path, text: str = "file-token\n", mode: int = 0o600) -> Path:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    return path


def revealed(settings: ClientSettings) -> str | None:
    return settings.token.reveal() if settings.token else None


# -- which deployment, whose token -------------------------------------------------------------------------------


def test_what_is_given_comes_before_the_environment() -> None:
    settings = client_settings("https://given.example/", "given-token", "urn:a", environ={**OUTSIDE, **INSIDE})
    assert (settings.url, revealed(settings), settings.account_id) == ("https://given.example", "given-token", "urn:a")


def test_the_environment_names_the_deployment_and_the_token() -> None:
    settings = client_settings(environ={**OUTSIDE, **INSIDE, "IVCAP_ACCOUNT_ID": "urn:b"})
    assert (settings.url, revealed(settings), settings.account_id) == (OUTSIDE["IVCAP_URL"], "jwt-token", "urn:b")
    assert not settings.allow_http


@pytest.mark.parametrize("jwt", [{}, {"IVCAP_JWT": ""}, {"IVCAP_JWT": " \n"}])
def test_the_access_token_counts_where_there_is_no_jwt(jwt: dict[str, str]) -> None:
    environ = {"IVCAP_URL": "https://h", "IVCAP_ACCESS_TOKEN": " access-token\n", **jwt}
    assert revealed(client_settings(environ=environ)) == "access-token"


def test_no_token_at_all_is_no_empty_token() -> None:
    assert client_settings(environ={"IVCAP_URL": "https://h", "IVCAP_JWT": " "}).token is None


def test_a_token_file_comes_after_a_given_token_and_before_the_environment(tmp_path: Path) -> None:
    file = token_file(tmp_path)
    assert revealed(client_settings(token_file=file, environ=OUTSIDE)) == "file-token"
    assert revealed(client_settings(token="given", token_file=file, environ=OUTSIDE)) == "given"


def test_inside_the_platform_no_token_is_sent_and_plain_http_is_expected() -> None:
    settings = client_settings(environ={**INSIDE, "IVCAP_JWT": "not for the sidecar"})
    assert (settings.url, settings.token, settings.allow_http) == (INSIDE["IVCAP_BASE_URL"], None, True)


def test_a_token_given_inside_the_platform_is_sent() -> None:
    assert revealed(client_settings(token="given", environ=INSIDE)) == "given"


@pytest.mark.parametrize("environ", [{}, {"IVCAP_JWT": "token"}, {"IVCAP_URL": "", "IVCAP_BASE_URL": ""}])
def test_without_a_deployment_the_message_says_how_to_name_one(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="IVCAP_URL"):
        client_settings(environ=environ)


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OUTSIDE.items():
        monkeypatch.setenv(name, value)
    assert client_settings().url == OUTSIDE["IVCAP_URL"]


# -- URLs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://host", "https://host"),
        ("https://host/", "https://host"),
        ("https://host:8443/base//", "https://host:8443/base"),
        (" https://host\n", "https://host"),
        ("http://localhost:1", "http://localhost:1"),
        ("http://127.0.0.1:1/", "http://127.0.0.1:1"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("HTTPS://Host", "HTTPS://Host"),
    ],
)
def test_these_urls_are_taken(url: str, kept: str) -> None:
    assert check_url(url, allow_http=False) == kept


@pytest.mark.parametrize(
    "url",
    [
        "", "host", "ftp://host", "https://", "https:///path", "https://host:port", "https://host:99999",
        "https://[::1", "https://host?x=1", "https://host?", "https://host/#a", "https://host#", "https://user@host",
        "https://user:secret@host", "https://:@host", "file:///etc/passwd", "//host",
    ],
)  # fmt: skip
def test_these_urls_are_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_url(url, allow_http=True)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["host", "192.168.1.1", "10.0.0.1", "127.evil.example", "127.0.0.1.evil.example", "localhost.evil.example"]
)
def test_plain_http_to_another_machine_needs_to_be_allowed(host: str) -> None:
    with pytest.raises(ConfigError, match="https"):
        check_url(f"http://{host}", allow_http=False)
    assert check_url(f"http://{host}", allow_http=True) == f"http://{host}"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_these_hosts_are_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "127.", "127.0.0.1.example.org", "127x", "::2", "example.org"])
def test_these_hosts_are_not_this_machine(host: str) -> None:
    assert not is_loopback(host)


# -- tokens ------------------------------------------------------------------------------------------------------


def test_a_token_never_shows(caplog: pytest.LogCaptureFixture) -> None:
    @dataclass
    class Holder:
        token: Secret = field(default=Secret("hunter2"))

    secret = Secret("hunter2")
    settings = ClientSettings("https://host", secret)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("ivcapfs").debug("%s %r %s", secret, settings, [secret])
    shown = [str(secret), repr(secret), f"{secret}", f"{settings}", repr(Holder()), str(ConfigError(secret))]
    assert not [text for text in (*shown, caplog.text) if "hunter2" in text]
    assert "hunter2" not in secret.fingerprint()


def test_fingerprints_tell_tokens_apart() -> None:
    assert Secret("a").fingerprint() == Secret("a").fingerprint() != Secret("b").fingerprint()


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_token_file_is_read(tmp_path: Path, mode: int) -> None:
    assert read_token(token_file(tmp_path, " the-token \n", mode)).reveal() == "the-token"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610, 0o601, 0o602])
def test_a_token_file_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        read_token(token_file(tmp_path, mode=mode))


@pytest.mark.parametrize("text", ["", " \n", "two tokens", "two\ntokens", "t\xf6ken"])
def test_a_token_file_with_anything_but_one_token_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="token") as caught:
        read_token(token_file(tmp_path, text))
    assert "two" not in str(caught.value)


def test_a_token_file_that_is_missing_or_a_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            read_token(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_token_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token(token_file(tmp_path, mode=0))


# -- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("64K", 65536), ("64k", 65536), ("64KiB", 65536), ("64KB", 65536), ("1M", 1 << 20),
     ("2g", 2 << 30), ("1T", 1 << 40), (" 7 ", 7), ("10B", 10)],
)  # fmt: skip
def test_these_sizes_are_taken(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "K", "B", "-1", "1.5G", "1 M", "0x10", "many", "²", "１K", "1KK", "9" * 5000, "\0"]
)
def test_these_sizes_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a size"):
        parse_size(text)


@given(st.integers(0, 10**9), st.sampled_from(["", "K", "M", "G", "T"]), st.sampled_from(["", "B", "iB"]))
def test_a_size_is_its_number_times_its_unit(number: int, unit: str, suffix: str) -> None:
    assert parse_size(f"{number}{unit}{suffix}") == number * 1024 ** " KMGT".index(unit or " ")


@given(st.text())
def test_any_text_is_a_size_or_an_error_of_ours(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert parse_size(text) >= 0
