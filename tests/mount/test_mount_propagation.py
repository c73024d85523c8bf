"""A mount that one container makes and others see, as docs/KUBERNETES.md and docs/MOUNTING.md have it: real namespaces.

The volume is a shared mount. A container is a mount namespace (the sidecar's also one of processes, whose first one is
ivcapfs), with the volume bound into it as an engine does for `Bidirectional` (rshared), `HostToContainer` (rslave) and
`None` (rprivate).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivcapfs.server.runner import Platform
from tests.mount.conftest import TOKEN
from tests.mount.private import Machine, made
from tests.mount.test_mount_faults import add

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces of its own")

PREPARE = """
mkdir volume; mount -t tmpfs tmpfs volume; mount --make-shared volume; mkdir volume/data
mkdir sidecar rslave rprivate late
# a Secret as the kubelet makes it: links, so that a new one is there at once
mkdir -p secret/..1; install -m 400 token secret/..1/token; ln -s ..1 secret/..data; ln -s ..data/token secret/token

# application PROPAGATION FOLDER: a container that has the volume; its process is in $application
application() {
  unshare --mount --propagation unchanged bash -ec '
    mount --rbind "$1/volume" "$1/$3"; mount --make-"$2" "$1/$3"; touch "$1/ready-$3"; exec sleep 600' \
    bash "$PWD" "$1" "$2" & application=$!
  soon test -e "ready-$2"
}
# sidecar OPTIONS…: in $sidecar is the process that waits for it, in $first its first process
sidecar() {
  unshare --mount --pid --fork --kill-child --mount-proc --propagation unchanged bash -ec '
    mount --rbind "$1/volume" "$1/sidecar"; mount --make-rshared "$1/sidecar"; where=$1/sidecar/data; shift
    exec "$@" "$where"' bash "$PWD" $python -P -m ivcapfs mount -f "$url" "$@" & sidecar=$!
  soon first_process
}
first_process() { read -r first _ <"/proc/$sidecar/task/$sidecar/children" || [ -n "$first" ]; }
soon() { for i in $(seq 600); do "$@" && return 0; sleep 0.1; done; echo "never: $*" >&2; return 1; }
within() { container=$1; shift; nsenter --target "$container" --mount --root -- "$@"; }
shows() { within "$1" cat "$PWD/$2/data/artifacts/data.bin" 2>/dev/null | cmp -s - bytes; }
empty() { [ -z "$(within "$1" ls -A "$PWD/$2/data")" ]; }
stale() { ! within "$1" stat "$PWD/$2/data" 2>said && grep -q 'not connected' said; }
options=allow_other,replace,refresh=1,catalog-dir=none,token-file=$PWD/secret/token
"""


@pytest.fixture
def machine(platform: Platform) -> Iterator[Machine]:
    """A machine with a token, an artifact's address and its bytes."""
    with made() as folder:
        machine = Machine(Path(folder))
        add(platform, "data.bin", b"these bytes")
        (machine.folder / "bytes").write_bytes(b"these bytes")
        (machine.folder / "token").write_text(TOKEN)
        yield machine


def run(machine: Machine, platform: Platform, script: str) -> None:
    """Run a script in the prepared machine; all of its processes end with it."""
    machine.succeed(f"url={platform.url}\n{PREPARE}{script}")


def test_the_application_sees_the_mount_come_and_go(machine: Machine, platform: Platform) -> None:
    script = """
application rslave rslave; early=$application
application rprivate rprivate; apart=$application
sidecar -o $options
soon shows $early rslave
shows $$ volume                        # the node
application rslave late; late=$application
shows $late late
empty $apart rprivate
within $early mountpoint -q $PWD/rslave/data
kill -TERM $first; wait $sidecar       # and its exit code is 0
empty $early rslave; empty $late late; empty $$ volume
nothing_is_left() { ! grep " $PWD/.* fuse.ivcapfs " /proc/self/mountinfo; }; nothing_is_left
"""
    run(machine, platform, script)


def test_a_sidecar_that_died_is_replaced_by_its_successor(machine: Machine, platform: Platform) -> None:
    script = """
application rslave rslave; early=$application
sidecar -o $options
soon shows $early rslave
kill -KILL $first; wait $sidecar || :
soon stale $early rslave
sidecar -o $options
soon shows $early rslave
kill -TERM $first; wait $sidecar
empty $early rslave
nothing_is_below() { ! within $early grep " $PWD/.* fuse.ivcapfs " /proc/self/mountinfo; }; nothing_is_below
"""
    run(machine, platform, script)


def test_what_is_mounted_goes_away_while_the_application_uses_it(machine: Machine, platform: Platform) -> None:
    script = """
application rslave rslave; early=$application
sidecar -o $options
soon shows $early rslave
within $early bash -c "exec 3<$PWD/rslave/data/artifacts/data.bin; cd $PWD/rslave/data; touch $PWD/held; sleep 600" &
soon test -e held
kill -TERM $first; wait $sidecar
empty $early rslave; empty $$ volume
"""
    run(machine, platform, script)


def test_a_new_secret_is_taken(machine: Machine, platform: Platform) -> None:
    """The deployment takes the second token alone: the mount begins by it only if it is read by way of the links."""
    script = """
echo wrong >wrong; mkdir secret/..0; install -m 400 wrong secret/..0/token; ln -sfn ..0 secret/..data
if $python -P -m ivcapfs mount -f $url -o $options $PWD/volume/data 2>said; then exit 1; fi
grep -q 'refuses the token' said
ln -s ..1 secret/..new; mv -T secret/..new secret/..data
sidecar -o $options
application rslave rslave
soon shows $application rslave
kill -TERM $first; wait $sidecar
"""
    run(machine, platform, script)
