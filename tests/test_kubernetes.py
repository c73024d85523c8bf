"""The manifest of docs/kubernetes: it fits together, passes mounts on, and ivcapfs takes what it says."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

import ivcapfs
from ivcapfs.cli import main
from ivcapfs.config import parse_size
from ivcapfs.fs.mount import END_SECONDS
from ivcapfs.options import parse_options

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "kubernetes"
MANIFEST = FOLDER / "sidecar.yaml"
POD: dict[str, Any] = yaml.safe_load(MANIFEST.read_text())
SPEC: dict[str, Any] = POD["spec"]
CONTAINERS: dict[str, dict[str, Any]] = {each["name"]: each for each in SPEC["initContainers"] + SPEC["containers"]}
SIDECAR, APPLICATION, MOUNT_POINT = (CONTAINERS[name] for name in ("ivcapfs", "application", "mount-point"))
VOLUMES: dict[str, dict[str, Any]] = {each["name"]: each for each in SPEC["volumes"]}

CONTAINER_FIELDS = {
    *("name", "image", "command", "args", "env", "resources", "securityContext", "volumeMounts", "restartPolicy"),
    *("startupProbe", "readinessProbe", "livenessProbe", "lifecycle"),
}
"""Those of the API (core/v1 Container) that may be there; a misspelt one is refused by kubectl, and here."""
PROBE_FIELDS = {"exec", "periodSeconds", "timeoutSeconds", "failureThreshold", "initialDelaySeconds"}
MOUNT_FIELDS = {"name", "mountPath", "mountPropagation", "readOnly"}
QUANTITY = re.compile(r"\d+(m|Ki|Mi|Gi)?")


def called(words: list[str]) -> tuple[str, dict[str, Any]]:
    """Return what our own command line makes of words: the command and its parameters."""
    name, *rest = words
    return name, main.commands[name].make_context(name, rest).params


def options() -> dict[str, str]:
    return parse_options(called(SIDECAR["args"])[1]["options"])


def mounted(container: dict[str, Any], volume: str) -> dict[str, Any]:
    """Return how a container has a volume."""
    return next(each for each in container.get("volumeMounts", ()) if each["name"] == volume)


def volume_of(container: dict[str, Any], path: str) -> str:
    """Return the volume in which a path of a container lies."""
    places = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    return next(places[str(folder)] for folder in PurePosixPath(path).parents if str(folder) in places)


def quantity(text: str) -> int:
    """Return bytes for `512Mi`."""
    return parse_size(f"{text}B")


def test_it_is_one_pod_and_the_only_manifest() -> None:
    assert [path.name for path in FOLDER.iterdir()] == ["sidecar.yaml"]
    assert len(list(yaml.safe_load_all(MANIFEST.read_text()))) == 1
    assert (POD["apiVersion"], POD["kind"]) == ("v1", "Pod")
    assert len(CONTAINERS) == len(SPEC["initContainers"]) + len(SPEC["containers"])


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_has_known_fields_and_declared_volumes(name: str) -> None:
    container = CONTAINERS[name]
    assert container.keys() <= CONTAINER_FIELDS
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    assert all(isinstance(word, str) for word in [*container.get("command", ()), *container.get("args", ())])
    for mount in container["volumeMounts"]:
        assert mount.keys() <= MOUNT_FIELDS and mount["name"] in VOLUMES
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container.get(kind, {}).keys() <= PROBE_FIELDS
    for amounts in container.get("resources", {}).values():
        assert all(QUANTITY.fullmatch(str(amount)) for amount in amounts.values())


def test_no_volume_is_declared_for_nobody() -> None:
    assert VOLUMES.keys() == {mount["name"] for each in CONTAINERS.values() for mount in each["volumeMounts"]}


def test_ours_are_of_one_image_and_of_this_version() -> None:
    assert SIDECAR["image"] == MOUNT_POINT["image"] == f"registry.example.org/ivcapfs:{ivcapfs.__version__}"


def test_the_sidecar_is_one_and_begins_after_the_folder_is_made() -> None:
    assert [each["name"] for each in SPEC["initContainers"]] == ["mount-point", "ivcapfs"]
    assert SIDECAR["restartPolicy"] == "Always" and "restartPolicy" not in MOUNT_POINT
    assert "command" not in SIDECAR  # the image's entry point is ivcapfs
    assert called(SIDECAR["args"])[1]["words"][-1] in MOUNT_POINT["command"][-1]


def test_our_command_line_takes_the_sidecars() -> None:
    name, parameters = called(SIDECAR["args"])
    source, mountpoint = parameters["words"]
    assert (name, parameters["foreground"], source) == ("mount", True, "https://api.example.org")
    assert {"allow_other", "replace", "token-file"} <= options().keys()
    volume = volume_of(SIDECAR, mountpoint)
    assert mountpoint != mounted(SIDECAR, volume)["mountPath"]  # below it: a stale one must not be the volume itself


def test_the_application_sees_the_mount() -> None:
    mountpoint = PurePosixPath(called(SIDECAR["args"])[1]["words"][-1])
    volume = volume_of(SIDECAR, str(mountpoint))
    assert mounted(SIDECAR, volume)["mountPropagation"] == "Bidirectional"
    assert mounted(APPLICATION, volume)["mountPropagation"] == "HostToContainer"
    within = mountpoint.relative_to(mounted(SIDECAR, volume)["mountPath"])
    assert str(PurePosixPath(mounted(APPLICATION, volume)["mountPath"]) / within) in " ".join(APPLICATION["command"])
    assert VOLUMES[volume]["emptyDir"] == {}


def test_only_the_sidecar_is_privileged() -> None:
    assert SIDECAR["securityContext"]["privileged"] is True  # Kubernetes demands it for Bidirectional
    for container in (APPLICATION, MOUNT_POINT):
        context = container["securityContext"]
        assert not context.get("privileged") and context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
    assert APPLICATION["securityContext"]["runAsNonRoot"] and SPEC["automountServiceAccountToken"] is False


def test_the_token_is_a_file_that_only_the_sidecar_sees() -> None:
    file = options()["token-file"]
    volume = volume_of(SIDECAR, file)
    secret = VOLUMES[volume]["secret"]
    assert secret["defaultMode"] == 0o400 and not secret["defaultMode"] & 0o077
    assert "fsGroup" not in SPEC.get("securityContext", {}) and SIDECAR["securityContext"]["runAsUser"] == 0
    assert [name for name, each in CONTAINERS.items() if any(m["name"] == volume for m in each["volumeMounts"])] == [
        "ivcapfs"
    ]
    command = f"create secret generic {secret['secretName']} --from-file={PurePosixPath(file).name}="
    assert command in MANIFEST.read_text() and command in (ROOT / "docs" / "KUBERNETES.md").read_text()
    assert not any("env" in each for each in CONTAINERS.values())


@pytest.mark.parametrize("kind", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_a_probe_asks_the_mount(kind: str) -> None:
    command = SIDECAR[kind]["exec"]["command"]
    mountpoint = called(SIDECAR["args"])[1]["words"][-1]
    if command[0] == "ivcapfs":
        name, parameters = called(command[1:])
        assert (name, str(parameters["mountpoint"])) == ("status", mountpoint)
    else:
        assert command == ["mountpoint", "-q", mountpoint]


def test_sigterm_unmounts_in_time_and_nothing_else_is_done() -> None:
    assert SPEC["terminationGracePeriodSeconds"] > END_SECONDS
    assert not any("lifecycle" in each for each in CONTAINERS.values())


def test_memory_and_disk_are_bounded() -> None:
    assert "cache-size" not in options()  # a quarter of the limit
    assert quantity(SIDECAR["resources"]["limits"]["memory"]) >= quantity("512Mi")
    volume = volume_of(SIDECAR, options()["cache-dir"])
    assert quantity(VOLUMES[volume]["emptyDir"]["sizeLimit"]) > quantity(options()["cache-dir-size"])
