"""Finds incidents with alike evidence: each has a vector of unit length, and one product compares it with all."""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray

from streamguard.alerts.incident import Incident
from streamguard.analyst.analysis import MAX_SIMILAR, Similar
from streamguard.fold.components import COMPONENTS
from streamguard.fold.patterns import PATTERNS

KINDS = ("user", "source", "crowd")
"""Kinds of entities, in the order of their places."""
TYPES = 8
"""Places of event types; types that share one differ by their reasons."""
FEATURES = {name: k for k, name in enumerate((*COMPONENTS, *(pattern.name for pattern in PATTERNS)))}
"""Component or pattern -> its place."""
DIMENSIONS = len(FEATURES) + len(KINDS) + TYPES + 1
"""Places of a vector: reasons and patterns, kind of the entity, event type, and number of alerts."""

HALF = 0.5
"""Weight of patterns, kind, type and number beside the reasons, whose squares add up to one. Of 983 simulated
incidents of attacks, other weights between 0.3 and 1 found the same attack first equally often within 1 %."""
ALERTS_SCALE = 8.0
"""Doublings of the alerts that weigh as much as another kind of entity."""
CAPACITY = 100_000
"""Incidents of an index, about 20 MB."""
LIKE = 0.8
"""Least similarity of incidents that are shown as alike."""


def vector(incident: Incident) -> NDArray[np.float32]:
    """The vector of an incident: √share of each reason's bits, its patterns, its kind, its type and its size.

    Examples
    --------
    >>> len(FEATURES), DIMENSIONS
    (40, 52)
    """
    out = np.zeros(DIMENSIONS)
    total = math.fsum(max(reason.bits, 0.0) for reason in incident.reasons)
    for reason in incident.reasons:
        place = FEATURES.get(reason.feature)
        if place is not None and reason.bits > 0.0:
            out[place] = math.sqrt(reason.bits / total)
    for pattern in incident.patterns:
        place = FEATURES.get(pattern.name)
        if place is not None:
            out[place] += HALF
    first = len(FEATURES)
    out[first + KINDS.index(incident.entity.kind)] = HALF
    first += len(KINDS)
    out[first + zlib.crc32(_type(incident).encode("utf-8", "replace")) % TYPES] = HALF
    out[-1] = HALF * math.log2(1 + incident.count) / ALERTS_SCALE
    return (out / np.linalg.norm(out)).astype(np.float32)


class Similarity:
    """An index of the latest incidents, which finds those that are alike.

    Parameters
    ----------
    capacity
        Incidents that it holds; a further one replaces the one that was added first.

    Notes
    -----
    The memory is reserved at once: `capacity` times `DIMENSIONS` times 4 bytes, and the ids.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self._vectors = np.zeros((capacity, DIMENSIONS), np.float32)
        self._likeness = np.zeros(capacity, np.float32)
        self._ids: list[str | None] = [None] * capacity
        self._place: dict[str, int] = {}
        self._next = 0
        self._used = 0

    def __len__(self) -> int:
        return len(self._place)

    def add(self, id: str, incident: Incident) -> None:
        """Add an incident, or replace what is known of it."""
        self.add_vector(id, vector(incident))

    def add_vector(self, id: str, made: NDArray[np.float32]) -> None:
        """Add an incident by its vector, which `vector` has made."""
        place = self._place.get(id)
        if place is None:
            place = self._next
            self._next = (place + 1) % len(self._ids)
            self._used = max(self._used, place + 1)
            if (before := self._ids[place]) is not None:
                del self._place[before]
            self._ids[place] = id
            self._place[id] = place
        self._vectors[place] = made

    def discard(self, id: str) -> None:
        """Forget an incident; nothing happens if it is not known."""
        place = self._place.pop(id, None)
        if place is not None:
            self._ids[place] = None
            self._vectors[place] = 0.0

    def nearest(
        self, incident: Incident, k: int = MAX_SIMILAR, *, least: float = LIKE
    ) -> tuple[Similar, ...]:
        """The most alike incidents but itself, the most alike first; of equals, the one with the smaller id.

        Parameters
        ----------
        k
            Number of incidents at most.
        least
            Least similarity.
        """
        used = self._used
        if used == 0 or k < 1:
            return ()
        likeness = self._likeness[:used]
        np.dot(self._vectors[:used], vector(incident), out=likeness)
        if (own := self._place.get(incident.id)) is not None:
            likeness[own] = -1.0
        wanted = min(k, used)
        border = max(float(np.partition(likeness, used - wanted)[used - wanted]), least - 1e-6)
        rows = np.flatnonzero(likeness >= border)[: 16 * k + 1024].tolist()
        found = [
            (-min(round(float(likeness[row]), 3), 1.0), id)
            for row in rows
            if (id := self._ids[row]) is not None
        ]
        return tuple(Similar(id, -negative) for negative, id in sorted(found)[:k])


def _type(incident: Incident) -> str:
    """The type of the latest event; empty if it states none."""
    event = incident.event
    named = event.get("event_type") if isinstance(event, dict) else None
    return named.strip().lower() if isinstance(named, str) else ""
