"""What the state knows of everybody, and of sources that fail, ready to be JSON."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from streamguard.alerts.incident import incident_id, rfc3339
from streamguard.alerts.usual import usual_hours
from streamguard.fold.population import CLASSES
from streamguard.serving.replica.head import Failing, Head, usual_now
from streamguard.serving.replica.profile import Hours, OpenIncident


class ClassRate(Struct, frozen=True):
    """Events of one class now, against what the fold expects at this hour of the week."""

    name: Annotated[str, Meta(description="new_source, failure, new_user or new_source_failure")]
    events: Annotated[
        float, Meta(description="Those of the last minutes, one for each user; half is left after 5 minutes")
    ]
    usual: Annotated[float, Meta(description="How many are usual, with the leeway of detection")]


class Crowd(Struct, frozen=True):
    """All users of a partition together, exact at a source offset."""

    partition: int
    source_offset: Annotated[int, Meta(description="Offset of the first event that is not reflected")]
    event_time: Annotated[str, Meta(description="Time of the latest event of the partition")]
    events: int
    failure_share: Annotated[
        float, Meta(ge=0, le=1, description="Share of failures among events of about a month")
    ]
    rates: tuple[ClassRate, ...]
    hours: Hours
    open_incident: Annotated[OpenIncident | None, Meta(description="Null if there is none")]


class FailingSource(Struct, frozen=True):
    """An address that has failed within hours, as one partition knows it."""

    partition: int
    source_offset: int
    address: Annotated[str | None, Meta(description="Null if its text is not stored")]
    failures: Annotated[float, Meta(description="Failures; half is left after an hour")]
    failed_users: Annotated[float, Meta(description="Estimated number of users for whom it failed")]
    successes: Annotated[
        float, Meta(description="Successes since it first failed; half is left after an hour")
    ]
    succeeded_users: float
    last_seen: str
    open_incident: Annotated[OpenIncident | None, Meta(description="Null if there is none")]


def described_crowd(of: Head, gap_ms: int) -> Crowd:
    """Describe the population of a partition.

    Parameters
    ----------
    gap_ms
        Event time without an alert after which an incident is over.
    """
    p = of.population[0]
    total, hours = float(p["hours_total"]), p["hours"].astype(np.float64)
    shares = hours / hours.sum() if hours.sum() > 0.0 else hours
    usual = usual_now(of)
    return Crowd(
        of.partition,
        of.next_offset,
        rfc3339(of.clock),
        round(float(p["events"])),
        round(min(float(p["failures"]) / max(float(p["learned"]), 1.0), 1.0), 4),
        tuple(
            ClassRate(name, round(float(p["fast"][k]), 2), round(float(usual[k]), 2))
            for k, name in enumerate(CLASSES)
        ),
        Hours(
            tuple(round(one, 5) for one in shares.tolist()),
            usual_hours(hours.astype(np.float32)) if total else "",
        ),
        _open(p, of, gap_ms),
    )


def described_source(one: Failing, of: Head, gap_ms: int) -> FailingSource:
    """Describe a failing source; see `described_crowd`."""
    record = one.record
    return FailingSource(
        of.partition,
        of.next_offset,
        one.text,
        round(float(record["failures"]), 2),
        _users(one.failed_users),
        round(float(record["successes"]), 2),
        _users(one.welcome_users),
        rfc3339(int(record["last_ts"])),
        _open(record, of, gap_ms),
    )


def _users(estimate: float) -> float:
    return round(estimate, 1) + 0.0  # an empty bitmap is estimated as -0.0


def _open(record: np.void, of: Head, gap_ms: int) -> OpenIncident | None:
    offset, last_ms, first_ms = (
        int(record[f"incident_{name}"]) for name in ("offset", "last_ts", "first_ts")
    )
    if offset < 0 or not record["incident_count"] or of.clock - last_ms > gap_ms:
        return None
    return OpenIncident(
        incident_id(of.partition, offset, first_ms),
        rfc3339(first_ms),
        rfc3339(last_ms),
        int(record["incident_count"]),
        round(float(record["incident_bits"]), 2),
    )
