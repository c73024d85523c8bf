"""`ivcapfs doctor`: all is well on a healthy machine, and of each fault the right line fails and names the remedy."""

from __future__ import annotations

import base64
import json
import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from ivcapfs.client.auth import given
from ivcapfs.config import ClientSettings, Secret
from ivcapfs.doctor import deployment, machine, network
from ivcapfs.doctor.result import Level, Result
from ivcapfs.doctor.rounds import rounds
from ivcapfs.server.runner import Platform
from tests import certificates
from tests.client.fakeorigin import as_json
from tests.client.fakeproxy import Proxy
from tests.loginworld import CANARY, Deployment, write_contexts
from tests.mount.conftest import TOKEN, Faults, clean_env, ivcapfs, run
from tests.mount.private import Machine, made
from tests.mount.test_mount_faults import add

NAMES = [
    *("kernel", "/dev/fuse", "fusermount3", "fusermount3 setuid", "libfuse", "user_allow_other", "cache folder"),
    *("mounts", "proxy", "DNS", "TLS", "clock", "token", "list", "range"),
]
DEAD = "http://127.0.0.1:9"


def doctor(*words: object, **env: str) -> dict[str, Any]:
    """Run the command, see that its exit code says the same as its report, and return name -> check."""
    result = run(*ivcapfs("doctor", "--json", *words), env=clean_env(**env))
    told = json.loads(result.stdout)
    assert result.returncode == (0 if told["ok"] else 1), result.stderr
    assert TOKEN not in result.stdout + result.stderr
    return {check["check"]: check for check in told["checks"]}


def failing(checks: dict[str, Any]) -> list[str]:
    """Return the names of the checks that failed; each of them names a remedy."""
    failed = [check for check in checks.values() if check["level"] == "fail"]
    assert all(check["remedy"] for check in failed)
    return [check["check"] for check in failed]


@pytest.fixture
def url(platform: Platform) -> str:
    """The platform's address, with one artifact on it."""
    add(platform, "data.bin")
    return platform.url


def test_all_is_well_on_a_healthy_machine(url: str, tmp_path: Path) -> None:
    checks = doctor(url, "-o", f"cache-dir={tmp_path / 'cache'}", IVCAP_JWT=TOKEN)
    assert list(checks) == NAMES
    checks.pop("mounts")  # of others on this machine
    assert {check["level"] for check in checks.values()} == {"ok"}, checks
    assert not (tmp_path / "cache").exists()


def test_a_line_each(url: str) -> None:
    lines = run(*ivcapfs("doctor", url), env=clean_env(IVCAP_JWT="wrong")).stdout.splitlines()
    assert [line[6:].partition(": ")[0] for line in lines] == NAMES
    assert "fail  token: the deployment refuses it. Remedy: ivcap context login, or another token" in lines


def test_no_fusermount(url: str) -> None:
    checks = doctor(url, IVCAP_JWT=TOKEN, PATH="/nowhere")
    assert failing(checks) == ["fusermount3"]
    assert checks["fusermount3"]["remedy"] == "apt install fuse3"
    assert checks["fusermount3 setuid"]["level"] == "skip"


def test_a_fusermount_that_is_not_setuid(tmp_path: Path) -> None:
    program = tmp_path / "fusermount3"
    program.touch(mode=0o755)
    found = machine.setuid_bit(str(program))
    assert found.level in (Level.WARN, Level.FAIL)
    assert found.remedy == f"chown root {program} && chmod 4755 {program}"


@pytest.mark.parametrize(("token", "said"), [("wrong", "the deployment refuses it"), ("", "there is none")])
def test_a_refused_token(url: str, token: str, said: str) -> None:
    checks = doctor(url, IVCAP_JWT=token)
    assert failing(checks) == ["token"]
    assert said in checks["token"]["said"]
    assert "ivcap context login" in checks["token"]["remedy"]


def jwt(seconds: float) -> Secret:
    """Return a token that expires so many seconds from now."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + seconds}).encode()).decode().rstrip("=")
    return Secret(f"e30.{claims}.c2ln")


@pytest.mark.parametrize(
    ("seconds", "later", "status", "level", "said"),
    [
        (7300, "", 200, Level.OK, "lives for 2 h 1 min"),
        (300, "", 200, Level.WARN, "expires in 4 min"),
        (300, "then another", 200, Level.OK, "lives for 4 min; then another"),
        (-4000, "", 401, Level.FAIL, "expired 1 h 6 min ago"),
        (-4000, "then another", 200, Level.WARN, "by this clock it expired"),
    ],
)
def test_the_life_of_a_token(seconds: float, later: str, status: int, level: Level, said: str) -> None:
    source, answer = deployment.Source(later, "log in"), deployment.Answer(status, None, 0.0)
    found = deployment.token(given(jwt(seconds)), source, answer, time.time())
    assert (found.level, said in found.said) == (level, True), found


# -- the token is that of the source that a mount would use ----------------------------------------------------------


@pytest.fixture
def gov(tmp_path: Path) -> Iterator[Deployment]:
    """A deployment, and a login there as the context `gov` of a home in `tmp_path`."""
    empty = {"items": [], "links": [], "at-time": "2026-06-01T00:00:00Z"}
    deployment = Deployment(lambda asked: as_json(empty))
    with deployment.origin:
        write_contexts(tmp_path / "ivcap-cli" / "config.yaml", deployment.origin.url, *deployment.log_in())
        yield deployment


def token_of(home: Path, *words: object, **env: str) -> dict[str, str]:
    """Return what is said of the token; that everything else is well if it is, and that no token is told."""
    checks = doctor(*words, XDG_CONFIG_HOME=str(home), PATH=os.defpath, **env)
    assert CANARY not in str(checks)
    found: dict[str, str] = checks["token"]
    assert failing(checks) == (["token"] if found["level"] == "fail" else [])
    return found


def test_a_context(gov: Deployment, tmp_path: Path) -> None:
    found = token_of(tmp_path, "gov")
    assert found["level"] == "ok" and found["said"].endswith("; then the login gives another")
    assert gov.refreshes == 0


def test_a_context_whose_token_is_refused_or_expired_is_renewed_as_by_a_mount(gov: Deployment, tmp_path: Path) -> None:
    gov.expire()
    assert token_of(tmp_path, "gov")["level"] == "ok"
    assert gov.refreshes == 1
    file = tmp_path / "ivcap-cli" / "config.yaml"
    write_contexts(file, gov.origin.url, jwt(-60).reveal(), gov.new_refresh())
    assert token_of(tmp_path)["level"] == "ok"
    assert gov.refreshes == 2


@pytest.mark.parametrize("seconds", [-60, 3600])
def test_a_context_that_is_logged_out(gov: Deployment, tmp_path: Path, seconds: float) -> None:
    write_contexts(tmp_path / "ivcap-cli" / "config.yaml", gov.origin.url, jwt(seconds).reveal(), "v1.spent")
    found = token_of(tmp_path, "gov")
    assert (found["level"], found["remedy"]) == ("fail", "ivcap context login --context gov")
    assert "has an expired login" in found["said"] if seconds < 0 else "refuses it" in found["said"]
    assert found["remedy"] not in found["said"]


def test_a_context_that_cannot_be_renewed_and_ends_soon(gov: Deployment, tmp_path: Path) -> None:
    gov.lifetime = 300
    file = tmp_path / "ivcap-cli" / "config.yaml"
    write_contexts(file, gov.origin.url, gov.log_in()[0], "none")
    file.write_text(file.read_text().replace("      refresh-token: none\n", ""))
    found = token_of(tmp_path, "gov")
    assert (found["level"], found["remedy"]) == ("warn", "ivcap context login --context gov")


def test_a_token_command_runs_where_a_mounts_does(gov: Deployment, tmp_path: Path) -> None:
    command = f"sh -c 'pwd > {tmp_path}/folder; echo {gov.log_in()[0]}'"
    found = token_of(tmp_path, gov.origin.url, "-o", f"token-command={command}", IVCAP_JWT="another")
    assert found["level"] == "ok" and found["said"].endswith("; then the token command is asked")
    assert (tmp_path / "folder").read_text() == "/\n"


@pytest.mark.parametrize(
    ("command", "said"), [("false", "failed (1)"), ("echo wrong", "refuses it"), ("no-such-program", "cannot be run")]
)
def test_a_token_command_that_gives_no_good_token(gov: Deployment, tmp_path: Path, command: str, said: str) -> None:
    found = token_of(tmp_path, gov.origin.url, "-o", f"token-command={command}")
    assert (found["level"], said in found["said"]) == ("fail", True), found
    assert found["remedy"] == f"see why {command.split()[0]} gives no good token"


@pytest.mark.parametrize("is_good", [True, False])
def test_a_token_file(gov: Deployment, tmp_path: Path, is_good: bool) -> None:
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(gov.log_in()[0] if is_good else "spent")
    found = token_of(tmp_path, gov.origin.url, "-o", f"token-file={file}")
    assert (found["level"], str(file) in found["said" if is_good else "remedy"]) == ("ok" if is_good else "fail", True)


# -- the way there ---------------------------------------------------------------------------------------------------


def results(url: str, **more: Any) -> dict[str, Result]:
    """Run the checks here, in this process."""
    settings = ClientSettings(url, Secret(TOKEN))
    return {result.check: result for result in rounds(settings, "", Path("/tmp/ivcapfs-none"), **more)}


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_an_hour_off(url: str, hours: int) -> None:
    found = results(url, clock=lambda: time.time() + hours * 3600)
    assert [name for name, result in found.items() if result.level is Level.FAIL] == ["clock"]
    seconds, _, words = found["clock"].said.partition(" s ")
    assert abs(int(seconds) - 3600) < 60
    assert words == f"{'ahead of' if hours > 0 else 'behind'} the deployment's"
    assert "timedatectl" in found["clock"].remedy


def test_no_range_support(url: str, faults: Faults) -> None:
    faults.rule = lambda scope: Response(b"all of it") if scope["path"].endswith("/blob") else None
    checks = doctor(url, IVCAP_JWT=TOKEN)
    assert failing(checks) == ["range"]
    assert "Range requests" in checks["range"]["remedy"]


def test_an_account_that_may_not_list(url: str, faults: Faults) -> None:
    faults.rule = lambda scope: JSONResponse({"message": "no"}, 403)
    checks = doctor(url, IVCAP_JWT=TOKEN)
    assert failing(checks) == ["list"]
    assert "permission" in checks["list"]["remedy"]


def test_a_server_that_is_no_deployment(url: str, faults: Faults) -> None:
    faults.rule = lambda scope: Response("<html>welcome</html>")
    assert "list" in failing(doctor(url, IVCAP_JWT=TOKEN))


def test_an_empty_deployment(platform: Platform) -> None:
    checks = doctor(platform.url, IVCAP_JWT=TOKEN)
    assert failing(checks) == []
    assert checks["range"]["level"] == "skip"


def test_an_unreachable_proxy() -> None:
    checks = doctor("https://ivcap.example.org", IVCAP_JWT=TOKEN, HTTPS_PROXY="http://user:secret-9@127.0.0.1:9")
    assert failing(checks) == ["proxy"]
    assert "HTTPS_PROXY" in checks["proxy"]["remedy"]
    assert "secret-9" not in str(checks)
    assert checks["list"]["level"] == "skip"


def test_no_proxy_and_this_machine_are_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", DEAD)
    monkeypatch.setenv("NO_PROXY", "internal.example.org")
    assert network.proxy("https://ivcap.example.org").level is Level.FAIL
    assert network.proxy("https://internal.example.org").level is Level.OK
    assert network.proxy("https://127.0.0.1:1").level is Level.OK


def test_the_way_through_a_proxy_that_asks_who_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates.make(tmp_path, "ivcap.example.org")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    with served_by_tls(tmp_path) as port, Proxy({"ivcap.example.org": port}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("://", "://ada:p%40ss@"))
        monkeypatch.setenv("NO_PROXY", "ivcap.example.org:8443,10.0.0.0/8")
        assert network.name("https://ivcap.example.org").said == "the proxy asks for ivcap.example.org"
        found = network.connection("https://ivcap.example.org")
        assert (found.level, "is good for 99 days" in found.said) == (Level.OK, True), found
        assert proxy.connects == ["ivcap.example.org:443"]
        assert "proxy-authorization: basic ywrhonbac3m=" in proxy.heads[0].lower()  # of ada:p@ss
        # what a mount would ask directly
        for excepted in ("https://ivcap.example.org:8443", "https://10.1.2.3"):
            assert network.proxy(excepted).said == "none for this address"


@pytest.mark.parametrize("given", ["socks5://127.0.0.1:9", "http://:8080"])
def test_a_proxy_that_no_mount_could_use(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", given)
    found = network.proxy("https://ivcap.example.org")
    assert (found.level, "cannot be used" in found.said) == (Level.FAIL, True)


def test_authorities_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    found = network.connection("https://127.0.0.1:9")
    assert (found.level, "SSL_CERT_FILE" in found.remedy) == (Level.FAIL, True)


def test_nobody_listens() -> None:
    checks = doctor(DEAD, IVCAP_JWT=TOKEN)
    assert failing(checks) == ["TLS"]
    assert "network" in checks["TLS"]["remedy"]


def test_an_unknown_name() -> None:
    checks = doctor("https://no-such-host.invalid", IVCAP_JWT=TOKEN)
    assert failing(checks) == ["DNS"]


def test_a_certificate_that_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates.make(tmp_path, "localhost")
    with served_by_tls(tmp_path) as port:
        found = network.connection(f"https://localhost:{port}")
        assert (found.level, "SSL_CERT_FILE" in found.remedy) == (Level.FAIL, True)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        found = network.connection(f"https://localhost:{port}")
        assert (found.level, "is good for 99 days" in found.said) == (Level.OK, True), found


class served_by_tls:  # noqa: N801 - reads as a function
    """A context with a server that does nothing but the TLS handshake; gives its port."""

    def __init__(self, folder: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "cert.pem", folder / "key.pem")

    def __enter__(self) -> int:
        import socket
        import threading

        self._listening = socket.create_server(("localhost", 0))

        def serve() -> None:
            while True:
                try:
                    accepted, _ = self._listening.accept()
                except OSError:
                    return
                try:
                    with accepted, self._context.wrap_socket(accepted, server_side=True) as peer:
                        peer.recv(1)
                except OSError:
                    pass

        self._thread = threading.Thread(target=serve)
        self._thread.start()
        return int(self._listening.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        import socket

        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(30)


@pytest.fixture
def private() -> Iterator[Machine]:
    """A machine with a read-only folder."""
    with made() as folder:
        yield Machine(Path(folder))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a namespace of its own")
@pytest.mark.parametrize("below", ["", "/not/made/yet"])
def test_a_read_only_cache(private: Machine, url: str, below: str) -> None:
    (private.folder / "token").write_text(TOKEN)
    (private.folder / "token").chmod(0o600)
    options = f"cache-dir=$PWD/ro{below},token-file=$PWD/token"
    said = private.run(f"mkdir ro; mount -t tmpfs -o ro tmpfs ro; ivcapfs doctor {url} --json -o {options}").stdout
    checks = {check["check"]: check for check in json.loads(said)["checks"]}
    assert failing(checks) == ["cache folder"]
    assert "cache-dir" in checks["cache folder"]["remedy"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a namespace of its own")
def test_no_device_and_an_ordinary_user(private: Machine) -> None:
    script = "mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; ivcapfs doctor --json"
    checks = {check["check"]: check for check in json.loads(private.run(script).stdout)["checks"]}
    assert failing(checks) == ["/dev/fuse", "deployment"]
    assert "modprobe fuse" in checks["/dev/fuse"]["remedy"]
    script = "chmod 600 /dev/fuse; as_nobody {} -P -m ivcapfs doctor --json"
    said = private.run(script.format("env PYTHONPATH=$PYTHONPATH $python")).stdout
    checks = {check["check"]: check for check in json.loads(said)["checks"]}
    assert checks["/dev/fuse"]["level"] == "fail"
    assert checks["user_allow_other"]["level"] == "warn"


def test_an_old_kernel() -> None:
    assert machine.kernel("4.4.0-generic").level is Level.WARN
    assert machine.kernel("6.1.0-13-amd64").level is Level.OK


def test_nothing_is_named() -> None:
    checks = doctor()
    assert failing(checks) == ["deployment"]
    assert {checks[name]["level"] for name in NAMES[8:]} == {"skip"}


def test_a_wrong_option_is_no_finding(url: str) -> None:
    result = run(*ivcapfs("doctor", url, "-o", "frobnicate"), env=clean_env())
    assert (result.returncode, "frobnicate" in result.stderr) == (1, True)
