"""What a formula sees: one event, and the state of its partition as it was before the event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from streamguard.fold.records import Population, Profile, Source


class Observation(NamedTuple):
    """One event of the fold; formulas of components, patterns and features read it and change nothing.

    Attributes
    ----------
    profile, population
        Records, decayed to the time of the event, before they learn it.
    table, sources, adopted
        The frequency table, the failing sources and the adopted values of the partition.
    values
        uint64 (10,): a value for each sketch, then the outcome; 0 where the event has none.
    slot
        int64 (9,): the slot of each value in its sketch, -1 for a value that the sketch does not hold.
    bits, less
        float64 (21,): components, before and after the bits that are usual for the user are subtracted. Patterns and
        features may read them; components may not, because they fill them.
    user
        Hash of the user.
    flags
        Bits of `streamguard.events.indicators`.
    ts, gap, away
        Time, ms; seconds since the user's last event; seconds of these in which the log was active.
    hour
        Hour of the week.
    area
        Hash of the country; 0 without one.
    threat, volume
        Score as sent; bytes.
    source
        Position among the failing sources, or -1.
    spread
        Number of different users for whom the source failed.
    same_source
        Whether the source itself failed for this user, or the event has none.
    common
        Whether many users fail at this time.
    moves
        Whether a person may have moved, see `streamguard.fold.sketch.is_move`.
    names
        Different DNS names of the event's kind that were counted within minutes, with this one.
    """

    profile: Profile
    population: Population
    table: NDArray[np.float64]
    sources: Sequence[Source]
    adopted: NDArray[Any]
    values: NDArray[np.uint64]
    slot: NDArray[np.int64]
    bits: NDArray[np.float64]
    less: NDArray[np.float64]
    user: int
    flags: int
    ts: int
    gap: float
    away: float
    hour: int
    area: int
    threat: float
    volume: float
    source: int
    spread: float
    same_source: bool
    common: bool
    moves: bool
    names: int
