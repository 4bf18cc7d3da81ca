"""The population of a partition: how common each value is, how high the rates are, and which scores are usual."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamguard.fold.dimensions import HOURS, VERSION

CLASSES = ("new_source", "failure", "new_user", "new_source_failure")
"""Classes of events whose rates in the whole partition are measured."""

FAST_HALF_LIFE = 300.0
"""Seconds: waves of an attack last minutes."""
FIELD_SALTS = (0, 1, 2, 3, 4, 5, 6, 8, 9, 7)
"""Number that distinguishes each field in the frequency table: first the sketches of a profile, in their order,
then the outcome. A number never changes, so that stored counters keep their meaning."""

FIELDS = len(FIELD_SALTS)

ROWS = 2
WIDTH = 65_536
"""Counters of the frequency table: two for each value, so that one collision does not mislead, in two rows. Each value
shares a counter with 1 / 65,536 of all others."""
PAGE = 512
"""Counters of a page, which are saved together; a page has 4 KiB."""

BINS = 512
BINS_PER_BIT = 4
"""The histogram of scores: 128 bits in quarters, finer than any difference that matters to a person."""

MARKS = 32
"""Number of active days for which the clock at their end is remembered."""

ADOPTED = 512
"""Number of values that users have taken up lately, each in the place that its hash names."""
ADOPTED_PER_PAGE = 64
"""Values of a page, which are saved together."""

SOURCES = 4096
"""Number of failing sources that are remembered: more than a partition sees in an hour but under an attack."""
WAYS = 4
"""Places that each source may take; the one that has been silent for longest gives way."""
SOURCES_PER_PAGE = 64
"""Sources of a page, which are saved together."""

POPULATION = np.dtype(
    [
        ("version", "<u4"),
        ("ahead", "<u4"),  # number of consecutive events with a time far ahead of the clock
        ("behind", "<u4"),  # number of events that are hours behind the clock, less those that are not
        ("ahead_agreed", "<u4"),  # whether the events ahead of the clock belong to more than one user
        ("clock", "<i8"),  # ms, the partition's event time
        ("ahead_user", "<u8"),  # user of the first event ahead of the clock
        ("ahead_ts", "<i8"),  # ms, the earliest time of the events ahead of the clock
        ("active_ms", "<i8"),  # ms, active time; see `streamguard.fold.ageing`
        ("active_debt", "<i8"),  # ms of active time that had passed when the clock was set back
        ("aged_ms", "<i8"),  # ms, active time when frequencies, hours and scores were last decayed
        ("aged_events", "<f8"),  # all events until then
        (
            "mark_clock",
            "<i8",
            MARKS,
        ),  # ms, clock at the end of each of the last active days, the latest first
        ("mark_active", "<i8", MARKS),  # ms, active time, less the debt, at these moments
        ("leader", "<u8"),  # user of the last event that is not late
        ("leader_events", "<i8"),  # number of consecutive events of that user
        ("leader_ms", "<i8"),  # ms by which they have advanced the active time
        ("events", "<f8"),  # all events so far
        ("age", "<f8"),  # s, with a half-life of 30 days: time that the slow counters stand for
        ("fast", "<f8", len(CLASSES)),  # events of each class, half-life 5 minutes
        ("slow", "<f8", len(CLASSES)),  # events of each class, half-life 30 days
        ("fast_plain", "<f8"),  # events that belong to no class, half-life 5 minutes
        ("slow_plain", "<f8"),  # events that belong to no class, half-life 30 days
        ("fast_stranger", "<f8"),  # events of users who are hardly known, half-life 5 minutes
        ("active", "<f8"),  # known users that began a day, half-life 1 active day
        ("active_week", "<f8"),  # the same, half-life 7 active days
        ("active_month", "<f8"),  # the same, half-life 30 active days
        ("returns", "<f8"),  # users who come back after weeks, half-life 1 active day
        ("strange", "<f8"),  # weight of unusual scores that were recorded, half-life 1 active day
        ("recent", "<f8"),  # weight of all scores that were recorded, half-life 1 active day
        ("last_failed_user", "<u8"),
        ("failed_users", "<f8"),  # failures of another user than the one before, half-life 5 minutes
        ("failures", "<f8"),  # weight of the failures in `learned`
        ("learned", "<f8"),  # weight of all events that were learned
        ("field_total", "<f8", FIELDS),
        ("novel", "<f8", FIELDS),  # weight of values that were new to all users
        ("novel_total", "<f8", FIELDS),  # weight of all values, counted as in `novel`
        ("hours_total", "<f8"),
        ("hours", "<f8", HOURS),
        ("scores_total", "<f8"),
        ("scores", "<f8", BINS),  # weight of scores per quarter of a bit; the last bin has no upper end
        ("incident_offset", "<i8"),
        ("incident_first_ts", "<i8"),
        ("incident_last_ts", "<i8"),
        ("incident_count", "<i8"),
        ("incident_bits", "<f8"),
        ("incident_patterns", "<u8"),
    ]
)

SOURCE_RECORD = np.dtype(
    [
        ("hash", "<u8"),
        ("last_ts", "<i8"),  # ms
        ("failures", "<f8"),  # half-life 1 hour
        ("users", "<u8", 4),  # bitmap of the users for whom it failed
        ("successes", "<f8"),  # half-life 1 hour, since it first failed
        ("welcome", "<u8", 4),  # bitmap of the users for whom it succeeded
        ("incident_offset", "<i8"),
        ("incident_first_ts", "<i8"),
        ("incident_last_ts", "<i8"),
        ("incident_count", "<i8"),
        ("incident_bits", "<f8"),
        ("incident_patterns", "<u8"),
    ]
)
"""A source address with failures; it is the entity of an incident if it tries many users."""


ADOPTED_RECORD = np.dtype(
    [
        ("name", "<u8"),  # hash of the field and the value
        ("last_ts", "<i8"),  # ms
        ("users", "<u8", 4),  # bitmap of the known users who succeeded with it
    ]
)
"""A source, place, host or agent that was new to a user who is known, and who else has used it since."""


def blank() -> NDArray[np.void]:
    """Return the population before the first event, shape (1,)."""
    population = np.zeros(1, POPULATION)
    population["version"] = VERSION
    population["incident_offset"] = -1
    return population
