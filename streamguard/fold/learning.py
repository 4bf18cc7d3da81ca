"""Updates profiles and population with one event."""

from __future__ import annotations

import numpy as np

from streamguard.compute.arithmetic import exp2, log2
from streamguard.compute.compiler import inline
from streamguard.events import indicators as flag
from streamguard.fold import components, crowd, moments, patterns, population, suspicion
from streamguard.fold.ageing import hour_of_week
from streamguard.fold.dimensions import HALF_LIVES, HOUR_MS, NETWORK, RESOURCE, SKETCHES, SOURCE
from streamguard.fold.frequencies import frequency, learn_value
from streamguard.fold.sketch import lightest

N_CLASSES = len(population.CLASSES)
N_COMPONENTS = len(components.COMPONENTS)
N_SKETCHES = len(SKETCHES)
QUIET_BITS = 5.0
"""Tail bits up to which an event is learned with its full weight."""
LEARN_BITS = 1.5
"""Further tail bits that halve the weight."""
MIN_WEIGHT = 0.02
"""Least weight of an event: a baseline adapts to a lasting change."""
TRIED_SHARE = 0.125
"""Weight of a value that only failed: strangers who guess do not crowd out the values of the owner."""
MOST_TYPICAL = 20.0
"""Bits of a component that count at most in their mean, so that one event does not make all others usual."""


@inline
def weight_of(tail_bits):  # type: ignore[no-untyped-def]
    """Weight of an event in learning: 2**-((tail bits - 5) / 1.5), between 0.02 and 1.

    Unusual events thus cannot poison a baseline quickly, but the baseline still adapts to a lasting change.
    """
    return min(max(exp2(-(tail_bits - QUIET_BITS) / LEARN_BITS), MIN_WEIGHT), 1.0)


@inline
def learn_profile(e, own, day, hit, weight):  # type: ignore[no-untyped-def]
    """Update a user's profile with one event of a given weight.

    With weight 0, which an event with a denied value has, only what has happened is counted: rates, failures, suspicion
    and times. The event brings no value, no hour and no habit.

    Parameters
    ----------
    own
        Tail bits of the event that suspicion of its source is based on.
    day
        Days since 1970.
    hit
        The event's patterns.
    """
    s, values, slot, flags, ts, volume = e.profile, e.values, e.slot, e.flags, e.ts, e.volume
    failed = 1.0 if flags & flag.FAILED else 0.0
    for j in range(len(HALF_LIVES)):
        s.count[j] += 1.0
        s.failures[j] += failed
        s.volume[j] += volume
    if flags & flag.FILE_READ:
        s.reads[0] += 1.0
        s.reads[1] += 1.0
    if flags & flag.FILE_CHANGE:
        s.changes[0] += 1.0
        s.changes[1] += 1.0
        if flags & flag.ENCRYPTED:
            s.encrypted += 1.0
    tried = weight * (TRIED_SHARE if failed > 0.0 else 1.0)
    for c in range(N_SKETCHES):
        if values[c] == 0:
            continue
        w = tried if c < RESOURCE or c == NETWORK else weight
        k = slot[c]
        if k < 0 and weight <= 0.0:
            continue
        s.seen[c] += w
        if k < 0 and frequency(e.table, c, values[c]) <= 0.0:
            s.unheard_of[c] += w
        if k < 0:
            k = lightest(s, c)
            s.sketch_proven[c] &= ~(np.uint32(1) << np.uint32(k))
            s.sketch_total[c] -= s.sketch_weight[c, k]
            s.novel[c] += w
            s.sketch_hash[c, k] = values[c]
            s.sketch_weight[c, k] = w
        else:
            s.sketch_weight[c, k] += w
        s.sketch_total[c] += w
        if failed == 0.0 and weight > 0.0:
            s.sketch_proven[c] |= np.uint32(1) << np.uint32(k)
        if c == SOURCE:
            suspicion.suspect(s, k, slot[c], own, ts)
        slot[c] = k
    if ts // HOUR_MS != s.last_hour and weight > 0.0:
        if s.last_hour >= 0:
            s.hours[hour_of_week(s.last_hour)] += s.hour_weight
            s.hours_total += s.hour_weight
        s.last_hour = ts // HOUR_MS
        s.hour_weight = weight
    s.learned += weight
    s.learned_failures += weight * failed
    share = weight / min(s.learned, moments.MEMORY) if weight > 0.0 else 0.0
    for c in range(N_COMPONENTS):
        s.typical[c] += share * (min(e.bits[c], MOST_TYPICAL) - s.typical[c])
    if s.events > 0.0 and ts >= s.last_ts:
        moments.learn_moment(s, moments.INTERVAL, log2(e.gap + components.NOISE), weight)
    if flags & flag.HAS_VOLUME:
        moments.learn_moment(s, moments.VOLUME, log2(volume + 1.0), weight)
    moments.learn_moment(s, moments.THREAT, e.threat, weight)  # an event without a score counts as 0
    for k in range(patterns.COUNT):
        if (hit >> np.uint64(k)) & np.uint64(1) and s.pattern_last_day[k] < day and weight > 0.0:
            s.pattern_last_day[k] = day
            s.pattern_days[k] += 1.0
    if failed > 0.0:
        s.streak += np.uint32(1)
        s.last_failure_ts = max(ts, s.last_failure_ts)
    elif flags & flag.SUCCEEDED and flags & flag.AUTHENTICATION:
        s.streak = np.uint32(0)
    if s.last_day < day:
        s.last_day = day
        s.active_days += 1.0
    if e.area != 0 and ts >= s.last_area_ts:
        s.last_area = e.area
        s.last_area_ts = ts
    s.last_ts = max(s.last_ts, ts)
    s.events += 1.0


@inline
def learn_return(p, away):  # type: ignore[no-untyped-def]
    """Count a known user's first event of a day, and one who comes back after weeks.

    Parameters
    ----------
    away
        Seconds since the user's last event in which the log was active.
    """
    p.active += 1.0
    p.active_week += 1.0
    p.active_month += 1.0
    if away >= patterns.RETURN_SECONDS:
        p.returns += 1.0


@inline
def learn_population(e, dirty, fresh, repeated, learned, events, weight):  # type: ignore[no-untyped-def]
    """Update the population with one event: rates and frequencies count it fully, the rest by its weight.

    The failures of one user in a row, and those of one user from one source, count once among the crowd's.

    Parameters
    ----------
    fresh
        Whether the source was new to the user.
    repeated
        Whether the source has failed for this user before, within hours.
    learned, events
        Of the profile, before it learned the event.
    """
    p, values = e.population, e.values
    failed = e.flags & flag.FAILED != 0
    who = e.user if e.user != 0 else values[SOURCE]
    same = failed and who == p.last_failed_user
    plain = True
    if crowd.is_stranger(learned, events):
        p.fast_stranger += 1.0
    for k in range(N_CLASSES):
        if crowd.belongs(k, fresh, failed, learned, events):
            plain = False
            if not (same or repeated):
                p.fast[k] += 1.0
                p.slow[k] += 1.0
    if plain:
        p.fast_plain += 1.0
        p.slow_plain += 1.0
    for c in range(population.FIELDS):
        if values[c] != 0 and c != NETWORK:
            p.novel_total[c] += weight
            if learn_value(e.table, dirty, c, values[c]):
                p.novel[c] += weight
            p.field_total[c] += 1.0
    p.hours[e.hour] += 1.0
    p.hours_total += 1.0
    p.learned += weight
    if failed:
        p.failures += weight
        if not same:
            p.failed_users += 1.0
        p.last_failed_user = who
    p.events += 1.0
