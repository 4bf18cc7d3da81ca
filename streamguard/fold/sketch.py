"""The sketches of a profile: for each field, the 16 values of a user that have the greatest weight."""

from __future__ import annotations

import numpy as np

from streamguard.compute.compiler import inline
from streamguard.fold.dimensions import RESOURCE, SLOTS, SOURCE

USUAL_SHARE = 0.02
"""Share of a user's events from which a source is usual for the user."""
INTERNED_WEIGHT = 2.0
"""Weight in a sketch from which the text of a value is stored: the value has come more than once."""
INTERNED_EVENTS = 5.0
"""Events of a user from which a share of a sketch says something."""
INTERNED_SHARE = 0.1
"""Share of a sketch from which the text of a value is stored, if the user has `INTERNED_EVENTS`."""


@inline
def slot_of(hashes, value):  # type: ignore[no-untyped-def]
    """Return the slot of a sketch that holds a value, or -1."""
    found = -1
    for q in range(SLOTS):
        if hashes[q] == value:
            found = q
    return found


@inline
def lightest(s, c):  # type: ignore[no-untyped-def]
    """Slot of a sketch that a new value takes: the lightest of those that only failed, or else the lightest."""
    best = 0
    for q in range(1, SLOTS):
        proven = (s.sketch_proven[c] >> np.uint32(q)) & np.uint32(1)
        best_proven = (s.sketch_proven[c] >> np.uint32(best)) & np.uint32(1)
        lighter = s.sketch_weight[c, q] < s.sketch_weight[c, best]
        if proven < best_proven or (proven == best_proven and lighter):
            best = q
    return best


@inline
def has_succeeded(s, sketch, slot):  # type: ignore[no-untyped-def]
    """Whether the user has succeeded with the value in a slot of a sketch; slot -1 holds none."""
    return slot >= 0 and (s.sketch_proven[sketch] >> np.uint32(slot)) & np.uint32(1) != np.uint32(0)


@inline
def is_usual_source(s, slot):  # type: ignore[no-untyped-def]
    """Whether a source is one of the user's usual ones."""
    return slot >= 0 and s.sketch_weight[SOURCE, slot] >= max(USUAL_SHARE * s.sketch_total[SOURCE], 1.0)


@inline
def is_move(values, slot):  # type: ignore[no-untyped-def]
    """Whether at most half of source, location, host and agent are new to the user, so that a person may have moved.

    An event with fewer than three of them says too little against it.
    """
    present = new = 0
    for c in range(RESOURCE):
        if values[c] != 0:
            present += 1
            if slot[c] < 0:
                new += 1
    return present <= 2 or 2 * new <= present


@inline
def should_intern(s, c, slot):  # type: ignore[no-untyped-def]
    """Whether the dictionary stores the text of a value, so that explanations can name it."""
    weight = s.sketch_weight[c, slot]
    return weight >= INTERNED_WEIGHT or (
        s.events >= INTERNED_EVENTS and weight >= INTERNED_SHARE * s.sketch_total[c]
    )
