"""What of an update of an incident its case depends on: small enough to keep one for every update."""

from __future__ import annotations

import msgspec

from streamguard.alerts.explain import EntityKind
from streamguard.alerts.incident import Incident


class UpdateReason(msgspec.Struct, frozen=True, order=True, array_like=True):
    """A reason of the latest alert of an update."""

    feature: str
    actual: str
    bits: float


class Update(msgspec.Struct, frozen=True, order=True, array_like=True):
    """An update of an incident, reduced. Updates order by `count`; equal ones are the same update.

    Attributes
    ----------
    count
        Number of alerts of the incident so far.
    bits
        Evidence of the incident, in bits.
    at
        Event time of the latest alert, RFC 3339 in UTC with milliseconds.
    entity_kind, entity
        Whose alerts the incident collects.
    patterns
        Names of the patterns of all alerts so far.
    reasons
        Why the latest alert is unusual, as the incident states it.
    """

    count: int
    bits: float
    at: str
    entity_kind: EntityKind
    entity: str
    patterns: tuple[str, ...]
    reasons: tuple[UpdateReason, ...]

    @classmethod
    def of(cls, incident: Incident) -> Update:
        """The reduced form of a record of the alerts topic."""
        return cls(
            count=incident.count,
            bits=incident.evidence_bits,
            at=incident.last_seen,
            entity_kind=incident.entity.kind,
            entity=incident.entity.value,
            patterns=tuple(pattern.name for pattern in incident.patterns),
            reasons=tuple(UpdateReason(one.feature, one.actual, one.bits) for one in incident.reasons),
        )
