"""Some thousand fuzzed answers, and a bug that the harness has to find (long: ``python -m tests.faults.fuzz``)."""

from __future__ import annotations

from tests.faults import fuzz


def test_fuzzed_answers_end_in_errors_of_ours_in_time_and_leave_no_memory_behind() -> None:
    figures = fuzz.run(seed=2, answers=2000)
    assert fuzz.is_clean(figures), figures
    assert figures["answers"] >= 2000
    assert set(figures["outcomes"]) >= {"right", "ProtocolError", "EIO"}


def test_the_harness_finds_what_is_planted() -> None:
    plant, where = fuzz.PLANTS["times are read without their checks"]
    with plant():
        assert fuzz.run(seed=2, answers=200)[where]
