"""Brings stored profiles, which are as of their users' last events, to the clock of their partition, for readers."""

from __future__ import annotations

import numpy as np

from streamguard.compute.compiler import kernel
from streamguard.fold.ageing import age_profile
from streamguard.fold.dimensions import SLOTS
from streamguard.fold.suspicion import run, suspicion


@kernel
def bring_to_clock(profiles, population):  # type: ignore[no-untyped-def]
    """Decay profiles in place, as the fold does before an event of their users at the time of the clock.

    Parameters
    ----------
    profiles
        `streamguard.fold.profile.PROFILE` (n,).
    population
        `streamguard.fold.population.POPULATION` (1,) of their partition.
    """
    p = population[0]
    for i in range(profiles.shape[0]):
        s = profiles[i]
        if s.events == 0.0:
            continue
        age_profile(s, p, max(np.float64(p.clock - s.last_ts), 0.0) * 1e-3)
        for q in range(SLOTS):
            s.suspicion[q] = suspicion(s, q, p.clock)
            s.suspicion_ts[q] = max(s.suspicion_ts[q], p.clock)
        s.unheard = run(s, p.clock)
        s.unheard_ts = max(s.unheard_ts, p.clock)
