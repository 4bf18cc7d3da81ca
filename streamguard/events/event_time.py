"""The time of an event, from the numbers and texts by which logs write it."""

from __future__ import annotations

import re
from datetime import UTC, datetime

DAY_MS = 86_400_000
"""Milliseconds of a day."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_ZONE = re.compile(r"\s*(?:UTC|GMT|Z)\Z")
_OFFSET = re.compile(r"\s+(?=[+-][0-9]{2}:?[0-9]{2}\Z)")
_LEAP_SECOND = re.compile(r"(?<=[0-9]{2}:[0-9]{2}:)60")
_MAX_CHARACTERS = 64


def epoch_ms(stamp: int | float | str) -> int | None:
    """Convert a timestamp in any common unit to epoch milliseconds; None if it cannot be read.

    A number below 1e11 is read as seconds, below 1e14 as milliseconds, below 1e17 as microseconds, above as
    nanoseconds: the years 2000 to 2099 fall into a separate range in each unit. A text is RFC 3339, ISO 8601 or such a
    number; without a UTC offset it is read as UTC.

    Examples
    --------
    >>> epoch_ms(1.7e9) == epoch_ms("2023-11-14T22:13:20Z") == epoch_ms(1_700_000_000_000_000) == 1_700_000_000_000
    True
    >>> epoch_ms("2023-11-14 22:13:20 UTC") == epoch_ms("20231114T221320z") == epoch_ms("1.7e9") == 1_700_000_000_000
    True
    >>> epoch_ms("yesterday") is None
    True
    """
    if type(stamp) is int and 100_000_000_000 <= stamp < 100_000_000_000_000:
        return stamp
    if isinstance(stamp, str):
        if len(stamp) > _MAX_CHARACTERS:
            return None
        text = stamp.strip()
        if not _NUMBER.fullmatch(text):
            return _of_text(text)
        stamp = float(text)
    magnitude = abs(stamp)
    for limit, factor in ((1e11, 1000), (1e14, 1), (1e17, 1e-3), (1e25, 1e-6)):
        if magnitude < limit:
            return round(stamp * factor)
    return None


def _of_text(text: str) -> int | None:
    """RFC 3339 as the standard library reads it; in lower case, with a leap second, and with blanks before its zone."""
    late = 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        plain = _OFFSET.sub("", _ZONE.sub("+00:00", text.upper()))
        plain, late = _LEAP_SECOND.subn("59", plain, count=1)
        try:
            moment = datetime.fromisoformat(plain)
        except ValueError:
            return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000) + 1000 * late
