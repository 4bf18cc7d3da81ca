"""From alerts to incidents: one entity's alerts within a window are one incident, told again only when it rises."""

from __future__ import annotations

import numpy as np

from streamguard.numeric import inline

NONE, USER, SOURCE, CROWD = 0, 1, 2, 3
"""Whose incident an alert belongs to; the crowd's is a wave of attempts that is no one user's and no one source's."""

ENTITY_KINDS = ("", "user", "source", "crowd")
RISE_BITS = 1.5
"""Evidence must rise by this much to be told again: about 11 points of risk."""


@inline
def join(entity, offset, ts, bits, patterns, gap_ms):  # type: ignore[no-untyped-def]
    """Add an alert to the entity's open incident, or open one; whether to publish it.

    Parameters
    ----------
    entity
        A profile, a failing source or the population; holds the open incident.
    offset
        Of the event; names the incident if it opens one.
    bits
        Evidence.
    gap_ms
        Silence after which an alert opens a new incident.
    """
    if entity.incident_offset < 0 or ts - entity.incident_last_ts > gap_ms:
        entity.incident_offset = offset
        entity.incident_first_ts = ts
        entity.incident_last_ts = ts
        entity.incident_count = 1
        entity.incident_bits = bits
        entity.incident_patterns = patterns
        return True
    entity.incident_first_ts = min(entity.incident_first_ts, ts)
    entity.incident_last_ts = max(entity.incident_last_ts, ts)
    entity.incident_count += 1
    count = entity.incident_count
    risen = bits >= entity.incident_bits + RISE_BITS
    named = (patterns & ~entity.incident_patterns) != np.uint64(0)
    grown = count in (10, 100, 1000, 10_000, 100_000)
    if bits > entity.incident_bits:
        entity.incident_bits = bits
    entity.incident_patterns |= patterns
    return risen or named or grown


@inline
def report(entity, out):  # type: ignore[no-untyped-def]
    """Fill `out` with first offset, first ms, count and patterns of an entity's open incident."""
    out[0] = entity.incident_offset
    out[1] = entity.incident_first_ts
    out[2] = entity.incident_count
    out[3] = np.int64(entity.incident_patterns)
