"""The three arguments of the fold: the state of a partition, a chunk of its events, and the verdicts on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class State(NamedTuple):
    """The state of one partition, and its settings; the fold updates the arrays.

    Attributes
    ----------
    profiles
        `PROFILE` (resident,).
    population, table, sources, adopted
        `POPULATION` (1,), float64 (2, 65536), `SOURCE_RECORD` (4096,), `ADOPTED_RECORD` (512,).
    decided, decided_count
        `streamguard.fold.decisions.DECISION` (4096,), of which int64 (1,) are in use, sorted.
    interned
        uint64 (65536,): hashes whose texts the dictionary stores.
    table_dirty, sources_dirty, adopted_dirty
        uint8, by page; set to 1 for pages that have changed.
    blank
        `PROFILE` (1,), the profile of a new user.
    alert_bits
        Evidence from which an event is alerted.
    gap_ms
        Milliseconds without an alert that end an incident of a user.
    forget_ms
        Milliseconds of active time without an event after which a profile has expired (`ageing.has_expired`).
    """

    profiles: NDArray[Any]
    population: NDArray[Any]
    table: NDArray[np.float64]
    sources: NDArray[Any]
    adopted: NDArray[Any]
    decided: NDArray[Any]
    decided_count: NDArray[np.int64]
    interned: NDArray[np.uint64]
    table_dirty: NDArray[np.uint8]
    sources_dirty: NDArray[np.uint8]
    adopted_dirty: NDArray[np.uint8]
    blank: NDArray[Any]
    alert_bits: float
    gap_ms: int
    forget_ms: int


class Chunk(NamedTuple):
    """A chunk of n events in offset order, and the m control records among them.

    Attributes
    ----------
    row
        int64 (n,): position of each event's profile in `State.profiles`.
    offset, user, ts, threat, volume, flags, hashes, network, area
        Columns of the chunk; see `streamguard.events.columns.Columns`.
    append
        int64 (n,): append times of the records, ms; see `streamguard.events.ceiling`.
    controls
        `streamguard.fold.decisions.CONTROL` (m,): the control records, each with the number of events before it.
    """

    row: NDArray[np.int64]
    offset: NDArray[np.int64]
    user: NDArray[np.uint64]
    ts: NDArray[np.int64]
    append: NDArray[np.int64]
    threat: NDArray[np.float64]
    volume: NDArray[np.float64]
    flags: NDArray[np.uint32]
    hashes: NDArray[np.uint64]
    network: NDArray[np.uint64]
    area: NDArray[np.uint64]
    controls: NDArray[Any]


class Verdicts(NamedTuple):
    """What the fold says about a chunk; it fills the arrays.

    Attributes
    ----------
    features
        float32 (n, features).
    raw, excess
        float32 (n, components): components before and after the user's own entropy is subtracted.
    score, tail, evidence, patterns
        float64, float64, float64, uint64 (n,): sum of `excess`, its tail in bits, the tail plus the evidence of the
        patterns, and the patterns.
    kind
        int8 (n,): kind of the entity of the alert (`streamguard.fold.grouping`), 0 if the event is not alerted;
        negative if the alert does not publish its incident again.
    incident
        `INCIDENT` (n,): incident of each alert.
    expired
        bool (n,): whether the profile had expired, so that the event has begun a new one.
    outcomes
        int8 (m,): what became of each control record, see `streamguard.fold.decisions`.
    snapshots
        `PROFILE` (n,): profiles of the alerts that publish their incident, as they were before the event.
    context
        `CONTEXT` (n,): context of the alerts that publish their incident.
    requests
        int64 (n * sketched texts, 3): event, text column and place in the dictionary of each text to store.
    """

    features: NDArray[np.float32]
    raw: NDArray[np.float32]
    excess: NDArray[np.float32]
    score: NDArray[np.float64]
    tail: NDArray[np.float64]
    evidence: NDArray[np.float64]
    patterns: NDArray[np.uint64]
    kind: NDArray[np.int8]
    incident: NDArray[Any]
    expired: NDArray[np.bool_]
    outcomes: NDArray[np.int8]
    snapshots: NDArray[Any]
    context: NDArray[Any]
    requests: NDArray[np.int64]
