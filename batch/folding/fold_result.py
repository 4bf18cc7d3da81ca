"""Result of folding a history: sampled events, alerted events, users, incidents and counts, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamguard.alerts.incident import Incident
from streamguard.batch.folding.summaries import SUMMARY_COLUMNS
from streamguard.batch.source.offset_range import Counts
from streamguard.fold.features import NAMES


@dataclass(frozen=True, slots=True)
class EventTable:
    """Kept events with their features; arrays have n events, sorted by partition and offset.

    Attributes
    ----------
    partition, offset, timestamp
        int32, int64, int64 (n,); timestamps are epoch milliseconds.
    user, event_type, source
        Texts, object (n,); empty where the event has none.
    features
        float32 (n, 34), computed before the event was learned.
    score, tail, strength
        float64 (n,), bits: the sum of components, its calibrated tail, and the evidence without a forest.
    patterns
        uint64 (n,): bits in the order of `streamguard.fold.patterns.PATTERNS`.
    alerted
        bool (n,): whether the fold alerted the event, without a forest.
    """

    partition: NDArray[np.int32]
    offset: NDArray[np.int64]
    timestamp: NDArray[np.int64]
    user: NDArray[np.object_]
    event_type: NDArray[np.object_]
    source: NDArray[np.object_]
    features: NDArray[np.float32]
    score: NDArray[np.float64]
    tail: NDArray[np.float64]
    strength: NDArray[np.float64]
    patterns: NDArray[np.uint64]
    alerted: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.offset)


@dataclass(frozen=True, slots=True)
class UserTable:
    """Users of one partition at the end of the history, sorted by name; arrays have n users.

    Attributes
    ----------
    user
        Names, object (n,).
    partition
        int32 (n,).
    features
        float32 (n, 34): features of the user's last event.
    usual
        float64 (n, 34): means of the features over all events of the user.
    summary
        Structured (n,), see `streamguard.batch.folding.summaries.SUMMARY_COLUMNS`: total_events, unique_ips,
        unique_locations, avg_threat_score, max_threat_score, failed_auth_rate, unusual_hour_rate, first_seen,
        last_seen (epoch ms).
    event_bits, incident_bits
        float64 (n,), bits: the strongest evidence of an event of the user, and of an incident of the user, in this run,
        without a forest; 0 without one.
    """

    user: NDArray[np.object_]
    partition: NDArray[np.int32]
    features: NDArray[np.float32]
    usual: NDArray[np.float64]
    summary: NDArray[np.void]
    event_bits: NDArray[np.float64]
    incident_bits: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.user)


def no_users() -> UserTable:
    """A table without users."""
    width = len(NAMES)
    return UserTable(
        user=np.empty(0, object),
        partition=np.empty(0, np.int32),
        features=np.empty((0, width), np.float32),
        usual=np.empty((0, width)),
        summary=np.empty(0, SUMMARY_COLUMNS),
        event_bits=np.empty(0),
        incident_bits=np.empty(0),
    )


Stored = Iterable[tuple[bytes, bytes]]
"""Keys and values of the state of a partition, as in a worker's changelog, sorted by key; can be read again."""


class IncidentRisks(NamedTuple):
    """Number of the incidents of a user in this run, and the highest risk among them."""

    number: int
    worst: float


@dataclass(frozen=True, slots=True)
class FoldResult:
    """A folded history.

    Attributes
    ----------
    sample
        Uniform sample of all events ever folded, attacks included.
    alerts
        The alerted events of this run with the strongest evidence, in a limited number.
    users
        All users that are not forgotten, by partition: tables of a limited size, sorted by name, that can be read again
        and again.
    states
        The state of each partition at the end of the history.
    usual
        float64 (m, 34): `UserTable.usual` of all users, or of a random sample of a limited size, in their order.
    incidents
        The worst incidents of this run as published, worst first, in a limited number.
    incident_risks
        Number and highest risk of the incidents of users in this run, by partition and user.
    counts
        Counts of each partition.
    """

    sample: EventTable
    alerts: EventTable
    users: Mapping[int, Iterable[UserTable]]
    states: Mapping[int, Stored]
    usual: NDArray[np.float64]
    incidents: list[Incident]
    incident_risks: Mapping[tuple[int, str], IncidentRisks]
    counts: list[Counts]
