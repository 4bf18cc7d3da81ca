"""Brings stored profiles and failing sources to the clock of their partition, for readers, and says what is usual."""

from __future__ import annotations

import numpy as np

from streamguard.compute.arithmetic import mix
from streamguard.compute.compiler import kernel
from streamguard.fold import bitmap
from streamguard.fold import population as population_layout
from streamguard.fold.ageing import age_profile
from streamguard.fold.crowd import usual_count
from streamguard.fold.dimensions import SLOTS
from streamguard.fold.sources import WAY_MASK, age_source
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


@kernel
def usual_counts(population, hour, out):  # type: ignore[no-untyped-def]
    """Write how many events of each class are usual within minutes, as the fold expects them.

    Parameters
    ----------
    population
        `streamguard.fold.population.POPULATION` (1,).
    hour
        Hour of the week, 0 to 167 from Monday 0 h UTC.
    out
        float64, one for each class.
    """
    for k in range(out.shape[0]):
        out[k] = usual_count(population[0], k, hour)


@kernel
def page_of_source(value):  # type: ignore[no-untyped-def]
    """Page of failing sources that has an address, if it is among them."""
    base = np.int64(mix(value) & WAY_MASK) * population_layout.WAYS
    return base // population_layout.SOURCES_PER_PAGE


@kernel
def bring_sources_to_clock(sources, clock, failed, welcome):  # type: ignore[no-untyped-def]
    """Decay failing sources in place, and estimate for how many users each failed and succeeded.

    Parameters
    ----------
    sources
        `streamguard.fold.population.SOURCE_RECORD` (n,).
    clock
        Milliseconds.
    failed, welcome
        float64 (n,), written.
    """
    for i in range(sources.shape[0]):
        age_source(sources[i], clock)
        failed[i] = bitmap.distinct(sources[i].users)
        welcome[i] = bitmap.distinct(sources[i].welcome)
