"""The campaign: incidents of one attack as one row, which is a pure function of the set of incidents."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from streamguard.alerts.explain import Reason
from streamguard.alerts.incident import Incident, Involved, Time, rfc3339
from streamguard.campaigns.chains import link_chains
from streamguard.campaigns.entry import WAVE_PATTERNS
from streamguard.campaigns.name_set import MAX_NAMES, union
from streamguard.campaigns.participants import Participants
from streamguard.campaigns.sighting import Sighting
from streamguard.campaigns.union_find import UnionFind
from streamguard.campaigns.waves import link_waves

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
        ATT&CK technique that most incidents with a pattern have, of equals the most specific; None without a pattern.
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
        Users that were tried and those of them that were entered (see `streamguard.campaigns.entry`), source
        addresses, and ids of the incidents; at most `MAX_NAMES` of each, sorted.
    users, accounts, addresses, size
        Numbers of them all; beyond `MAX_NAMES` in one incident an estimate.
    patterns
        Names of all patterns.
    reasons
        Why the incident with the largest evidence is unusual, the strongest first.
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
    reasons: tuple[Reason, ...]


def campaigns(incidents: Iterable[Incident]) -> list[Campaign]:
    """The campaigns of a set of updates of incidents, by score.

    The result depends on the set alone: not on the order, and not on repetitions. Of each incident, the update with
    most alerts counts; who was tried, who was entered and from where is the union over all of its updates.

    Parameters
    ----------
    incidents
        All updates, as workers publish them, or the latest of each incident with what it involves, as a replay
        prints them.

    Notes
    -----
    Incidents are linked by union-find over keys that neighbours in time share, which takes O(n log n).
    """
    return campaigns_of(map(Sighting, incidents))


def campaigns_of(seen: Iterable[Sighting]) -> list[Campaign]:
    """The campaigns of a set of updates of incidents, as `campaigns`, given what is seen of each."""
    updates: dict[str, list[Sighting]] = defaultdict(list)
    for sighting in seen:
        updates[sighting.incident.id].append(sighting)
    sightings, involved = [], []
    for id in sorted(updates):
        *earlier, latest = sorted(updates[id], key=_version)
        sightings.append(Sighting(latest.incident, tuple(earlier)))
        participants = Participants()
        for update in updates[id]:
            update.show(participants)
        involved.append(participants.involved())
    sets = UnionFind(len(sightings))
    link_chains(sightings, sets)
    link_waves(sightings, sets)
    groups: dict[int, list[int]] = defaultdict(list)
    for i in range(len(sightings)):
        groups[sets.find(i)].append(i)
    found = [
        _campaign([sightings[i] for i in group], [involved[i] for i in group]) for group in groups.values()
    ]
    return sorted(found, key=lambda one: (-one.score, -one.evidence_bits, one.first_seen, one.id))


class Alone(NamedTuple):
    """What decides about the campaign of one incident."""

    score: float
    accounts: int


def alone(updates: Iterable[Incident]) -> Alone:
    """Score and entered accounts that `campaigns` finds for a set of one incident.

    Parameters
    ----------
    updates
        The updates of the incident, at least one.
    """
    sightings = [Sighting(update) for update in updates]
    if len(sightings) > 1:
        sightings.sort(key=_version)
    *earlier, latest = sightings
    participants = Participants()
    for update in sightings:
        update.show(participants)
    return Alone(
        _score([Sighting(latest.incident, tuple(earlier))], in_wave=False),
        participants.involved().entered.count,
    )


def _version(update: Sighting) -> tuple[int, float, bytes]:
    incident = update.incident
    return incident.count, incident.evidence_bits, msgspec.json.encode(incident)


def _campaign(group: Sequence[Sighting], involved: Sequence[Involved]) -> Campaign:
    wave = len({one.entity for one in group}) > 1 and any(one.in_wave for one in group)
    strongest = max(group, key=lambda one: (one.incident.evidence_bits, one.incident.id)).incident
    patterns = frozenset[str]().union(*(one.patterns for one in group))
    users = union(one.users for one in involved)
    entered = union(one.entered for one in involved)
    sources = union(one.sources for one in involved)
    return Campaign(
        id=min((one.first_ms, one.incident.id) for one in group)[1],
        kind=_kind(group, patterns, wave),
        technique=_technique(group, wave),
        first_seen=rfc3339(min(one.first_ms for one in group)),
        last_seen=rfc3339(max(one.last_ms for one in group)),
        score=_score(group, wave),
        evidence_bits=strongest.evidence_bits,
        risk=strongest.risk,
        severity=strongest.severity,
        alerts=_alerts(group),
        users=users.count,
        accounts=entered.count,
        addresses=sources.count,
        size=len(group),
        tried=users.names,
        entered=entered.names,
        sources=sources.names,
        incidents=tuple(sorted(one.incident.id for one in group)[:MAX_NAMES]),
        patterns=tuple(sorted(patterns)),
        reasons=strongest.reasons,
    )


def _alerts(group: Sequence[Sighting]) -> int:
    return sum(one.incident.count for one in group)


def _score(group: Sequence[Sighting], in_wave: bool) -> float:
    own = max(one.incident.evidence_bits * (1.0 if in_wave else 1.0 - _of_the_crowd(one)) for one in group)
    return round(own + BITS_OF_PERSISTENCE * math.log2(min(_alerts(group), PERSISTENT_ALERTS)), 2)


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
    return min(votes, key=lambda technique: (-votes[technique], -len(technique), technique), default=None)
