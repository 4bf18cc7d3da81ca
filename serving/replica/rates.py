"""The rates of a user now and in the long run, from counters that fade with four half-lives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamguard.alerts.usual import lived_seconds
from streamguard.compute.arithmetic import LN2
from streamguard.fold.dimensions import HALF_LIVES
from streamguard.serving.replica.profile import Rate

MONTH = len(HALF_LIVES) - 1
"""Place of the counters with a half-life of 30 days, which give the long-run rate."""


def usual_counter(profile: np.void, month: float, half_life: float) -> float:
    """Value that a counter with a half-life (seconds) has at the user's long-run rate.

    At a rate of r a second, a counter that loses half in h seconds stays at r h / ln 2.

    Parameters
    ----------
    month
        Value of the same counter with a half-life of 30 days.
    """
    return month / lived_seconds(profile) * half_life / LN2


def a_day(profile: np.void, month: float) -> float:
    """Long-run rate for a day, from a counter with a half-life of 30 days."""
    return month / lived_seconds(profile) * 86_400.0


def rates_of(profile: np.void) -> tuple[Rate, ...]:
    """Counters of the last minutes, hour and day beside their usual values."""

    def pair(name: str, j: int, half_life: float) -> Sequence[float]:
        counters = profile[name]
        usual = usual_counter(profile, float(counters[MONTH]), half_life)
        return round(float(counters[j]), 3), round(usual, 3)

    return tuple(
        Rate(
            int(half_life),
            *pair("count", j, half_life),
            *pair("failures", j, half_life),
            *pair("volume", j, half_life),
        )
        for j, half_life in enumerate(HALF_LIVES[:MONTH])
    )
