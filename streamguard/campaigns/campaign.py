"""The campaign: incidents of one attack as one row, which is a pure function of the set of incidents."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from streamguard.alerts.incident import Incident, Time, rfc3339
from streamguard.campaigns.chains import link_chains
from streamguard.campaigns.sighting import WAVE_PATTERNS, Sighting
from streamguard.campaigns.union_find import UnionFind
from streamguard.campaigns.waves import link_waves

MAX_NAMES = 1000
"""Users, sources and incidents that a campaign names; it counts all of them."""
BITS_OF_PERSISTENCE = 2.0
"""What each doubling of the alerts adds to the score: most benign rows are a single alert."""
PERSISTENT_ALERTS = 4
"""Alerts beyond these add nothing, because an attacker could add more of them to hide others."""


class Campaign(msgspec.Struct, frozen=True):
    """Incidents that are one attack; also a lone incident is a campaign.

    Attributes
    ----------
    id
        Id of the first incident.
    kind
        What it is about: its pattern, or else its strongest reason.
    technique
        ATT&CK technique that most incidents with a pattern have; None without a pattern.
    first_seen, last_seen
        Event time of the first and of the latest alert.
    score
        What decides which campaign is raised, in bits: the largest evidence that is the campaign's own, and up to 4
        more for persistence.
    evidence_bits
        Largest evidence of an incident.
    risk, severity
        Those of the incident with the largest evidence.
    alerts
        Number of alerts.
    tried, entered, sources, incidents
        Users that were tried and those of them that were entered, source addresses, and ids of the incidents; at most
        `MAX_NAMES` of each, sorted.
    users, accounts, addresses, size
        Numbers of them all.
    patterns
        Names of all patterns.
    """

    id: str
    kind: str
    technique: str | None
    first_seen: Time
    last_seen: Time
    score: float
    evidence_bits: float
    risk: float
    severity: str
    alerts: int
    users: int
    accounts: int
    addresses: int
    size: int
    tried: tuple[str, ...]
    entered: tuple[str, ...]
    sources: tuple[str, ...]
    incidents: tuple[str, ...]
    patterns: tuple[str, ...]


def campaigns(incidents: Iterable[Incident]) -> list[Campaign]:
    """The campaigns of a set of incidents, by score.

    The result depends on the set alone: not on the order, and not on earlier updates of an incident, of which the one
    with most alerts counts.

    Parameters
    ----------
    incidents
        Updates of incidents.

    Notes
    -----
    Incidents are linked by union-find over keys that neighbours in time share, which takes O(n log n).
    """
    latest: dict[str, Incident] = {}
    for incident in incidents:
        before = latest.get(incident.id)
        if before is None or _version(incident) > _version(before):
            latest[incident.id] = incident
    sightings = [Sighting(latest[id]) for id in sorted(latest)]
    sets = UnionFind(len(sightings))
    link_chains(sightings, sets)
    link_waves(sightings, sets)
    groups: dict[int, list[Sighting]] = defaultdict(list)
    for i, sighting in enumerate(sightings):
        groups[sets.find(i)].append(sighting)
    found = [_campaign(group) for group in groups.values()]
    return sorted(found, key=lambda one: (-one.score, -one.evidence_bits, one.first_seen, one.id))


def _version(incident: Incident) -> tuple[int, float, bytes]:
    return incident.count, incident.evidence_bits, msgspec.json.encode(incident)


def _campaign(group: Sequence[Sighting]) -> Campaign:
    wave = len({one.entity for one in group}) > 1 and any(one.in_wave for one in group)
    strongest = max(group, key=lambda one: (one.incident.evidence_bits, one.incident.id)).incident
    own = max(one.incident.evidence_bits * (1.0 if wave else 1.0 - _of_the_crowd(one)) for one in group)
    alerts = sum(one.incident.count for one in group)
    patterns = frozenset[str]().union(*(one.patterns for one in group))
    users = {one.user for one in group if one.kind == "user"}
    entered = {one.user for one in group if one.entered}
    sources = {one.source for one in group if one.source}
    return Campaign(
        id=min((one.first_ms, one.incident.id) for one in group)[1],
        kind=_kind(group, patterns, wave),
        technique=_technique(group, wave),
        first_seen=rfc3339(min(one.first_ms for one in group)),
        last_seen=rfc3339(max(one.last_ms for one in group)),
        score=round(own + BITS_OF_PERSISTENCE * math.log2(min(alerts, PERSISTENT_ALERTS)), 2),
        evidence_bits=strongest.evidence_bits,
        risk=strongest.risk,
        severity=strongest.severity,
        alerts=alerts,
        users=len(users),
        accounts=len(entered),
        addresses=len(sources),
        size=len(group),
        tried=_names(users),
        entered=_names(entered),
        sources=_names(sources),
        incidents=_names(one.incident.id for one in group),
        patterns=tuple(sorted(patterns)),
    )


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names)[:MAX_NAMES])


def _of_the_crowd(sighting: Sighting) -> float:
    """Share of an incident's reasons that it has in common with all users."""
    return min(math.fsum(r.share for r in sighting.incident.reasons if r.feature.startswith("crowd")), 1.0)


def _kind(group: Sequence[Sighting], patterns: frozenset[str], wave: bool) -> str:
    named = patterns & WAVE_PATTERNS if wave else patterns - WAVE_PATTERNS
    if named:
        return min(named)
    strongest: dict[str, float] = defaultdict(float)
    for one in group:
        for reason, bits in one.bits.items():
            if reason != "carried":
                strongest[reason] = max(strongest[reason], bits)
    return min(strongest, key=lambda reason: (-strongest[reason], reason), default="none")


def _technique(group: Sequence[Sighting], wave: bool) -> str | None:
    votes = Counter(
        pattern.technique
        for one in group
        for pattern in one.incident.patterns
        if not wave or pattern.name in WAVE_PATTERNS
    )
    return min(votes, key=lambda technique: (-votes[technique], technique), default=None)
