"""The profile of a user: rolling statistics of fixed size, which does not grow with the number of values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamguard.fold.components import COMPONENTS
from streamguard.fold.dimensions import DNS_SLOTS, HOURS, PATTERN_SLOTS, SKETCHES, SLOTS, VERSION

PROFILE = np.dtype(
    [
        ("version", "<u4"),
        ("streak", "<u4"),  # consecutive failures
        ("last_offset", "<i8"),  # offset of the last folded event, so that no event is folded twice
        ("first_ts", "<i8"),  # ms
        ("last_ts", "<i8"),  # ms, time of the latest event
        ("active_ms", "<i8"),  # ms, the partition's active time when values of a month were last decayed
        ("aged_events", "<f8"),  # all events until then
        ("unheard_ts", "<i8"),  # ms, time of the last action that was new to all users
        ("unheard", "<f8"),  # bits of such actions, half-life 5 minutes
        ("first_active_ms", "<i8"),  # ms, active time of the first event
        ("last_failure_ts", "<i8"),  # ms
        ("last_day", "<i8"),  # days since 1970
        ("last_hour", "<i8"),  # hours since 1970; it is learned when it is over
        ("hour_weight", "<f8"),  # weight with which `last_hour` is learned
        ("last_area_ts", "<i8"),  # ms
        ("last_area", "<u8"),
        ("last_type", "<u8"),
        ("events", "<f8"),  # all events so far
        ("active_days", "<f8"),  # all days with events so far
        ("count", "<f8", 4),  # events, decayed by HALF_LIVES
        ("failures", "<f8", 4),  # failed events, decayed by HALF_LIVES
        ("volume", "<f8", 4),  # bytes, decayed by HALF_LIVES
        ("reads", "<f8", 2),  # files read, half-lives 5 minutes and 30 days
        ("changes", "<f8", 2),  # files changed, half-lives 5 minutes and 30 days
        ("encrypted", "<f8"),  # encrypted files written, half-life 5 minutes
        ("dns_domain", "<u8", DNS_SLOTS),  # registered domains with names that may carry data
        (
            "dns_names",
            "<u8",
            DNS_SLOTS + 1,
        ),  # bitmap of these names of each; the last one: of generated domains
        ("dns_ts", "<i8", DNS_SLOTS + 1),  # ms, when each bitmap last changed
        ("learned", "<f8"),  # weight of all events that were learned, half-life 30 days
        ("learned_failures", "<f8"),  # weight of the failures in `learned`
        ("moments", "<f8", 3),  # weight of mean and variance of: interval, volume, threat
        ("mean", "<f8", 3),  # log2 s, log2 bytes, score
        ("variance", "<f8", 3),
        (
            "typical",
            "<f8",
            len(COMPONENTS),
        ),  # mean bits of each component, which are usual for this user
        ("pattern_days", "<f8", PATTERN_SLOTS),  # days on which each pattern was seen, half-life 30 days
        ("pattern_last_day", "<i8", PATTERN_SLOTS),
        (
            "tried_incident",
            "<i8",
        ),  # offset at which the last incident of a source or crowd began that tried this user
        (
            "entered_incident",
            "<i8",
        ),  # offset at which the last incident began in which this user's login succeeded
        ("incident_offset", "<i8"),  # offset at which the open incident began; -1 if there was none
        ("incident_first_ts", "<i8"),
        ("incident_last_ts", "<i8"),
        ("incident_count", "<i8"),
        ("incident_bits", "<f8"),  # highest evidence of an alert so far
        ("incident_patterns", "<u8"),
        ("hours_total", "<f8"),
        ("sketch_total", "<f8", len(SKETCHES)),
        ("novel", "<f8", len(SKETCHES)),  # weight of values that were new to the sketch when they arrived
        ("seen", "<f8", len(SKETCHES)),  # weight of all values, including those that have left the sketch
        ("unheard_of", "<f8", len(SKETCHES)),  # weight of values that were new to all users when they arrived
        ("sketch_proven", "<u4", len(SKETCHES)),  # bitmap of the slots whose values have succeeded
        ("sketch_hash", "<u8", (len(SKETCHES), SLOTS)),
        ("suspicion_ts", "<i8", SLOTS),  # ms, when each source was last seen
        ("suspicion", "<f4", SLOTS),  # suspicion of each source, bits
        ("sketch_weight", "<f8", (len(SKETCHES), SLOTS)),
        ("hours", "<f4", HOURS),  # hours with events, by hour of the week, UTC, Monday 0 h first
    ]
)


def blank() -> NDArray[np.void]:
    """Return the profile of a new user, shape ()."""
    profile = np.zeros((), PROFILE)
    profile["version"] = VERSION
    profile["last_offset"] = -1
    for name in ("incident_offset", "tried_incident", "entered_incident"):
        profile[name] = -1
    return profile
