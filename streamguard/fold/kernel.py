"""Folds the events of one partition, in offset order, into profiles and population; returns evidence and incidents.

The same compiled function runs in the worker, in the Spark job and in `streamguard replay`. It reads no clock, draws
no random numbers and has no state besides its arguments, so its results do not depend on the chunk size.
"""

from __future__ import annotations

import numpy as np

from streamguard.compute.arithmetic import exp2, log2, mix
from streamguard.compute.compiler import inline, kernel
from streamguard.events import indicators as flag
from streamguard.fold import ageing, calibration, grouping, learning, patterns, population, surprisal
from streamguard.fold import features as feature
from streamguard.fold import profile as layout
from streamguard.fold.ageing import DAY_MS, FAR_MS, HOUR_MS

N_FEATURES = len(feature.NAMES)
N_SKETCHES = len(layout.SKETCHES)
N_COMPONENTS = len(layout.COMPONENTS)
N_CLASSES = len(population.CLASSES)
N_FIELDS = population.FIELDS
SOURCES_PER_PAGE = population.SOURCES_PER_PAGE
SLOTS = layout.SLOTS


@inline
def describe(s, p, bits, slot, flags, ts, gap, hour, volume, threat, x):  # type: ignore[no-untyped-def]
    """Fill the feature row; see `streamguard.fold.features` for each formula."""
    x[feature.EVENT_RATE_5M] = log2(1.0 + 12.0 * s.count[0])
    x[feature.EVENT_RATE_1H] = log2(1.0 + s.count[1])
    x[feature.EVENT_RATE_1D] = log2(1.0 + s.count[2] / 24.0)
    x[feature.EVENT_RATE_30D] = log2(1.0 + s.count[3] / 720.0)
    x[feature.HOST_BITS] = bits[surprisal.HOST]
    x[feature.AGENT_BITS] = bits[surprisal.AGENT]
    x[feature.RESOURCE_BITS] = bits[surprisal.RESOURCE]
    x[feature.VOLUME_Z] = (
        surprisal.deviation(s, 1, log2(volume + 1.0), 1.0) if flags & flag.HAS_VOLUME else 0.0
    )
    x[feature.HOUR_BITS] = bits[surprisal.HOUR]
    busier = 0.0
    for k in range(layout.HOURS):
        if p.hours[k] > p.hours[hour]:
            busier += 1.0
    x[feature.OFF_HOURS_SHARE] = busier / layout.HOURS
    x[feature.DORMANCY] = log2(1.0 + gap / 86_400.0)
    x[feature.ACTIVE_DAYS] = log2(1.0 + s.active_days)
    x[feature.INTERVAL_Z] = surprisal.deviation(s, 0, log2(gap + 1e-3), 1.0)
    x[feature.BURST] = log2((12.0 * s.count[0] + 1.0) / (s.count[2] / 24.0 + 1.0))
    x[feature.SOURCE_BITS] = bits[surprisal.SOURCE]
    source, network = slot[surprisal.SOURCE], slot[surprisal.NETWORK]
    near = s.sketch_weight[surprisal.NETWORK, network] if network >= 0 else 0.0
    x[feature.NETWORK_BITS] = -log2((near + 0.5) / (s.sketch_total[surprisal.NETWORK] + 1.0))
    x[feature.LOCATION_BITS] = bits[surprisal.LOCATION]
    squares = 0.0
    for q in range(SLOTS):
        w = np.float64(s.sketch_weight[surprisal.SOURCE, q])
        squares += w * w
    total = s.sketch_total[surprisal.SOURCE]
    x[feature.SOURCE_DIVERSITY] = log2(max(total * total / squares, 1.0)) if squares > 0.0 else 0.0
    x[feature.CROWD_NEW_SOURCES] = bits[surprisal.FIRST_CROWD]
    x[feature.TRANSITION_BITS] = bits[surprisal.TRANSITION]
    x[feature.REPEAT_INTERVAL] = (
        log2(1.0 + max(ts - s.suspicion_ts[source], 0) / 3.6e6) if source >= 0 else 0.0
    )
    x[feature.FAILURE_STREAK] = log2(1.0 + s.streak)
    x[feature.SUCCESS_AFTER_FAILURES] = x[feature.FAILURE_STREAK] if flags & flag.SUCCEEDED else 0.0
    x[feature.THREAT_SCORE] = threat
    x[feature.THREAT_Z] = surprisal.deviation(s, 2, threat, 0.0025) if flags & flag.HAS_THREAT else 0.0
    x[feature.THREAT_MEAN] = s.mean[2]
    x[feature.FAILURE_RATE_1H] = (s.failures[1] + 0.05) / (s.count[1] + 1.0)
    x[feature.FAILURE_RATE_1D] = (s.failures[2] + 0.05) / (s.count[2] + 1.0)


@kernel
def fold(  # type: ignore[no-untyped-def]
    profiles, population, table, sources, interned_hashes, table_dirty, sources_dirty,
    row, offset, user, ts, append, threat, volume, flags, hashes, network, area, alert_bits, gap_ms,
    features, raw, excess, score, tail, strength, found, kind, incident, snapshots, context, intern_requests,
):  # fmt: skip
    """Fold one chunk of n events in offset order.

    Parameters
    ----------
    profiles
        `PROFILE` (resident,); updated.
    population, table, sources
        `POPULATION` (1,), float64 (2, 65536), `SOURCE_RECORD` (4096,); updated.
    interned_hashes
        uint64 (65536,): hashes whose texts the dictionary stores; updated.
    table_dirty, sources_dirty
        uint8, by page; set to 1 for pages that have changed.
    row
        int64 (n,): position of each event's profile in `profiles`.
    offset, user, ts, threat, volume, flags, hashes, network, area
        Columns of the chunk; see `streamguard.events.columns.Columns`.
    append
        int64 (n,): append times of the records, ms; see `streamguard.events.ceiling`.
    alert_bits, gap_ms
        Evidence from which an event is alerted; milliseconds without an alert that end an incident.
    features
        float32 (n, 28), out.
    raw, excess
        float32 (n, 18), out: components before and after the user's own entropy is subtracted.
    score, tail, strength, found
        float64, float64, float64, uint64 (n,), out: sum of `excess`, its tail in bits, the tail plus the evidence of
        the patterns, and the patterns.
    kind
        int8 (n,), out: kind of the entity of the alert (`streamguard.fold.grouping`), 0 if the event is not alerted;
        negative if the alert does not publish its incident again.
    incident
        `INCIDENT` (n,), out: incident of each alert.
    snapshots
        `PROFILE` (n,), out: profiles of the alerts that publish their incident, as they were before the event.
    context
        `CONTEXT` (n,), out: context of the alerts that publish their incident.
    intern_requests
        int64 (n * 5, 3), out: event, text column and place in the dictionary of each text to store.

    Returns
    -------
    published, interned
        Number of filled rows of `snapshots` and `context`, and of `intern_requests`.
    """
    n = row.shape[0]
    p = population[0]
    bits = np.zeros(N_COMPONENTS)
    less = np.zeros(N_COMPONENTS)
    slot = np.zeros(N_SKETCHES, np.int64)
    values = np.zeros(N_FIELDS, np.uint64)
    x = np.zeros(N_FEATURES)
    published = interned = 0
    word_mask = np.uint64(interned_hashes.shape[0] - 1)
    for i in range(n):
        s = profiles[row[i]]
        t = ts[i]
        if offset[i] <= s.last_offset:
            features[i], raw[i], excess[i] = 0.0, 0.0, 0.0
            score[i], tail[i], strength[i], found[i], kind[i] = (
                -1.0,
                0.0,
                0.0,
                np.uint64(0),
                grouping.NO_ENTITY,
            )
            continue
        seconds, active = ageing.advance(p, t, user[i], append[i])
        if ageing.age_population(p, table, seconds, active):
            table_dirty[:] = 1
        settled = min(
            t, p.clock
        )  # what all users share waits until the clock follows; the event has its own time
        gap = 0.0
        if s.events == 0.0:
            s.first_ts = t
            s.last_ts = t
            s.last_day = -1
            s.last_hour = -1
        elif s.last_ts > max(p.clock, t) + FAR_MS:
            ageing.set_back(s, t)
            gap = exp2(s.mean[0])  # the time since the last event is unknown; the usual one is no evidence
        else:
            gap = max(np.float64(t - s.last_ts), 0.0) * 1e-3
        ageing.age_profile(s, p, gap)
        hour = ageing.hour_of_week(t // HOUR_MS)
        day = t // DAY_MS
        what = np.uint64(flags[i] & (flag.FAILED | flag.SUCCEEDED))
        for c in range(5):
            values[c] = hashes[i, c]
        state = mix(hashes[i, 5] + what)
        values[5] = mix(s.last_type ^ (state << np.uint64(1)))
        values[6] = network[i]
        values[7] = mix(state + hashes[i, 6])
        source = -1
        if values[0] != 0:
            if flags[i] & flag.FAILED:
                source = learning.track_source(sources, sources_dirty, values[0], user[i], settled)
            else:
                source = surprisal.source_entry(sources, values[0])
        surprisal.components(
            s, p, table, sources, values, source, flags[i], t, gap, hour, threat[i], volume[i], slot, bits
        )
        total = surprisal.discounted(s, bits, less)
        tail_bits = calibration.tail_bits(p, total)
        own_bits = calibration.tail_bits(p, total - less[surprisal.CARRIED])
        spread = surprisal.distinct(sources[source].users) if source >= 0 else 0.0
        hit = patterns.match(s, less, slot, flags[i], t, gap, area[i], volume[i], spread)
        describe(s, p, bits, slot, flags[i], t, gap, hour, volume[i], threat[i], x)
        for c in range(N_FEATURES):
            features[i, c] = x[c]
        for c in range(N_COMPONENTS):
            raw[i, c] = bits[c]
            excess[i, c] = less[c]
        score[i] = total
        tail[i] = tail_bits
        found[i] = hit
        proof = tail_bits + patterns.evidence(s, hit)
        strength[i] = proof
        kind[i] = grouping.NO_ENTITY
        if proof >= alert_bits:
            snapshots[published] = s
            whose = grouping.entity_of(s, p, source, spread, less, user[i], values[0], flags[i] & flag.FAILED)
            if whose == grouping.SOURCE_ENTITY:
                if source < 0:
                    source = learning.track_source(sources, sources_dirty, values[0], user[i], settled)
                publish = grouping.update(sources[source], offset[i], t, proof, hit, grouping.CAMPAIGN_GAP_MS)
                sources_dirty[source // SOURCES_PER_PAGE] = 1
                grouping.write_incident(sources[source], incident[i])
            elif whose == grouping.CROWD_ENTITY:
                publish = grouping.update(p, offset[i], t, proof, hit, grouping.CAMPAIGN_GAP_MS)
                grouping.write_incident(p, incident[i])
            else:
                publish = grouping.update(s, offset[i], t, proof, hit, gap_ms)
                grouping.write_incident(s, incident[i])
            kind[i] = whose if publish else -whose
            if publish:
                around = context[published]
                for k in range(N_CLASSES):
                    around.present[k] = p.fast[k]
                    around.usual[k] = surprisal.usual_count(p, k, hour)
                around.source_users = spread
                around.source_failures = sources[source].failures if source >= 0 else 0.0
                around.gap = gap
                around.hour = hour
                published += 1
        weight = learning.weight_of(tail_bits)
        shared = less[surprisal.CARRIED] + less[surprisal.SPREAD] + patterns.evidence(s, hit)
        for k in range(N_CLASSES):
            shared += less[surprisal.FIRST_CROWD + k]
        calibration.record(p, total, min(exp2(-(shared - 6.0) / 3.0), 1.0))
        fresh = values[0] != 0 and slot[0] < 0
        learned, events = s.learned, s.events
        learning.learn_profile(
            s,
            bits,
            own_bits,
            values,
            slot,
            flags[i],
            t,
            gap,
            day,
            area[i],
            volume[i],
            threat[i],
            hit,
            weight,
        )
        s.last_type = state
        s.last_offset = offset[i]
        learning.learn_population(
            p, table, table_dirty, values, fresh, learned, events, user[i], flags[i], hour, weight
        )
        for c in range(5):
            value = values[c]
            if value != 0 and learning.should_intern(s, c, slot[c]):
                a = np.int64(value & word_mask)
                if interned_hashes[a] != value:
                    b = np.int64((value >> np.uint64(32)) & word_mask)
                    if interned_hashes[b] != value:
                        place = a if interned_hashes[a] == 0 or interned_hashes[b] != 0 else b
                        interned_hashes[place] = value
                        (
                            intern_requests[interned, 0],
                            intern_requests[interned, 1],
                            intern_requests[interned, 2],
                        ) = i, c, place
                        interned += 1
    return published, interned
