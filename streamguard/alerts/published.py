"""Reads incidents that somebody has published: what is not one, or is not one that workers write, is refused."""

from __future__ import annotations

import msgspec

from streamguard.alerts.incident import SCHEMA_VERSION, Incident, decode
from streamguard.events.event_time import epoch_ms
from streamguard.limits import MAX_INCIDENT_BYTES

MAX_TEXT = 200
"""Characters of an id or of a name of a pattern or reason. Workers write shorter ones, and they are copied into the
campaign's record, which has a limited size."""
MAX_ENTRIES = 100
"""Patterns or reasons of one incident; workers know fewer."""
MAX_ALERTS = 1 << 40
"""Alerts of one incident: sums of more could not be written as JSON."""
MAX_PARTITION, MAX_OFFSET = 1 << 31, 1 << 62
"""Place of an event: Kafka counts partitions with 32 bits and offsets with 63."""
MAX_BITS = 1e6
"""Evidence of one incident; a few hundred bits are much."""

REFUSALS = {
    "empty": "it has no value",
    "too_large": f"it is larger than {MAX_INCIDENT_BYTES:,} bytes",
    "not_an_incident": "it is not valid under the schema of incidents",
    "unknown_version": f"its schema_version is not from 1 to {SCHEMA_VERSION}",
    "out_of_bounds": "a name, a list, a number or a time in it is not one that workers write",
}
"""Why a value of the alerts topic is refused."""


def published(value: bytes | None) -> Incident | str:
    """The incident that a record of the alerts topic holds, or the reason why it is refused, a key of `REFUSALS`.

    Examples
    --------
    >>> published(None), published(b"[]")
    ('empty', 'not_an_incident')
    """
    if value is None:
        return "empty"
    if len(value) > MAX_INCIDENT_BYTES:
        return "too_large"
    try:
        incident = decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "not_an_incident"
    if not 1 <= incident.schema_version <= SCHEMA_VERSION:
        return "unknown_version"
    times = (epoch_ms(incident.last_seen), epoch_ms(incident.first_seen))
    return incident if None not in times and _bounded(incident) else "out_of_bounds"


def _bounded(incident: Incident) -> bool:
    if max(len(incident.patterns), len(incident.reasons)) > MAX_ENTRIES:
        return False
    if incident.count > MAX_ALERTS or not 0 <= incident.evidence_bits <= MAX_BITS:
        return False
    if incident.origin.partition > MAX_PARTITION or incident.origin.offset > MAX_OFFSET:
        return False
    texts = [incident.id, *(reason.feature for reason in incident.reasons)]
    texts += [text for pattern in incident.patterns for text in (pattern.name, pattern.technique)]
    return bool(incident.id) and all(len(text) <= MAX_TEXT for text in texts)
