"""Durations as people write them: a number and its unit, such as `90m`, `12h` or `7d`."""

from __future__ import annotations

import re

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
"""Seconds of each unit."""
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|s|m|h|d)")


def seconds_of(text: str) -> float | None:
    """The seconds of a duration; None if it is not one.

    Examples
    --------
    >>> seconds_of("90m"), seconds_of("1.5h"), seconds_of("7d")
    (5400.0, 5400.0, 604800.0)
    >>> seconds_of("soon") is None
    True
    """
    found = _DURATION.fullmatch(text)
    return float(found[1]) * UNITS[found[2]] if found else None


def written(seconds: float) -> str:
    """A number of seconds in the notation that `seconds_of` reads.

    Examples
    --------
    >>> written(0.001), written(1.0), written(2_592_000.0)
    ('1ms', '1s', '30d')
    """
    unit = next(unit for unit in ("d", "h", "m", "s", "ms") if seconds >= UNITS[unit])
    return f"{seconds / UNITS[unit]:g}{unit}"
