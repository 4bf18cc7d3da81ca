"""Time in the fold: the partition's clock, and the decay of population and profiles."""

from __future__ import annotations

from streamguard.compute.arithmetic import exp2
from streamguard.compute.compiler import inline
from streamguard.fold import patterns, population
from streamguard.fold import profile as layout

N_CLASSES = len(population.CLASSES)
N_SKETCHES = len(layout.SKETCHES)
SLOTS = layout.SLOTS
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
MONTH_MS = 30 * DAY_MS
FAR_MS = DAY_MS
FEW_AGREE = 2
MANY_AGREE = 100
"""Number of consecutive events that are needed to move the partition's clock far ahead; see `advance`."""

LATE_MS = 6 * HOUR_MS
TOO_MANY_LATE = 300
"""The clock, not the events, is considered wrong if this many more events are late than are not."""


@inline
def hour_of_week(hours):  # type: ignore[no-untyped-def]
    """Hour of the week, 0 to 167 from Monday 0 h, of a number of hours since 1970, which began on a Thursday."""
    return (hours + 72) % layout.HOURS


@inline
def advance(p, ts, user):  # type: ignore[no-untyped-def]
    """Move the partition's clock and return by how many seconds; a few senders with wrong clocks do not move it.

    The clock moves more than a day ahead if the next event agrees. It moves more than a month ahead if the next event
    belongs to another user and agrees, or if 100 events in a row agree. It moves back if `TOO_MANY_LATE` more events
    are over `LATE_MS` behind it than are not.
    """
    if p.events == 0.0:
        p.clock = ts
        p.aged_ts = ts
        return 0.0
    target = ts
    if ts > p.clock + FAR_MS:
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
    elif ts < p.clock - LATE_MS:
        p.ahead = 0
        p.behind += 1
        if p.behind >= TOO_MANY_LATE:
            p.behind = 0
            p.clock = ts
            p.aged_ts = min(p.aged_ts, ts)
        return 0.0
    elif p.behind > 0:
        p.behind -= 1
    p.ahead = 0
    if target <= p.clock:
        return 0.0
    seconds = (target - p.clock) * 1e-3
    p.clock = target
    return seconds


@inline
def set_back(s, now):  # type: ignore[no-untyped-def]
    """Correct the times of a profile that a wrong clock has moved into the future."""
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
    """Decay rates by the elapsed time; frequencies, hours and scores once a day. Return whether the latter decayed."""
    if seconds > 0.0:
        fast = exp2(-seconds / population.FAST_HALF_LIFE)
        slow = exp2(-seconds / layout.MONTH)
        for k in range(N_CLASSES):
            p.fast[k] *= fast
            p.slow[k] *= slow
        p.failed_users *= fast
        p.fast_plain *= fast
        p.slow_plain *= slow
        p.age = p.age * slow + seconds
    if p.clock - p.aged_ts < DAY_MS:
        return False
    g = exp2(-(p.clock - p.aged_ts) * 1e-3 / layout.MONTH)
    p.aged_ts = p.clock
    for k in range(population.FIELDS):
        p.field_total[k] *= g
        p.novel[k] *= g
        p.novel_total[k] *= g
    for k in range(layout.HOURS):
        p.hours[k] *= g
    p.hours_total *= g
    p.learned *= g
    p.failures *= g
    for k in range(population.BINS):
        p.scores[k] *= g
    p.scores_total *= g
    for r in range(population.ROWS):
        for k in range(population.WIDTH):
            table[r, k] *= g
    return True


@inline
def age_profile(s, now, seconds):  # type: ignore[no-untyped-def]
    """Decay a profile's rates by the elapsed time; sketches, hours and patterns at most once an hour."""
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
    g = exp2(-(now - s.aged_ts) * 1e-3 / layout.MONTH)
    s.aged_ts = now
    for c in range(N_SKETCHES):
        s.sketch_total[c] *= g
        s.novel[c] *= g
        for q in range(SLOTS):
            s.sketch_weight[c, q] *= g
    s.hours_total *= g
    for k in range(layout.HOURS):
        s.hours[k] *= g
    for k in range(patterns.COUNT):
        s.pattern_days[k] *= g
