"""Assesses a folded history: evidence and risk of events and users, from statistics, patterns, forest and peers."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from streamguard.alerts.verdict import FOREST_USUAL, risk, verdict
from streamguard.batch.detection.clusters import PeerGroups
from streamguard.batch.folding.fold_result import EventTable, FoldResult
from streamguard.fold.patterns import PATTERNS
from streamguard.models.forest import Forest
from streamguard.text import counted


@dataclass(frozen=True, slots=True)
class Totals:
    """Numbers of events, alerted events and users.

    Attributes
    ----------
    events, alerted
        All events of this run, and those that statistics and patterns alert. Both are counted, not estimated.
    sampled, sampled_alerted, forest_added
        Events of the uniform sample, those of them that statistics and patterns alert, and those that are alerted
        only with the forest's bits. The forest scores kept rows only, so its additional alerts are known for the
        sample, not for all events.
    users, users_at_risk
        All users, and those whose evidence reaches the alert threshold.
    """

    events: int
    alerted: int
    sampled: int
    sampled_alerted: int
    forest_added: int
    users: int
    users_at_risk: int

    @property
    def alert_rate(self) -> float:
        """Alerted events as a share of this run's events."""
        return self.alerted / max(self.events, 1)


@dataclass(frozen=True, slots=True)
class Assessment:
    """Evidence and risk of kept events and of users; arrays have n rows or u users.

    Attributes
    ----------
    rows
        Events of the sample and kept alerts, each once, sorted by partition and offset.
    sampled
        bool (n,): whether the row belongs to the uniform sample.
    forest
        float64 (n,): bits of the forest; 0 without a forest.
    evidence, risk, alerted
        float64, float64, bool (n,): bits of the verdict, as a worker with this forest computes them; the same on a
        scale from 0 to 100; whether the evidence reaches the alert threshold.
    event_bits, peer_bits
        float64 (u,): the strongest evidence of an event of the user in this run, and how unusual the user is among
        their peers (0 without peer groups). All events count with their evidence without the forest, kept events
        also with it.
    events_seen
        float64 (u,): estimated number of the user's events in this run, at least 1. Among n events, an event of a
        given strength occurs by chance n times as often as in one event.
    user_evidence, user_risk, user_at_risk
        float64, float64, bool (u,): `event_bits` minus log2 of `events_seen`, plus a quarter of the peers' bits
        beyond 6, like the forest's bits in the verdict of an event: the peers' bits support a finding and rarely
        cause one. Risk and `user_at_risk` follow from the evidence as for events.
    strongest
        int64 (u,): row of the user's strongest event in this run; -1 if that event was not kept.
    totals
        Numbers of events and users.
    """

    rows: EventTable
    sampled: NDArray[np.bool_]
    forest: NDArray[np.float64]
    evidence: NDArray[np.float64]
    risk: NDArray[np.float64]
    alerted: NDArray[np.bool_]
    event_bits: NDArray[np.float64]
    peer_bits: NDArray[np.float64]
    events_seen: NDArray[np.float64]
    user_evidence: NDArray[np.float64]
    user_risk: NDArray[np.float64]
    user_at_risk: NDArray[np.bool_]
    strongest: NDArray[np.int64]
    totals: Totals

    def why(self, user: int) -> list[str]:
        """Reasons for a user's risk: the strongest event, then the distance from the peers; may be empty.

        Parameters
        ----------
        user
            Index of the user.
        """
        reasons = []
        row, bits = int(self.strongest[user]), float(self.event_bits[user])
        event = "an event that was not kept"
        if row >= 0:
            patterns = pattern_names(int(self.rows.patterns[row]))
            source = f" from {self.rows.source[row]}" if self.rows.source[row] else ""
            event = (
                f"{self.rows.event_type[row]}{source} at partition {self.rows.partition[row]}, "
                f"offset {self.rows.offset[row]}"
                + (f" ({', '.join(patterns).replace('_', ' ')})" if patterns else "")
            )
        if bits > 0:
            events_seen = round(float(self.events_seen[user]))
            among = f", the strongest of about {counted(events_seen, 'event')}" if events_seen > 1 else ""
            reasons.append(f"{bits:.1f} bits{among}: {event}")
        if self.peer_bits[user] > FOREST_USUAL:
            reasons.append(f"unlike their peers: {self.peer_bits[user]:.1f} bits")
        return reasons


def pattern_names(patterns: int) -> list[str]:
    """Names of the patterns in a bit set.

    Examples
    --------
    >>> pattern_names(5)
    ['brute_force', 'password_spray']
    """
    return [pattern.name for k, pattern in enumerate(PATTERNS) if patterns >> k & 1]


def assess(
    result: FoldResult, forest: Forest | None, peers: PeerGroups | None, *, alert_bits: float
) -> Assessment:
    """Assess kept events and all users; a threshold of evidence decides, never a fixed share.

    Parameters
    ----------
    result
        The folded history.
    forest
        The forest; with None, only statistics and patterns contribute evidence.
    peers
        Peer groups of `result.users`; with None, users are assessed by their events alone.
    alert_bits
        Minimum evidence of an alerted event and of a user at risk.
    """
    rows, sampled = _merged(result.sample, result.alerts)
    bits = forest.bits(rows.features) if forest is not None and len(rows) else np.zeros(len(rows))
    evidence = verdict(rows.strength, bits)
    alerted = evidence >= alert_bits
    strongest = _strongest(result, rows, evidence)
    event_bits = result.users.peak.copy()
    kept = strongest >= 0
    event_bits[kept] = np.maximum(event_bits[kept], evidence[strongest[kept]])
    # If the strongest event was not kept, a weaker event must not serve as its explanation.
    strongest[kept] = np.where(evidence[strongest[kept]] >= event_bits[kept], strongest[kept], -1)
    peer_bits = np.zeros(len(result.users)) if peers is None else peers.bits
    events_seen = _events_seen(result)
    user_evidence = verdict(np.maximum(event_bits - np.log2(events_seen), 0.0), peer_bits)
    user_at_risk = user_evidence >= alert_bits
    return Assessment(
        rows=rows,
        sampled=sampled,
        forest=bits,
        evidence=evidence,
        risk=_risks(evidence),
        alerted=alerted,
        event_bits=event_bits,
        peer_bits=peer_bits,
        events_seen=events_seen,
        user_evidence=user_evidence,
        user_risk=_risks(user_evidence),
        user_at_risk=user_at_risk,
        strongest=strongest,
        totals=Totals(
            events=sum(c.events for c in result.counts),
            alerted=sum(c.alerted for c in result.counts),
            sampled=int(sampled.sum()),
            sampled_alerted=int((sampled & (rows.strength >= alert_bits)).sum()),
            forest_added=int((sampled & alerted & (rows.strength < alert_bits)).sum()),
            users=len(result.users),
            users_at_risk=int(user_at_risk.sum()),
        ),
    )


def _merged(sample: EventTable, alerts: EventTable) -> tuple[EventTable, NDArray[np.bool_]]:
    partition = np.concatenate([sample.partition, alerts.partition])
    offset = np.concatenate([sample.offset, alerts.offset])
    source = np.arange(len(offset))
    order = np.lexsort((source, offset, partition))
    partition, offset = partition[order], offset[order]
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(partition) != 0) | (np.diff(offset) != 0)
    selected = order[first]
    rows = EventTable(
        **{
            f.name: np.concatenate([getattr(sample, f.name), getattr(alerts, f.name)])[selected]
            for f in fields(EventTable)
        }
    )
    return rows, selected < len(sample)


def _strongest(result: FoldResult, rows: EventTable, evidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Row of each user's strongest kept event in this run, the earliest of equal events; -1 without a kept event."""
    here = np.zeros(len(rows), bool)
    for c in result.counts:
        here |= (rows.partition == c.partition) & (rows.offset >= c.start) & (rows.offset < c.end)
    users = result.users
    number = {key: i for i, key in enumerate(zip(users.partition.tolist(), users.user.tolist(), strict=True))}
    strongest = np.full(len(users), -1)
    weakest_first = np.lexsort((-np.arange(len(rows)), evidence))
    for row in weakest_first[here[weakest_first]].tolist():
        user = number.get((int(rows.partition[row]), rows.user[row]))
        if user is not None:
            strongest[user] = row
    return strongest


def _events_seen(result: FoldResult) -> NDArray[np.float64]:
    """Estimated number of events of each user in this run, from the user's share of the partition in all history."""
    users, total = result.users, result.users.summary["total_events"].astype(np.float64)
    events_seen = np.ones(len(users))
    for c in result.counts:
        here = users.partition == c.partition
        events_seen[here] = np.maximum(total[here] * (c.events / max(total[here].sum(), 1.0)), 1.0)
    return events_seen


def _risks(evidence: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([risk(bits) for bits in evidence.tolist()], np.float64)
