"""Some hundred ways to be sent elsewhere, and leaks that the harness must find (``python -m tests.faults.canary``)."""

from __future__ import annotations

import pytest

from tests.faults import canary


def test_the_token_goes_to_the_deployment_alone() -> None:
    figures = canary.run(160)
    assert canary.is_clean(figures), figures
    assert figures["reached_others"] >= 40
    assert figures["token_at_the_deployment"] == 160


@pytest.mark.parametrize("name", canary.PLANTS)
def test_the_harness_finds_what_is_planted(name: str) -> None:
    with canary.PLANTS[name]():
        assert canary.run(60)["token_elsewhere"]
