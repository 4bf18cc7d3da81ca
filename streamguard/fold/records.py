"""The fields of the stored records, so that type checkers find a misspelt field in a formula."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Profile(Protocol):
    """The fields of `streamguard.fold.profile.PROFILE`."""

    version: int
    streak: int
    last_offset: int
    first_ts: int
    last_ts: int
    active_ms: int
    aged_events: float
    unheard_ts: int
    unheard: float
    first_active_ms: int
    last_failure_ts: int
    last_day: int
    last_hour: int
    hour_weight: float
    last_area_ts: int
    last_area: int
    last_type: int
    events: float
    active_days: float
    count: NDArray[np.float64]
    failures: NDArray[np.float64]
    volume: NDArray[np.float64]
    reads: NDArray[np.float64]
    changes: NDArray[np.float64]
    encrypted: float
    dns_domain: NDArray[np.uint64]
    dns_names: NDArray[np.uint64]
    dns_ts: NDArray[np.int64]
    learned: float
    learned_failures: float
    moments: NDArray[np.float64]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    typical: NDArray[np.float64]
    pattern_days: NDArray[np.float64]
    pattern_last_day: NDArray[np.int64]
    tried_incident: int
    entered_incident: int
    incident_offset: int
    incident_first_ts: int
    incident_last_ts: int
    incident_count: int
    incident_bits: float
    incident_patterns: int
    hours_total: float
    sketch_total: NDArray[np.float64]
    novel: NDArray[np.float64]
    seen: NDArray[np.float64]
    unheard_of: NDArray[np.float64]
    sketch_proven: NDArray[np.uint32]
    sketch_hash: NDArray[np.uint64]
    suspicion_ts: NDArray[np.int64]
    suspicion: NDArray[np.float32]
    sketch_weight: NDArray[np.float64]
    hours: NDArray[np.float32]


class Population(Protocol):
    """The fields of `streamguard.fold.population.POPULATION`."""

    version: int
    ahead: int
    behind: int
    ahead_agreed: int
    clock: int
    ahead_user: int
    ahead_ts: int
    active_ms: int
    active_debt: int
    aged_ms: int
    aged_events: float
    mark_clock: NDArray[np.int64]
    mark_active: NDArray[np.int64]
    leader: int
    leader_events: int
    leader_ms: int
    events: float
    age: float
    fast: NDArray[np.float64]
    slow: NDArray[np.float64]
    fast_plain: float
    slow_plain: float
    fast_stranger: float
    active: float
    active_week: float
    active_month: float
    returns: float
    strange: float
    recent: float
    last_failed_user: int
    failed_users: float
    failures: float
    learned: float
    field_total: NDArray[np.float64]
    novel: NDArray[np.float64]
    novel_total: NDArray[np.float64]
    hours_total: float
    hours: NDArray[np.float64]
    scores_total: float
    scores: NDArray[np.float64]
    incident_offset: int
    incident_first_ts: int
    incident_last_ts: int
    incident_count: int
    incident_bits: float
    incident_patterns: int


class Source(Protocol):
    """The fields of `streamguard.fold.population.SOURCE_RECORD`."""

    hash: int
    last_ts: int
    failures: float
    users: NDArray[np.uint64]
    successes: float
    welcome: NDArray[np.uint64]
    incident_offset: int
    incident_first_ts: int
    incident_last_ts: int
    incident_count: int
    incident_bits: float
    incident_patterns: int
