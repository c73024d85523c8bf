"""``ivcapfs uploads`` with real mounts, and ``ivcapfs umount`` of a mount that is still to send something."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ivcap_client.ivcap import IVCAP as SDK
from starlette.responses import Response

from ivcapfs.server.runner import Platform
from tests.mount.conftest import Faults, Mount, Mounter, clean_env, eventually, is_mounted, ivcapfs, process, run

UPLOAD = "user.ivcap.upload"
WRITE_AND_DIE = (
    "import os, signal, sys\n"
    "with open(sys.argv[1], 'wb') as file:\n"
    "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
)


def uploads(mounter: Mounter, *words: object) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of ``ivcapfs uploads``."""
    command, *rest = words
    result = run(*ivcapfs("uploads", command, "--spool-dir", mounter.spool, *rest), env=clean_env())
    return result.returncode, result.stdout, result.stderr


def listed(mounter: Mounter) -> dict[str, dict[str, Any]]:
    """Return what ``uploads list --json`` tells, by path."""
    code, text, said = uploads(mounter, "list", "--json")
    assert (code, said) == (0, "")
    return {each["path"]: each for each in json.loads(text)}


def interrupted(mount: Mount, name: str) -> Path:
    """Leave a file whose writer was killed."""
    path = mount.artifacts / name
    assert run(sys.executable, "-c", WRITE_AND_DIE, path).returncode == -signal.SIGKILL
    eventually(lambda: os.getxattr(path, UPLOAD).startswith(b"interrupted"), "the file is interrupted")
    return path


def contents(sdk: SDK) -> dict[str, bytes]:
    """Return the contents of all artifacts, by name."""
    found = [sdk.get_artifact(each.id) for each in sdk.list_artifacts(limit=None) if each.status == "ready"]
    return {each.name: b"".join(each.as_stream()) for each in found}


def refuse_completion(faults: Faults, status: int) -> None:
    """Have the platform refuse the end of every upload, and nothing else."""

    def rule(scope: dict[str, Any]) -> Any:
        is_end = scope["method"] == "PATCH" and b"upload-length" in dict(scope["headers"])
        return Response(status_code=status) if is_end else None

    faults.rule = rule


def test_a_file_of_a_mount_is_shown_and_sent_by_it(platform: Platform, mounter: Mounter, sdk: SDK) -> None:
    mount = mounter(platform.url, "write")
    interrupted(mount, "a.bin")
    (mount.artifacts / ".local").write_text("stays")
    files = listed(mounter)
    told = files["artifacts/a.bin"]
    assert (told["state"], told["reason"], told["size"]) == ("interrupted", "who wrote it was killed", 4)
    assert (told["mountpoint"], told["deployment"]) == (str(mount.path), platform.url)
    assert files["artifacts/.local"]["state"] == "local"
    code, printed, said = uploads(mounter, "retry", told["id"][:6])
    assert (code, said) == (0, "")
    urn, name = printed.split()
    assert name == "a.bin"
    assert os.getxattr(mount.artifacts / "a.bin", "user.ivcap.id").decode() == urn
    assert contents(sdk) == {"a.bin": b"half"}
    code, _, said = uploads(mounter, "retry", files["artifacts/.local"]["id"])
    assert code == 1
    assert "stay local" in said
    assert uploads(mounter, "retry", "--all") == (0, "", "no new file is to be sent again\n")


def test_the_reason_of_a_failed_file_is_told_and_it_stays(platform: Platform, mounter: Mounter, faults: Faults) -> None:
    mount = mounter(platform.url, "write")
    interrupted(mount, "a.bin")
    interrupted(mount, "b.bin")
    faults.rule = lambda scope: Response(status_code=403) if scope["method"] == "POST" else None
    code, printed, said = uploads(mounter, "retry", "--all")
    assert (code, printed) == (1, "")
    for name, line in zip(("a.bin", "b.bin"), said.splitlines(), strict=True):
        assert line.startswith(f"ivcapfs: artifacts/{name}: {mount.artifacts / name} was not sent: failed: ")
        assert "the server answered 403" in line
    assert {each["state"] for each in listed(mounter).values()} == {"failed"}


def test_a_file_of_a_mount_is_discarded_and_copied_out(platform: Platform, mounter: Mounter, tmp_path: Path) -> None:
    mount = mounter(platform.url, "write")
    path = interrupted(mount, "a.bin")
    id = listed(mounter)["artifacts/a.bin"]["id"]
    assert uploads(mounter, "export", id, tmp_path / "copy") == (0, f"{tmp_path / 'copy'}\n", "")
    assert (tmp_path / "copy").read_bytes() == b"half"
    assert uploads(mounter, "discard", id) == (0, "", "")
    assert not path.exists()
    assert uploads(mounter, "list") == (0, "no new file waits in the spool\n", "")
    code, _, said = uploads(mounter, "discard", id)
    assert (code, said) == (1, f"ivcapfs: no new file has the id {id}: ivcapfs uploads list shows them\n")


@pytest.mark.parametrize("again", ["", "after a restart"])
def test_what_is_an_artifact_whose_aspect_was_refused_stays_until_that_is_given_up(
    platform: Platform, mounter: Mounter, sdk: SDK, faults: Faults, again: str
) -> None:
    """To remove or rename it would be no more than to hide it for a moment."""
    mount = mounter(platform.url, "write")
    path = mount.artifacts / "a.bin"
    with path.open("wb") as file:
        file.write(b"whole")
        os.setxattr(path, "user.ivcap.aspect.urn:test:schema:mark", b'{"n": 1}')
        faults.rule = lambda scope: Response("not you", 403) if scope["path"] == "/1/aspects" else None
    eventually(lambda: listed(mounter)["artifacts/a.bin"]["state"] == "failed", "the aspect was refused")
    if again:
        assert run(*ivcapfs("umount", mount.path)).returncode == 0
        mount = mounter(platform.url, "write")
        path = mount.artifacts / "a.bin"
    file = listed(mounter)["artifacts/a.bin"]
    with pytest.raises(OSError) as caught:
        path.unlink()
    assert caught.value.errno == errno.EBUSY
    with pytest.raises(PermissionError):
        path.rename(mount.artifacts / "b.bin")
    assert uploads(mounter, "discard", file["id"]) == (0, "", "")
    assert uploads(mounter, "list") == (0, "no new file waits in the spool\n", "")
    eventually(lambda: path.exists() and path.read_bytes() == b"whole", "it is shown as the artifact that it is")
    assert contents(sdk) == {"a.bin": b"whole"}
    with pytest.raises(PermissionError):
        path.unlink()


def test_what_no_mount_has_is_sent_by_the_command(platform: Platform, mounter: Mounter, sdk: SDK) -> None:
    mount = mounter(platform.url, "write")
    (mount.artifacts / "survey").mkdir()
    interrupted(mount, "survey/a.bin")
    assert run(*ivcapfs("umount", mount.path)).returncode == 0
    _, text, _ = uploads(mounter, "list")
    assert text.split()[-2:] == ["no", "mount"]
    code, _, said = uploads(mounter, "retry", "--all")  # without the token
    assert code == 1
    assert "it was written by another user of" in said
    assert f"mounted as {platform.url}: name that context" in said
    option = f"token-file={mounter.token_file}"
    code, printed, said = uploads(mounter, "retry", "--all", "-o", option)
    assert (code, said) == (0, "")
    assert printed.endswith("  survey/a.bin\n")
    assert contents(sdk) == {"survey/a.bin": b"half"}
    assert listed(mounter) == {}


def test_umount_sends_what_is_closed(platform: Platform, mounter: Mounter, sdk: SDK) -> None:
    mount = mounter(platform.url, "write", settle=3600)
    for number in range(5):
        (mount.artifacts / f"{number}.txt").write_text(str(number))
    assert contents(sdk) == {}
    result = run(*ivcapfs("umount", mount.path))
    assert (result.returncode, result.stderr) == (0, "")
    assert contents(sdk) == {f"{number}.txt": str(number).encode() for number in range(5)}
    assert listed(mounter) == {}


def test_a_wait_that_is_ended_leaves_the_mount(
    platform: Platform, mounter: Mounter, sdk: SDK, faults: Faults
) -> None:
    mount = mounter(platform.url, "write", settle=0)
    refuse_completion(faults, 503)
    (mount.artifacts / "a.txt").write_text("a")
    with process(*ivcapfs("umount", mount.path)) as leaving:
        eventually(lambda: faults.asked("PATCH .*"), "the end of the upload was tried")
        time.sleep(1.0)
        assert leaving.poll() is None, "it waits"
        leaving.send_signal(signal.SIGINT)
        assert leaving.wait(30) == 130
    assert is_mounted(mount.path)
    assert (mount.artifacts / "a.txt").read_text() == "a"
    faults.rule = lambda scope: None
    assert run(*ivcapfs("umount", mount.path)).returncode == 0
    assert contents(sdk) == {"a.txt": b"a"}


def test_umount_now_leaves_it_to_the_next_mount(
    platform: Platform, mounter: Mounter, sdk: SDK, faults: Faults
) -> None:
    mount = mounter(platform.url, "write", settle=0, timeout=2)
    refuse_completion(faults, 503)
    (mount.artifacts / "a.txt").write_text("a")
    assert run(*ivcapfs("umount", "--now", mount.path)).returncode == 0
    told = listed(mounter)["artifacts/a.txt"]
    assert (told["state"], told["mountpoint"]) == ("closed", None)
    faults.rule = lambda scope: None
    again = mounter(platform.url, "write")
    eventually(lambda: not listed(mounter), "the next mount has sent it")
    assert contents(sdk) == {"a.txt": b"a"}
    assert (again.artifacts / "a.txt").read_text() == "a"


def test_the_mount_that_took_a_file_over_is_asked(platform: Platform, mounter: Mounter, sdk: SDK) -> None:
    first = mounter(platform.url, "write")
    interrupted(first, "a.bin")
    assert run(*ivcapfs("umount", first.path)).returncode == 0
    second = mounter(platform.url, "write")
    told = eventually(lambda: listed(mounter).get("artifacts/a.bin"), "it is there")
    assert told["mountpoint"] == str(second.path)
    assert uploads(mounter, "retry", told["id"])[0] == 0
    assert contents(sdk) == {"a.bin": b"half"}
    with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
        os.getxattr(second.artifacts / "a.bin", UPLOAD)
