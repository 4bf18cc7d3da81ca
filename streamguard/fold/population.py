"""The population of a partition: how common each value is, how high the rates are, and which scores are usual."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamguard.fold.profile import HOURS, VERSION

CLASSES = ("new_source", "failure", "new_user", "new_source_failure")
"""Classes of events whose rates in the whole partition are measured."""

FAST_HALF_LIFE = 300.0
FIELDS = 8
"""Number of fields whose values share the frequency table: the sketches of a profile, and the outcome."""

ROWS = 2
WIDTH = 65_536
PAGE = 512
"""Counters of a page, which are saved together; a page has 4 KiB."""

BINS = 512
BINS_PER_BIT = 4

MARKS = 32
"""Number of active days for which the clock at their end is remembered."""

SOURCES = 4096
WAYS = 4
SOURCES_PER_PAGE = 64

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
        ("last_failed_user", "<u8"),
        ("failed_users", "<f8"),  # failures of another user than the failure before, half-life 5 minutes
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
        ("incident_offset", "<i8"),
        ("incident_first_ts", "<i8"),
        ("incident_last_ts", "<i8"),
        ("incident_count", "<i8"),
        ("incident_bits", "<f8"),
        ("incident_patterns", "<u8"),
    ]
)
"""A source address with failures; it is the entity of an incident if it tries many users."""


def blank() -> NDArray[np.void]:
    """Return the population before the first event, shape (1,)."""
    population = np.zeros(1, POPULATION)
    population["version"] = VERSION
    population["incident_offset"] = -1
    return population
