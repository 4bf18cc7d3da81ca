"""The incident: its fields, which are a contract with every reader, and how it is built from an alert."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from streamguard.alerts.explain import MAX_CHARACTERS, Alert, EntityKind, Reason, reasons
from streamguard.alerts.usual import TextOf
from streamguard.events.document import as_document
from streamguard.events.event import RepairedEvent
from streamguard.fold.patterns import PATTERNS
from streamguard.risk import SEVERITIES, risk, severity

SCHEMA_VERSION = 2
"""Rises when a field changes its meaning or is removed; a new field leaves it as it is."""


def _described(text: str, **limits: Any) -> msgspec.Meta:
    return msgspec.Meta(description=text, **limits)


Time = Annotated[str, _described("RFC 3339 in UTC, with milliseconds", pattern=r"^\d{4}-\d\d-\d\dT[\d:.]+Z$")]
Count = Annotated[int, msgspec.Meta(ge=0)]


class Entity(msgspec.Struct, frozen=True):
    """Whose alerts the incident collects."""

    kind: Annotated[
        EntityKind,
        _described("`user`: an account; `source`: an address; `crowd`: all users of a partition together"),
    ]
    value: Annotated[str, _described("Name of the user, the address, or the partition of the crowd")]


class PatternMatch(msgspec.Struct, frozen=True):
    """A known attack pattern among the alerts."""

    name: Annotated[str, _described("Name of the pattern")]
    technique: Annotated[str, _described("MITRE ATT&CK technique")]
    description: Annotated[str, _described("What the pattern means, in a phrase")]


class Model(msgspec.Struct, frozen=True):
    """The Isolation Forest that scored the latest alert."""

    version: Annotated[str | None, _described("Version in the registry; null without a model")]
    forest_bits: Annotated[
        float | None, _described("Evidence of the forest alone, in bits; null without a model")
    ]
    weight: Annotated[
        float | None,
        _described(
            "Factor in `forest_bits`: 0 is a forest without a say, 1 a good one; null without a model"
        ),
    ] = None


class Peers(msgspec.Struct, frozen=True):
    """The peer group of the user, for which something of the alert is usual."""

    group: Annotated[Count, _described("Number of the group in the report of the retrain")]
    users: Annotated[Count, _described("Number of users of the group")]
    bits: Annotated[float, _described("Bits by which the peers have lowered `evidence_bits`", ge=0)]


class Origin(msgspec.Struct, frozen=True):
    """Where the event of the latest published alert is stored."""

    topic: Annotated[str | None, _described("Topic of the event; null for events from a file")]
    partition: Annotated[Count, _described("Partition of the event")]
    offset: Annotated[Count, _described("Offset of the event")]


class Names(msgspec.Struct, frozen=True):
    """A set of names: how many they are, and which."""

    count: Annotated[int, _described("Number of all names, exact up to 1,000; beyond, an estimate", ge=0)]
    names: Annotated[tuple[str, ...], _described("The names, at most 1,000, in alphabetical order")]


class Involved(msgspec.Struct, frozen=True):
    """Who takes part in the alerts of an incident."""

    users: Annotated[Names, _described("Users that the alerts name")]
    entered: Annotated[Names, _described("Those of them whose account a stranger entered")]
    sources: Annotated[Names, _described("Source addresses")]


class Incident(msgspec.Struct, frozen=True, omit_defaults=True):
    """Alerts of one entity within a window, as published when the incident opens or rises."""

    schema_version: Annotated[int, _described("Version of this schema")]
    id: Annotated[str, _described("Stays the same when the incident is published again, and after a crash")]
    entity: Annotated[Entity, _described("Whose alerts the incident collects")]
    first_seen: Annotated[Time, _described("Event time of the first alert")]
    last_seen: Annotated[Time, _described("Event time of the latest alert")]
    count: Annotated[int, _described("Number of alerts so far", ge=1)]
    risk: Annotated[
        float,
        _described(
            "Rarity, rounded down: 50 is one event in ten, 75 one in a thousand; sort by `evidence_bits`",
            ge=0,
            le=100,  # in version 1 the scale ended at 100
        ),
    ]
    severity: Annotated[Literal[SEVERITIES], _described("Band of the risk")]  # type: ignore[valid-type]
    evidence_bits: Annotated[float, _described("Strength of the evidence, in bits, without an upper limit")]
    technique: Annotated[
        str | None, _described("ATT&CK technique of the strongest pattern; null without a pattern")
    ]
    patterns: Annotated[
        tuple[PatternMatch, ...], _described("Patterns of all alerts so far, the strongest first")
    ]
    reasons: Annotated[
        tuple[Reason, ...], _described("Why the latest published alert is unusual, the strongest first")
    ]
    model: Annotated[Model, _described("The Isolation Forest that scored the latest alert")]
    origin: Annotated[Origin, _described("Where the event of the latest published alert is stored")]
    event: Annotated[
        Any,
        _described(
            'The event of the latest published alert; `{"truncated": true}` if it is too large to publish'
        ),
    ]
    repaired: Annotated[
        tuple[str, ...],
        _described(
            "What of this event was repaired before it was scored, as `field: repair`; absent if nothing was"
        ),
    ] = ()
    peers: Annotated[
        Peers | None,
        _described(
            "Peers of the user who usually have what is new for the user in the latest published alert; absent if they "
            "changed nothing"
        ),
    ] = None
    involved: Annotated[
        Involved | None,
        _described(
            "Who takes part in all alerts so far. Only a replay states it, and only if the event does not show it all; "
            "of a published incident, the events of all records show it"
        ),
    ] = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Incident)
TRUNCATED = msgspec.Raw(b'{"truncated":true}')
"""Stands for an event that does not fit into a record of the alerts topic."""


def incident_of(alert: Alert, text_of: TextOf, value: bytes, topic: str | None) -> Incident:
    """The incident that an alert belongs to, as the alert leaves it.

    Parameters
    ----------
    alert
        The alert, with the incident's counters.
    text_of
        Dictionary of the partition: hash -> text.
    value
        The event as JSON.
    topic
        Topic of the event; None for events from a file.
    """
    patterns = [pattern for k, pattern in enumerate(PATTERNS) if alert.patterns >> k & 1]
    patterns.sort(key=lambda pattern: -pattern.bits)
    names = {
        "user": alert.event.user or "",
        "source": alert.texts[0][:MAX_CHARACTERS],
        "crowd": f"partition {alert.partition}",
    }
    return Incident(
        schema_version=SCHEMA_VERSION,
        id=incident_id(alert.partition, alert.first_offset, alert.first_ms),
        entity=Entity(alert.entity_kind, names[alert.entity_kind]),
        first_seen=rfc3339(alert.first_ms),
        last_seen=rfc3339(int(alert.event.timestamp)),
        count=alert.count,
        risk=risk(alert.evidence),
        severity=severity(risk(alert.evidence)),
        evidence_bits=round(alert.evidence, 2),
        technique=patterns[0].technique if patterns else None,
        patterns=tuple(PatternMatch(p.name, p.technique, p.description) for p in patterns),
        reasons=reasons(alert, text_of),
        model=Model(alert.model, None if alert.forest is None else round(alert.forest, 2), alert.weight),
        origin=Origin(topic, alert.partition, alert.offset),
        event=as_document(value),
        repaired=tuple(map(str, alert.event.repairs)) if isinstance(alert.event, RepairedEvent) else (),
        peers=_peers(alert),
    )


def incident_id(partition: int, first_offset: int, first_ms: int) -> str:
    """Id of the incident that began at this offset and event time (epoch milliseconds) of a partition.

    Examples
    --------
    >>> incident_id(3, 17, 1_700_000_000_123)
    '3-17-18bcfe5687b'
    """
    return f"{partition}-{first_offset}-{first_ms:x}"


def _peers(alert: Alert) -> Peers | None:
    """The section about peers; None if they have not lowered the evidence of the incident."""
    lowered = round(alert.lowered, 2)
    return (
        Peers(alert.peers.group, alert.peers.users, lowered) if alert.peers is not None and lowered else None
    )


def brought_up_to_date(
    incident: Incident,
    *,
    first_ms: int,
    last_ms: int,
    count: int,
    evidence: float,
    lowered: float,
    involved: Involved | None = None,
) -> Incident:
    """The incident with the counters that later alerts have left, which were not published one by one.

    Parameters
    ----------
    first_ms, last_ms
        Event times of the first and of the latest alert, epoch milliseconds.
    count
        Number of alerts.
    evidence
        The strongest evidence, in bits.
    lowered
        Bits by which peers have lowered it.
    involved
        Who takes part in all alerts, if that is known and not shown by the event.
    """
    return msgspec.structs.replace(
        incident,
        first_seen=rfc3339(first_ms),
        last_seen=rfc3339(last_ms),
        count=count,
        risk=risk(evidence),
        severity=severity(risk(evidence)),
        evidence_bits=round(evidence, 2),
        peers=_still_lowered(incident.peers, lowered),
        involved=involved,
    )


def _still_lowered(peers: Peers | None, lowered: float) -> Peers | None:
    bits = round(lowered, 2)
    return msgspec.structs.replace(peers, bits=bits) if peers is not None and bits else None


def encode(incident: Incident) -> bytes:
    """The incident as JSON."""
    return _encoder.encode(incident)


def decode(value: bytes) -> Incident:
    """An incident from JSON; fields of later versions are ignored.

    Raises
    ------
    msgspec.ValidationError
        If a field is missing or does not fit.
    """
    return _decoder.decode(value)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of `Incident`; `incident.schema.json` beside this module holds it."""
    _, components = msgspec.json.schema_components([Incident], ref_template="#/$defs/{name}")
    incident = components.pop("Incident")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **incident, "$defs": components}


def rfc3339(ms: int) -> str:
    """Epoch milliseconds as RFC 3339 in UTC.

    Examples
    --------
    >>> rfc3339(1_700_000_000_123)
    '2023-11-14T22:13:20.123Z'
    """
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
