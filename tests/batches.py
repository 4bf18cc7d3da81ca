"""A synthetic folded history from a seed, for tests of the steps after the fold."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamguard.alerts.explain import Reason
from streamguard.alerts.incident import SCHEMA_VERSION, Entity, Incident, Model, Origin, PatternMatch
from streamguard.batch.detection.assessment import assess
from streamguard.batch.detection.clusters import PeerGroups
from streamguard.batch.detection.detect import DetectionResult
from streamguard.batch.detection.users import UserAssessor
from streamguard.batch.folding.fold_result import EventTable, FoldResult, IncidentRisks, UserTable
from streamguard.batch.folding.summaries import SUMMARY_COLUMNS
from streamguard.batch.source.offset_range import Counts
from streamguard.events.refusals import Refusals
from streamguard.fold.features import NAMES
from streamguard.models.forest import Forest
from streamguard.models.sampling import Selection

START_MS = 1_700_000_000_000
PARTITIONS = 2
ALERT_BITS = 10.0


def rows(keys: list[tuple[int, int]], users: list[str], strength: float = 20.0) -> EventTable:
    """Events at (partition, offset); their content follows from their position. `strength` is their maximum of bits."""
    n = len(keys)
    draws = [np.random.default_rng([p, offset]) for p, offset in keys]
    evidence = np.array([random.random() ** 4 * strength for random in draws])
    features = np.array([random.normal(size=len(NAMES)) for random in draws], np.float32)
    return EventTable(
        partition=np.array([p for p, _ in keys], np.int32),
        offset=np.array([offset for _, offset in keys], np.int64),
        timestamp=np.array([START_MS + 1000 * offset for _, offset in keys], np.int64),
        user=_texts([users[offset % len(users)] for _, offset in keys]),
        event_type=_texts(["auth_attempt"] * n),
        source=_texts([f"10.0.{p}.{offset % 250}" for p, offset in keys]),
        features=features.reshape(n, len(NAMES)),
        score=evidence * 2,
        tail=evidence / 2,
        strength=evidence,
        patterns=np.where(evidence > 15, 5, 0).astype(np.uint64),
        alerted=evidence >= ALERT_BITS,
    )


def fold_result(
    sampled: int = 300, alerts: int = 20, users: int = 40, *, names: list[str] | None = None
) -> FoldResult:
    """Two partitions with offsets 0 to 999, of which this run read 500 to 999; alerts and sample overlap."""
    random = np.random.default_rng(7)
    names = names or [f"user{k:04d}" for k in range(users)]
    keys = [(p, offset) for p in range(PARTITIONS) for offset in range(1000)]
    everything = rows(keys, names)
    sample = sorted(random.choice(len(keys), sampled, replace=False).tolist())
    worst = np.argsort(-np.where(everything.offset >= 500, everything.strength, -1.0), kind="stable")
    everybody = [(p, name) for p in range(PARTITIONS) for name in sorted(set(names))]
    place = {key: k for k, key in enumerate(everybody)}
    peak = np.zeros(len(everybody))
    for p, offset, name, bits in zip(
        everything.partition.tolist(),
        everything.offset.tolist(),
        everything.user,
        everything.strength.tolist(),
        strict=True,
    ):
        if offset >= 500:
            peak[place[p, name]] = max(peak[place[p, name]], bits)
    about = {(0, name) for name in names[:3]}
    summary = np.zeros(len(everybody), SUMMARY_COLUMNS)
    summary["total_events"] = 25
    summary["failed_auth_rate"] = 0.04
    summary["first_seen"] = START_MS
    summary["last_seen"] = START_MS + 86_400_000
    centres = random.normal(scale=6.0, size=(3, len(NAMES)))
    usual = centres[np.arange(len(everybody)) % 3] + random.normal(size=(len(everybody), len(NAMES)))
    table = UserTable(
        user=_texts([name for _, name in everybody]),
        partition=np.array([p for p, _ in everybody], np.int32),
        features=usual.astype(np.float32),
        usual=usual,
        summary=summary,
        event_bits=peak,
        incident_bits=np.array([14.2 * (key in about) for key in everybody]),
    )
    result = FoldResult(
        sample=rows([keys[k] for k in sample], names),
        alerts=rows([keys[k] for k in sorted(worst[:alerts].tolist())], names),
        users={},
        states={},
        usual=usual,
        incidents=[],
        incident_risks={},
        counts=[
            Counts(
                p,
                500,
                1000,
                records=500,
                events=498,
                alerted=int(
                    (everything.alerted & (everything.offset >= 500) & (everything.partition == p)).sum()
                ),
                refusals={"not_json": Refusals(2, {"ann": 2}, {"10.0.0.1": 1, "10.0.0.2": 1})},
                refused_first=[(501, "not_json", "expected a value"), (502, "not_json", "<b>?")],
                first_ms=START_MS + 500_000,
                last_ms=START_MS + 999_000,
                users=len(everybody) // PARTITIONS,
                events_ever=25 * len(everybody) // PARTITIONS,
            )
            for p in range(PARTITIONS)
        ],
    )
    return with_users(
        with_incidents(result, [incident(names[k], k) for k in range(min(3, len(names)))]), table
    )


def users_of(result: FoldResult) -> UserTable:
    """All users in one table."""
    tables = [table for partition in sorted(result.users) for table in result.users[partition]]
    return UserTable(
        **{f.name: np.concatenate([getattr(table, f.name) for table in tables]) for f in fields(UserTable)}
    )


def with_users(result: FoldResult, users: UserTable) -> FoldResult:
    """The same result with other users, who are in two tables for each partition."""

    def table(rows: NDArray[np.int64]) -> UserTable:
        return UserTable(**{f.name: getattr(users, f.name)[rows] for f in fields(UserTable)})

    of = {p: np.flatnonzero(users.partition == p) for p in range(PARTITIONS)}
    tables = {p: [table(part) for part in np.array_split(rows, 2)] for p, rows in of.items()}
    return replace(result, users=tables, usual=users.usual)


def with_incidents(result: FoldResult, incidents: list[Incident]) -> FoldResult:
    """The same result with other incidents."""
    risks: dict[tuple[int, str], list[float]] = {}
    for one in incidents:
        if one.entity.kind == "user":
            risks.setdefault((one.origin.partition, one.entity.value), []).append(one.risk)
    return replace(
        result,
        incidents=incidents,
        incident_risks={key: IncidentRisks(len(some), max(some)) for key, some in risks.items()},
    )


def detected(
    result: FoldResult, forest: Forest | None, peers: PeerGroups | None, selection: Selection | None = None
) -> DetectionResult:
    """The assessment of a folded history with a given forest and given peer groups."""
    n = len(result.sample)
    assessment = assess(result, forest, alert_bits=ALERT_BITS)
    return DetectionResult(
        selection or Selection(np.arange(n // 2), np.arange(n), np.arange(n) % 80 > 0),
        None,
        peers,
        assessment,
        UserAssessor(assessment, result.counts, peers, alert_bits=ALERT_BITS),
    )


def incident(user: str, offset: int, event: Any = None) -> Incident:
    """An incident about a user."""
    return Incident(
        schema_version=SCHEMA_VERSION,
        id=f"0-{offset}-18bcfe56800",
        entity=Entity("user", user),
        first_seen="2023-11-14T22:13:20.123Z",
        last_seen="2023-11-14T22:15:20.123Z",
        count=12 + offset,
        risk=81.0,
        severity="high",
        evidence_bits=14.2,
        technique="T1110.001",
        patterns=(PatternMatch("brute_force", "T1110.001", "many failed logins in a row within minutes"),),
        reasons=(
            Reason("source_bits", "203.0.113.9", "10.1.2.3 (71 %)", 9.1, 0.6),
            Reason("hour_bits", "Tue 03:00", "Mon-Fri 8 to 17", 4.4, 0.3),
        ),
        model=Model(None, None),
        origin=Origin("security-events", 0, offset),
        event=event
        or {"user": user, "event_type": "auth_attempt", "status": "failed", "timestamp": START_MS},
    )


def _texts(values: list[str]) -> NDArray[np.object_]:
    out = np.empty(len(values), object)
    out[:] = values
    return out
