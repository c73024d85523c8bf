"""Some hundred faults, and the bugs that the harness has to find (the long form: ``python -m tests.faults.reads``)."""

from __future__ import annotations

import pytest

from tests.faults import reads
from tests.faults.worlds import floor


def test_reads_are_right_or_fail_as_declared_and_in_time_whatever_the_server_does() -> None:
    figures = reads.run(floor, seed=1, faults=400, grace=15.0)  # other work may hold this machine up
    assert reads.is_clean(figures), figures
    assert figures["faults"] >= 400
    assert figures["kinds"] >= 40
    assert figures["right"] > 100


@pytest.mark.parametrize("name", ["Content-Range is not looked at", "JSON is read without its checks"])
def test_the_harness_finds_what_is_planted(name: str) -> None:
    plant, only, where = reads.PLANTS[name]
    with plant():
        assert reads.run(floor, 1, 40, 10.0, only)[where]
