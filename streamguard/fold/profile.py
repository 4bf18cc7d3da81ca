"""The profile of a user: rolling statistics of fixed size, which does not grow with the number of values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

VERSION = 2
"""Version of the layout of a partition's state. `streamguard.state.migration` converts the state of the version before;
any other is refused with an error that names both."""

MONTH = 2_592_000.0
HALF_LIVES = (300.0, 3600.0, 86_400.0, MONTH)
"""Seconds: 5 minutes, 1 hour, 1 day, 30 days."""

SKETCHES = ("source", "location", "host", "agent", "resource", "transition", "network")
"""Each sketch holds the 16 values of a user that have the greatest weight."""

SLOTS = 16
HOURS = 168
"""Hours of the week."""

COMPONENTS = (
    "source",
    "location",
    "host",
    "agent",
    "resource",
    "transition",
    "failure",
    "outcome",
    "hour",
    "interval",
    "volume",
    "threat",
    "crowd_new_source",
    "crowd_failure",
    "crowd_new_user",
    "crowd_new_source_failure",
    "source_spread",
    "carried",
)
"""Components of a score, which is their sum; each is in bits."""

PROFILE = np.dtype(
    [
        ("version", "<u4"),
        ("streak", "<u4"),  # consecutive failures
        ("last_offset", "<i8"),  # offset of the last folded event, so that no event is folded twice
        ("first_ts", "<i8"),  # ms
        ("last_ts", "<i8"),  # ms, time of the latest event
        ("active_ms", "<i8"),  # ms, the partition's active time when values of a month were last decayed
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
        ("queries", "<f8"),  # suspicious DNS names, half-life 5 minutes
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
        ("pattern_days", "<f8", 16),  # days on which each pattern was seen, half-life 30 days
        ("pattern_last_day", "<i8", 16),
        ("incident_offset", "<i8"),  # offset at which the open incident began; -1 if there was none
        ("incident_first_ts", "<i8"),
        ("incident_last_ts", "<i8"),
        ("incident_count", "<i8"),
        ("incident_bits", "<f8"),  # highest evidence of an alert so far
        ("incident_patterns", "<u8"),
        ("hours_total", "<f8"),
        ("sketch_total", "<f8", len(SKETCHES)),
        ("novel", "<f8", len(SKETCHES)),  # weight of values that were new to the sketch when they arrived
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
    profile["incident_offset"] = -1
    return profile
