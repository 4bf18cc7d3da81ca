"""The results of a retrain in plain Python: users, sample, alerts, totals and exported columns.

The fold itself has its own reference (`tests/reference.py`); here its results for each event are given. Everything
after it is written once more with dictionaries, lists and sorting, one event at a time. It shares nothing with the
batch layer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from streamguard.alerts.verdict import verdict
from streamguard.events.columns import TEXTS
from streamguard.events.event import Event, Refusal
from streamguard.events.subject import profile_key, shown
from streamguard.fold.features import NAMES
from streamguard.fold.grouping import ENTITY_KINDS
from streamguard.fold.patterns import PATTERNS
from streamguard.models.forest import Forest
from streamguard.risk import risk
from streamguard.settings.schema import Detection, Sampling
from streamguard.state.in_memory import InMemoryPartition

Place = tuple[int, int]
"""Partition and offset."""
MASK = 2**64 - 1
STEP = 0x9E3779B97F4A7C15


@dataclass
class Seen:
    """One event with its results of the fold."""

    place: Place
    timestamp: int
    user: str
    event_type: str
    source: str
    location_hash: int
    source_hash: int
    threat: float | None
    authentication: bool
    failed: bool
    features: list[float]
    score: float
    tail: float
    strength: float
    patterns: int
    alerted: bool


@dataclass
class User:
    """Everything that is known of one user of one partition."""

    events: list[Seen] = field(default_factory=list)
    peak: float = 0.0
    incident_bits: float = 0.0


class ReferenceBatch:
    """Runs over partitions that continue each other.

    Attributes
    ----------
    events
        Every event ever folded, by place.
    new
        The places of the events of the last run.
    refusals
        Refused records of the last run.
    """

    def __init__(self, sampling: Sampling, detection: Detection) -> None:
        self._sampling, self._detection = sampling, detection
        self._states: dict[int, InMemoryPartition] = {}
        self.events: dict[Place, Seen] = {}
        self.users: dict[tuple[int, str], User] = {}
        self.new: set[Place] = set()
        self.subjects: set[tuple[int, str, str]] = set()
        self.refusals: list[Refusal] = []
        self.records = 0

    def run(self, records: Mapping[int, Mapping[int, bytes | None]]) -> None:
        """Fold the next records of each partition, by offset."""
        self.new, self.refusals, self.records = set(), [], 0
        self.repairs: Counter[str] = Counter()
        self.repaired = 0
        self.seen: list[Event] = []
        for user in self.users.values():
            user.peak = user.incident_bits = 0.0
        for partition, values in sorted(records.items()):
            self._fold(partition, sorted(values.items()))

    def _fold(self, partition: int, records: list[tuple[int, bytes | None]]) -> None:
        if partition not in self._states:
            self._states[partition] = InMemoryPartition(
                partition, resident=100_000, detection=self._detection
            )
        for a in range(0, len(records), 113):
            part = records[a : a + 113]
            offsets = [offset for offset, _ in part]
            folded = self._states[partition].state.fold([value for _, value in part], np.array(offsets))
            self.records += len(part)
            self.refusals += folded.refused
            self.repaired += len(folded.repaired)
            self.seen += folded.events
            self.repairs.update(str(repair) for event in folded.repaired for repair in event.repairs)
            columns = folded.columns
            sources, locations = columns.text("source"), columns.text("location")
            self.subjects.update((partition, shown(s), s) for s in columns.subjects)
            for i, event in enumerate(folded.events):
                assert bool(sources[i]) == bool(columns.hashes[i, TEXTS.index("source")])
                seen = Seen(
                    place=(partition, offsets[folded.index[i]]),
                    timestamp=int(event.timestamp),
                    user=shown(columns.subjects[i]),
                    event_type=event.event_type,
                    source=sources[i],
                    source_hash=int(columns.hashes[i, TEXTS.index("source")]),
                    location_hash=int(columns.hashes[i, TEXTS.index("location")]) if locations[i] else 0,
                    threat=event.threat_score,
                    authentication=event.event_type in LOGINS,
                    failed=event.status == "failed" or event.event_type == "login_failed",
                    features=[float(value) for value in folded.features[i]],
                    score=float(folded.score[i]),
                    tail=float(folded.tail[i]),
                    strength=float(folded.evidence[i]),
                    patterns=int(folded.patterns[i]),
                    alerted=bool(folded.kind[i] != 0),
                )
                self.events[seen.place] = seen
                self.new.add(seen.place)
                user = self.users.setdefault((partition, seen.user), User())
                if folded.expired[i]:
                    user.events.clear()
                user.events.append(seen)
                user.peak = max(user.peak, seen.strength)
                if ENTITY_KINDS[abs(folded.kind[i])] == "user":
                    user.incident_bits = max(user.incident_bits, float(folded.incident["evidence"][i]))

        self._states[partition].save()
        for _, user, subject in [known for known in self.subjects if known[0] == partition]:
            if profile_key(subject) not in self._states[partition].saved:
                self.users.pop((partition, user), None)

    def sample(self) -> list[Place]:
        """The places with the smallest hashes among all events, sorted."""
        chosen = sorted(self.events, key=lambda place: (float(hashed(place)), place))[: self._sampling.rows]
        return sorted(chosen)

    def alerts(self) -> list[Place]:
        """In each partition, the alerted events of the last run with the most evidence, sorted."""
        kept: list[Place] = []
        for partition in {partition for partition, _ in self.new}:
            alerted = [
                self.events[place]
                for place in self.new
                if place[0] == partition and self.events[place].alerted
            ]
            alerted.sort(key=lambda seen: (-seen.strength, seen.place))
            kept += [seen.place for seen in alerted[: self._sampling.alerts]]
        return sorted(kept)

    def training(self) -> set[Place]:
        """The sampled events that train a forest."""
        quiet = [place for place in self.sample() if self._quiet(self.events[place])]
        days = NAMES.index("active_days")
        settled = [place for place in quiet if self.events[place].features[days] > math.log2(3.5)]
        known, all_quiet = self._capped(settled), self._capped(quiet)
        return known if len(known) >= max(256, len(all_quiet) / 2) else all_quiet

    def _quiet(self, seen: Seen) -> bool:
        return seen.tail <= 6.0 and not seen.patterns and not seen.alerted

    def _capped(self, places: list[Place]) -> set[Place]:
        rows: Counter[tuple[int, str]] = Counter()
        chosen = set()
        for place in sorted(places, key=hashed):
            user = place[0], self.events[place].user
            rows[user] += 1
            if rows[user] <= self._sampling.rows_per_user:
                chosen.add(place)
        return chosen

    def trimmed(self) -> float:
        """Share of the sample that is not quiet."""
        sample = self.sample()
        return 1.0 - sum(self._quiet(self.events[place]) for place in sample) / len(sample)

    def training_rows(self, forest: Forest | None) -> list[dict[str, Any]]:
        """The rows of `training_data`, sorted by place."""
        sample, training = set(self.sample()), self.training()
        rows = []
        for place in sorted({*sample, *self.alerts()}):
            seen = self.events[place]
            bits = self._forest_bits(seen, forest)
            evidence = with_forest(seen.strength, bits)
            rows.append(
                {
                    "partition": place[0],
                    "offset": place[1],
                    "timestamp": seen.timestamp,
                    "user": seen.user,
                    "event_type": seen.event_type,
                    "source_ip": seen.source,
                    **dict(zip(NAMES, seen.features, strict=True)),
                    "score": seen.score,
                    "tail_bits": seen.tail,
                    "forest_bits": bits,
                    "evidence_bits": evidence,
                    "risk": risk(evidence),
                    "patterns": [p.name for k, p in enumerate(PATTERNS) if seen.patterns & 2**k],
                    "is_sampled": place in sample,
                    "is_training": place in training,
                    "is_anomaly": evidence >= self._detection.alert_bits,
                }
            )
        return rows

    def user_rows(
        self, forest: Forest | None, peer_bits: Mapping[tuple[int, str], float]
    ) -> list[dict[str, Any]]:
        """The rows of `features` without the columns of peer groups, sorted by partition and user."""
        kept = {place: self.events[place] for place in {*self.sample(), *self.alerts()} & self.new}
        strongest: dict[tuple[int, str], float] = {}
        for place, seen in kept.items():
            key = place[0], seen.user
            evidence = with_forest(seen.strength, self._forest_bits(seen, forest))
            strongest[key] = max(strongest.get(key, 0.0), evidence)
        ever = Counter(partition for partition, _ in self.events)
        now = Counter(partition for partition, _ in self.new)
        rows = []
        for (partition, name), user in sorted(self.users.items()):
            row = summary(user.events)
            expected = max(row["total_events"] * (now[partition] / max(ever[partition], 1)), 1.0)
            bits = max(user.peak, strongest.get((partition, name), 0.0))
            apart = max(peer_bits.get((partition, name), 0.0) - 6.0, 0.0) / 4.0
            rare = max(bits - np.log2(expected), 0.0) + apart
            evidence = max(user.incident_bits, rare)
            last = user.events[-1]
            rows.append(
                {
                    "user": name,
                    "partition": partition,
                    **dict(zip(NAMES, last.features, strict=True)),
                    **{f"mean_{name}": mean for name, mean in zip(NAMES, means(user.events), strict=True)},
                    **row,
                    "evidence_bits": evidence,
                    "risk": risk(evidence),
                    "is_anomaly": risk(evidence) >= max(self._detection.alert_risk, 80.8),
                }
            )
        return rows

    def _understood(self) -> dict[str, Any]:
        statuses = Counter(OUTCOMES.get(event.status, "unknown") for event in self.seen)
        places = [event.metadata.geo_location for event in self.seen if event.metadata is not None]
        return {
            "events": len(self.seen),
            **{outcome: statuses[outcome] for outcome in OUTCOMES.values()},
            "by_type": sum(event.event_type == "login_failed" for event in self.seen),
            "logins": sum(event.event_type in LOGINS for event in self.seen),
            "not_understood": {
                "status": statuses["unknown"],
                "address": sum((event.source_ip or "").startswith("host") for event in self.seen),
                "location": sum(place == "Atlantis" for place in places),
            },
            "words": _most(
                (event.status or "").replace("\x1b", "�")
                for event in self.seen
                if event.status not in OUTCOMES
            ),
        }

    def _forest_bits(self, seen: Seen, forest: Forest | None) -> float:
        return 0.0 if forest is None else float(forest.bits(np.array([seen.features], np.float32))[0])

    def totals(self, forest: Forest | None, peer_bits: Mapping[tuple[int, str], float]) -> dict[str, Any]:
        """The totals of the report."""
        new = [self.events[place] for place in self.new]
        sampled = [row for row in self.training_rows(forest) if row["is_sampled"]]
        strengths = [self.events[row["partition"], row["offset"]].strength for row in sampled]
        return {
            "records": self.records,
            "events": len(new),
            "refused": len(self.refusals),
            "refused_by_reason": dict(Counter(refusal.reason for refusal in self.refusals)),
            "refusals": {
                reason: {
                    "number": len(mine := [one for one in self.refusals if one.reason == reason]),
                    "users": _most(one.user for one in mine),
                    "sources": _most(one.source for one in mine),
                }
                for reason in {one.reason for one in self.refusals}
            },
            "repaired": self.repaired,
            "repairs": dict(self.repairs),
            "understood": self._understood(),
            "alerted": sum(seen.alerted for seen in new),
            "alert_rate": sum(seen.alerted for seen in new) / max(len(new), 1),
            "sampled": len(sampled),
            "sampled_alerts": sum(row["is_anomaly"] for row in sampled),
            "forest_ranked": sum(
                min(row["forest_bits"], 6.0) > strength
                for row, strength in zip(sampled, strengths, strict=True)
            ),
            "training_rows": len(self.training()),
            "trimmed_share": self.trimmed(),
            "users": len(self.users),
            "users_at_risk": sum(row["is_anomaly"] for row in self.user_rows(forest, peer_bits)),
        }


LOGINS = ("auth_attempt", "login_failed")
"""The types of the test's events that are logins; the second one states a failure."""
OUTCOMES = {"success": "success", "failed": "failure", None: "absent"}
"""The statuses of the test's events that are understood."""


def _most(names: Iterable[str]) -> dict[str, int]:
    counts = Counter(name for name in names if name)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:5])


def summary(events: list[Seen]) -> dict[str, Any]:
    """The summary of a user."""
    threats = [seen.threat for seen in events if seen.threat is not None]
    logins = [seen for seen in events if seen.authentication]
    unusual = sum(seen.features[NAMES.index("off_hours_share")] >= 0.75 for seen in events)
    return {
        "total_events": len(events),
        "unique_ips": distinct(seen.source_hash for seen in events),
        "unique_locations": distinct(seen.location_hash for seen in events),
        "avg_threat_score": reduce(add, threats, 0.0)
        / max(len(threats), 1),  # `sum` is more exact since Python 3.12
        "max_threat_score": max(threats, default=0.0),
        "failed_auth_rate": sum(seen.failed for seen in logins) / max(len(logins), 1),
        "unusual_hour_rate": unusual / len(events),
        "first_seen": min(seen.timestamp for seen in events),
        "last_seen": max(seen.timestamp for seen in events),
    }


def distinct(hashes: Any) -> int:
    """Number of different values: exact below 64; from 64 on, 63 divided by the 64th smallest hash as a share."""
    smallest = sorted({value for value in hashes if value})
    if len(smallest) < 64:
        return len(smallest)
    return max(64, round(63 / (float(smallest[63]) / 2.0**64)))


def means(events: list[Seen]) -> list[float]:
    """Means of the features over all events, added in their order."""
    sums = [0.0] * len(NAMES)
    for seen in events:
        for k, value in enumerate(seen.features):
            sums[k] += value
    return [total / len(events) for total in sums]


def with_forest(strength: float, bits: float) -> float:
    """Evidence of an event with the forest's bits, as a worker computes it."""
    return float(verdict(np.array([strength]), np.array([bits]))[0])


def hashed(place: Place) -> int:
    """SplitMix64 of a place: the place's number in the uniform sample."""
    partition, offset = place
    return mixed((offset + mixed(partition) * STEP) & MASK)


def mixed(value: int) -> int:
    value = (value + STEP) & MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & MASK
    return value ^ value >> 31
