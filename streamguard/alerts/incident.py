"""Incidents as they are published: who, how bad, since when, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from streamguard.alerts.explain import MAX_CHARACTERS, Alert, TextOf, reasons
from streamguard.alerts.verdict import risk, severity
from streamguard.events.event import as_document
from streamguard.fold.patterns import PATTERNS


@dataclass(slots=True)
class Incident:
    """One entity's alerts within a window, as published: new, or risen since it was told last."""

    id: str
    entity_kind: str
    entity: str
    severity: str
    patterns: tuple[str, ...]
    index: int
    body: dict[str, Any]

    def attach(self, value: bytes) -> None:
        """Put the event itself into the incident."""
        self.body["event"] = as_document(value)

    def locate(self, topic: str) -> None:
        """Say which topic the event came from."""
        self.body["origin"]["topic"] = topic

    def encode(self) -> bytes:
        """The incident as JSON."""
        return msgspec.json.encode(self.body)


def incident_of(alert: Alert, text_of: TextOf) -> Incident:
    """The incident that an alert belongs to, as it is now.

    Parameters
    ----------
    alert
        The alert.
    text_of
        The partition's dictionary: hash -> text.
    """
    names = [pattern for k, pattern in enumerate(PATTERNS) if alert.patterns >> k & 1]
    names.sort(key=lambda pattern: -pattern.bits)
    name = f"{alert.partition}-{alert.first_offset}-{alert.first_ms:x}"
    crowd_name = f"partition {alert.partition}"
    entity = {
        "user": alert.event.user or "",
        "source": alert.texts[0][:MAX_CHARACTERS],
        "crowd": crowd_name,
    }[alert.entity_kind]
    level = severity(alert.evidence)
    body: dict[str, Any] = {
        "id": name,
        "entity": {"kind": alert.entity_kind, "value": entity},
        "first_seen": rfc3339(alert.first_ms),
        "last_seen": rfc3339(int(alert.event.timestamp)),
        "count": alert.count,
        "risk": risk(alert.evidence),
        "severity": level,
        "evidence_bits": round(alert.evidence, 2),
        "technique": names[0].technique if names else None,
        "patterns": [{"name": p.name, "technique": p.technique, "description": p.description} for p in names],
        "reasons": reasons(alert, text_of),
        "model": {
            "version": alert.model,
            "forest_bits": None if alert.forest is None else round(alert.forest, 2),
        },
        "origin": {"topic": None, "partition": alert.partition, "offset": alert.offset},
        "event": None,
    }
    return Incident(name, alert.entity_kind, entity, level, tuple(p.name for p in names), alert.index, body)


def rfc3339(ms: int) -> str:
    """Epoch milliseconds as RFC 3339 in UTC.

    Examples
    --------
    >>> rfc3339(1_700_000_000_123)
    '2023-11-14T22:13:20.123Z'
    """
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
