"""Assesses users, one table after the other, from their events of a run and their peers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamguard.batch.detection.assessment import Assessment, pattern_names, risks
from streamguard.batch.detection.clusters import PeerGroups, Peers
from streamguard.batch.folding.fold_result import UserTable
from streamguard.batch.source.offset_range import Counts
from streamguard.risk import HIGH_RISK
from streamguard.risk import bits as bits_of_risk
from streamguard.text import counted

MAX_USERS = 50
"""Number of users of all partitions that are described, those with the most evidence."""


PEER_SHARE = 0.25
"""Share of the bits of a distance from the peers above `PEER_USUAL` that adds to the evidence of a user: to be unlike
others supports an event and rarely puts a user at risk alone."""

PEER_USUAL = 6.0
"""Bits of a distance that are usual: one user in 64 has more."""


@dataclass(frozen=True, slots=True)
class UserAssessment:
    """Evidence and risk of the n users of a table.

    Attributes
    ----------
    event_bits, incident_bits, peer_bits
        float64 (n,): the strongest evidence of an event and of an incident of the user in this run, and how unusual the
        user is among their peers (0 without peer groups). All events count with their evidence without the forest, kept
        events also with it.
    events_seen
        float64 (n,): estimated number of the user's events in this run, at least 1. Among n events, an event of a
        given strength occurs by chance n times as often as in one event.
    evidence, risk, at_risk
        float64, float64, bool (n,): `incident_bits`, so that a user has at least the risk of their worst incident. If
        it is more, and for users without an incident: `event_bits` minus log2 of `events_seen`, plus a quarter of the
        peers' bits beyond 6, because the distance from peers supports a finding and rarely causes one. Risk follows
        from the evidence as for events, and a user is at risk from a high risk on.
    strongest
        int64 (n,): row of the user's strongest event in this run; -1 if that event was not kept.
    peers
        Their peer groups; None if they were not requested.
    """

    event_bits: NDArray[np.float64]
    incident_bits: NDArray[np.float64]
    peer_bits: NDArray[np.float64]
    events_seen: NDArray[np.float64]
    evidence: NDArray[np.float64]
    risk: NDArray[np.float64]
    at_risk: NDArray[np.bool_]
    strongest: NDArray[np.int64]
    peers: Peers | None


@dataclass(frozen=True, slots=True)
class RankedUser:
    """One of the users with the most evidence: the row of `UserTable.summary`, and what was found."""

    user: str
    partition: int
    summary: Any
    evidence: float
    risk: float
    at_risk: bool
    why: list[str]
    group: int | None
    peer_bits: float


class UserAssessor:
    """Assesses users; it holds the kept events of a run, but no users.

    Parameters
    ----------
    events
        The assessed events.
    counts
        Counts of each partition.
    peers
        Peer groups; with None, users are assessed by their events alone.
    alert_bits
        Minimum evidence of an alerted event. A user at risk has at least this evidence, and that of a high risk: among
        thousands of events, an event as rare as an alert occurs by chance.
    """

    def __init__(
        self, events: Assessment, counts: list[Counts], peers: PeerGroups | None, *, alert_bits: float
    ) -> None:
        self._events = events
        self._peers = peers
        self._at_risk_bits = max(alert_bits, bits_of_risk(HIGH_RISK))
        self._share = {c.partition: c.events / max(c.events_ever, 1.0) for c in counts}
        self._strongest = _strongest(events)

    def assess(self, users: UserTable) -> UserAssessment:
        """Assess the users of a table; a threshold of evidence decides, never a fixed share."""
        keys = zip(users.partition.tolist(), users.user.tolist(), strict=True)
        strongest = np.array([self._strongest.get(key, -1) for key in keys], np.int64)
        event_bits, evidence = users.event_bits.copy(), self._events.evidence
        kept = strongest >= 0
        event_bits[kept] = np.maximum(event_bits[kept], evidence[strongest[kept]])
        # If the strongest event was not kept, a weaker event must not serve as its explanation.
        strongest[kept] = np.where(evidence[strongest[kept]] >= event_bits[kept], strongest[kept], -1)
        peers = None if self._peers is None else self._peers.assign(users.usual)
        peer_bits = np.zeros(len(users)) if peers is None else peers.bits
        share = np.array([self._share[partition] for partition in users.partition.tolist()])
        events_seen = np.maximum(users.summary["total_events"] * share, 1.0)
        beyond_chance = np.maximum(event_bits - np.log2(events_seen), 0.0)
        apart = PEER_SHARE * np.maximum(peer_bits - PEER_USUAL, 0.0)
        user_evidence = np.maximum(users.incident_bits, beyond_chance + apart)
        return UserAssessment(
            event_bits=event_bits,
            incident_bits=users.incident_bits,
            peer_bits=peer_bits,
            events_seen=events_seen,
            evidence=user_evidence,
            risk=risks(user_evidence),
            at_risk=user_evidence >= self._at_risk_bits,
            strongest=strongest,
            peers=peers,
        )

    def why(self, found: UserAssessment, user: int) -> list[str]:
        """Reasons for a user's risk: incident, strongest event, distance from the peers; may be empty.

        Parameters
        ----------
        user
            Place of the user in the table.
        """
        reasons = []
        if found.incident_bits[user] > 0:
            reasons.append(f"an incident of {found.incident_bits[user]:.1f} bits")
        row, bits, rows = int(found.strongest[user]), float(found.event_bits[user]), self._events.rows
        event = "an event that was not kept"
        if row >= 0:
            patterns = pattern_names(int(rows.patterns[row]))
            source = f" from {rows.source[row]}" if rows.source[row] else ""
            event = (
                f"{rows.event_type[row]}{source} at partition {rows.partition[row]}, offset {rows.offset[row]}"
                + (f" ({', '.join(patterns).replace('_', ' ')})" if patterns else "")
            )
        if bits > 0:
            events_seen = round(float(found.events_seen[user]))
            among = f", the strongest of about {counted(events_seen, 'event')}" if events_seen > 1 else ""
            reasons.append(f"{bits:.1f} bits{among}: {event}")
        if found.peer_bits[user] > PEER_USUAL:
            reasons.append(f"unlike their peers: {found.peer_bits[user]:.1f} bits")
        return reasons


def _strongest(events: Assessment) -> dict[tuple[int, str], int]:
    """Row of each user's strongest kept event in this run, the earliest of equal events."""
    rows = events.rows
    weakest_first = np.lexsort((-np.arange(len(rows)), events.evidence))
    return {
        (int(rows.partition[row]), rows.user[row]): row
        for row in weakest_first[events.here[weakest_first]].tolist()
    }


class UserFindings:
    """What a report says of all users, gathered table by table.

    Parameters
    ----------
    assessor
        Explains the findings.
    groups
        Number of peer groups.
    named
        Users whose peer group is needed, by partition and name.

    Attributes
    ----------
    users, at_risk : int
        Numbers of users.
    group_sizes, group_at_risk : int64 (groups,)
        Users, and users at risk, of each peer group.
    worst : list of RankedUser
        Users with the most evidence; users without evidence against them are left out.
    group_of : Mapping
        Peer group of the named users.
    """

    def __init__(self, assessor: UserAssessor, groups: int, named: set[tuple[int, str]]) -> None:
        self._assessor = assessor
        self._named = named
        self.users = self.at_risk = 0
        self.group_sizes, self.group_at_risk = np.zeros(groups, np.int64), np.zeros(groups, np.int64)
        self.worst: list[RankedUser] = []
        self._group_of: dict[tuple[int, str], int] = {}

    @property
    def group_of(self) -> Mapping[tuple[int, str], int]:
        return self._group_of

    def add(self, users: UserTable, found: UserAssessment) -> None:
        """Count the users of a table, and keep the worst."""
        self.users += len(users)
        self.at_risk += int(found.at_risk.sum())
        if found.peers is not None:
            groups = len(self.group_sizes)
            self.group_sizes += np.bincount(found.peers.group, minlength=groups)
            self.group_at_risk += np.bincount(found.peers.group[found.at_risk], minlength=groups)
            for k, key in enumerate(zip(users.partition.tolist(), users.user.tolist(), strict=True)):
                if key in self._named:
                    self._group_of[key] = int(found.peers.group[k])
        worst = np.lexsort((np.arange(len(users)), -found.evidence))[:MAX_USERS]
        self.worst += [self._ranked(users, found, k) for k in worst.tolist() if found.evidence[k] > 0]
        self.worst = sorted(self.worst, key=lambda one: -one.evidence)[:MAX_USERS]

    def _ranked(self, users: UserTable, found: UserAssessment, k: int) -> RankedUser:
        return RankedUser(
            user=users.user[k],
            partition=int(users.partition[k]),
            summary=users.summary[k].copy(),
            evidence=float(found.evidence[k]),
            risk=float(found.risk[k]),
            at_risk=bool(found.at_risk[k]),
            why=self._assessor.why(found, k),
            group=None if found.peers is None else int(found.peers.group[k]),
            peer_bits=float(found.peer_bits[k]),
        )
