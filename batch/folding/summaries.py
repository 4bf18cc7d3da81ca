"""Summarises each user while history is folded: counts, rates, distinct addresses, and usual features."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamguard.compute.compiler import inline, kernel
from streamguard.events import indicators as flag
from streamguard.events.columns import TEXTS
from streamguard.events.subject import profile_key
from streamguard.fold.features import NAMES
from streamguard.fold.grouping import USER_ENTITY
from streamguard.state.partition import Folded

DISTINCT = 64
"""Number of stored hashes. Fewer different values are counted exactly.

From this number on, they are estimated (K minimum values; the standard error is about 13 %).
"""

UNUSUAL_HOUR = 0.75
"""An hour is unusual if at least this share of all hours is busier in the population."""

SUMMARY = np.dtype(
    [
        ("events", "<f8"),
        ("threat_sum", "<f8"),
        ("threat_events", "<f8"),
        ("threat_max", "<f8"),
        ("logins", "<f8"),
        ("failed_logins", "<f8"),
        ("unusual_hours", "<f8"),
        ("first_ms", "<i8"),
        ("last_ms", "<i8"),
        ("sources", "<i8"),  # number of hashes in use
        ("locations", "<i8"),
        ("source_hashes", "<u8", DISTINCT),  # the smallest hashes, ascending
        ("location_hashes", "<u8", DISTINCT),
        ("feature_sum", "<f8", len(NAMES)),
        ("features", "<f4", len(NAMES)),  # of the last event
    ]
)

SUMMARY_COLUMNS = np.dtype(
    [
        ("total_events", "<i8"),
        ("unique_ips", "<i8"),
        ("unique_locations", "<i8"),
        ("avg_threat_score", "<f8"),
        ("max_threat_score", "<f8"),
        ("failed_auth_rate", "<f8"),
        ("unusual_hour_rate", "<f8"),
        ("first_seen", "<i8"),
        ("last_seen", "<i8"),
    ]
)
"""Columns of the summary for readers; times are epoch milliseconds, and rates without any event are 0."""

PEAK = np.dtype([("event", "<f8"), ("incident", "<f8")])
"""The strongest evidence of an event and of an incident of a user in one run, in bits; 0 without one."""

_NOTHING = np.zeros(1, SUMMARY)
_SOURCE, _LOCATION = TEXTS.index("source"), TEXTS.index("location")
_OFF_HOURS = NAMES.index("off_hours_share")


class Summaries:
    """Summaries of the users of one partition; a source of events without a user counts as one, see `subject_of`.

    Examples
    --------
    >>> from streamguard.settings.schema import Detection
    >>> from streamguard.state.partition import PartitionState
    >>> state = PartitionState(0, lambda keys: [None] * len(keys), resident=100, detection=Detection())
    >>> event = b'{"timestamp": 1700000000000, "user": "ann", "event_type": "login", "status": "failed"}'
    >>> summaries = Summaries()
    >>> summaries.add(state.fold([event, event], np.array([7, 8])))
    >>> columns(summaries.records)[["total_events", "failed_auth_rate"]].tolist()
    [(2, 1.0)]
    """

    def __init__(self) -> None:
        self._row: dict[str, int] = {}
        self._records = np.zeros(1024, SUMMARY)
        self._peaks = np.zeros(1024, PEAK)

    @property
    def records(self) -> NDArray[Any]:
        """Summaries of the n users: `SUMMARY` (n,)."""
        return self._records[: len(self._row)]

    def restore(self, users: list[str], records: NDArray[Any]) -> None:
        """Take over users of an earlier run: their names, and `SUMMARY` (n,)."""
        rows = self._rows(users)
        self._records[rows] = records

    def retain(self, profiles: Container[bytes]) -> None:
        """Drop the users without a profile: a summary begins and ends with the profile of its user.

        Parameters
        ----------
        profiles
            Keys of the profiles, see `streamguard.events.subject.profile_key`.
        """
        users = [user for user in self._row if profile_key(user) in profiles]
        rows = np.array([self._row[user] for user in users], np.int64)
        for table in (self._records, self._peaks):
            table[: len(rows)] = table[rows]
            table[len(rows) :] = 0
        self._row = {user: k for k, user in enumerate(users)}

    def sorted(self) -> tuple[list[str], NDArray[Any], NDArray[np.int64]]:
        """Users by name, the `PEAK` of each in this run, and the place of each in `records`."""
        users = sorted(self._row)
        rows = np.array([self._row[user] for user in users], np.int64)
        return users, self._peaks[rows], rows

    def add(self, folded: Folded) -> None:
        """Add the events of a chunk to the summaries of their users."""
        columns = folded.columns
        rows = self._rows(columns.subjects)
        _add(
            self._records, self._peaks, _NOTHING, folded.expired, rows, columns.timestamp, columns.threat,
            columns.flags,
            columns.hashes[:, _SOURCE], columns.hashes[:, _LOCATION], folded.evidence, folded.features,
            folded.kind, np.ascontiguousarray(folded.incident["evidence"]),
        )  # fmt: skip

    def _rows(self, users: list[str]) -> NDArray[np.int64]:
        row = self._row
        rows = np.array([row.setdefault(user, len(row)) for user in users], np.int64)
        if len(row) > len(self._records):
            grown = np.zeros(max(len(row), 2 * len(self._records)), SUMMARY)
            grown[: len(self._records)] = self._records
            self._records = grown
            self._peaks = np.concatenate([self._peaks, np.zeros(len(grown) - len(self._peaks), PEAK)])
        return rows


def columns(records: NDArray[Any]) -> NDArray[Any]:
    """Convert `SUMMARY` (n,) to `SUMMARY_COLUMNS` (n,)."""
    out = np.zeros(len(records), SUMMARY_COLUMNS)
    for ours, theirs in (
        ("total_events", "events"), ("max_threat_score", "threat_max"), ("first_seen", "first_ms"),
        ("last_seen", "last_ms"),
    ):  # fmt: skip
        out[ours] = records[theirs]
    for rate, part, whole in (
        ("avg_threat_score", "threat_sum", "threat_events"),
        ("failed_auth_rate", "failed_logins", "logins"),
        ("unusual_hour_rate", "unusual_hours", "events"),
    ):
        out[rate] = records[part] / np.maximum(records[whole], 1.0)
    out["unique_ips"] = _distinct(records["sources"], records["source_hashes"])
    out["unique_locations"] = _distinct(records["locations"], records["location_hashes"])
    return out


def _distinct(used: NDArray[np.int64], hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Number of different hashes, estimated from the density of the smallest ones (Bar-Yossef et al. 2002)."""
    largest = hashes[:, -1].astype(np.float64) / 2.0**64
    estimate = np.rint((DISTINCT - 1) / np.maximum(largest, 2.0**-52))
    return np.where(used < DISTINCT, used, np.maximum(estimate, DISTINCT))


@inline
def _insert(hashes, used, value):  # type: ignore[no-untyped-def]
    """Insert a value into the smallest hashes, and return their number."""
    if value == 0 or (used == len(hashes) and value > hashes[used - 1]):
        return used
    place = np.searchsorted(hashes[:used], value)
    if place < used and hashes[place] == value:
        return used
    if used < len(hashes):
        used += 1
    for k in range(used - 1, place, -1):
        hashes[k] = hashes[k - 1]
    hashes[place] = value
    return used


@kernel
def _add(  # type: ignore[no-untyped-def]
    records,
    peaks,
    nothing,
    expired,
    rows,
    timestamp,
    threat,
    flags,
    source,
    location,
    strength,
    features,
    kind,
    incident_bits,
):
    for i in range(len(rows)):
        r = records[rows[i]]
        if expired[i]:
            records[rows[i]] = nothing[0]
        if r.events == 0.0:
            r.first_ms = timestamp[i]
            r.last_ms = timestamp[i]
        r.first_ms = min(r.first_ms, timestamp[i])
        r.last_ms = max(r.last_ms, timestamp[i])
        r.events += 1.0
        if flags[i] & flag.HAS_THREAT:
            r.threat_sum += threat[i]
            r.threat_events += 1.0
            r.threat_max = max(r.threat_max, threat[i])
        if flags[i] & flag.AUTHENTICATION:
            r.logins += 1.0
            if flags[i] & flag.FAILED:
                r.failed_logins += 1.0
        if features[i, _OFF_HOURS] >= UNUSUAL_HOUR:
            r.unusual_hours += 1.0
        peak = peaks[rows[i]]
        peak.event = max(peak.event, strength[i])
        if abs(kind[i]) == USER_ENTITY:  # negative: the alert was not published
            peak.incident = max(peak.incident, incident_bits[i])
        r.sources = _insert(r.source_hashes, r.sources, source[i])
        r.locations = _insert(r.location_hashes, r.locations, location[i])
        for k in range(features.shape[1]):
            r.feature_sum[k] += features[i, k]
            r.features[k] = features[i, k]
