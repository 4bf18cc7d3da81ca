"""From alerts to incidents: one entity's alerts within a window are one incident, told again only when it rises."""

from __future__ import annotations

import numpy as np

from streamguard.compute.arithmetic import log2
from streamguard.compute.compiler import inline
from streamguard.fold import population as crowd
from streamguard.fold import surprisal

NONE, USER, SOURCE, CROWD = 0, 1, 2, 3
"""Whose incident an alert belongs to; the crowd's is a wave of attempts that is no one user's and no one source's."""

ENTITY_KINDS = ("", "user", "source", "crowd")

INCIDENT = np.dtype(
    [
        ("first_offset", "<i8"),
        ("first_ms", "<i8"),
        ("count", "<i8"),  # of alerts so far
        ("patterns", "<u8"),  # of all of them
        ("evidence", "<f8"),  # bits
    ]
)
"""The incident that an alert belongs to, as the alert leaves it."""

CONTEXT = np.dtype(
    [
        ("present", "<f8", len(crowd.CLASSES)),  # events of each class among all users, 5 minutes
        ("usual", "<f8", len(crowd.CLASSES)),  # what is usual of them now
        ("source_users", "<f8"),  # that the source failed at
        ("source_failures", "<f8"),
        ("gap", "<f8"),  # s since the user's event before
        ("hour", "<f8"),  # of the week
    ]
)
"""What an alert's explanation needs beside the profile."""

RISE_BITS = 1.5
"""Evidence must rise by this much to be told again: about 11 points of risk."""


CAMPAIGN_GAP_MS = 86_400_000
"""A source or a crowd that tries again within a day is still at the same thing."""


@inline
def entity_of(s, p, source, spread, bits, user, address, failed):  # type: ignore[no-untyped-def]
    """Whose incident an alert belongs to.

    The source's, where it fails at many users or where there is no user; the crowd's, where a failure's evidence is
    mostly that everybody fails at once, many users or such as nobody knows; else the user's.
    """
    if user == 0 and address != 0:
        return SOURCE
    if source >= 0 and spread > surprisal.MANY_USERS - 0.5 and bits[surprisal.SPREAD] >= 3.0:
        return SOURCE
    of_crowd = 0.0
    own = 0.0
    for c in range(surprisal.CARRIED):
        if c >= surprisal.CROWD and c < surprisal.SPREAD:
            of_crowd += bits[c]
        else:
            own += bits[c]
    many = p.failed_users >= surprisal.MANY_USERS and p.failed_users >= 0.1 * p.fast[1]
    if failed and of_crowd > own and (many or s.learned < surprisal.HARDLY_KNOWN):
        return CROWD
    return USER


@inline
def update(entity, offset, ts, bits, patterns, gap_ms):  # type: ignore[no-untyped-def]
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
    entity.incident_last_ts = max(entity.incident_last_ts, ts)
    entity.incident_count += 1
    count = entity.incident_count
    risen = bits >= entity.incident_bits + RISE_BITS
    named = (patterns & ~entity.incident_patterns) != np.uint64(0)
    grown = count >= 8 and count & (count - 1) == 0
    if bits > entity.incident_bits:
        entity.incident_bits = bits
    entity.incident_patterns |= patterns
    return risen or named or grown


@inline
def write_incident(entity, out):  # type: ignore[no-untyped-def]
    """Fill `out`, an `INCIDENT`, with an entity's open incident.

    Its evidence is the strongest alert's and half a bit for each doubling of their number.
    """
    out.first_offset = entity.incident_offset
    out.first_ms = entity.incident_first_ts
    out.count = entity.incident_count
    out.patterns = entity.incident_patterns
    out.evidence = entity.incident_bits + 0.5 * log2(np.float64(entity.incident_count))
