"""When something ends that a person limits in time: the person writes a date, a time, or how long it lasts."""

from __future__ import annotations

from datetime import UTC, datetime

from streamguard.duration import seconds_of, written
from streamguard.errors import DataError
from streamguard.events.event_time import epoch_ms

MIN_SECONDS = 60.0
"""Shortest duration; a shorter one would be over before anybody notices it."""
MAX_SECONDS = 366 * 86_400.0
"""Longest duration; who means more states a time."""
_LAST_MS = 253_402_300_799_999
"""The end of the year 9999, which is the last one that RFC 3339 can write."""


class EndError(DataError):
    """A text is not an end that lies ahead."""


def end_ms(text: str, latest: int, now: int) -> int:
    """The end that a text states, epoch milliseconds.

    Parameters
    ----------
    text
        A date or a time, in UTC unless it says otherwise, or a duration such as `7d`, `12h` or `90m`.
    latest
        The end has to be later, epoch milliseconds.
    now
        A duration begins now, or at `latest` if that is later.

    Raises
    ------
    EndError
        If it is neither a time nor a duration, or is not later.

    Examples
    --------
    >>> end_ms("12h", 0, 1_700_000_000_000) - 1_700_000_000_000
    43200000
    >>> end_ms("2023-12-01", 0, 1_700_000_000_000)
    1701388800000
    """
    text = text.strip()
    seconds = seconds_of(text)
    if seconds is not None:
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            raise EndError(
                f"{text[:40]} is out of range: write at least {written(MIN_SECONDS)} and at most "
                f"{written(MAX_SECONDS)}, or a date"
            )
        return max(latest, now) + round(seconds * 1000)
    found = epoch_ms(text)
    if found is None or not -_LAST_MS < found <= _LAST_MS:
        raise EndError(
            "`until` is not a time and not a duration: write 2026-12-31, 2026-12-31T08:00:00Z, or 7d, 12h or 90m"
        )
    if found <= latest:
        passed = datetime.fromtimestamp(latest / 1000, UTC)
        raise EndError(
            f"`until` is not later than {passed:%Y-%m-%d %H:%M} UTC: write a later time, or how long it lasts, such as "
            "7d"
        )
    return found
