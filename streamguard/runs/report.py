"""Schema of `anomaly_report.json` as types, with its encoder and decoder."""

from __future__ import annotations

from typing import Any

import msgspec

from streamguard.alerts.incident import Incident
from streamguard.events.refusals import Refusals
from streamguard.history.understood import Understood

FORMAT = 2


class _Versioned(msgspec.Struct, frozen=True):
    format: int


class Refused(msgspec.Struct, frozen=True):
    """A record that is not an event."""

    partition: int
    offset: int
    reason: str
    detail: str


class Range(msgspec.Struct, frozen=True):
    """The offsets read from a partition, from `start` (inclusive) to `end` (exclusive), with counts."""

    partition: int
    start: int
    end: int
    records: int
    events: int
    refused: int
    alerted: int
    missing: int
    """Offsets without a record: transaction markers, and aborted or compacted records."""
    first_seen: str | None
    last_seen: str | None
    opened: int | None = None
    """Incidents whose first alert is in the range; None in reports of earlier versions."""


class Totals(msgspec.Struct, frozen=True):
    """Totals of the run."""

    records: int
    events: int
    refused: int
    refused_by_reason: dict[str, int]
    alerted: int
    """Events that statistics and patterns alert, among all events of the run."""
    alert_rate: float
    """Alerted events as a share of all events."""
    sampled: int
    """Events in the uniform sample of all events ever folded."""
    sampled_alerts: int
    """Alerted events in the sample."""
    forest_ranked: int
    """Events in the sample of which the forest says more than statistics and patterns; it decides their place."""
    training_rows: int
    trimmed_share: float
    """Share of the sample that was left out of the training as possible attacks."""
    users: int
    users_at_risk: int
    refusals: dict[str, Refusals] = {}
    """Refused records by reason, with the users and sources that most of them name."""
    repaired: int = 0
    """Events that were repaired before they were scored."""
    repairs: dict[str, int] = {}
    """Number of events by field and repair."""
    understood: Understood = msgspec.field(default_factory=Understood)
    """How statuses, types, addresses and locations of the events were understood."""


class Check(msgspec.Struct, frozen=True):
    """One check of the gate."""

    name: str
    passed: bool
    message: str


class Model(msgspec.Struct, frozen=True):
    """The forest of this run and the verdict of the gate. The registry stores which version is current."""

    version: str
    passed: bool
    previous: str | None
    """The champion at the time of the verdict."""
    message: str
    """Why the forest passed or failed."""
    checks: list[Check]


class Drift(msgspec.Struct, frozen=True):
    """Drift of a feature's distribution since the last run."""

    feature: str
    psi: float
    """Population stability index: below 0.1 is little drift, above 0.25 is much."""


class Trait(msgspec.Struct, frozen=True):
    """A feature in which a group differs from the median user."""

    feature: str
    mean: float
    apart: float
    """Difference from the median user, in standardised units."""


class PeerGroup(msgspec.Struct, frozen=True):
    """One group of similar users."""

    number: int
    size: int
    at_risk: int
    small: bool
    """Whether the group is too small to define usual behaviour; its users are measured from the nearest other group."""
    spread: float
    traits: list[Trait]


class User(msgspec.Struct, frozen=True):
    """One of the users with the most evidence."""

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
    """Incidents about the user in this run."""
    worst_incident_risk: float | None = None


class Distribution(msgspec.Struct, frozen=True):
    """Sampled events by bits of evidence: bar k counts the events from k to k + 1 times `width`."""

    width: float
    events: list[int]
    alert_bits: float


class ReportedIncident(Incident, frozen=True, kw_only=True):
    """An incident as published, with the peer group of its user."""

    peer_group: int | None


class Report(msgspec.Struct, frozen=True):
    """`anomaly_report.json`."""

    format: int
    run_id: str
    continues: str | None
    """The run whose state this run continued."""
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
    """Drift since the last run; None if there is no earlier run that can be compared."""
    silhouette: float | None
    groups: list[PeerGroup]
    incidents: list[ReportedIncident]
    """Incidents as published, worst first, each with the `peer_group` of its user."""
    users: list[User]
    distribution: Distribution
    seconds: dict[str, float]
    """Duration of each step."""


def encode(report: Report) -> bytes:
    """Encode a report as strict JSON; numbers that are not finite become null."""
    return msgspec.json.format(msgspec.json.encode(report)) + b"\n"


def decode(data: bytes) -> Report:
    """Decode the report of an earlier run.

    Raises
    ------
    msgspec.DecodeError
        If the data are not a report, or a report of another format; the message names the place of the error.
    """
    found = msgspec.json.decode(data, type=_Versioned).format
    if found != FORMAT:
        raise msgspec.ValidationError(f"format {found}, this version reads {FORMAT}")
    return msgspec.json.decode(data, type=Report)
