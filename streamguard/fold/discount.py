"""Subtracts from the components what is usual for this user, and adds up the score."""

from __future__ import annotations

from streamguard.compute.compiler import inline
from streamguard.events import indicators as flag
from streamguard.fold import components as component
from streamguard.fold import crowd
from streamguard.fold.dimensions import SOURCE
from streamguard.fold.frequencies import frequency
from streamguard.fold.sketch import is_usual_source
from streamguard.fold.suspicion import UNREMARKABLE

N_COMPONENTS = len(component.COMPONENTS)
CARRIED_PER_BIT = 3.0
"""At a source that is usual for its user, carried suspicion is at most this many times the bits of the event itself."""
READING_WEIGHT = 0.5
"""Weight of the news that an action is, if it only reads."""
STRANGER_FAILS = 0.6
"""Least weight of the failures of a user who is hardly known; that all else is new for such a user is expected."""


@inline
def discounted(e):  # type: ignore[no-untyped-def]
    """Fill `e.less` with the components less the bits that are usual for this user, and return their sum.

    A value that is new to all users keeps its bits, in proportion to how rarely this user brings such values. Of a user
    who is hardly known, everything is new: the bits count by how much is known, except those of failures.
    """
    s, out = e.profile, e.less
    own = 0.0
    known = 1.0
    if crowd.is_stranger(s.learned, s.events):
        known = s.learned / (s.learned + crowd.HARDLY_KNOWN)
        if e.flags & flag.FAILED:
            known = max(known, STRANGER_FAILS)
    for c in range(N_COMPONENTS):
        b = e.bits[c]
        if not component.IS_OWN[c]:
            out[c] = b
            continue
        if component.IS_HABIT[c]:
            k = component.SKETCH_OF[c]
            if k >= 0 and e.values[k] != 0 and e.slot[k] < 0 and frequency(e.table, k, e.values[k]) <= 0.0:
                b *= s.seen[k] / (s.seen[k] + 1.0 + s.unheard_of[k])
            else:
                b = max(b - s.typical[c], 0.0)
        if (c == component.ACTION or c == component.UNHEARD) and e.flags & flag.READ_ONLY:
            b *= READING_WEIGHT
        if c != component.FAILURE:
            b *= known
        out[c] = b
        own += b
    if is_usual_source(s, e.slot[SOURCE]):
        out[component.CARRIED] = min(out[component.CARRIED], CARRIED_PER_BIT * max(own - UNREMARKABLE, 0.0))
    # Failures of users who are hardly known are failures, too: the same news counts once.
    failures, strangers = component.FIRST_CROWD + crowd.FAILED, component.FIRST_CROWD + crowd.NEW_USER
    if out[strangers] > 0.0:
        if out[strangers] >= out[failures]:
            out[failures] = 0.0
        else:
            out[strangers] = 0.0
    total = own
    for c in range(N_COMPONENTS):
        if not component.IS_OWN[c] and not component.IS_CROWD[c]:
            total += out[c]
    for c in range(N_COMPONENTS):
        if component.IS_CROWD[c]:
            total += out[c]
    return total


@inline
def crowd_share(less):  # type: ignore[no-untyped-def]
    """Bits of the components that are about the crowd."""
    total = 0.0
    for c in range(N_COMPONENTS):
        if component.IS_CROWD[c]:
            total += less[c]
    return total
