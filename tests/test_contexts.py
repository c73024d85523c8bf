"""The `ivcap` program's file: found, read as Go reads it, waited for while it is written, and no token in any error."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from ivcapfs import contexts
from ivcapfs.config import client_settings, command_words
from ivcapfs.contexts import location, noted_expiry, parse
from ivcapfs.errors import ConfigError
from tests.loginworld import ACCOUNT, CANARY, write_contexts

TYPICAL = f"""version: v1
active-context: gov
contexts:
- api-version: 1
  name: gov
  url: https://api.example.org/
  account-id: {ACCOUNT}
  provider-id: urn:ivcap:provider:1
  host: inside.example.org
  account-name: Ada
  account-nickname: ada
  email: ada@example.org
  access-token: {CANARY}-access
  access-token-expiry: 2026-06-01T10:00:00.123456789+10:00
  refresh-token: {CANARY}-refresh
- name: 1
  url: http://127.0.0.1:80
- name: yes
  url: https://yes.example
  host: ""
  access-token-expiry: 0001-01-01T00:00:00Z
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path), "PATH": str(tmp_path / "bin")}


@pytest.fixture
def file(environ: dict[str, str]) -> Path:
    path = location(environ)
    path.parent.mkdir()
    path.write_text(TYPICAL)
    return path


def test_a_file_is_read_as_the_program_reads_it() -> None:
    gov, one, yes = parse(TYPICAL, Path("f")).all
    assert (gov.name, gov.url, gov.account_id) == ("gov", "https://api.example.org/", ACCOUNT)
    assert gov.host == "inside.example.org"
    assert gov.access_token and gov.access_token.reveal() == f"{CANARY}-access"
    assert gov.refresh_token and gov.refresh_token.reveal() == f"{CANARY}-refresh"
    assert gov.expires == pytest.approx(1780272000.123456 + 10)
    assert (one.name, one.access_token, one.expires) == ("1", None, None)
    assert (yes.name, yes.host, yes.expires) == ("yes", None, None)
    assert CANARY not in repr(gov)


def test_an_expiry_is_noted_as_it_is_read() -> None:
    text = f"contexts: [{{name: a, access-token-expiry: {noted_expiry(1780272000.0)}}}]"
    assert parse(text, Path("f")).all[0].expires == 1780272000.0


@pytest.mark.parametrize(
    ("environ", "where"),
    [
        ({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}, "/x/ivcap-cli/config.yaml"),
        ({"XDG_CONFIG_HOME": "relative", "HOME": "/h"}, "/h/.config/ivcap-cli/config.yaml"),
        ({"HOME": "/h"}, "/h/.config/ivcap-cli/config.yaml"),
    ],
)
def test_the_file_is_where_the_program_has_it(environ: dict[str, str], where: str) -> None:
    assert location(environ) == Path(where)


def test_without_home_it_is_the_users_own() -> None:
    assert location({}).is_absolute() and location({}).name == "config.yaml"


# -- which context ---------------------------------------------------------------------------------------------------


def test_a_name_names_a_context(environ: dict[str, str], file: Path) -> None:
    found = client_settings("gov", environ={**environ, "IVCAP_URL": "https://env.example", "IVCAP_JWT": "env"})
    assert (found.url, found.account_id, found.host) == ("https://api.example.org", ACCOUNT, "inside.example.org")
    assert found.context == contexts.ContextPlace(file, "gov") and found.token_command is None
    assert found.token is not None and found.token.reveal() == f"{CANARY}-access"


def test_without_a_name_and_an_environment_it_is_the_active_one(environ: dict[str, str], file: Path) -> None:
    assert client_settings(environ=environ).url == "https://api.example.org"
    with_url = client_settings(environ={**environ, "IVCAP_URL": "https://env.example"})
    assert (with_url.url, with_url.context) == ("https://env.example", None)
    assert client_settings(environ={**environ, "IVCAP_BASE_URL": "http://in"}).context is None


def test_a_token_of_ones_own_takes_only_the_address_from_the_context(environ: dict[str, str], file: Path) -> None:
    found = client_settings("gov", token_command=("print-token",), environ=environ)
    assert (found.url, found.account_id, found.context) == ("https://api.example.org", ACCOUNT, None)
    assert found.token_command == ("print-token",)


def test_the_program_is_asked_where_it_is_installed(environ: dict[str, str], file: Path, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "ivcap"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    command = client_settings("gov", environ=environ).token_command
    assert command is not None
    assert command[-7:] == (str(program), "context", "get", "access-token", "--refresh-token", "--context", "gov")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gvo", ["'gvo'", "gov, 1, yes", "config.yaml"]),
        ("api.example.org", ["'api.example.org'", "gov, 1, yes"]),
    ],
)
def test_an_unknown_context_says_which_there_are(
    environ: dict[str, str], file: Path, name: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        client_settings(name, environ=environ)
    assert all(word in str(caught.value) for word in words)


def test_a_name_without_a_file(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"'gov' is no URL .*, and no context either: .* does not exist"):
        client_settings("gov", environ=environ)
    with pytest.raises(ConfigError, match=r"no deployment is named.*IVCAP_URL"):
        client_settings(environ=environ)


@pytest.mark.parametrize("active", ["", "active-context: ''", "active-context: null"])
def test_no_active_context(environ: dict[str, str], file: Path, active: str) -> None:
    file.write_text(f"{active}\ncontexts: [{{name: a, url: https://a}}, {{name: b, url: https://b}}]")
    with pytest.raises(ConfigError, match=r"no context is active.*a, b"):
        client_settings(environ=environ)


@pytest.mark.parametrize("url", ["", "http://elsewhere.example", "nonsense"])
def test_a_context_without_a_usable_url(environ: dict[str, str], file: Path, url: str) -> None:
    file.write_text(f"contexts: [{{name: a, url: '{url}'}}]")
    with pytest.raises(ConfigError):
        client_settings("a", environ=environ)


# -- damaged files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"contexts: [{{access-token: {CANARY}",
        f"access-token: {CANARY}\n\tx: y",
        f"- {CANARY}",
        f"{CANARY}: [1",
        f"contexts: {CANARY}",
        "contexts: {a: b}",
        "a: &a [*a]\n? *a\n: b",
        "[" * 5000,
        "contexts: [{name: a, 1: !!python/object:os.system x}]",
    ],
)
def test_a_damaged_file_is_an_error_without_tokens(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, Path("/the/file"))
    assert "/the/file" in str(caught.value) and CANARY not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", ["", "version: v1", "contexts:", "contexts: []", "contexts: [1, null, [], {}]"])
def test_a_file_without_contexts_is_none_at_all(text: str, environ: dict[str, str], file: Path) -> None:
    assert parse(text, file).all == ()
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"there are: none at all"):
        client_settings("gov", environ=environ)


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_a_file_that_cannot_be_read(environ: dict[str, str], file: Path, content: bytes | None) -> None:
    file.unlink()
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"no YAML|cannot be read"):
        client_settings("gov", environ=environ)


def test_a_file_that_is_being_written_is_waited_for(file: Path) -> None:
    file.write_text("")

    def write() -> None:
        time.sleep(0.2)
        write_contexts(file, "https://late.example", "a", "b")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert contexts.read(file).find("gov").url == "https://late.example"
    finally:
        writer.join()


# -- commands --------------------------------------------------------------------------------------------------------


def test_a_command_is_split_as_a_shell_would() -> None:
    assert command_words("print-token --as 'Ada K' \"a b\"") == ("print-token", "--as", "Ada K", "a b")


def test_a_program_beside_us_is_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_words("./print-token x/y") == (f"{tmp_path}/print-token", "x/y")


@pytest.mark.parametrize("text", ["", " ", "a 'b"])
def test_no_command(text: str) -> None:
    with pytest.raises(ConfigError, match="token-command"):
        command_words(text)
