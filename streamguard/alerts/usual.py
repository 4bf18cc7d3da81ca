"""What is usual for a user, in words: values, hours, amounts and times, as reasons and profiles show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamguard.fold.dimensions import MONTH
from streamguard.fold.patterns import lived

TextOf = Callable[[int], str | None]
"""Dictionary of the partition: hash -> text."""

AN_OLDER_VALUE = "an older value"
"""Stands for a value whose text the dictionary no longer holds."""

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def lived_seconds(profile: np.void) -> float:
    """Seconds that the user's counters with a half-life of 30 days stand for, see `streamguard.fold.patterns.lived`."""
    age = (int(profile["active_ms"]) - int(profile["first_active_ms"])) / 1000
    return float(lived.py_func(2.0 ** (-age / MONTH)))


def failure_share(profile: np.void) -> float:
    """Share of the user's learned events that failed."""
    return float(profile["learned_failures"]) / max(float(profile["learned"]), 1.0)


class HeldValue(NamedTuple):
    """A value that a sketch of a user holds: its text or `AN_OLDER_VALUE`, its weight, its share of the sketch, and
    its slot."""

    text: str
    weight: float
    share: float
    slot: int


def held_values(profile: np.void, sketch: int, text_of: TextOf) -> list[HeldValue]:
    """The values that a sketch holds, the most frequent first."""
    total = float(profile["sketch_total"][sketch])
    weights, hashes = profile["sketch_weight"][sketch], profile["sketch_hash"][sketch]
    return [
        HeldValue(text_of(int(hashes[q])) or AN_OLDER_VALUE, float(weights[q]), float(weights[q]) / total, q)
        for q in np.argsort(-weights, kind="stable").tolist()
        if total > 0.0 and hashes[q] != 0
    ]


def usual_values(profile: np.void, sketch: int, text_of: TextOf) -> str:
    """The most frequent values of a user with their shares, at most three."""
    if profile["sketch_total"][sketch] <= 0.0:
        return "nothing known yet"
    held = held_values(profile, sketch, text_of)[:3]
    parts = [f"{one.text} ({one.share:.0%})" for one in held if one.share >= 0.01]
    return ", ".join(parts) or "no dominant value"


def usual_hours(hours: NDArray[np.float32]) -> str:
    """The hours of the week that hold most of a user's events, in words."""
    total = float(hours.sum())
    if total <= 0.0:
        return "nothing known yet"
    by_hour = hours.reshape(7, 24).sum(axis=0)
    order = np.argsort(-by_hour, kind="stable")
    kept = np.sort(order[: int(np.searchsorted(np.cumsum(by_hour[order]), 0.9 * total)) + 1])
    weekend = float(hours[120:].sum()) / total
    return f"{spans(kept.tolist())} UTC, {weekend:.0%} at weekends"


def spans(hours: list[int]) -> str:
    """Ascending hours as ranges.

    Examples
    --------
    >>> spans([8, 9, 10, 14])
    '8-11 h, 14-15 h'
    """
    out: list[list[int]] = []
    for hour in hours:
        if out and out[-1][1] == hour:
            out[-1][1] = hour + 1
        else:
            out.append([hour, hour + 1])
    return ", ".join(f"{a}-{b} h" for a, b in out)


def hour_name(hour: int) -> str:
    """An hour of the week in words.

    Examples
    --------
    >>> hour_name(167)
    'Sun 23 h UTC'
    """
    return f"{_DAYS[hour // 24 % 7]} {hour % 24} h UTC"


def amount(size: float) -> str:
    """Bytes in words.

    Examples
    --------
    >>> amount(1_250_000)
    '1.2 MB'
    """
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} B"


def span(seconds: float) -> str:
    """A duration in words.

    Examples
    --------
    >>> span(0.25), span(90), span(200_000)
    ('0.2 s', '2 minutes', '2 days')
    """
    for unit, length in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10.0 else f"{seconds:.1f} s"
