"""Sources that fail: a set of addresses with the users for whom each failed and succeeded within hours."""

from __future__ import annotations

import numpy as np

from streamguard.compute.arithmetic import exp2, mix
from streamguard.compute.compiler import inline
from streamguard.fold import bitmap, population
from streamguard.fold.dimensions import FAR_MS

WAY_MASK = np.uint64(population.SOURCES // population.WAYS - 1)
HALF_LIFE = 3600.0
"""Seconds in which the failures and successes of a source lose half of their weight."""
NONE_LEFT = 0.25
"""Weight of failures or successes below which their users are forgotten: a single one is two half-lives old."""


@inline
def source_entry(sources, value):  # type: ignore[no-untyped-def]
    """Return the position of an address among the failing sources, or -1."""
    base = np.int64(mix(value) & WAY_MASK) * population.WAYS
    for w in range(population.WAYS):
        if sources[base + w].hash == value:
            return base + w
    return -1


@inline
def track_source(sources, dirty, value, user, ts):  # type: ignore[no-untyped-def]
    """Record that an address failed for a user; return its position.

    In a full set, the entry that has been silent for longest is replaced.
    """
    at = source_entry(sources, value)
    if at < 0:
        base = np.int64(mix(value) & WAY_MASK) * population.WAYS
        at = base
        for w in range(1, population.WAYS):
            if sources[base + w].last_ts < sources[at].last_ts:
                at = base + w
        forget_source(sources[at])
        sources[at].hash = value
        sources[at].last_ts = ts
        sources[at].incident_offset = -1
    e = sources[at]
    age_source(e, ts)
    e.failures += 1.0
    bitmap.mark(e.users, user)
    dirty[at // population.SOURCES_PER_PAGE] = 1
    return at


@inline
def age_source(e, ts):  # type: ignore[no-untyped-def]
    """Decay the failures and successes of a source up to a time."""
    g = exp2(-max(np.float64(ts - e.last_ts), 0.0) * 1e-3 / HALF_LIFE)
    e.failures *= g
    e.successes *= g
    if e.failures < NONE_LEFT:
        bitmap.clear(e.users)
    if e.successes < NONE_LEFT:
        bitmap.clear(e.welcome)
    e.last_ts = ts if e.last_ts > ts + FAR_MS else max(e.last_ts, ts)


@inline
def forget_source(e):  # type: ignore[no-untyped-def]
    """Empty an entry for another address."""
    e.failures = 0.0
    e.successes = 0.0
    bitmap.clear(e.users)
    bitmap.clear(e.welcome)
    e.incident_patterns = np.uint64(0)
    e.incident_count = 0
