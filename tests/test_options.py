"""Mount options: each one arrives in the settings, and what makes no sense is refused by name."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from ivcapfs.config import CacheSettings, CatalogSettings, Limits, MountSettings, ViewSettings, memory_limit
from ivcapfs.errors import ConfigError
from ivcapfs.options import OPTIONS, absolute, mount_settings, parse_options

URL = "https://host.example"


def settings(mountpoint: Path, *options: str) -> MountSettings:
    return mount_settings(URL, str(mountpoint), options, foreground=False)


@pytest.fixture
def mountpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("IVCAP_URL", "IVCAP_JWT", "IVCAP_ACCESS_TOKEN", "IVCAP_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "mnt").mkdir()
    return tmp_path / "mnt"


def test_without_options_everything_is_as_documented(mountpoint: Path) -> None:
    found = settings(mountpoint)
    assert found.mountpoint == mountpoint
    assert (found.client.url, found.client.token, found.client.limits) == (URL, None, Limits())
    assert (found.cache, found.view) == (CacheSettings(), ViewSettings(30.0, os.getuid(), os.getgid(), 0))
    assert not (found.allow_other or found.allow_root or found.foreground or found.debug or found.log_file)


def test_the_documented_defaults_are_the_real_ones() -> None:
    assert "(30)" in OPTIONS["refresh=SECONDS"] and ViewSettings().refresh == 30
    assert "a quarter" in OPTIONS["cache-size=SIZE"] and "1G" in OPTIONS["cache-size=SIZE"]
    assert CacheSettings().memory == min(1 << 30, memory_limit() // 4)
    assert "(128M" in OPTIONS["read-ahead=SIZE"] and CacheSettings().read_ahead == 128 << 20
    assert "(1024" in OPTIONS["read-ahead-kb=KIB"] and settings(Path("/mnt")).read_ahead_kib == 1024
    assert "(20G)" in OPTIONS["cache-dir-size=SIZE"] and CacheSettings().folder_size == 20 << 30
    assert "(86400;" in OPTIONS["reconcile=SECONDS"] and CatalogSettings().reconcile == 86400
    assert "(20)" in OPTIONS["timeout=SECONDS"] and Limits().idle == 20


def test_the_catalog_is_in_the_users_cache_folder_elsewhere_or_in_memory(
    mountpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert settings(mountpoint).catalog == CatalogSettings(tmp_path / "xdg" / "ivcapfs" / "catalog", 86_400.0)
    found = settings(mountpoint, f"catalog-dir={tmp_path / 'other'},reconcile=0").catalog
    assert found == CatalogSettings(tmp_path / "other", 0.0)
    assert settings(mountpoint, "catalog-dir=none,reconcile=60").catalog == CatalogSettings(None, 60.0)
    with pytest.raises(ConfigError, match="inside the mount"):
        settings(mountpoint, f"catalog-dir={mountpoint / 'x'}")


def test_every_option_arrives(mountpoint: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("the-token")
    token.chmod(0o600)
    found = settings(
        mountpoint,
        "allow_other,uid=12,gid=34,umask=027,refresh=1.5",
        f"cache-size=64M,read-ahead=1M,timeout=3,token-file={token},log-file={tmp_path / 'log'},allow-http,debug",
    )
    assert found.allow_other and not found.allow_root and found.debug and found.client.allow_http
    assert found.view == ViewSettings(1.5, 12, 34, 0o027)
    assert (found.cache.memory, found.cache.read_ahead) == (64 << 20, 1 << 20)
    assert (found.client.limits.idle, found.client.limits.connect) == (3.0, 3.0)
    assert found.client.token is not None and found.client.token.reveal() == "the-token"
    assert found.log_file == tmp_path / "log"
    assert settings(mountpoint, "allow_root").allow_root


def test_every_documented_option_is_known(mountpoint: Path) -> None:
    values = {"USER": "0", "GROUP": "0", "OCTAL": "022", "SECONDS": "5", "SIZE": "1M", "FILE": "x"}
    values |= {"DIR": "y", "KIB": "64", "CMD": "print-token --now", "PLACE": "journal", "URN": "urn:ivcap:policy:p"}
    for option in OPTIONS:
        name, _, kind = option.partition("=")
        assert parse_options([f"{name}={values[kind]}" if kind else name]) == {name: values[kind] if kind else ""}


@pytest.mark.parametrize("word", ["cache_size=1M", "cache-size=1M"])
def test_dashes_and_underscores_are_the_same(word: str) -> None:
    assert parse_options([word]) == {"cache-size": "1M"}
    assert parse_options(["allow-other"]) == parse_options(["allow_other"]) == {"allow_other": ""}


def test_the_last_of_several_counts() -> None:
    assert parse_options(["refresh=1,refresh=2", "debug", "refresh=3,,"]) == {"refresh": "3", "debug": ""}


def test_a_value_may_contain_an_equals_sign() -> None:
    assert parse_options(["log-file=/a=b"]) == {"log-file": "/a=b"}


@pytest.mark.parametrize("word", ["ro", "defaults", "nosuid", "nodev", "default_permissions"])
def test_what_a_mount_does_anyway_is_taken_without_a_word(word: str) -> None:
    assert parse_options([word]) == {}


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("no-such-option", "no-such-option"),
        ("no-such-option=1", "no-such-option"),
        ("=1", "unknown"),
        ("rw", "only reads"),
        ("debug=1", "debug takes no value"),
        ("refresh", "refresh needs a value"),
        ("refresh=", "refresh needs a value"),
        ("refresh=soon", "refresh"),
        ("refresh=-1", "refresh"),
        ("refresh=nan", "refresh"),
        ("refresh=inf", "refresh"),
        ("timeout=0", "timeout"),
        ("timeout=x", "timeout"),
        ("umask=888", "umask"),
        ("umask=7777", "umask"),
        ("umask=-1", "umask"),
        ("uid=no-such-user", "no-such-user"),
        ("gid=no-such-group", "no-such-group"),
        ("uid=²", "uid"),
        ("uid=-1", "-1"),
        ("uid=4294967295", "uid"),
        ("gid=99999999999999999999", "gid"),
        ("cache-size=big", "big"),
        ("read-ahead=-1", "-1"),
        ("read-ahead-kb=x", "read-ahead-kb"),
        ("allow_other,allow_root", "exclude each other"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(mountpoint: Path, option: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settings(mountpoint, option)


def test_an_unknown_option_is_answered_with_those_that_are_known(mountpoint: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(mountpoint, "cache=1M")
    assert "'cache'" in str(caught.value) and all(option in str(caught.value) for option in OPTIONS)


def test_users_and_groups_may_be_given_by_name(mountpoint: Path) -> None:
    found = settings(mountpoint, f"uid={pwd.getpwuid(0).pw_name},gid=0").view
    assert (found.uid, found.gid) == (0, 0)


def test_sizes_of_the_cache_arrive(mountpoint: Path, tmp_path: Path) -> None:
    cache = settings(mountpoint, f"read-ahead=0,cache-dir={tmp_path / 'blocks'},cache-dir-size=1G").cache
    assert (cache.read_ahead, cache.folder, cache.folder_size) == (0, tmp_path / "blocks", 1 << 30)
    assert settings(mountpoint, "read-ahead-kb=0").read_ahead_kib == 0


def test_memory_is_bounded_by_the_control_group_and_those_above_it(tmp_path: Path) -> None:
    whole = memory_limit(tmp_path)
    for folder in (tmp_path, tmp_path / "memory"):
        folder.mkdir(exist_ok=True)
        for name, limit in (("memory.max", "123456789"), ("memory.limit_in_bytes", "123456789")):
            (folder / name).write_text(f"{limit}\n")
    assert memory_limit(tmp_path) == 123456789 < whole
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory_limit(tmp_path) == whole


# -- places ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["log-file", "token-file"])
@pytest.mark.parametrize("below", ["log", "a/b/c", ".", "../mnt/log"])
def test_a_place_inside_the_mount_itself_is_refused(mountpoint: Path, option: str, below: str) -> None:
    with pytest.raises(ConfigError, match="inside the mount"):
        settings(mountpoint, f"{option}={mountpoint / below}")


def test_a_place_inside_the_mount_is_recognized_through_symbolic_links(mountpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(mountpoint)
    (tmp_path / "log").symlink_to(mountpoint / "log")
    for place, mounted in (("link/log", "mnt"), ("mnt/log", "link"), ("log", "mnt")):
        with pytest.raises(ConfigError, match="inside the mount"):
            settings(tmp_path / mounted, f"log-file={tmp_path / place}")


def test_a_place_beside_the_mount_is_taken(mountpoint: Path, tmp_path: Path) -> None:
    assert settings(mountpoint, f"log-file={tmp_path / 'mnt-log'}").log_file == tmp_path / "mnt-log"


def test_paths_are_made_absolute_and_free_of_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    monkeypatch.chdir(tmp_path / "a")
    wanted = {"b": "a/b", "..": "", ".": "a", "../link": "a/b", "../link/x": "a/b/x", "none/x": "a/none/x", "b/..": "a"}
    for path, real in wanted.items():
        assert absolute(Path(path)) == tmp_path / real


def test_a_token_command_may_have_commas(mountpoint: Path) -> None:
    found = settings(mountpoint, "debug,token-command=print-token --for 'a\\,b' c\\,d,refresh=5")
    assert found.client.token_command == ("print-token", "--for", "a,b", "c,d")
    assert found.debug and found.view.refresh == 5


def test_a_token_comes_from_one_place(mountpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        settings(mountpoint, f"token-command=x,token-file={tmp_path / 'token'}")
