"""Groups the alerts of one entity into incidents; an incident is published again only when it has grown."""

from __future__ import annotations

import numpy as np

from streamguard.compute.arithmetic import log2
from streamguard.compute.compiler import inline
from streamguard.fold import population, surprisal
from streamguard.fold.ageing import MONTH_MS

NO_ENTITY, USER_ENTITY, SOURCE_ENTITY, CROWD_ENTITY = 0, 1, 2, 3
"""Kind of the entity to whose incident an alert belongs; `CROWD_ENTITY` stands for a wave of attempts that cannot be
attributed to a single user or a single source."""

ENTITY_KINDS = ("", "user", "source", "crowd")

INCIDENT = np.dtype(
    [
        ("first_offset", "<i8"),
        ("first_ms", "<i8"),
        ("count", "<i8"),  # number of alerts so far
        ("patterns", "<u8"),  # patterns of all these alerts
        ("evidence", "<f8"),  # bits
    ]
)
"""The incident that an alert belongs to, in its state after the alert was added."""

CONTEXT = np.dtype(
    [
        ("present", "<f8", len(population.CLASSES)),  # events of each class among all users, 5 minutes
        ("usual", "<f8", len(population.CLASSES)),  # usual number of them at this time
        ("source_users", "<f8"),  # number of users for whom the source failed
        ("source_failures", "<f8"),  # number of failures of the source, 1 hour
        ("gap", "<f8"),  # s since the previous event of the user
        ("hour", "<f8"),  # hour of the week
    ]
)
"""Values that the explanation of an alert needs in addition to the profile."""

RISE_BITS = 1.5
"""An incident is published again if its evidence rises by this much, for example from risk 75 to 77.5."""


CAMPAIGN_GAP_MS = 86_400_000
"""Attempts of a source or the crowd within a day of the last ones belong to the same incident."""


@inline
def entity_of(s, p, source, spread, bits, user, address, failed):  # type: ignore[no-untyped-def]
    """Return the kind of the entity to whose incident an alert belongs.

    The entity is the source if it fails for many users, or if the event names no user. It is the crowd if most of the
    evidence of a failure comes from the whole population, and many users or a user with few events fail. Otherwise it
    is the user.
    """
    if user == 0 and address != 0:
        return SOURCE_ENTITY
    if source >= 0 and spread > surprisal.MANY_USERS - 0.5 and bits[surprisal.SPREAD] >= 3.0:
        return SOURCE_ENTITY
    of_crowd = 0.0
    own = 0.0
    for c in range(surprisal.CARRIED):
        if c >= surprisal.FIRST_CROWD and c < surprisal.SPREAD:
            of_crowd += bits[c]
        else:
            own += bits[c]
    many = p.failed_users >= surprisal.MANY_USERS and p.failed_users >= 0.1 * p.fast[1]
    if failed and of_crowd > own and (many or s.learned < surprisal.HARDLY_KNOWN):
        return CROWD_ENTITY
    return USER_ENTITY


@inline
def update(entity, offset, ts, bits, patterns, gap_ms):  # type: ignore[no-untyped-def]
    """Add an alert to the entity's open incident, or open a new one; return whether to publish the incident.

    Parameters
    ----------
    entity
        A profile, a failing source or the population, which holds the open incident.
    offset
        Offset of the event; it identifies the incident if the event opens one.
    bits
        Evidence of the alert.
    gap_ms
        Milliseconds without an alert after which the next alert opens a new incident. The next alert also opens one if
        the last alert is dated over a month later: its time was false.
    """
    last = entity.incident_last_ts
    if entity.incident_offset < 0 or ts - last > gap_ms or last - ts > MONTH_MS:
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

    The evidence of an incident is that of its strongest alert, plus half a bit for each doubling of the number of
    alerts.
    """
    out.first_offset = entity.incident_offset
    out.first_ms = entity.incident_first_ts
    out.count = entity.incident_count
    out.patterns = entity.incident_patterns
    out.evidence = entity.incident_bits + 0.5 * log2(np.float64(entity.incident_count))
