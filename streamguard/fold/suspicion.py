"""What earlier events leave behind: suspicion of a source, and a run of actions that are new to all users."""

from __future__ import annotations

import numpy as np

from streamguard.compute.arithmetic import exp2
from streamguard.compute.compiler import inline
from streamguard.fold import population
from streamguard.fold.dimensions import ACTION
from streamguard.fold.frequencies import frequency

CARRY_HALF_LIFE = 900.0
"""Seconds in which the suspicion of a source loses half of its bits: an attack goes on within minutes."""
UNREMARKABLE = 3.0
"""Bits that any event may have."""
SUSPICION_KEPT = 0.9
"""The suspicion of a source grows by the bits of an event beyond `UNREMARKABLE`, and keeps 90 % from one event to the
next: without a further unusual event it fades."""
RUN_KEPT = 0.9
"""Share of the bits of a user's earlier unheard-of actions that is kept when a further one follows at once."""


@inline
def suspicion(s, slot, ts):  # type: ignore[no-untyped-def]
    """Remaining suspicion from earlier events of a source, in bits; 0 for an unknown source (slot -1)."""
    if slot < 0:
        return 0.0
    rest = max(np.float64(ts - s.suspicion_ts[slot]), 0.0) * 1e-3
    return s.suspicion[slot] * exp2(-rest / CARRY_HALF_LIFE)


@inline
def suspect(s, slot, before, own, ts):  # type: ignore[no-untyped-def]
    """Add the bits of an event to the suspicion of its source.

    Parameters
    ----------
    slot, before
        Slot of the source now, and before the event was learned (-1 if it is new).
    own
        Bits of the event that suspicion is based on.
    """
    s.suspicion[slot] = suspicion(s, before, ts) * SUSPICION_KEPT + max(own - UNREMARKABLE, 0.0)
    s.suspicion_ts[slot] = max(ts, s.suspicion_ts[slot]) if before >= 0 else ts


@inline
def is_unheard(table, slot, values):  # type: ignore[no-untyped-def]
    """Whether this action is new to all users."""
    return values[ACTION] != 0 and slot[ACTION] < 0 and frequency(table, ACTION, values[ACTION]) <= 0.0


@inline
def run(s, ts):  # type: ignore[no-untyped-def]
    """Remaining bits of a user's earlier actions that were new to all users."""
    return s.unheard * exp2(-max(np.float64(ts - s.unheard_ts), 0.0) * 1e-3 / population.FAST_HALF_LIFE)


@inline
def extend_run(s, bits, ts):  # type: ignore[no-untyped-def]
    """Add the bits of an action that is new to all users."""
    s.unheard = RUN_KEPT * run(s, ts) + max(bits - UNREMARKABLE, 0.0)
    s.unheard_ts = max(ts, s.unheard_ts)
