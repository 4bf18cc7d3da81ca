"""Time in the fold: the partition's clock, its active time, and the decay of population and profiles by them.

Rates of the last minutes, hours and days decay by event time. Everything that has a half-life of a month decays by the
partition's *active time*: a sum of the steps of its clock, which counts at most a day for one step and no time twice.
So silence, or an event with a false time, takes at most a day's worth of what was learned, however far the clock moves.
"""

from __future__ import annotations

import numpy as np

from streamguard.compute.arithmetic import exp2
from streamguard.compute.compiler import inline
from streamguard.events.ceiling import TOLERANCE_MS, UNKNOWN
from streamguard.fold import dimensions as layout
from streamguard.fold import patterns, population
from streamguard.fold.dimensions import DAY_MS, FAR_MS, HOUR_MS, MONTH_MS
from streamguard.fold.moments import INTERVAL

N_CLASSES = len(population.CLASSES)
N_SKETCHES = len(layout.SKETCHES)
SLOTS = layout.SLOTS
MARKS = population.MARKS
WEEK = 7 * 86_400.0
"""Seconds of a week."""
FEW_AGREE = 2
MANY_AGREE = 100
"""Number of consecutive events that are needed to move the partition's clock far ahead; see `advance`."""

LATE_MS = 6 * HOUR_MS
TOO_MANY_LATE = 300
"""The clock, not the events, is considered wrong if this many more events are late than are not."""

EVENTS_PER_HALF_LIFE = 500.0
"""A partition forgets half of what it knows in 30 active days, but not within fewer events: a quiet log stays known."""
USER_EVENTS_PER_HALF_LIFE = 50.0
"""The same for the habits of a user."""

EVENTS_PER_DAY = 100
"""A user alone ages the partition by a day, and by another day for each further 100 consecutive events."""


@inline
def hour_of_week(hours):  # type: ignore[no-untyped-def]
    """Hour of the week, 0 to 167 from Monday 0 h, of a number of hours since 1970, which began on a Thursday."""
    return (hours + 72) % layout.HOURS


@inline
def advance(p, ts, user, append):  # type: ignore[no-untyped-def]
    """Move the partition's clock; a few senders with wrong clocks do not move it far.

    The clock follows an event whose record was appended within hours of its time at once: its time is known to be
    right. Otherwise the clock moves more than a day ahead if the next event agrees. It moves more than a month ahead if
    the next event belongs to another user and agrees, or if 100 events in a row agree. It moves back if `TOO_MANY_LATE`
    more events are over `LATE_MS` behind it than are not, or if it is ahead of what an append time allows.

    Parameters
    ----------
    append
        Append time of the event's record, ms; `UNKNOWN` if its sender has set the time.

    Returns
    -------
    seconds, active
        Seconds by which the clock, and by which the active time has advanced.
    """
    if p.events == 0.0:
        p.clock = ts
    if p.active_ms == 0:  # the first event, or a state that was written before active time was measured
        p.active_ms = p.aged_ms = p.clock
        for k in range(MARKS):
            p.mark_clock[k] = p.mark_active[k] = p.clock
    if append != UNKNOWN and p.clock > append + TOLERANCE_MS:
        set_clock_back(p, append)
    vouched = append != UNKNOWN and ts > append - LATE_MS
    target = ts
    if ts > p.clock + FAR_MS and not vouched:
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
            return 0.0, 0.0
        target = p.ahead_ts
    elif ts < p.clock - LATE_MS:
        p.ahead = 0
        p.behind += 1
        if p.behind >= TOO_MANY_LATE:
            set_clock_back(p, ts)
        return 0.0, 0.0
    elif p.behind > 0:
        p.behind -= 1
    p.ahead = 0
    if vouched or user != p.leader:
        p.leader = user
        p.leader_events = 0
        p.leader_ms = 0
    p.leader_events += 1
    if target <= p.clock:
        return 0.0, 0.0
    step = target - p.clock
    p.clock = target
    allowed = min(DAY_MS, DAY_MS * (1 + p.leader_events // EVENTS_PER_DAY) - p.leader_ms)
    moved = min(step, max(p.active_debt, allowed))
    active = max(moved - p.active_debt, 0)
    p.active_debt = max(p.active_debt - moved, 0)
    p.active_ms += active
    p.leader_ms += active
    reached = p.active_ms - p.active_debt
    if reached - p.mark_active[0] >= DAY_MS:
        for k in range(MARKS - 1, 0, -1):
            p.mark_clock[k], p.mark_active[k] = p.mark_clock[k - 1], p.mark_active[k - 1]
        p.mark_clock[0], p.mark_active[0] = p.clock, reached
    return step * 1e-3, active * 1e-3


@inline
def set_clock_back(p, ts):  # type: ignore[no-untyped-def]
    """Set the clock back; the active time from there on has passed already, and does not pass a second time."""
    after = p.active_ms - p.active_debt
    first = 0
    while first < MARKS - 1 and p.mark_clock[first] > ts:
        after = p.mark_active[first]
        first += 1
    for k in range(MARKS):
        last = min(k + first, MARKS - 1)
        p.mark_clock[k], p.mark_active[k] = p.mark_clock[last], p.mark_active[last]
    reached = min(p.mark_active[0] + max(ts - p.mark_clock[0], 0), after)
    p.active_debt = p.active_ms - reached
    p.clock = ts
    p.ahead = 0
    p.behind = 0


@inline
def set_back(s, now):  # type: ignore[no-untyped-def]
    """Correct the times of a profile that a wrong clock has moved into the future."""
    s.first_ts = min(s.first_ts, now)
    s.last_ts = now
    s.last_failure_ts = min(s.last_failure_ts, now)
    s.last_area_ts = min(s.last_area_ts, now)
    s.last_day = min(s.last_day, now // DAY_MS)
    s.last_hour = min(s.last_hour, now // HOUR_MS)
    if s.incident_last_ts > now:  # the next alert opens a new one
        s.incident_offset = -1
    for k in range(patterns.COUNT):
        s.pattern_last_day[k] = min(s.pattern_last_day[k], now // DAY_MS)
    for q in range(SLOTS):
        s.suspicion_ts[q] = min(s.suspicion_ts[q], now)
    for q in range(layout.DNS_SLOTS + 1):
        s.dns_ts[q] = min(s.dns_ts[q], now)
    s.unheard_ts = min(s.unheard_ts, now)


@inline
def since_last_event(s, p, ts):  # type: ignore[no-untyped-def]
    """Seconds since the user's last event; prepares a new profile, or one with times of a wrong clock."""
    if s.events == 0.0:
        s.first_ts = ts
        s.last_ts = ts
        s.last_day = -1
        s.last_hour = -1
        return 0.0
    if s.last_ts > max(p.clock, ts) + FAR_MS:
        set_back(s, ts)
        return exp2(s.mean[INTERVAL])  # the time is unknown: the usual one has no weight
    return max(np.float64(ts - s.last_ts), 0.0) * 1e-3


@inline
def age_population(p, table, seconds, active):  # type: ignore[no-untyped-def]
    """Decay rates; frequencies, hours and scores once an active day. Return whether the latter decayed."""
    if seconds > 0.0:
        fast = exp2(-seconds / population.FAST_HALF_LIFE)
        for k in range(N_CLASSES):
            p.fast[k] *= fast
        p.failed_users *= fast
        p.fast_plain *= fast
        p.fast_stranger *= fast
    if active > 0.0:
        slow = exp2(-active / layout.MONTH)
        for k in range(N_CLASSES):
            p.slow[k] *= slow
        p.slow_plain *= slow
        p.active_month *= slow
        p.active_week *= exp2(-active / WEEK)
        day = exp2(-active / 86_400.0)
        p.active *= day
        p.returns *= day
        p.strange *= day
        p.recent *= day
        p.age = p.age * slow + active
    if p.active_ms - p.aged_ms < DAY_MS:
        return False
    half_lives = (p.active_ms - p.aged_ms) * 1e-3 / layout.MONTH
    g = exp2(-min(half_lives, (p.events - p.aged_events) / EVENTS_PER_HALF_LIFE))
    p.aged_ms = p.active_ms
    p.aged_events = p.events
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
def has_expired(s, p, forget_ms):  # type: ignore[no-untyped-def]
    """Whether the user's last event is more than `forget_ms` of active time ago: the profile then no longer counts.

    `active_ms` of a profile is at most an hour behind its last event. A profile that was stored before active time was
    measured has none; its active time began where its event time ended. `streamguard.state.expiry` has the same rule
    for stored profiles.
    """
    last = s.active_ms if s.active_ms != 0 else s.last_ts
    return s.events > 0.0 and last < p.active_ms - forget_ms


@inline
def age_profile(s, p, seconds):  # type: ignore[no-untyped-def]
    """Decay a profile: rates of minutes, hours and days by event time, the rest at most once an active hour.

    Parameters
    ----------
    seconds
        Seconds since the user's last event.
    """
    if s.active_ms == 0:
        s.active_ms = p.active_ms
        s.first_active_ms = min(s.first_ts, p.active_ms)
    if seconds > 0.0:
        for j in range(3):
            g = exp2(-seconds / layout.HALF_LIVES[j])
            s.count[j] *= g
            s.failures[j] *= g
            s.volume[j] *= g
            if j == 0:
                s.reads[0] *= g
                s.changes[0] *= g
                s.encrypted *= g
    if p.active_ms - s.active_ms < HOUR_MS:
        return
    half_lives = (p.active_ms - s.active_ms) * 1e-3 / layout.MONTH
    g = exp2(-half_lives)
    s.active_ms = p.active_ms
    s.count[3] *= g
    s.failures[3] *= g
    s.volume[3] *= g
    s.reads[1] *= g
    s.changes[1] *= g
    for k in range(patterns.COUNT):
        s.pattern_days[k] *= g
    g = exp2(-min(half_lives, (s.events - s.aged_events) / USER_EVENTS_PER_HALF_LIFE))
    s.aged_events = s.events
    s.learned *= g
    s.learned_failures *= g
    for c in range(N_SKETCHES):
        s.sketch_total[c] *= g
        s.novel[c] *= g
        s.seen[c] *= g
        s.unheard_of[c] *= g
        for q in range(SLOTS):
            s.sketch_weight[c, q] *= g
    s.hours_total *= g
    for k in range(layout.HOURS):
        s.hours[k] *= g
