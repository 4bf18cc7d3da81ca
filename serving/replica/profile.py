"""One user in human terms: the answer that is built from a stored profile, ready to be JSON."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Time = Annotated[str, Meta(description="RFC 3339 in UTC, with milliseconds")]
Share = Annotated[float, Meta(ge=0, le=1, description="Between 0 and 1")]
Maturity = Literal["hardly known", "partly known", "known"]


class ValueShare(msgspec.Struct, frozen=True):
    """A value and how usual it is for the user."""

    value: Annotated[str, Meta(description="The value, or `an older value` if its text is no longer stored")]
    share: Annotated[float, Meta(ge=0, le=1, description="Share of the values that are kept for the user")]
    events: Annotated[
        float, Meta(ge=0, description="Events with the value; unusual and older events count less than one")
    ]


class Usual(msgspec.Struct, frozen=True):
    """The values of one field that are usual for a user."""

    field: Annotated[str, Meta(description="source, location, host, agent, resource, action or command")]
    values: Annotated[
        tuple[ValueShare, ...], Meta(description="The most frequent values, the most frequent first")
    ]
    rest: Annotated[
        ValueShare | None, Meta(description="The other values that are kept, together; null without any")
    ]
    no_longer_kept: Annotated[
        float, Meta(ge=0, description="Events with values that gave way to more frequent ones")
    ]


class Hours(msgspec.Struct, frozen=True):
    """When the user is active."""

    shares: Annotated[
        tuple[float, ...],
        Meta(description="Share of each hour of the week, Monday 0 h UTC first; 168 zeros without any hour"),
    ]
    words: Annotated[str, Meta(description="The hours that hold most of the user's events")]


class Typical(msgspec.Struct, frozen=True):
    """A quantity that is usual for the user, as the geometric mean, and in words."""

    value: float
    words: str


class Rate(msgspec.Struct, frozen=True):
    """What the user does now, against the long-run rate; both fade, and half is left after `half_life_seconds`."""

    half_life_seconds: Annotated[int, Meta(description="300, 3,600 or 86,400")]
    events: float
    usual_events: Annotated[float, Meta(description="`events` at the user's long-run rate")]
    failures: float
    usual_failures: float
    bytes: float
    usual_bytes: float


class OpenIncident(msgspec.Struct, frozen=True):
    """The incident of the user that further alerts join."""

    id: str
    first_seen: Time
    last_seen: Time
    count: Annotated[int, Meta(description="Number of alerts")]
    evidence_bits: float


class DecisionInForce(msgspec.Struct, frozen=True):
    """A decision of a person that the fold applies to the user's events."""

    id_hash: Annotated[
        str,
        Meta(description="First 16 hexadecimal digits of the SHA-256 digest of the decision's id"),
    ]
    decision: Literal["expected", "attack"]
    field: str
    value: Annotated[str, Meta(description="The value, or `an older value` if its text is not stored")]
    until: Annotated[Time | None, Meta(description="Event time at which an expectation ends; null: no end")]


class UserProfile(msgspec.Struct, frozen=True):
    """One user in human terms, at one offset of an events partition.

    Values that decay are as of the partition's clock, `event_time`.
    """

    user: Annotated[str, Meta(description="Name of the user, or the source address")]
    kind: Annotated[
        Literal["user", "source"],
        Meta(description="`source`: the events of an address that name no user"),
    ]
    partition: Annotated[int, Meta(ge=0, description="Partition of the events topic")]
    topic: Annotated[str | None, Meta(description="The events topic; null if the state does not name it")]
    topic_id: Annotated[str | None, Meta(description="Kafka's id of this topic")]
    source_offset: Annotated[int, Meta(ge=0, description="Offset of the first event that is not included")]
    event_time: Annotated[Time, Meta(description="Clock of the partition: the latest event time, RFC 3339")]
    first_seen: Time
    last_seen: Time
    events: Annotated[int, Meta(ge=0, description="Number of events so far")]
    active_days: Annotated[int, Meta(ge=0, description="Number of days with events so far")]
    maturity: Annotated[Maturity, Meta(description="Whether there are enough events to know what is usual")]
    events_a_day: Annotated[float, Meta(ge=0, description="Long-run rate, half-life 30 days")]
    bytes_a_day: Annotated[float, Meta(ge=0, description="Long-run rate, half-life 30 days")]
    failure_share: Annotated[Share, Meta(description="Share of the user's events that fail")]
    usual: Annotated[tuple[Usual, ...], Meta(description="One entry for each field with texts")]
    hours: Hours
    interval: Annotated[Typical | None, Meta(description="Seconds between two events; null for one event")]
    volume: Annotated[Typical | None, Meta(description="Bytes of an event; null without any")]
    threat: Annotated[float, Meta(description="Mean threat score that events were sent with")]
    rates: Annotated[tuple[Rate, ...], Meta(description="Half-lives of 5 minutes, 1 hour and 1 day")]
    failures_in_a_row: Annotated[int, Meta(ge=0, description="Failures since the last successful login")]
    unusual_now: Annotated[
        tuple[str, ...], Meta(description="Sentences about what is unusual at the partition's clock")
    ]
    open_incident: OpenIncident | None
    decisions: Annotated[tuple[DecisionInForce, ...], Meta(description="Decisions about the user in force")]
