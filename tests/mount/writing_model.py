"""Random operations on names and files through one mount, against a plain model of what a user expects.

Used by the small form in `test_mount_writing_model.py` and the long one in `tests/long`. The model knows files that are
new (they can be changed, renamed and removed) and those that are artifacts (they cannot). Nothing settles by itself;
the rule `settle` makes artifacts of all.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import ClassVar

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from ivcap_client.ivcap import IVCAP as SDK

from tests.mount.conftest import Mount
from tests.mount.writing import arrived, made

FOLDERS = ("", "a", "b/c")
NAMES = st.sampled_from(("one", "two.txt", "three ü", ".hidden"))
PLACES = st.tuples(st.sampled_from(FOLDERS), NAMES).map(lambda place: "/".join(filter(None, place)))
CONTENT = st.binary(max_size=200) | st.integers(1, 9).map(lambda n: bytes([n]) * 40_000)


class WritingMachine(RuleBasedStateMachine):
    """See the module; `compare` runs it. Each run has a folder of its own."""

    mount: Mount
    sdk: SDK
    checked: ClassVar[set[str]]  # ids of earlier runs' artifacts
    runs: ClassVar[int]
    steps: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        type(self).runs += 1
        self.prefix = f"run{type(self).runs}"
        self.root = self.mount.artifacts / self.prefix
        self.new: dict[str, bytes] = {}
        self.artifacts: dict[str, list[bytes]] = {}
        for folder in FOLDERS:
            (self.root / folder).mkdir(parents=True, exist_ok=True)

    def path(self, place: str) -> Path:
        """Return the path of a place."""
        return self.root / place

    @staticmethod
    def is_hidden(place: str) -> bool:
        """Return whether a file stays here."""
        return place.rpartition("/")[2].startswith(".")

    def content(self, place: str) -> bytes | None:
        """Return what a place shows."""
        if place in self.new:
            return self.new[place]
        return self.artifacts[place][0] if place in self.artifacts else None

    @rule(place=PLACES, content=CONTENT)
    def create(self, place: str, content: bytes) -> None:
        """Write a file, new or in place of what is there."""
        self.path(place).write_bytes(content)
        self.new[place] = content

    @rule(place=PLACES, content=CONTENT)
    def append(self, place: str, content: bytes) -> None:
        """Append to a file: to a new one alone."""
        try:
            with self.path(place).open("ab") as file:
                file.write(content)
        except PermissionError:
            assert place in self.artifacts
            assert place not in self.new
        else:
            assert place not in self.artifacts or place in self.new
            self.new[place] = self.new.get(place, b"") + content

    @rule(place=PLACES)
    def unlink(self, place: str) -> None:
        """Remove a file: a new one alone; what it hid is there again."""
        try:
            self.path(place).unlink()
        except OSError as exc:
            assert place not in self.new
            assert exc.errno == (errno.EPERM if place in self.artifacts else errno.ENOENT)
        else:
            del self.new[place]

    @rule(old=PLACES, new=PLACES)
    def rename(self, old: str, new: str) -> None:
        """Rename a file: a new one alone."""
        try:
            self.path(old).rename(self.path(new))
        except OSError as exc:
            assert old not in self.new
            assert exc.errno == (errno.EPERM if old in self.artifacts else errno.ENOENT)
        else:
            if old != new:
                self.new[new] = self.new.pop(old)

    @rule(place=PLACES)
    def read(self, place: str) -> None:
        """Read a file."""
        try:
            found: bytes | None = self.path(place).read_bytes()
        except FileNotFoundError:
            found = None
        assert found == self.content(place)

    @rule()
    def list(self) -> None:
        """List all folders; files whose name another one has taken over have others than we ask for."""
        for folder in FOLDERS:
            shown = {name for name in os.listdir(self.root / folder) if "@" not in name}
            places = {*self.new, *self.artifacts}
            expected = {place.rpartition("/")[2] for place in places if place.rpartition("/")[0] == folder}
            assert shown == expected | {"": {"a", "b"}}.get(folder, set())

    @precondition(lambda self: any(not self.is_hidden(place) for place in self.new))
    @rule()
    def settle(self) -> None:
        """All new files that are not hidden become artifacts."""
        arrived(self.mount)
        for place in [place for place in self.new if not self.is_hidden(place)]:
            self.artifacts.setdefault(place, []).insert(0, self.new.pop(place))

    @invariant()
    def count(self) -> None:
        """Count the steps."""
        type(self).steps += 1

    def teardown(self) -> None:
        """Compare with what the platform has in the end."""
        self.settle()
        for place in list(self.new):
            self.unlink(place)
        found = made(self.sdk, self.checked)
        assert found == {f"{self.prefix}/{place}": contents for place, contents in self.artifacts.items()}
        self.checked.update(listed.id for listed in self.sdk.list_artifacts(limit=None))
        self.read_all()

    def read_all(self) -> None:
        """Read every place once more."""
        for place in self.artifacts:
            assert self.path(place).read_bytes() == self.content(place)


def compare(mount: Mount, sdk: SDK, *, runs: int, steps: int, number: int | None = None) -> str:
    """Run the machine on a fresh deployment; return a line of figures.

    Args:
        steps: at most, in each run.
        number: the seed, where the same is to be done each time.
    """

    class Machine(WritingMachine):
        pass

    Machine.mount, Machine.sdk = mount, sdk
    Machine.checked, Machine.runs, Machine.steps = set(), 0, 0
    run_state_machine_as_test(
        Machine if number is None else seed(number)(Machine),
        settings=settings(
            max_examples=runs, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    assert Machine.steps > runs * steps // 4
    assert "Traceback" not in mount.logged()
    return f"{Machine.steps} steps in {Machine.runs} runs, seed {number}: no difference"
