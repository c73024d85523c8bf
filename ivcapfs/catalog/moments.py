"""Times that people write as the name of a folder below `at/`.

Used by `ivcapfs.fs.at`. Pure: no clock, no state; any thread may call it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import unquote

LONGEST = 200
"""Characters of the longest text that is looked at."""

_MOMENT = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[Tt ](?P<minute>\d\d:\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d+))?)?"
    r"(?P<zone>[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)?)?",
    re.ASCII,
)


def parse_moment(text: str) -> datetime | None:
    """Return the moment in UTC that a text means, or None where it means none.

    Takes RFC 3339, also percent-escaped (``10%3A00``). A date is its beginning, and what has no zone is UTC; seconds
    may be left out. Digits beyond microseconds are cut off, and a leap second is the end of the second before it.
    """
    if len(text) > LONGEST:
        return None
    if "%" in text:
        text = unquote(text, errors="replace")
    match = _MOMENT.fullmatch(text)
    if match is None:
        return None
    second, fraction = match["second"] or "00", (match["fraction"] or "").ljust(6, "0")[:6]
    is_leap = second == "60"
    if is_leap:
        second, fraction = "59", "999999"
    zone = (match["zone"] or "Z").upper().replace("Z", "+00:00")
    try:
        local = datetime.fromisoformat(f"{match['date']}T{match['minute'] or '00:00'}:{second}.{fraction}{zone}")
        moment = local.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return None if is_leap and (moment.hour, moment.minute) != (23, 59) else moment


def moment_text(moment: datetime) -> str:
    """Return the one way in which we write a moment: RFC 3339 in UTC, a fraction only where there is one."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


