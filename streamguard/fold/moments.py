"""Means and variances of a user's intervals, volumes and threat scores, and how far a value is from them."""

from __future__ import annotations

import math

from streamguard.compute.compiler import inline

INTERVAL, VOLUME, THREAT = range(3)
"""Places in the fields `moments`, `mean` and `variance` of a profile."""
MEMORY = 200.0
"""Memory of means and variances, in events."""
SHRINKING = 5.0
"""Values that a user needs so that half of a deviation counts."""
INTERVAL_FLOOR = VOLUME_FLOOR = 1.0
"""Least variance of the logarithms: half as much and twice as much are usual."""
THREAT_FLOOR = 0.0025
"""Least variance of threat scores, which are between 0 and 1: a difference of a twentieth is usual."""


@inline
def deviation(s, k, x, floor):  # type: ignore[no-untyped-def]
    """Deviation of x from the user's mean in standard deviations, shrunk while few values were seen.

    Parameters
    ----------
    k
        Place of the quantity.
    floor
        Variance that is added.
    """
    weight = s.moments[k]
    return (x - s.mean[k]) / math.sqrt(s.variance[k] + floor) * (weight / (weight + SHRINKING))


@inline
def learn_moment(s, k, x, weight):  # type: ignore[no-untyped-def]
    """Exponentially weighted mean and variance (West 1979) with a memory of `MEMORY` events."""
    if weight <= 0.0:
        return
    s.moments[k] = min(s.moments[k] + weight, MEMORY)
    share = weight / s.moments[k]
    d = x - s.mean[k]
    s.mean[k] += share * d
    s.variance[k] = (1.0 - share) * (s.variance[k] + share * d * d)
