"""Groups the alerts of one entity into incidents; an incident is published again only when it has grown."""

from __future__ import annotations

import numpy as np

from streamguard.compute.arithmetic import log2
from streamguard.compute.compiler import inline
from streamguard.events import indicators as flag
from streamguard.fold import components as component
from streamguard.fold import crowd, population
from streamguard.fold.dimensions import DAY_MS, MONTH_MS, SOURCE
from streamguard.fold.discount import crowd_share

NO_ENTITY, USER_ENTITY, SOURCE_ENTITY, CROWD_ENTITY = 0, 1, 2, 3
"""Kind of the entity to whose incident an alert belongs; `CROWD_ENTITY` stands for a wave of attempts that cannot be
attributed to a single user or a single source."""

ENTITY_KINDS = ("", "user", "source", "crowd")

N_COMPONENTS = len(component.COMPONENTS)

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
        ("names", "<f8"),  # different DNS names of the event's kind within minutes
        ("guess_bits", "<f8"),  # bits that the number of guesses adds
        ("gap", "<f8"),  # s since the previous event of the user
        ("hour", "<f8"),  # hour of the week
        ("denied", "<u8"),  # sketches whose value a person has marked as part of an attack, as a bit set
    ]
)
"""Values that the explanation of an alert needs in addition to the profile."""

RISE_BITS = 1.5
"""An incident is published again if its evidence rises by this much, for example from risk 75 to 77.5."""


SPREAD_BITS = 3.0
"""Bits of its spread from which a source is the entity: one source in eight has as many by chance."""
COUNT_BITS = 0.5
"""Bits that each doubling of the number of alerts adds to an incident: persistence is evidence, but alerts of one
incident depend on each other."""
OFTEN = 8
"""Alerts from which each doubling of their number publishes an incident again: earlier, its bits say enough."""

CAMPAIGN_GAP_MS = DAY_MS
"""Attempts of a source or the crowd within a day of the last ones belong to the same incident."""


@inline
def entity_of(e):  # type: ignore[no-untyped-def]
    """Return the kind of the entity to whose incident an alert belongs.

    The entity is the source if it fails for many users, or if the event names no user. It is the crowd if most of the
    evidence of a failure comes from the whole population, and many users or a user with few events fail. Otherwise it
    is the user.
    """
    if e.user == 0 and e.values[SOURCE] != 0:
        return SOURCE_ENTITY
    if e.source >= 0 and e.spread > crowd.MANY_USERS - 0.5 and e.less[component.SPREAD] >= SPREAD_BITS:
        return SOURCE_ENTITY
    own = 0.0
    for c in range(N_COMPONENTS):
        if not component.IS_CROWD[c] and c != component.CARRIED:
            own += e.less[c]
    many = e.common or e.profile.learned < crowd.HARDLY_KNOWN
    if e.flags & flag.FAILED and many and crowd_share(e.less) > own:
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
    grown = count >= OFTEN and count & (count - 1) == 0
    if bits > entity.incident_bits:
        entity.incident_bits = bits
    entity.incident_patterns |= patterns
    return risen or named or grown


@inline
def is_first(s, offset, whose, user, entered):  # type: ignore[no-untyped-def]
    """Record that the incident that began at an offset names this user; return whether something is new about it.

    An incident of a source or of the crowd is published for each user that it tries, and any incident for each user
    that it enters, so that its updates name them all.

    Parameters
    ----------
    s
        Profile of the user.
    whose
        Kind of the incident's entity.
    entered
        Whether a login succeeded.
    """
    new = False
    if whose != USER_ENTITY and user != 0 and s.tried_incident != offset:
        s.tried_incident = offset
        new = True
    if entered and s.entered_incident != offset:
        s.entered_incident = offset
        new = True
    return new


@inline
def write_context(e, source, out):  # type: ignore[no-untyped-def]
    """Fill `out`, a `CONTEXT`, with what the explanation of an alert needs besides the profile.

    Parameters
    ----------
    source
        Position of the event's source among the failing ones, or -1.
    """
    for k in range(len(population.CLASSES)):
        out.present[k] = e.population.fast[k]
        out.usual[k] = crowd.usual_count(e.population, k, e.hour)
    out.source_users = e.spread
    out.source_failures = e.sources[source].failures if source >= 0 else 0.0
    out.names = e.names
    out.gap = e.gap
    out.hour = e.hour


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
    out.evidence = entity.incident_bits + COUNT_BITS * log2(np.float64(entity.incident_count))
