"""Reads stored profiles, populations and pages of this layout and of the one before: an upgrade forgets nothing.

A field that the former layout does not have keeps the value that a new profile or population has. Profiles are
converted when they are read, and stored in the new layout when they change: each one states its version. Pages state
none, so all that can differ are written with the first checkpoint.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamguard.fold import population as population_layout
from streamguard.fold import profile as profile_layout
from streamguard.state.codec import StateError, other_layout, unpack

PREVIOUS = 1
"""The layout of version 0.1.0."""

_INCIDENT = [
    ("incident_offset", "<i8"),
    ("incident_first_ts", "<i8"),
    ("incident_last_ts", "<i8"),
    ("incident_count", "<i8"),
    ("incident_bits", "<f8"),
    ("incident_patterns", "<u8"),
]
_PROFILE_1 = np.dtype(
    [
        ("version", "<u4"),
        ("streak", "<u4"),
        ("last_offset", "<i8"),
        ("first_ts", "<i8"),
        ("last_ts", "<i8"),
        ("aged_ts", "<i8"),
        ("last_failure_ts", "<i8"),
        ("last_day", "<i8"),
        ("last_hour", "<i8"),
        ("hour_weight", "<f8"),
        ("last_area_ts", "<i8"),
        ("last_area", "<u8"),
        ("last_type", "<u8"),
        ("events", "<f8"),
        ("active_days", "<f8"),
        ("count", "<f8", 4),
        ("failures", "<f8", 4),
        ("volume", "<f8", 4),
        ("reads", "<f8", 2),
        ("changes", "<f8", 2),
        ("encrypted", "<f8"),
        ("queries", "<f8"),
        ("learned", "<f8"),
        ("learned_failures", "<f8"),
        ("moments", "<f8", 3),
        ("mean", "<f8", 3),
        ("variance", "<f8", 3),
        ("typical", "<f8", 18),
        ("pattern_days", "<f8", 16),
        ("pattern_last_day", "<i8", 16),
        *_INCIDENT,
        ("hours_total", "<f8"),
        ("sketch_total", "<f8", 7),
        ("novel", "<f8", 7),
        ("sketch_hash", "<u8", (7, 16)),
        ("suspicion_ts", "<i8", 16),
        ("suspicion", "<f4", 16),
        ("sketch_weight", "<f8", (7, 16)),
        ("hours", "<f4", 168),
    ]
)
_POPULATION_1 = np.dtype(
    [
        ("version", "<u4"),
        ("ahead", "<u4"),
        ("behind", "<u4"),
        ("ahead_agreed", "<u4"),
        ("clock", "<i8"),
        ("ahead_user", "<u8"),
        ("ahead_ts", "<i8"),
        ("aged_ts", "<i8"),
        ("events", "<f8"),
        ("age", "<f8"),
        ("fast", "<f8", 4),
        ("slow", "<f8", 4),
        ("fast_plain", "<f8"),
        ("slow_plain", "<f8"),
        ("last_failed_user", "<u8"),
        ("failed_users", "<f8"),
        ("failures", "<f8"),
        ("learned", "<f8"),
        ("field_total", "<f8", 8),
        ("novel", "<f8", 8),
        ("novel_total", "<f8", 8),
        ("hours_total", "<f8"),
        ("hours", "<f8", 168),
        ("scores_total", "<f8"),
        ("scores", "<f8", 512),
        *_INCIDENT,
    ]
)
_SOURCE_1 = np.dtype(
    [
        ("hash", "<u8"),
        ("last_ts", "<i8"),
        ("failures", "<f8"),
        ("users", "<u8", 4),
        *_INCIDENT,
    ]
)


def profile(value: bytes, what: str) -> Any:
    """Decode a stored profile of this layout or the previous one.

    Parameters
    ----------
    value
        Result of `streamguard.state.codec.pack`.
    what
        Name of the value for errors.

    Raises
    ------
    StateError
        If the value has another layout or is damaged.
    """
    former = int.from_bytes(value[:4], "little") == _PROFILE_1.itemsize
    stored: Any = unpack(value, _PROFILE_1 if former else profile_layout.PROFILE, what)
    version = int(stored["version"][0])
    if version == PREVIOUS and former:
        return _converted(stored, np.atleast_1d(profile_layout.blank()))[0]
    if version != profile_layout.VERSION:
        found = f"{what} has layout {version}"
        raise StateError(other_layout(f"{found}, this program has layout {profile_layout.VERSION}"))
    return unpack(value, profile_layout.PROFILE, what)[0]


def population(value: bytes, version: int, what: str) -> NDArray[Any]:
    """Decode a stored population, shape (1,), of a state with this version; see `profile`."""
    if version != PREVIOUS:
        return unpack(value, population_layout.POPULATION, what)
    return _converted(unpack(value, _POPULATION_1, what), population_layout.blank())


def page(value: bytes, dtype: np.dtype[Any], version: int, what: str) -> NDArray[Any]:
    """Decode a stored page of counters or of sources of a state with this version; see `profile`."""
    if version != PREVIOUS or dtype != population_layout.SOURCE_RECORD:
        return unpack(value, dtype, what)
    stored = unpack(value, _SOURCE_1, what)
    return _converted(stored, np.zeros(len(stored), dtype))


def _converted(stored: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
    """Copy the fields that both layouts have into new records."""
    for name in set(stored.dtype.names or ()) & set(new.dtype.names or ()) - {"version"}:
        new[name] = stored[name]
    return new
