"""Result of folding a history: sampled events, alerted events, users, incidents and counts, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamguard.alerts.incident import Incident
from streamguard.batch.source.offset_range import Counts


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
        float32 (n, 28), computed before the event was learned.
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
    """Users at the end of the history; arrays have n users, sorted by partition and name.

    Attributes
    ----------
    user
        Names, object (n,).
    partition
        int32 (n,).
    features
        float32 (n, 28): features of the user's last event.
    usual
        float64 (n, 28): means of the features over all events of the user.
    summary
        Structured (n,), see `streamguard.batch.folding.summaries.SUMMARY_COLUMNS`: total_events, unique_ips,
        unique_locations, avg_threat_score, max_threat_score, failed_auth_rate, unusual_hour_rate, first_seen,
        last_seen (epoch ms).
    peak
        float64 (n,), bits: the strongest evidence of an event of the user in this run; 0 without an event.
    """

    user: NDArray[np.object_]
    partition: NDArray[np.int32]
    features: NDArray[np.float32]
    usual: NDArray[np.float64]
    summary: NDArray[np.void]
    peak: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.user)


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
        All users ever seen.
    incidents
        Incidents of this run as published, worst first, in a limited number.
    counts
        Counts of each partition.
    """

    sample: EventTable
    alerts: EventTable
    users: UserTable
    incidents: list[Incident]
    counts: list[Counts]
