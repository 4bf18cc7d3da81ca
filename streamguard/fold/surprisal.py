"""Surprisal of one event: the bits of each component for this user, backed off to the population."""

from __future__ import annotations

import math

import numpy as np

from streamguard.compute.arithmetic import LN2, exp2, log2, mix, poisson_bits, popcount, student_bits
from streamguard.compute.compiler import inline
from streamguard.events import indicators as flag
from streamguard.fold import population
from streamguard.fold import profile as layout

SKETCHED = len(layout.SKETCHES)
COMPONENTS = len(layout.COMPONENTS)
SLOTS = layout.SLOTS
SOURCE, LOCATION, HOST, AGENT, RESOURCE, TRANSITION, NETWORK = range(SKETCHED)
(FAILURE, OUTCOME, HOUR, INTERVAL, VOLUME, THREAT, FIRST_CROWD) = range(6, 13)
CROWD_NEW_SOURCE_FAILURE = FIRST_CROWD + population.CLASSES.index("new_source_failure")
SPREAD, CARRIED = 16, 17
LEEWAY = 1.5
"""Tolerate 1.5 times the expected count: rates vary more than a Poisson distribution (over-dispersion)."""

PLAIN_PRIOR = 10.0
"""Plain events that are added to both sides of the ratio in `surge`, so that a few events do not make a surge."""

WIDTH_MASK = np.uint64(population.WIDTH - 1)
FIELD_OUTCOME = 7
CARRY = 0.8
CARRY_HALF_LIFE = 900.0
MANY_USERS = 3.0
HARDLY_KNOWN = 3.0
KNOWN_EVENTS = 20.0
"""A user counts as known from this learned weight (`HARDLY_KNOWN`) or this number of events (`KNOWN_EVENTS`) on."""

CLASSES = len(population.CLASSES)
WAY_MASK = np.uint64(population.SOURCES // population.WAYS - 1)


@inline
def cells(field, value):  # type: ignore[no-untyped-def]
    """Positions of the two counters of a field's value in the frequency table."""
    h = mix(value + np.uint64(field))
    return np.int64(h & WIDTH_MASK), np.int64((h >> np.uint64(32)) & WIDTH_MASK)


@inline
def frequency(table, field, value):  # type: ignore[no-untyped-def]
    a, b = cells(field, value)
    return min(table[0, a], table[1, b])


@inline
def popularity(p, table, field, value):  # type: ignore[no-untyped-def]
    """Share of a value among all users; an unseen value gets that of all unseen values (Witten and Bell 1991)."""
    seen = frequency(table, field, value)
    total = p.field_total[field] + 1.0
    fresh = (p.novel[field] + 1.0) / (p.novel_total[field] + 20.0)
    return (1.0 - fresh) * seen / total if seen > 0.0 else fresh


@inline
def slot_of(hashes, value):  # type: ignore[no-untyped-def]
    """Return the slot of a sketch that holds a value, or -1."""
    found = -1
    for q in range(SLOTS):
        if hashes[q] == value:
            found = q
    return found


@inline
def source_entry(sources, value):  # type: ignore[no-untyped-def]
    """Return the position of an address among the failing sources, or -1."""
    base = np.int64(mix(value) & WAY_MASK) * population.WAYS
    for w in range(population.WAYS):
        if sources[base + w].hash == value:
            return base + w
    return -1


@inline
def distinct(bitmap):  # type: ignore[no-untyped-def]
    """Estimate the number of users in a 256-bit bitmap by linear counting (Whang et al. 1990)."""
    used = np.uint64(0)
    for q in range(4):
        used += popcount(bitmap[q])
    return -256.0 * LN2 * log2(1.0 - min(np.float64(used), 255.0) / 256.0)


@inline
def components(s, p, table, sources, values, source, flags, ts, gap, hour, threat, volume, slot, bits):  # type: ignore[no-untyped-def]
    """Fill `bits` with the surprisal of each component and `slot` with the slot of each value in its sketch.

    Parameters
    ----------
    s, p
        Profile and population, decayed to now, before they learn the event.
    values
        uint64 (8,): a value for each sketch, then the outcome; 0 where the event has none.
    source
        Position among the failing sources, or -1.
    gap
        Seconds since the user's last event.
    """
    failed = flags & flag.FAILED
    for c in range(SKETCHED):
        value = values[c]
        slot[c] = -1
        if c < COMPONENTS:
            bits[c] = 0.0
        if value == 0:
            continue
        slot[c] = slot_of(s.sketch_hash[c], value)
    near = 0.0
    if values[NETWORK] != 0 and slot[NETWORK] >= 0:
        near = s.sketch_weight[NETWORK, slot[NETWORK]] / (s.sketch_total[NETWORK] + 1.0 + s.novel[NETWORK])
    for c in range(6):
        value = values[c]
        if value == 0:
            continue
        everybody = popularity(p, table, c, value)
        if c == SOURCE:
            everybody = max(everybody, near / 8.0)
        weight = s.sketch_weight[c, slot[c]] if slot[c] >= 0 else 0.0
        escape = 1.0 + s.novel[c]
        bits[c] = max(-log2((weight + escape * everybody) / (s.sketch_total[c] + escape)), 0.0)

    usual_failures = (p.failures + 0.5) / (p.learned + 10.0)
    bits[FAILURE] = 0.0
    if failed:
        bits[FAILURE] = -log2((s.learned_failures + 4.0 * usual_failures) / (s.learned + 4.0))
    bits[OUTCOME] = -log2(
        (frequency(table, FIELD_OUTCOME, values[7]) + 0.5) / (p.field_total[FIELD_OUTCOME] + 5.0)
    )
    before, after = (hour + layout.HOURS - 1) % layout.HOURS, (hour + 1) % layout.HOURS
    everybody = (p.hours[hour] + 1.0) / (p.hours_total + layout.HOURS)
    weight = 0.5 * s.hours[hour] + 0.25 * (s.hours[before] + s.hours[after])
    bits[HOUR] = max(-log2((weight + 8.0 * everybody) / (s.hours_total + 8.0)), 0.0)

    z = deviation(s, 0, log2(gap * surge(p) + 1e-3), 1.0)
    bits[INTERVAL] = student_bits(z) if z < 0.0 else 0.0
    z = deviation(s, 1, log2(volume + 1.0), 1.0)
    bits[VOLUME] = student_bits(z) if z > 0.0 and flags & flag.HAS_VOLUME else 0.0
    z = deviation(s, 2, threat, 0.0025)
    bits[THREAT] = student_bits(z) if z > 0.0 and flags & flag.HAS_THREAT else 0.0

    fresh = values[SOURCE] != 0 and slot[SOURCE] < 0
    for k in range(CLASSES):
        bits[FIRST_CROWD + k] = 0.0
        if belongs(k, fresh, failed, s.learned, s.events):
            bits[FIRST_CROWD + k] = poisson_bits(p.fast[k] + 1.0, usual_count(p, k, hour))

    bits[SPREAD] = 0.0
    if source >= 0:
        users = distinct(sources[source].users)
        if users > MANY_USERS - 0.5:
            share = (frequency(table, SOURCE, values[SOURCE]) + 0.1) / (p.field_total[SOURCE] + 1000.0)
            usual = (p.slow[1] + 0.5) / (p.age + 3600.0) * (3600.0 / LN2) * share
            bits[SPREAD] = min(
                poisson_bits(min(sources[source].failures, users) + 1.0, max(usual, 0.5)), 30.0
            )
    bits[CARRIED] = CARRY * suspicion(s, slot[SOURCE], ts)


@inline
def suspicion(s, slot, ts):  # type: ignore[no-untyped-def]
    """Remaining suspicion from earlier events of a source, in bits; 0 for an unknown source (slot -1)."""
    if slot < 0:
        return 0.0
    rest = max(np.float64(ts - s.suspicion_ts[slot]), 0.0) * 1e-3
    return s.suspicion[slot] * exp2(-rest / CARRY_HALF_LIFE)


@inline
def usual_count(p, k, hour):  # type: ignore[no-untyped-def]
    """Expected value of the fast counter for events of class k, from the long-run rate.

    The rate is scaled to how busy this hour of the week usually is, or to the current number of plain events, whichever
    is more: a new log source or a back-fill makes all events more frequent, but is not an attack.
    """
    mean_life = population.FAST_HALF_LIFE / LN2
    usual = (p.slow[k] + 0.5) / (p.age + 3600.0) * mean_life
    busy = (p.hours[hour] + 1.0) * layout.HOURS / (p.hours_total + layout.HOURS)
    return max(usual * max(busy, surge(p)) * LEEWAY, 0.02)


@inline
def surge(p):  # type: ignore[no-untyped-def]
    """Ratio of the plain events of the last minutes to their usual number; at least 1."""
    plain = p.slow_plain / (p.age + 3600.0) * (population.FAST_HALF_LIFE / LN2)
    return max((p.fast_plain + PLAIN_PRIOR) / (plain + PLAIN_PRIOR), 1.0)


@inline
def belongs(k, fresh, failed, learned, events):  # type: ignore[no-untyped-def]
    """Whether an event belongs to class k of the population."""
    if k == 0:
        return fresh
    if k == 1:
        return failed != 0
    if k == 2:
        return learned < HARDLY_KNOWN and events < KNOWN_EVENTS
    return fresh and failed != 0


@inline
def deviation(s, k, x, floor):  # type: ignore[no-untyped-def]
    """Deviation of x from the user's mean in standard deviations, shrunk while few values were seen."""
    weight = s.moments[k]
    return (x - s.mean[k]) / math.sqrt(s.variance[k] + floor) * (weight / (weight + 5.0))


@inline
def discounted(s, bits, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the components less the bits that are usual for this user, and return their sum."""
    total = 0.0
    for c in range(COMPONENTS):
        b = bits[c]
        if c < FIRST_CROWD and c != SOURCE and c != FAILURE:
            b = max(b - s.typical[c], 0.0)
        out[c] = b
        total += b
    return total
