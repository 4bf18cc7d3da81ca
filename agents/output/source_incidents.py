"""Selects what the second fold publishes: incidents of sources, with an id and an origin of their own."""

from __future__ import annotations

import msgspec

from streamguard.alerts.incident import Incident, Origin
from streamguard.records.record import Record

PREFIX = "s"
"""Beginning of the ids of the second fold. Those of the first fold begin with the number of a partition."""


def source_incident(incident: Incident, record: Record) -> tuple[Incident, Record] | None:
    """The incident and its record as they are published, or None for an incident of a user or the crowd.

    Users and the crowd are judged by the first fold, which sees all their events. The origin is that of the event in
    the events topic, as the record's headers state it: there an analyst finds it next to the user's other events, and
    there a decision about the user belongs.

    Parameters
    ----------
    incident
        An incident of the second fold.
    record
        The record of the sources topic whose alert opened or raised it.
    """
    if incident.entity.kind != "source":
        return None
    found = _origin(record)
    if found is None:
        return msgspec.structs.replace(incident, id=PREFIX + incident.id), record
    assert found.topic is not None
    return (
        msgspec.structs.replace(incident, id=PREFIX + incident.id, origin=found),
        msgspec.structs.replace(record, topic=found.topic, partition=found.partition, offset=found.offset),
    )


def _origin(record: Record) -> Origin | None:
    """Where the event is stored, from the headers; None if a stranger has written the record."""
    headers = dict(record.headers)
    try:
        topic, *numbers = (headers[f"sg.{name}"] or b"" for name in ("topic", "partition", "offset"))
        partition, offset = map(int, numbers)
        found = Origin(topic.decode(), partition, offset)
    except (KeyError, ValueError):
        return None
    return found if found.topic and partition >= 0 and offset >= 0 else None
