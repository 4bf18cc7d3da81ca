"""Values that users take up together: a source, place, host or agent that is new to several known users."""

from __future__ import annotations

import numpy as np

from streamguard.compute.arithmetic import mix
from streamguard.compute.compiler import inline
from streamguard.fold import bitmap, population
from streamguard.fold.crowd import MANY_USERS
from streamguard.fold.dimensions import DAY_MS, FAR_MS

ADOPTED_MS = 7 * DAY_MS
"""Milliseconds for which it is remembered that a value was taken up."""
ADOPTED_MASK = np.uint64(population.ADOPTED - 1)
OTHERS_PRIOR = 3.0
"""Users that are added to those of a day, so that two users of a small log are no movement."""


@inline
def adopted_name(field, value):  # type: ignore[no-untyped-def]
    """Hash of a field and its value; it names the place of the value in `adopted`, too."""
    return mix(value ^ (np.uint64(field + 1) << np.uint64(60)))


@inline
def adoption(p, adopted, field, value, user, ts):  # type: ignore[no-untyped-def]
    """Share of the known users of these days that has taken up this value, without the first of them."""
    name = adopted_name(field, value)
    one = adopted[np.int64(name & ADOPTED_MASK)]
    if one.name != name or ts - one.last_ts > ADOPTED_MS:
        return 0.0
    others = bitmap.distinct(one.users)
    if bitmap.marked(one.users, user):
        others -= 1.0
    return min(max(others - 1.0, 0.0) / (p.active + OTHERS_PRIOR), 1.0)


@inline
def adopt(adopted, dirty, field, value, user, ts, is_new):  # type: ignore[no-untyped-def]
    """Record that a known user succeeds with a value; it is remembered from the first user to whom it is new.

    A value with several users keeps its place for a day.
    """
    name = adopted_name(field, value)
    at = np.int64(name & ADOPTED_MASK)
    one = adopted[at]
    idle = ts - one.last_ts
    if one.name != name or idle > ADOPTED_MS:
        held = one.name != name and idle < FAR_MS and bitmap.distinct(one.users) > MANY_USERS - 0.5
        if not is_new or held:
            return
        one.name = name
        one.last_ts = ts
        bitmap.clear(one.users)
    one.last_ts = max(ts, one.last_ts)
    bitmap.mark(one.users, user)
    dirty[at // population.ADOPTED_PER_PAGE] = 1
