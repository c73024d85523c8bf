"""Times as people write them: every spelling of a moment is that moment, and nonsense is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcapfs.catalog.moments import moment_text, parse_moment

NOON = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
zones = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(
    st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)), zones, st.sampled_from("Tt "), st.booleans(), st.booleans()
)
def test_every_spelling_of_a_moment_is_that_moment(
    naive: datetime, zone: timezone, separator: str, escaped: bool, nines: bool
) -> None:
    moment = naive.replace(tzinfo=UTC)
    text = moment.astimezone(zone).isoformat(separator, timespec="microseconds")
    if nines:
        text = text[:26] + "999" + text[26:]
    assert parse_moment(quote(text, safe="") if escaped else text) == moment
    assert parse_moment(moment_text(moment)) == moment
    assert parse_moment(moment.date().isoformat()) == datetime(moment.year, moment.month, moment.day, tzinfo=UTC)


@given(st.one_of(st.text(max_size=30), st.from_regex(r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?)?")))
def test_any_text_is_a_moment_in_utc_or_none(text: str) -> None:
    moment = parse_moment(text)
    assert moment is None or (moment.tzinfo is UTC and parse_moment(moment_text(moment)) == moment)


@pytest.mark.parametrize(
    "text",
    [
        *("2026-06-01T12:00:00Z", "2026-06-01t12:00:00z", "2026-06-01T22:00:00+10:00", "2026-06-01 12:00:00-00:00"),
        *("2026-06-01T12:00Z", "2026-06-01T12:00:00", "2026-06-01T12%3A00%3a00.0Z", "2026-06-01T22:00:00%2B10:00"),
        "2026-06-01T12:00:00.0000009Z",
    ],
)
def test_these_are_all_noon(text: str) -> None:
    assert parse_moment(text) == NOON


def test_a_leap_second_is_the_end_of_the_second_before_it() -> None:
    assert parse_moment("2016-12-31T23:59:60Z") == datetime(2016, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert parse_moment("2017-01-01T10:59:60.5+11:00") == datetime(2016, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert parse_moment("2016-12-31T12:00:60Z") is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "yesterday", "2026", "2026-06", "20260601", "2026-W23-1", "2026-02-30", "2026-13-01"),
        *("2026-06-01T", "2026-06-01T24:00:00Z", "2026-06-01T12Z", "2026-06-01T12:00:61Z", "2026-06-01T12:60:00Z"),
        *("2026-06-01T12:00:00+24:00", "2026-06-01T12:00:00+10", "2026-06-01Z", "2026-06-01T12:00:00ZZ", "HEAD"),
        *(".git", "٢٠٢٦-06-01", " 2026-06-01", "2026-06-01\n", "0001-01-01T00:00:00+10:00", "0000-01-01"),
        "2026-06-01T12:00:00." + "1" * 300,
    ],
)
def test_these_are_none(text: str) -> None:
    assert parse_moment(text) is None
