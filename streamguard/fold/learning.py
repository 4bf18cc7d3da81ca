"""Updates profiles, population and failing sources with one event."""

from __future__ import annotations

import numpy as np

from streamguard.compute.arithmetic import exp2, log2, mix
from streamguard.compute.compiler import inline
from streamguard.events import indicators as flag
from streamguard.fold import patterns, population, surprisal
from streamguard.fold import profile as layout
from streamguard.fold.ageing import FAR_MS, HOUR_MS, hour_of_week

N_CLASSES = len(population.CLASSES)
N_COMPONENTS = len(layout.COMPONENTS)
N_SKETCHES = len(layout.SKETCHES)
SLOTS = layout.SLOTS
QUIET_BITS = 5.0
LEARN_BITS = 1.5
MIN_WEIGHT = 0.02
UNREMARKABLE = 3.0
SUSPICION_KEPT = 0.9
"""The suspicion of a source grows by the bits of an event beyond 3, and keeps 90% from one event to the next."""

MEMORY = 200.0
"""Memory of means and variances, in events."""


@inline
def weight_of(tail_bits):  # type: ignore[no-untyped-def]
    """Weight of an event in learning: 2**-((tail bits - 5) / 1.5), between 0.02 and 1.

    Unusual events thus cannot poison a baseline quickly, but the baseline still adapts to a lasting change.
    """
    return min(max(exp2(-(tail_bits - QUIET_BITS) / LEARN_BITS), MIN_WEIGHT), 1.0)


@inline
def learn_moment(s, k, x, weight):  # type: ignore[no-untyped-def]
    """Exponentially weighted mean and variance (West 1979) with a memory of `MEMORY` events."""
    s.moments[k] = min(s.moments[k] + weight, MEMORY)
    share = weight / s.moments[k]
    d = x - s.mean[k]
    s.mean[k] += share * d
    s.variance[k] = (1.0 - share) * (s.variance[k] + share * d * d)


@inline
def learn_profile(s, raw, own, values, slot, flags, ts, gap, day, area, volume, threat, hit, weight):  # type: ignore[no-untyped-def]
    """Update a user's profile with one event of a given weight."""
    failed = 1.0 if flags & flag.FAILED else 0.0
    for j in range(4):
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
    if flags & (flag.TUNNEL_QUERY | flag.GENERATED_NAME):
        s.queries += 1.0
    for c in range(N_SKETCHES):
        if values[c] == 0:
            continue
        k = slot[c]
        if k < 0:
            k = 0
            for q in range(1, SLOTS):
                if s.sketch_weight[c, q] < s.sketch_weight[c, k]:
                    k = q
            s.sketch_total[c] -= s.sketch_weight[c, k]
            s.novel[c] += weight
            s.sketch_hash[c, k] = values[c]
            s.sketch_weight[c, k] = weight
        else:
            s.sketch_weight[c, k] += weight
        s.sketch_total[c] += weight
        if c == surprisal.SOURCE:
            s.suspicion[k] = surprisal.suspicion(s, slot[c], ts) * SUSPICION_KEPT + max(
                own - UNREMARKABLE, 0.0
            )
            s.suspicion_ts[k] = max(ts, s.suspicion_ts[k]) if slot[c] >= 0 else ts
        slot[c] = k
    if ts // HOUR_MS != s.last_hour:
        if s.last_hour >= 0:
            s.hours[hour_of_week(s.last_hour)] += s.hour_weight
            s.hours_total += s.hour_weight
        s.last_hour = ts // HOUR_MS
        s.hour_weight = weight
    s.learned += weight
    s.learned_failures += weight * failed
    share = weight / min(s.learned, MEMORY)
    for c in range(N_COMPONENTS):
        s.typical[c] += share * (min(raw[c], 20.0) - s.typical[c])
    if s.events > 0.0 and ts >= s.last_ts:
        learn_moment(s, 0, log2(gap + 1e-3), weight)
    if flags & flag.HAS_VOLUME:
        learn_moment(s, 1, log2(volume + 1.0), weight)
    if flags & flag.HAS_THREAT:
        learn_moment(s, 2, threat, weight)
    for k in range(patterns.COUNT):
        if (hit >> np.uint64(k)) & np.uint64(1) and s.pattern_last_day[k] < day:
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
    if area != 0 and ts >= s.last_area_ts:
        s.last_area = area
        s.last_area_ts = ts
    s.last_ts = max(s.last_ts, ts)
    s.events += 1.0


@inline
def learn_value(table, dirty, field, value):  # type: ignore[no-untyped-def]
    """Count a value in the frequency table, conservatively (Estan and Varghese 2002); return whether it was new."""
    a, b = surprisal.cells(field, value)
    old = min(table[0, a], table[1, b])
    new = old + 1.0
    table[0, a] = max(table[0, a], new)
    table[1, b] = max(table[1, b], new)
    dirty[a // population.PAGE] = 1
    dirty[(population.WIDTH + b) // population.PAGE] = 1
    return old == 0.0


@inline
def learn_population(p, table, dirty, values, fresh, learned, events, user, flags, hour, weight):  # type: ignore[no-untyped-def]
    """Update the population with one event: rates and frequencies count it fully, the rest by its weight."""
    failed = flags & flag.FAILED
    plain = True
    for k in range(N_CLASSES):
        if surprisal.belongs(k, fresh, failed, learned, events):
            p.fast[k] += 1.0
            p.slow[k] += 1.0
            plain = False
    if plain:
        p.fast_plain += 1.0
        p.slow_plain += 1.0
    for c in range(population.FIELDS):
        if values[c] != 0 and c != surprisal.NETWORK:
            p.novel_total[c] += weight
            if learn_value(table, dirty, c, values[c]):
                p.novel[c] += weight
            p.field_total[c] += 1.0
    p.hours[hour] += 1.0
    p.hours_total += 1.0
    p.learned += weight
    if failed:
        p.failures += weight
        if user != p.last_failed_user:
            p.last_failed_user = user
            p.failed_users += 1.0
    p.events += 1.0


@inline
def track_source(sources, dirty, value, user, ts):  # type: ignore[no-untyped-def]
    """Record that an address failed for a user; return its position.

    In a full set, the entry that has been silent for longest is replaced.
    """
    at = surprisal.source_entry(sources, value)
    if at < 0:
        base = np.int64(mix(value) & surprisal.WAY_MASK) * population.WAYS
        at = base
        for w in range(1, population.WAYS):
            if sources[base + w].last_ts < sources[at].last_ts:
                at = base + w
        forget_source(sources[at])
        sources[at].hash = value
        sources[at].last_ts = ts
        sources[at].incident_offset = -1
    e = sources[at]
    seconds = max(np.float64(ts - e.last_ts), 0.0) * 1e-3
    e.failures *= exp2(-seconds / 3600.0)
    if e.failures < 0.25:
        for q in range(4):
            e.users[q] = np.uint64(0)
    e.failures += 1.0
    e.last_ts = ts if e.last_ts > ts + FAR_MS else max(e.last_ts, ts)
    bit = user >> np.uint64(56)
    e.users[np.int64(bit >> np.uint64(6))] |= np.uint64(1) << (bit & np.uint64(63))
    dirty[at // population.SOURCES_PER_PAGE] = 1
    return at


@inline
def forget_source(e):  # type: ignore[no-untyped-def]
    e.failures = 0.0
    for q in range(4):
        e.users[q] = np.uint64(0)
    e.incident_patterns = np.uint64(0)
    e.incident_count = 0


@inline
def should_intern(s, c, slot):  # type: ignore[no-untyped-def]
    """Whether to store the text of a value: if its weight is at least 2, or a tenth of its sketch after some events."""
    weight = s.sketch_weight[c, slot]
    return weight >= 2.0 or (s.events >= 5.0 and weight >= 0.1 * s.sketch_total[c])
