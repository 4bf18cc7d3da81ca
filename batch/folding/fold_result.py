"""What a folded history comes to: sampled and alerts events, users, incidents and counts, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamguard.alerts.incident import Incident
from streamguard.batch.source.offset_range import Counts


@dataclass(frozen=True, slots=True)
class EventTable:
    """Events kept with their features; arrays are of n events, sorted by partition and offset.

    Attributes
    ----------
    partition, offset, timestamp
        int32, int64, int64 (n,); timestamps are epoch milliseconds.
    user, event_type, source
        Texts, object (n,); empty where the event names none.
    features
        float32 (n, 28), taken before the event was learned.
    score, tail, strength
        float64 (n,), bits: the sum of components, its calibrated tail, and the evidence without a forest.
    patterns
        uint64 (n,): bits in the order of `streamguard.fold.patterns.PATTERNS`.
    alerted
        bool (n,): whether the fold alerted it, without a forest.
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
    """UserTable as they stand at the end; arrays are of n users, sorted by partition and name.

    Attributes
    ----------
    user
        Names, object (n,).
    partition
        int32 (n,).
    features
        float32 (n, 28): of the user's last event.
    usual
        float64 (n, 28): means over all of the user's events.
    summary
        Structured (n,), see `streamguard.batch.folding.summaries.SUMMARY_COLUMNS`: total_events, unique_ips, unique_locations,
        avg_threat_score, max_threat_score, failed_auth_rate, unusual_hour_rate, first_seen, last_seen (epoch ms).
    peak
        float64 (n,), bits: the strongest evidence of an event in this run's offset_range, 0 if there was none.
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
        A uniform sample of all events ever folded, attacks included.
    alerts
        The worst alerted events of this run.
    users
        Everybody ever seen.
    incidents
        Of this run as published, worst first, bounded.
    counts
        A partition each.
    """

    sample: EventTable
    alerts: EventTable
    users: UserTable
    incidents: list[Incident]
    counts: list[Counts]
