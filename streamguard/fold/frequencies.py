"""How common each value is among all users: a count-min table, and what is left for unseen values."""

from __future__ import annotations

import numpy as np

from streamguard.compute.arithmetic import mix
from streamguard.compute.compiler import inline
from streamguard.fold import population
from streamguard.fold.dimensions import SKETCHES

WIDTH_MASK = np.uint64(population.WIDTH - 1)
FIELD_OUTCOME = len(SKETCHES)
"""Field of the outcome: type, status and reason together."""
UNSEEN_PRIOR = 20.0
"""Values that are added to those of a field, so that the first ones are no certain news."""


@inline
def cells(field, value):  # type: ignore[no-untyped-def]
    """Positions of the two counters of a field's value in the frequency table."""
    h = mix(value + np.uint64(population.FIELD_SALTS[field]))
    return np.int64(h & WIDTH_MASK), np.int64((h >> np.uint64(32)) & WIDTH_MASK)


@inline
def frequency(table, field, value):  # type: ignore[no-untyped-def]
    """Number of events with a value, half-life 30 days; it may be too high by those of values in the same cells."""
    a, b = cells(field, value)
    return min(table[0, a], table[1, b])


@inline
def popularity(p, table, field, value):  # type: ignore[no-untyped-def]
    """Share of a value among all users (Witten and Bell 1991); an unseen value has that of one event.

    All unseen values together have a larger share, but then one that was seen once would surprise more than one that
    was never seen.
    """
    seen = frequency(table, field, value)
    total = p.field_total[field] + 1.0
    fresh = (p.novel[field] + 1.0) / (p.novel_total[field] + UNSEEN_PRIOR)
    return (1.0 - fresh) * seen / total if seen > 0.0 else 1.0 / (p.novel_total[field] + UNSEEN_PRIOR)


@inline
def learn_value(table, dirty, field, value):  # type: ignore[no-untyped-def]
    """Count a value in the frequency table, conservatively (Estan and Varghese 2002); return whether it was new."""
    a, b = cells(field, value)
    old = min(table[0, a], table[1, b])
    new = old + 1.0
    table[0, a] = max(table[0, a], new)
    table[1, b] = max(table[1, b], new)
    dirty[a // population.PAGE] = 1
    dirty[(population.WIDTH + b) // population.PAGE] = 1
    return old == 0.0
