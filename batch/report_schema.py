"""`anomaly_report.json`: its schema as types, and how it is written and read."""

from __future__ import annotations

from typing import Any

import msgspec

from streamguard.alerts.incident import Incident

FORMAT = 1


class Refused(msgspec.Struct, frozen=True):
    """A record that is no event."""

    partition: int
    offset: int
    reason: str
    detail: str


class Range(msgspec.Struct, frozen=True):
    """What was read of a partition: offsets from `start` up to but without `end`."""

    partition: int
    start: int
    end: int
    records: int
    events: int
    refused: int
    alerted: int
    missing: int
    """Offsets without a record: transaction markers, aborted or compacted records."""
    first_seen: str | None
    last_seen: str | None


class Totals(msgspec.Struct, frozen=True):
    """Of the run."""

    records: int
    events: int
    refused: int
    refused_by_reason: dict[str, int]
    alerted: int
    """Events that statistics and patterns alert; all events are counted."""
    alert_rate: float
    """Their share."""
    sampled: int
    """Events in the uniform sample of everything ever folded."""
    sampled_alerts: int
    """Anomalies among them: what statistics and patterns alert, and what only the forest adds."""
    forest_added: int
    """Anomalies among them that only the forest's bits make: known for the sample, not for all events."""
    training_rows: int
    trimmed_share: float
    """Of the sample, left out of the training as possible attacks."""
    users: int
    users_at_risk: int


class Check(msgspec.Struct, frozen=True):
    """One thing that the gate looked at."""

    name: str
    passed: bool
    says: str


class Model(msgspec.Struct, frozen=True):
    """The forest of this run, and what the gate made of it; what is current, the registry knows."""

    version: str
    passed: bool
    previous: str | None
    """The champion when it was judged."""
    says: str
    """Why it passed or not."""
    checks: list[Check]


class Drift(msgspec.Struct, frozen=True):
    """How a feature's distribution moved since the last run."""

    feature: str
    psi: float
    """Population stability index: below 0.1 little, above 0.25 much."""


class Trait(msgspec.Struct, frozen=True):
    """How a group differs from the median user."""

    feature: str
    mean: float
    apart: float
    """In standardised units."""


class PeerGroup(msgspec.Struct, frozen=True):
    """One group of users who are alike."""

    number: int
    size: int
    at_risk: int
    small: bool
    """Too few to be a measure of what is usual: its users are measured from the nearest other group."""
    spread: float
    traits: list[Trait]


class User(msgspec.Struct, frozen=True):
    """One of the users with the highest risk."""

    user: str
    partition: int
    risk: float
    evidence_bits: float
    at_risk: bool
    why: list[str]
    peer_group: int | None
    small_group: bool | None
    peer_bits: float
    total_events: int
    unique_ips: int
    unique_locations: int
    failed_auth_rate: float
    first_seen: str
    last_seen: str
    incidents: int = 0
    """HistoryMetadata the user, of this run."""
    worst_incident_risk: float | None = None


class Distribution(msgspec.Struct, frozen=True):
    """Sampled events by the bits of their evidence: bar k holds those from k to k + 1 times `width`."""

    width: float
    events: list[int]
    alert_bits: float


class ReportedIncident(Incident, frozen=True):
    """An incident as published, with the peer group of its user."""

    peer_group: int | None


class Report(msgspec.Struct, frozen=True):
    """`anomaly_report.json`."""

    format: int
    run_id: str
    continues: str | None
    """The run whose state this one went on from."""
    started: str
    finished: str
    streamguard: str
    source: dict[str, Any]
    parameters: dict[str, Any]
    ranges: list[Range]
    totals: Totals
    refused_first: list[Refused]
    model: Model | None
    """None if no forest was trained."""
    drift: list[Drift] | None
    """Against the last run; None without one."""
    silhouette: float | None
    groups: list[PeerGroup]
    incidents: list[ReportedIncident]
    """Incidents as published, worst first, each with the `peer_group` of its user."""
    users: list[User]
    distribution: Distribution
    seconds: dict[str, float]
    """Each step's."""


def encode(report: Report) -> bytes:
    """Strict JSON: what is not finite is null."""
    return msgspec.json.format(msgspec.json.encode(report)) + b"\n"


def decode(data: bytes) -> Report:
    """The report of an earlier run.

    Raises
    ------
    msgspec.DecodeError
        If it is none; the message says where.
    """
    return msgspec.json.decode(data, type=Report)
