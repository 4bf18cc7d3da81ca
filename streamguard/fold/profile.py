"""A user's profile: rolling statistics of fixed size, so that no flood of new values makes it grow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

VERSION = 1
"""Of the layout of a partition's state. What was stored with another is refused by name."""

MONTH = 2_592_000.0
HALF_LIVES = (300.0, 3600.0, 86_400.0, MONTH)
"""Seconds: 5 minutes, 1 hour, 1 day, 30 days."""

SKETCHES = ("source", "location", "host", "agent", "resource", "transition", "network")
"""Each remembers a user's 16 weightiest values."""

SLOTS = 16
HOURS = 168
"""Of the week."""

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
"""What a score is the sum of; each in bits."""

PROFILE = np.dtype(
    [
        ("version", "<u4"),
        ("streak", "<u4"),  # failures in a row
        ("last_offset", "<i8"),  # of the last event folded: a check that none is folded twice
        ("first_ts", "<i8"),  # ms
        ("last_ts", "<i8"),  # ms, the latest seen
        ("aged_ts", "<i8"),  # ms, when sketches and hours were last decayed
        ("last_failure_ts", "<i8"),  # ms
        ("last_day", "<i8"),  # days since 1970
        ("last_hour", "<i8"),  # hours since 1970; learned when it is over
        ("hour_weight", "<f8"),  # with this weight
        ("last_area_ts", "<i8"),  # ms
        ("last_area", "<u8"),
        ("last_type", "<u8"),
        ("events", "<f8"),  # ever
        ("active_days", "<f8"),  # ever
        ("count", "<f8", 4),  # events, decayed by HALF_LIVES
        ("failures", "<f8", 4),  # failed events, likewise
        ("volume", "<f8", 4),  # bytes, likewise
        ("reads", "<f8", 2),  # files read: 5 minutes, 30 days
        ("changes", "<f8", 2),  # files changed, likewise
        ("encrypted", "<f8"),  # encrypted files written, 5 minutes
        ("queries", "<f8"),  # suspicious DNS names, 5 minutes
        ("learned", "<f8"),  # weight of all that was learned, 30 days
        ("learned_failures", "<f8"),  # likewise, of failures
        ("moments", "<f8", 3),  # weight behind mean and variance of: interval, volume, threat
        ("mean", "<f8", 3),  # log2 s, log2 bytes, score
        ("variance", "<f8", 3),
        (
            "typical",
            "<f8",
            len(COMPONENTS),
        ),  # mean bits of each component: what this user's own entropy makes usual
        ("pattern_days", "<f8", 16),  # days on which each pattern was seen, 30 days
        ("pattern_last_day", "<i8", 16),
        ("incident_offset", "<i8"),  # where the open incident began; -1: none was
        ("incident_first_ts", "<i8"),
        ("incident_last_ts", "<i8"),
        ("incident_count", "<i8"),
        ("incident_bits", "<f8"),  # the highest evidence so far
        ("incident_patterns", "<u8"),
        ("hours_total", "<f8"),
        ("sketch_total", "<f8", len(SKETCHES)),
        ("novel", "<f8", len(SKETCHES)),  # weight of values that were new to the sketch when they came
        ("sketch_hash", "<u8", (len(SKETCHES), SLOTS)),
        ("suspicion_ts", "<i8", SLOTS),  # of each source: when it was last seen
        ("suspicion", "<f4", SLOTS),  # of each source: bits of its last event
        ("sketch_weight", "<f8", (len(SKETCHES), SLOTS)),
        ("hours", "<f4", HOURS),  # hours with events, by hour of the week, UTC, Monday 0 h first
    ]
)


def blank() -> NDArray[np.void]:
    """A profile of nobody yet, shape ()."""
    profile = np.zeros((), PROFILE)
    profile["version"] = VERSION
    profile["last_offset"] = -1
    profile["incident_offset"] = -1
    return profile
