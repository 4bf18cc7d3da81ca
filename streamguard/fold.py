"""The fold: one partition's events, in offset order, into profiles and population; features, evidence, incidents out.

The same compiled function runs in the worker, in the Spark job and in `streamguard replay`. It reads no clock, draws
no random number and keeps nothing between events but its arguments, so its results do not depend on chunk size.
"""

from __future__ import annotations

import numpy as np

from streamguard import calibration, grouping, patterns, surprise
from streamguard import indicators as flag
from streamguard import population as crowd
from streamguard import profile as layout
from streamguard.numeric import exp2, inline, kernel, log2, mix

N_FEATURES = 28
N_SKETCHES = len(layout.SKETCHES)
N_COMPONENTS = len(layout.COMPONENTS)
N_CLASSES = len(crowd.CLASSES)
SLOTS = layout.SLOTS
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
MONTH_SECONDS = 2_592_000.0
MONTH_MS = 30 * DAY_MS
FAR_MS = DAY_MS
FEW_AGREE = 2
MANY_AGREE = 100
"""How many events in a row it takes to move the partition's clock far; see `advance`."""

QUIET_BITS = 5.0
LEARN_BITS = 1.5
LEAST_WEIGHT = 0.02
"""An event learns with weight 2**-((tail bits - 5) / 1.5), between 0.02 and 1: poisoned slowly, locked never."""

UNREMARKABLE = 3.0
KEPT = 0.9
"""Suspicion of a source grows by an event's bits beyond 4 and keeps nine tenths from one event to the next."""

MEMORY = 200.0
"""Events that means and variances remember."""


@inline
def advance(p, ts, user):  # type: ignore[no-untyped-def]
    """Move the partition's clock, and how far in seconds; a few wrong clocks among the senders do not move it.

    It goes more than a day ahead when the next event agrees; more than a month ahead when the next event is another
    user's, or a hundred in a row agree; and back when a hundred in a row are more than a day behind.
    """
    if p.events == 0.0:
        p.clock = ts
        p.aged_ts = ts
        return 0.0
    target = ts
    if ts > p.clock + FAR_MS:
        p.behind = 0
        if p.ahead == 0:
            p.ahead_ts = ts
            p.ahead_user = user
            p.ahead_agreed = 0
        p.ahead_ts = min(ts, p.ahead_ts)
        p.ahead += 1
        if user != p.ahead_user:
            p.ahead_agreed = 1
        near = p.ahead_ts <= p.clock + MONTH_MS
        if p.ahead < (FEW_AGREE if near or p.ahead_agreed else MANY_AGREE):
            return 0.0
        target = p.ahead_ts
    elif ts < p.clock - FAR_MS:
        p.ahead = 0
        p.behind += 1
        if p.behind == MANY_AGREE:
            p.behind = 0
            p.clock = ts
            p.aged_ts = min(p.aged_ts, ts)
        return 0.0
    p.ahead = 0
    p.behind = 0
    if target <= p.clock:
        return 0.0
    seconds = (target - p.clock) * 1e-3
    p.clock = target
    return seconds


@inline
def set_back(s, now):  # type: ignore[no-untyped-def]
    """Take back the times of a profile that a wrong clock had moved into the future."""
    s.first_ts = min(s.first_ts, now)
    s.last_ts = now
    s.aged_ts = now
    s.last_failure_ts = min(s.last_failure_ts, now)
    s.last_area_ts = min(s.last_area_ts, now)
    s.last_day = min(s.last_day, now // DAY_MS)
    s.last_hour = min(s.last_hour, now // HOUR_MS)
    s.incident_last_ts = min(s.incident_last_ts, now)
    for k in range(patterns.COUNT):
        s.pattern_last_day[k] = min(s.pattern_last_day[k], now // DAY_MS)
    for q in range(SLOTS):
        s.suspicion_ts[q] = min(s.suspicion_ts[q], now)


@inline
def age_population(p, table, seconds):  # type: ignore[no-untyped-def]
    """Decay rates by the time passed; frequencies, hours and scores once a day."""
    if seconds > 0.0:
        fast = exp2(-seconds / crowd.FAST_HALF_LIFE)
        slow = exp2(-seconds / crowd.SLOW_HALF_LIFE)
        for k in range(N_CLASSES):
            p.fast[k] *= fast
            p.slow[k] *= slow
        p.failed_users *= fast
        p.fast_plain *= fast
        p.slow_plain *= slow
        p.age = p.age * slow + seconds
    if p.clock - p.aged_ts < DAY_MS:
        return False
    g = exp2(-(p.clock - p.aged_ts) * 1e-3 / MONTH_SECONDS)
    p.aged_ts = p.clock
    for k in range(crowd.FIELDS):
        p.field_total[k] *= g
        p.novel[k] *= g
        p.novel_total[k] *= g
    for k in range(168):
        p.hours[k] *= g
    p.hours_total *= g
    p.learned *= g
    p.failures *= g
    for k in range(crowd.BINS):
        p.scores[k] *= g
    p.scores_total *= g
    for r in range(crowd.ROWS):
        for k in range(crowd.WIDTH):
            table[r, k] *= g
    return True


@inline
def age_profile(s, now, seconds):  # type: ignore[no-untyped-def]
    """Decay a profile's rates by the time passed; sketches, hours and patterns at most once an hour."""
    if seconds > 0.0:
        for j in range(4):
            g = exp2(-seconds / layout.HALF_LIVES[j])
            s.count[j] *= g
            s.failures[j] *= g
            s.volume[j] *= g
            if j == 0:
                s.reads[0] *= g
                s.changes[0] *= g
                s.encrypted *= g
                s.queries *= g
            if j == 3:
                s.reads[1] *= g
                s.changes[1] *= g
                s.learned *= g
                s.learned_failures *= g
    if now - s.aged_ts < HOUR_MS:
        return
    g = exp2(-(now - s.aged_ts) * 1e-3 / MONTH_SECONDS)
    s.aged_ts = now
    for c in range(N_SKETCHES):
        s.sketch_total[c] *= g
        s.novel[c] *= g
        for q in range(SLOTS):
            s.sketch_weight[c, q] *= g
    s.hours_total *= g
    for k in range(168):
        s.hours[k] *= g
    for k in range(patterns.COUNT):
        s.pattern_days[k] *= g


@inline
def describe(s, p, bits, slot, flags, ts, gap, hour, volume, threat, x):  # type: ignore[no-untyped-def]
    """Fill the feature row; see `streamguard.features` for each formula."""
    x[0] = log2(1.0 + 12.0 * s.count[0])
    x[1] = log2(1.0 + s.count[1])
    x[2] = log2(1.0 + s.count[2] / 24.0)
    x[3] = log2(1.0 + s.count[3] / 720.0)
    x[4] = bits[2]
    x[5] = bits[3]
    x[6] = bits[4]
    x[7] = surprise.deviation(s, 1, log2(volume + 1.0), 1.0) if flags & flag.HAS_VOLUME else 0.0
    x[8] = bits[8]
    busier = 0.0
    for k in range(168):
        if p.hours[k] > p.hours[hour]:
            busier += 1.0
    x[9] = busier / 168.0
    x[10] = log2(1.0 + gap / 86_400.0)
    x[11] = log2(1.0 + s.active_days)
    x[12] = surprise.deviation(s, 0, log2(gap + 1e-3), 1.0)
    x[13] = log2((12.0 * s.count[0] + 1.0) / (s.count[2] / 24.0 + 1.0))
    x[14] = bits[0]
    near = s.sketch_weight[6, slot[6]] if slot[6] >= 0 else 0.0
    x[15] = -log2((near + 0.5) / (s.sketch_total[6] + 1.0))
    x[16] = bits[1]
    squares = 0.0
    for q in range(SLOTS):
        w = np.float64(s.sketch_weight[0, q])
        squares += w * w
    x[17] = log2(max(s.sketch_total[0] * s.sketch_total[0] / squares, 1.0)) if squares > 0.0 else 0.0
    x[18] = bits[12]
    x[19] = bits[5]
    x[20] = log2(1.0 + max(ts - s.suspicion_ts[slot[0]], 0) / 3.6e6) if slot[0] >= 0 else 0.0
    x[21] = log2(1.0 + s.streak)
    x[22] = x[21] if flags & flag.SUCCEEDED else 0.0
    x[23] = threat
    x[24] = surprise.deviation(s, 2, threat, 0.0025) if flags & flag.HAS_THREAT else 0.0
    x[25] = s.mean[2]
    x[26] = (s.failures[1] + 0.05) / (s.count[1] + 1.0)
    x[27] = (s.failures[2] + 0.05) / (s.count[2] + 1.0)


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
    """Let a user's profile learn one event with a weight."""
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
        if c == surprise.SOURCE:
            s.suspicion[k] = surprise.suspicion(s, slot[c], ts) * KEPT + max(own - UNREMARKABLE, 0.0)
            s.suspicion_ts[k] = max(ts, s.suspicion_ts[k]) if slot[c] >= 0 else ts
        slot[c] = k
    if ts // HOUR_MS != s.last_hour:
        if s.last_hour >= 0:
            s.hours[(s.last_hour + 72) % 168] += s.hour_weight
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
    """Count a value in the frequency table, conservatively (Estan and Varghese 2002); whether it was new."""
    a, b = surprise.cells(field, value)
    old = min(table[0, a], table[1, b])
    new = old + 1.0
    table[0, a] = max(table[0, a], new)
    table[1, b] = max(table[1, b], new)
    dirty[a // crowd.PAGE] = 1
    dirty[(crowd.WIDTH + b) // crowd.PAGE] = 1
    return old == 0.0


@inline
def learn_population(p, table, dirty, values, fresh, learned, events, user, flags, hour, weight):  # type: ignore[no-untyped-def]
    """Let the population learn one event: all of it for the crowd, weighted for what is usual."""
    failed = flags & flag.FAILED
    plain = True
    for k in range(N_CLASSES):
        if surprise.belongs(k, fresh, failed, learned, events):
            p.fast[k] += 1.0
            p.slow[k] += 1.0
            plain = False
    if plain:
        p.fast_plain += 1.0
        p.slow_plain += 1.0
    for c in range(crowd.FIELDS):
        if values[c] != 0 and c != surprise.NETWORK:
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
    """Remember that an address failed at a user; where it stands. A full set gives up its longest silent entry."""
    at = surprise.source_entry(sources, value)
    if at < 0:
        base = np.int64(mix(value) & surprise.WAY_MASK) * crowd.WAYS
        at = base
        for w in range(1, crowd.WAYS):
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
    dirty[at // crowd.SOURCES_PER_PAGE] = 1
    return at


@inline
def forget_source(e):  # type: ignore[no-untyped-def]
    e.failures = 0.0
    for q in range(4):
        e.users[q] = np.uint64(0)
    e.incident_patterns = np.uint64(0)
    e.incident_count = 0


@inline
def recalled(s, c, slot):  # type: ignore[no-untyped-def]
    """Whether a value weighs enough in a sketch for its text to be kept: one seen once never does."""
    weight = s.sketch_weight[c, slot]
    return weight >= 2.0 or (s.events >= 5.0 and weight >= 0.1 * s.sketch_total[c])


@kernel
def fold(  # type: ignore[no-untyped-def]
    profiles, population, table, sources, words, table_dirty, sources_dirty,
    row, offset, user, ts, threat, volume, flags, hashes, network, area, alert_bits, gap_ms,
    features, raw, excess, score, tail, strength, found, kind, incident, snapshots, context, wanted,
):  # fmt: skip
    """Fold one chunk of n events in offset order.

    Parameters
    ----------
    profiles
        `PROFILE` (resident,); updated.
    population, table, sources
        `POPULATION` (1,), float64 (2, 65536), `SOURCE` (4096,); updated.
    words
        uint64 (65536,): the hashes whose texts the dictionary holds; updated.
    table_dirty, sources_dirty
        uint8, by page; set where changed.
    row
        int64 (n,): each event's profile.
    offset, user, ts, threat, volume, flags, hashes, network, area
        The columns; see `streamguard.columns.Columns`.
    alert_bits, gap_ms
        Evidence that alerts; silence that ends an incident.
    features
        float32 (n, 28), out.
    raw, excess
        float32 (n, 18), out: components before and after the user's own entropy is taken off.
    score, tail, strength, found
        float64, float64, float64, uint64 (n,), out: sum of excess, its tail in bits, that with the patterns' bits,
        patterns.
    kind
        int8 (n,), out: whose alert (`streamguard.grouping`), 0 none; negative: it is not told again.
    incident
        float64 (n, 5), out, of each alert's incident: first offset, first ms, count, patterns, evidence.
    snapshots
        `PROFILE` (n,), out: profiles of told alerts as they were before the event.
    context
        float64 (n, 12), out: what the crowd did at each told alert: per class the present count and the usual one,
        users that the source failed at, its failures, seconds since the user's last event, hour of the week.
    wanted
        int64 (n * 5, 3), out: event, text column and word slot of texts to remember.

    Returns
    -------
    told, remembered
        How many rows of `snapshots` and `wanted` are filled.
    """
    n = row.shape[0]
    p = population[0]
    bits = np.zeros(N_COMPONENTS)
    less = np.zeros(N_COMPONENTS)
    slot = np.zeros(N_SKETCHES, np.int64)
    values = np.zeros(crowd.FIELDS, np.uint64)
    x = np.zeros(N_FEATURES)
    told = remembered = 0
    word_mask = np.uint64(words.shape[0] - 1)
    for i in range(n):
        s = profiles[row[i]]
        t = ts[i]
        if offset[i] <= s.last_offset:
            features[i], raw[i], excess[i] = 0.0, 0.0, 0.0
            score[i], tail[i], strength[i], found[i], kind[i] = -1.0, 0.0, 0.0, np.uint64(0), grouping.NONE
            continue
        seconds = advance(p, t, user[i])
        if age_population(p, table, seconds):
            table_dirty[:] = 1
        now = min(t, p.clock)
        gap = 0.0
        if s.events == 0.0:
            s.first_ts = now
            s.last_ts = now
            s.aged_ts = now
            s.last_day = -1
            s.last_hour = -1
        else:
            if s.last_ts > p.clock + FAR_MS:
                set_back(s, now)
            gap = max(np.float64(now - s.last_ts), 0.0) * 1e-3
        age_profile(s, now, gap)
        hour = (t // HOUR_MS + 72) % 168
        day = now // DAY_MS
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
                source = track_source(sources, sources_dirty, values[0], user[i], now)
            else:
                source = surprise.source_entry(sources, values[0])
        surprise.components(
            s, p, table, sources, values, source, flags[i], now, gap, hour, threat[i], volume[i], slot, bits
        )
        total = surprise.discounted(s, bits, less)
        tail_bits = calibration.tail_bits(p, total)
        own_bits = calibration.tail_bits(p, total - less[surprise.CARRIED])
        spread = surprise.distinct(sources[source].users) if source >= 0 else 0.0
        hit = patterns.found(s, less, slot, flags[i], now, gap, area[i], volume[i], spread)
        describe(s, p, bits, slot, flags[i], now, gap, hour, volume[i], threat[i], x)
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
        kind[i] = grouping.NONE
        if proof >= alert_bits:
            snapshots[told] = s
            whose = grouping.owner(s, p, source, spread, less, user[i], values[0], flags[i] & flag.FAILED)
            if whose == grouping.SOURCE:
                if source < 0:
                    source = track_source(sources, sources_dirty, values[0], user[i], now)
                tell = grouping.join(sources[source], offset[i], now, proof, hit, grouping.CAMPAIGN_GAP_MS)
                sources_dirty[source // crowd.SOURCES_PER_PAGE] = 1
                grouping.report(sources[source], incident[i])
            elif whose == grouping.CROWD:
                tell = grouping.join(p, offset[i], now, proof, hit, grouping.CAMPAIGN_GAP_MS)
                grouping.report(p, incident[i])
            else:
                tell = grouping.join(s, offset[i], now, proof, hit, gap_ms)
                grouping.report(s, incident[i])
            kind[i] = whose if tell else -whose
            if tell:
                for k in range(N_CLASSES):
                    context[told, k] = p.fast[k]
                    context[told, N_CLASSES + k] = surprise.usual_count(p, k, hour)
                context[told, 8] = spread
                context[told, 9] = sources[source].failures if source >= 0 else 0.0
                context[told, 10] = gap
                context[told, 11] = hour
                told += 1
        weight = min(max(exp2(-(tail_bits - QUIET_BITS) / LEARN_BITS), LEAST_WEIGHT), 1.0)
        shared = less[surprise.CARRIED] + less[surprise.SPREAD] + patterns.evidence(s, hit)
        for k in range(N_CLASSES):
            shared += less[surprise.CROWD + k]
        calibration.record(p, total, min(exp2(-(shared - 6.0) / 3.0), 1.0))
        fresh = values[0] != 0 and slot[0] < 0
        learned, events = s.learned, s.events
        learn_profile(
            s,
            bits,
            own_bits,
            values,
            slot,
            flags[i],
            now,
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
        learn_population(
            p, table, table_dirty, values, fresh, learned, events, user[i], flags[i], hour, weight
        )
        for c in range(5):
            value = values[c]
            if value != 0 and recalled(s, c, slot[c]):
                a = np.int64(value & word_mask)
                if words[a] != value:
                    b = np.int64((value >> np.uint64(32)) & word_mask)
                    if words[b] != value:
                        place = a if words[a] == 0 or words[b] != 0 else b
                        words[place] = value
                        wanted[remembered, 0], wanted[remembered, 1], wanted[remembered, 2] = i, c, place
                        remembered += 1
    return told, remembered
