"""A partition's population: how common a value is for everybody, how busy the crowd is, what scores are usual."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamguard.fold.profile import HOURS, VERSION

CLASSES = ("new_source", "failure", "new_user", "new_source_failure")
"""Kinds of event whose rate in the whole partition is watched."""

FAST_HALF_LIFE = 300.0
FIELDS = 8
"""Fields whose values share the frequency table: the sketches of a profile, and outcome."""

ROWS = 2
WIDTH = 65_536
PAGE = 512
"""Counters saved together; a page is 4 KiB."""

BINS = 512
BINS_PER_BIT = 4

SOURCES = 4096
WAYS = 4
SOURCES_PER_PAGE = 64

POPULATION = np.dtype(
    [
        ("version", "<u4"),
        ("ahead", "<u4"),  # events in a row that claim a time far ahead of the clock
        ("behind", "<u4"),  # events hours behind it, less those that are not
        ("ahead_agreed", "<u4"),  # whether those ahead are of more than one user
        ("clock", "<i8"),  # ms, the partition's event time
        ("ahead_user", "<u8"),  # the first of them
        ("ahead_ts", "<i8"),  # ms, the least far time claimed by those ahead
        ("aged_ts", "<i8"),  # ms, when frequencies, hours and scores were last decayed
        ("events", "<f8"),  # ever
        ("age", "<f8"),  # s, decayed by 30 days: how much time the slow counters stand for
        ("fast", "<f8", len(CLASSES)),  # events of each class, 5 minutes
        ("slow", "<f8", len(CLASSES)),  # likewise, 30 days
        ("fast_plain", "<f8"),  # events of no class, 5 minutes
        ("slow_plain", "<f8"),  # likewise, 30 days
        ("last_failed_user", "<u8"),
        ("failed_users", "<f8"),  # times that a failure was another user's than the one before, 5 minutes
        ("failures", "<f8"),  # weight of failures among `learned`
        ("learned", "<f8"),
        ("field_total", "<f8", FIELDS),
        ("novel", "<f8", FIELDS),  # weight of values new to everybody
        ("novel_total", "<f8", FIELDS),  # weight of all values, as `novel` counts it
        ("hours_total", "<f8"),
        ("hours", "<f8", HOURS),
        ("scores_total", "<f8"),
        ("scores", "<f8", BINS),  # weight of scores by quarter bit; the last bin is open
        ("incident_offset", "<i8"),
        ("incident_first_ts", "<i8"),
        ("incident_last_ts", "<i8"),
        ("incident_count", "<i8"),
        ("incident_bits", "<f8"),
        ("incident_patterns", "<u8"),
    ]
)

SOURCE = np.dtype(
    [
        ("hash", "<u8"),
        ("last_ts", "<i8"),  # ms
        ("failures", "<f8"),  # 1 hour
        ("users", "<u8", 4),  # bitmap of the users it failed at
        ("incident_offset", "<i8"),
        ("incident_first_ts", "<i8"),
        ("incident_last_ts", "<i8"),
        ("incident_count", "<i8"),
        ("incident_bits", "<f8"),
        ("incident_patterns", "<u8"),
    ]
)
"""One address that fails: the entity of an incident when it tries many names."""


def blank() -> NDArray[np.void]:
    """The population of an empty log, shape (1,)."""
    population = np.zeros(1, POPULATION)
    population["version"] = VERSION
    population["incident_offset"] = -1
    return population
