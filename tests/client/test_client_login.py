"""Logins that last: a context's tokens are renewed and shared, files and programs asked again, users never mixed up."""

from __future__ import annotations

import io
import itertools
import logging
import os
import stat
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from ivcapfs import errors
from ivcapfs.client import Connection, connect
from ivcapfs.client.contextlogin import ContextSupply
from ivcapfs.client.login import log_in
from ivcapfs.client.renewal import RenewedToken
from ivcapfs.client.supplies import FileSupply, Owner
from ivcapfs.config import ClientSettings, client_settings
from ivcapfs.contexts import parse
from tests.client.fakeorigin import LIMITS, UUID, Asked, Origin, Reply, as_json, ranged, record
from tests.loginworld import CANARY, Deployment, jwt, write_contexts

DATA = bytes(range(256)) * 256


def platform(asked: Asked) -> Reply:
    if asked.path.endswith("/blob"):
        return ranged(DATA)(asked)
    if asked.path.endswith(UUID):
        return as_json(record(size=len(DATA)))
    return as_json({"items": [record(size=len(DATA))], "links": []})


class Taken:
    """The same, which takes uploads, too.

    Attributes:
        contents: of each upload, by its uuid.
    """

    def __init__(self) -> None:
        self.contents: dict[str, bytearray] = {}
        self._lock = threading.Lock()

    def __call__(self, asked: Asked) -> Reply:
        if asked.method == "POST":
            new = str(uuid4())
            with self._lock:
                self.contents[new] = bytearray()
            urn = f"urn:ivcap:artifact:{new}"
            fields = {"id": urn, "status": "pending", "size": None, "data-href": f"/1/artifacts/{urn}/blob"}
            return as_json(record(**fields), 201)
        named = asked.path.removeprefix("/1/artifacts/").removesuffix("/blob").rpartition("%3A")[2].rpartition(":")[2]
        with self._lock:
            content = self.contents.get(named)
            if content is None:
                return platform(asked)
            if asked.method == "GET":
                return as_json(record(id=f"urn:ivcap:artifact:{named}", size=len(content)))
            if asked.method == "PATCH":
                if int(asked.headers["upload-offset"]) != len(content):
                    return Reply(409)
                content += asked.body
            return Reply(204 if asked.method == "PATCH" else 200, {"Upload-Offset": str(len(content))})


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    deployment = Deployment(platform)
    with deployment.origin:
        yield deployment


@pytest.fixture
def file(deployment: Deployment, tmp_path: Path) -> Path:
    path = tmp_path / "ivcap-cli" / "config.yaml"
    write_contexts(path, deployment.origin.url, *deployment.log_in())
    return path


def settings_of(file: Path, name: str | None = "gov", **more: Any) -> ClientSettings:
    environ = {"XDG_CONFIG_HOME": str(file.parent.parent), "PATH": "/none"} | more
    found = client_settings(name, environ=environ)
    return replace(found, limits=LIMITS)


@pytest.fixture
def connection(file: Path) -> Iterator[Connection]:
    with connect(settings_of(file)) as connection:
        ask(connection)
        yield connection


def unhurried(settings: ClientSettings) -> Connection:
    """Return a connection whose renewals keep no distance."""
    assert settings.context is not None
    owner = Owner(settings.account_id, is_vouched=True)
    supply = ContextSupply(settings.context, settings, owner, settings.token_command)
    return connect(settings, tokens=RenewedToken(supply, supply.first(), pause=0.0))


def ask(connection: Connection) -> None:
    connection.api.list_artifacts_page(limit=1)


def read(connection: Connection, start: int = 0, stop: int = len(DATA)) -> bytes:
    with connection.blobs.open_range(UUID, start, stop, expected=None) as stream:
        return b"".join(stream)


def stands(file: Path) -> tuple[str, str]:
    context = parse(file.read_text(), file).find("gov")
    assert context.access_token and context.refresh_token
    return context.access_token.reveal(), context.refresh_token.reveal()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- a context -------------------------------------------------------------------------------------------------------


def test_the_token_of_the_context_is_used_as_it_is(connection: Connection, deployment: Deployment, file: Path) -> None:
    before = file.read_bytes()
    ask(connection)
    assert deployment.refreshes == 0 and file.read_bytes() == before


def test_a_refused_token_is_renewed_and_what_was_gained_is_noted(
    connection: Connection, deployment: Deployment, file: Path
) -> None:
    old = stands(file)
    deployment.expire()
    ask(connection)
    assert deployment.refreshes == 1
    new = stands(file)
    assert new != old and new[0] in deployment.access and new[1] in deployment.refresh
    assert "# my contexts" in file.read_text() and "# the one for work" in file.read_text()
    context = parse(file.read_text(), file).find("gov")
    assert context.expires == pytest.approx(time.time() + deployment.lifetime, abs=60)
    ask(connection)
    assert deployment.refreshes == 1


def test_a_token_is_renewed_in_time(deployment: Deployment, file: Path) -> None:
    access, refresh = deployment.log_in()
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 30))
    write_contexts(file, deployment.origin.url, access, refresh, **{"access-token-expiry": soon})
    with connect(settings_of(file)) as connection:
        ask(connection)
    assert deployment.refreshes == 1
    assert not any(asked.headers.get("authorization", "").endswith(access) for asked in deployment.origin.asked)


@pytest.mark.parametrize("access", ["", "''"])
def test_only_a_refresh_token_will_do(deployment: Deployment, file: Path, access: str) -> None:
    write_contexts(file, deployment.origin.url, access, deployment.log_in()[1])
    with connect(settings_of(file)) as connection:
        ask(connection)


def test_an_expiry_in_the_middle_of_a_read_is_not_noticed(connection: Connection, deployment: Deployment) -> None:
    deployment.platform = lambda asked: platform(asked) if not asked.path.endswith("/blob") else broken(asked)
    half = len(DATA) // 2

    def broken(asked: Asked) -> Reply:
        """Send half of what was asked for, and let the token expire meanwhile."""
        whole = ranged(DATA)(asked)
        assert isinstance(whole.body, bytes)
        if not asked.headers["range"].startswith("bytes=0-"):
            return whole
        deployment.expire()
        return Reply(whole.status, whole.headers, whole.body[:half], length=len(whole.body))

    assert read(connection) == DATA
    assert deployment.refreshes == 1


def test_where_refresh_tokens_do_not_rotate_the_old_one_stays(deployment: Deployment, file: Path) -> None:
    deployment.rotates = False
    refresh = stands(file)[1]
    with unhurried(settings_of(file)) as connection:
        for _ in range(3):
            deployment.expire()
            ask(connection)
    assert stands(file)[1] == refresh and deployment.refreshes == 3


@pytest.mark.parametrize("expiries", [10, pytest.param(500, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
@pytest.mark.parametrize("writers", [0, 8], ids=["readers", "readers and writers"])
def test_an_expiry_costs_one_renewal_and_nobody_an_error(
    deployment: Deployment, file: Path, expiries: int, writers: int
) -> None:
    """Each time that each of 32 threads has read, or uploaded, something, the token expires under them."""
    threads = 32
    done = [0] * threads
    ended = threading.Event()
    taken = Taken()
    deployment.platform = taken

    def reader(number: int) -> None:
        for start in itertools.cycle(range(number, len(DATA) - 512, 997)):
            if ended.is_set():
                return
            assert read(connection, start, start + 512) == DATA[start : start + 512]
            done[number] += 1

    def writer(number: int) -> None:
        while not ended.is_set():
            data = f"{number}/{done[number]} ".encode() * 100
            made = connection.uploads.upload(io.BytesIO(data), content_type="a/b", size=len(data), chunk=500)
            assert made.is_ready and taken.contents[made.uuid] == data
            done[number] += 1

    def all_have_gone_on() -> None:
        before = list(done)  # each may be receiving something that was sent before the last expiry
        while any(now < then + 2 for now, then in zip(done, before, strict=True)):
            assert not any(each.done() for each in running), [each.exception() for each in running if each.done()]
            time.sleep(0.002)

    with unhurried(settings_of(file)) as connection, ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(writer if number < writers else reader, number) for number in range(threads)]
        try:
            for _ in range(expiries):
                all_have_gone_on()
                deployment.expire()
            all_have_gone_on()
        finally:
            ended.set()
    assert [each.exception() for each in running] == [None] * threads
    assert (deployment.refreshes, deployment.refused) == (expiries, 0)
    assert stands(file)[0] in deployment.access and stands(file)[1] in deployment.refresh


# -- with others -----------------------------------------------------------------------------------------------------


def test_what_another_process_has_noted_is_taken_first(
    connection: Connection, deployment: Deployment, file: Path
) -> None:
    deployment.expire()
    write_contexts(file, deployment.origin.url, *deployment.log_in())
    ask(connection)
    assert deployment.refreshes == 0


def test_a_spent_refresh_token_is_no_end_where_another_process_notes_the_next_one(
    connection: Connection, deployment: Deployment, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The `ivcap` program has just used our refresh token, and will write in a moment."""
    monkeypatch.setattr("ivcapfs.client.contextlogin._OTHERS_SECONDS", 30.0)
    deployment.log_out()
    later = threading.Timer(0.2, write_contexts, (file, deployment.origin.url, *deployment.log_in()))

    def refuse(asked: Asked) -> Reply:
        later.start()
        return deployment.grant(asked)

    deployment.fault = refuse
    ask(connection)
    later.join()
    assert (deployment.refused, deployment.refreshes) == (1, 0)


def test_what_is_undone_by_a_stale_writer_is_put_right(
    connection: Connection, deployment: Deployment, file: Path
) -> None:
    stale = file.read_text()
    deployment.expire()
    ask(connection)
    gained = stands(file)
    file.write_text(stale)
    deadline = time.monotonic() + 20
    while stands(file) != gained:
        assert time.monotonic() < deadline
        ask(connection)
        time.sleep(0.05)
    deployment.expire()
    ask(connection)
    assert deployment.refused == 0


def test_a_new_login_is_not_overwritten(connection: Connection, deployment: Deployment, file: Path) -> None:
    """The user logs in while we wait for the issuer."""

    def slow(asked: Asked) -> Reply:
        reply = deployment.grant(asked)
        write_contexts(file, deployment.origin.url, *deployment.log_in())
        return reply

    deployment.expire()
    deployment.fault = slow
    ask(connection)
    assert stands(file)[1] in deployment.refresh and stands(file)[0] in deployment.access
    assert int(stands(file)[1].rpartition("-")[2]) == deployment.number


def test_two_mounts_share_one_login(deployment: Deployment, file: Path) -> None:
    with unhurried(settings_of(file)) as one, unhurried(settings_of(file)) as other:
        for _ in range(10):
            deployment.expire()
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(ask, [one, other] * 4))
    assert (deployment.refreshes, deployment.refused) == (10, 0)


def test_mode_links_and_leftovers(deployment: Deployment, file: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.yaml"
    file.rename(real)
    real.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(real, 12345, 23456)
    file.symlink_to(real)
    left_over = tmp_path / ".dotfiles.yaml.ivcapfs-killed"
    left_over.touch()
    with connect(settings_of(file)) as connection:
        deployment.expire()
        ask(connection)
    assert file.is_symlink() and stands(file)[0] in deployment.access
    found = real.stat()
    assert stat.S_IMODE(found.st_mode) == 0o640
    if os.geteuid() == 0:
        assert (found.st_uid, found.st_gid) == (12345, 23456)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".dotfiles.yaml.lock", "dotfiles.yaml", "ivcap-cli"]
    assert stat.S_IMODE((tmp_path / ".dotfiles.yaml.lock").stat().st_mode) == 0o600


def test_a_full_disk_loses_no_token(
    connection: Connection, deployment: Deployment, file: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    before = file.read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr("ivcapfs.client.contextfile.os.fsync", full)
        deployment.expire()
        ask(connection)
        assert file.read_bytes() == before and [each.name for each in file.parent.iterdir()].count("config.yaml") == 1
    assert any("kept in memory only: No space left" in line for line in told(caplog))
    deployment.expire()
    ask(connection)
    assert deployment.refused == 0 and stands(file)[1] in deployment.refresh
    assert not [path for path in file.parent.iterdir() if "ivcapfs" in path.name]


# -- the program -----------------------------------------------------------------------------------------------------


def program(folder: Path, code: str) -> Path:
    """Put a stand-in for the `ivcap` program on the PATH."""
    path = folder / "ivcap"
    path.write_text(f"#!{sys.executable}\n{code}")
    path.chmod(0o755)
    return path


def test_the_program_is_asked_where_it_is_installed(
    deployment: Deployment, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IVCAP_ACCESS_TOKEN", "which it would only repeat")
    token = deployment.log_in()[0]
    program(tmp_path, f"""
import os, sys
assert sys.argv[1:] == ["context", "get", "access-token", "--refresh-token", "--context", "gov"], sys.argv
assert "IVCAP_ACCESS_TOKEN" not in os.environ
print({token!r})
""")
    with connect(settings_of(file, PATH=str(tmp_path))) as connection:
        old = stands(file)[0]
        del deployment.access[old]
        ask(connection)
    assert deployment.refreshes == 0


@pytest.mark.parametrize("code", ["raise SystemExit('Error: no')", "print('')", "print({old!r})"])
def test_where_the_program_does_not_help_we_do_as_it_would(
    deployment: Deployment, file: Path, tmp_path: Path, code: str
) -> None:
    program(tmp_path, code.format(old=stands(file)[0]))
    with connect(settings_of(file, PATH=str(tmp_path))) as connection:
        deployment.expire()
        ask(connection)
    assert deployment.refreshes == 1


# -- nothing helps ---------------------------------------------------------------------------------------------------


def test_when_nothing_helps_it_is_said_once_and_a_login_is_enough(
    connection: Connection, deployment: Deployment, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deployment.log_out()
    for _ in range(10):
        with pytest.raises(errors.NotAuthenticated):
            ask(connection)
    assert deployment.refused == 1
    assert [line for line in told(caplog) if "ivcap context login --context gov" in line] == told(caplog)[:1]
    assert CANARY not in caplog.text
    write_contexts(file, deployment.origin.url, *deployment.log_in())
    ask(connection)
    assert len(told(caplog)) == 1


def test_no_refresh_token_no_renewal(deployment: Deployment, file: Path) -> None:
    write_contexts(file, deployment.origin.url, deployment.log_in()[0], "")
    with connect(settings_of(file)) as connection:
        ask(connection)
        deployment.expire()
        with pytest.raises(errors.NotAuthenticated):
            ask(connection)
    write_contexts(file, deployment.origin.url, "", "")
    with pytest.raises(errors.CredentialError, match="gov has no login: ivcap context login --context gov"):
        connect(settings_of(file))


def test_an_expired_login_is_told_when_all_begins(deployment: Deployment, file: Path) -> None:
    deployment.log_out()
    past = {"access-token-expiry": "2020-01-01T00:00:00Z"}
    write_contexts(file, deployment.origin.url, *stands(file), **past)
    with pytest.raises(errors.CredentialError, match="gov has an expired login: ivcap context login"):
        connect(settings_of(file))


@pytest.mark.parametrize(
    "fault",
    [
        Reply(500), Reply(200), Reply(200, {}, b"[]"), Reply(200, {}, b"{"), Reply(200, {}, b'{"access_token": 1}'),
        Reply(200, {}, b'{"access_token": ""}'), Reply(400, {}, b'{"error": "invalid_client"}'),
        Reply(302, {"Location": "https://evil.example/"}), Reply(307, {"Location": "/elsewhere"}),
        Reply(200, {}, b"x" * 1_000_000), Reply(200, {}, b'{"access_token": "a"', length=1000),
        Reply(raw=[b"SSH-2.0\r\n"]),
    ],
    ids=lambda reply: f"{reply.status}",
)  # fmt: skip
def test_an_issuer_that_fails_costs_no_login(
    connection: Connection, deployment: Deployment, file: Path, fault: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    before = file.read_bytes()
    deployment.fault = lambda asked: fault
    access = dict(deployment.access)
    deployment.expire()
    with pytest.raises(errors.NotAuthenticated):
        ask(connection)
    assert any("tried again every 5 s" in line for line in told(caplog)) and CANARY not in caplog.text
    assert file.read_bytes() == before
    assert {asked.path for asked in deployment.origin.asked} <= {"/1/artifacts", "/1/authinfo.yaml", "/oauth/token"}
    deployment.fault = None
    deployment.access = access
    ask(connection)


@pytest.mark.parametrize(
    "provider",
    [
        {"token-url": "http://issuer.example/token", "client-id": "c"},
        {"token-url": "https://169.254.169.254/token", "client-id": "c"},
        {"token-url": "https://user:pw@issuer.example/token", "client-id": "c"},
        {"token-url": "file:///etc/passwd", "client-id": "c"},
        {"client-id": "c"},
        {},
    ],
)
def test_the_refresh_token_goes_to_no_such_address(
    connection: Connection, deployment: Deployment, provider: dict[str, str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    info = {"version": 1, "auth": {"default-provider-id": "p", "providers": {"p": provider}}}
    monkeypatch.setattr(deployment, "authinfo", lambda: as_json(info))
    deployment.expire()
    with pytest.raises(errors.NotAuthenticated):
        ask(connection)
    assert deployment.refreshes == 0


def test_over_plain_http_nobody_is_told_the_refresh_token(deployment: Deployment, file: Path) -> None:
    with Origin(lambda asked: deployment.answer(asked)) as proxy:
        settings = settings_of(file)
        assert settings.context is not None
        far = ClientSettings("http://far.example", None, None, True, context=settings.context)
        write_contexts(file, far.url, "", stands(file)[1])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("http_proxy", proxy.url)
            patch.delenv("no_proxy", raising=False)
            with pytest.raises(errors.CredentialError, match="plain http"):
                log_in(far)
        assert proxy.asked == [] and deployment.refreshes == 0


# -- whose login -----------------------------------------------------------------------------------------------------


def test_the_identity_outlives_every_token(deployment: Deployment, file: Path) -> None:
    found = set()
    for _ in range(3):
        write_contexts(file, deployment.origin.url, *deployment.log_in())
        with connect(settings_of(file)) as connection:
            found.add(connection.identity)
    assert len(found) == 1
    write_contexts(file, deployment.origin.url, *deployment.log_in("bob"))
    with connect(settings_of(file)) as connection:
        assert connection.identity not in found


@pytest.mark.parametrize(
    "other", [{"subject": "bob"}, {"account-id": "urn:ivcap:account:2"}, {"url": "http://[::1]:1"}]
)
def test_the_login_of_another_user_is_not_taken(
    connection: Connection, deployment: Deployment, file: Path, other: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    ask(connection)
    deployment.log_out()
    access, refresh = deployment.log_in(other.pop("subject", "ada"))
    write_contexts(file, other.pop("url", deployment.origin.url), access, refresh, **other)
    for _ in range(3):
        with pytest.raises(errors.NotAuthenticated):
            ask(connection)
    assert len(told(caplog)) == 1 and "ivcap context login" in told(caplog)[0]
    assert not any(asked.headers.get("authorization", "").endswith(access) for asked in deployment.origin.asked)
    write_contexts(file, deployment.origin.url, *deployment.log_in("ada"))
    ask(connection)


def test_an_opaque_token_is_vouched_for_by_the_account_beside_it(deployment: Deployment, file: Path) -> None:
    deployment.access = {"opaque-1": 1e12, "opaque-2": 1e12}
    write_contexts(file, deployment.origin.url, "opaque-1", "r")
    with connect(settings_of(file)) as connection:
        ask(connection)
        del deployment.access["opaque-1"]
        write_contexts(file, deployment.origin.url, "opaque-2", "r")
        ask(connection)


# -- files and commands ----------------------------------------------------------------------------------------------


def token_file(path: Path, text: str) -> Path:
    path.touch(0o600)
    path.write_text(text + "\n")
    return path


def test_a_token_file_is_read_again_when_it_changes(deployment: Deployment, tmp_path: Path) -> None:
    path = token_file(tmp_path / "token", deployment.log_in()[0])
    with connect(ClientSettings(deployment.origin.url, limits=LIMITS, token_file=path)) as connection:
        for number in range(4):
            ask(connection)
            deployment.expire()
            new = token_file(tmp_path / "new", deployment.log_in()[0])
            if number % 2:
                new.replace(path)
            else:
                path.write_bytes(new.read_bytes())


@pytest.mark.parametrize("damage", ["gone", "open", "empty", "bob", "opaque"])
def test_a_token_file_that_becomes_unusable(
    deployment: Deployment, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = token_file(tmp_path / "token", deployment.log_in()[0])
    with connect(ClientSettings(deployment.origin.url, limits=LIMITS, token_file=path)) as connection:
        ask(connection)
        deployment.expire()
        deployment.access["opaque"] = 1e12
        token_file(path, {"empty": "", "bob": deployment.log_in("bob")[0], "opaque": "opaque"}.get(damage, "x"))
        if damage == "gone":
            path.unlink()
        elif damage == "open":
            path.chmod(0o644)
        for _ in range(3):
            with pytest.raises(errors.NotAuthenticated):
                ask(connection)
        assert (len(told(caplog)) == 1 and str(path) in told(caplog)[0]) or damage in ("bob", "opaque")
        path.unlink(missing_ok=True)
        token_file(path, deployment.log_in("ada")[0])
        ask(connection)


def test_what_a_file_says_of_changes(tmp_path: Path) -> None:
    path = token_file(tmp_path / "token", jwt(sub="a"))
    supply = FileSupply(path, Owner(None))
    first = supply.first()
    assert not supply.has_changed() and supply.look(first) is first
    os.utime(path, ns=(1, 1))
    assert supply.has_changed()
    assert supply.look(first) is first and not supply.has_changed()


def test_a_token_command_is_asked_again(deployment: Deployment, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text(deployment.log_in()[0])
    settings = ClientSettings(deployment.origin.url, limits=LIMITS, token_command=("cat", str(source)))
    with connect(settings) as connection:
        ask(connection)
        deployment.expire()
        source.write_text(deployment.log_in()[0])
        ask(connection)
    with pytest.raises(errors.CredentialError, match="cannot be run"):
        connect(ClientSettings(deployment.origin.url, token_command=("/does/not/exist",)))


def test_a_token_command_that_stays_with_its_token(
    deployment: Deployment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "source"
    source.write_text(deployment.log_in()[0])
    settings = ClientSettings(deployment.origin.url, limits=LIMITS, token_command=("cat", str(source)))
    with connect(settings) as connection:
        ask(connection)
        deployment.expire()
        for _ in range(3):
            with pytest.raises(errors.NotAuthenticated):
                ask(connection)
    assert len(told(caplog)) == 1 and "ivcap context login" in told(caplog)[0]


# -- the host header -------------------------------------------------------------------------------------------------


def test_the_host_header_goes_to_the_deployment_alone(deployment: Deployment, file: Path) -> None:
    write_contexts(file, deployment.origin.url, *deployment.log_in(), host="inside.example")
    with Origin(ranged(DATA)) as elsewhere:
        deployment.platform = lambda asked: (
            Reply(307, {"Location": f"{elsewhere.url}/signed?x=1"}) if asked.path.endswith("/blob") else platform(asked)
        )
        with connect(settings_of(file)) as connection:
            assert read(connection) == DATA
            deployment.expire()
            ask(connection)
        assert {asked.headers["host"] for asked in elsewhere.asked} == {elsewhere.url.removeprefix("http://")}
        assert not any("authorization" in asked.headers for asked in elsewhere.asked)
    ours = [asked for asked in deployment.origin.asked if asked.path != "/oauth/token"]
    assert {asked.headers["host"] for asked in ours} == {"inside.example"}
