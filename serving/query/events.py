"""The raw events of an incident: from Kafka by offset, or from the archive when Kafka has deleted them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from streamguard.events.document import as_document
from streamguard.kafka.connection import Brokers
from streamguard.serving.log.events import MAX_EVENTS, Place, events_at
from streamguard.serving.log.missing import MissingEvent
from streamguard.serving.query.incidents import IncidentQueries
from streamguard.serving.results.archive import ArchivedEvents
from streamguard.serving.results.archived_event import ArchivedEvent


class IncidentEvent(msgspec.Struct, frozen=True):
    """An event that an incident was published for."""

    topic: str
    partition: int
    offset: int
    source: Annotated[str, msgspec.Meta(description="`kafka`, `archive`, or `none` if it cannot be shown")]
    event: Annotated[Any, msgspec.Meta(description="The event as JSON; null if it cannot be shown")]
    missing: Annotated[str, msgspec.Meta(description="Why it cannot be shown; empty if it can")]


class IncidentEvents(msgspec.Struct, frozen=True):
    """The events of the publications of an incident, the latest first."""

    incident: str
    events: tuple[IncidentEvent, ...]


class EventQueries:
    """Reads events of incidents; every method may be called from any thread.

    Parameters
    ----------
    incidents
        Answers about incidents.
    brokers
        Where the events are.
    archive
        The archive of events.
    """

    def __init__(self, incidents: IncidentQueries, brokers: Brokers, archive: ArchivedEvents) -> None:
        self._incidents = incidents
        self._brokers = brokers
        self._archive = archive

    def of_incident(self, id: str) -> IncidentEvents:
        """The events of the publications of an incident, the latest first.

        Raises
        ------
        NotFoundError
            If there is no such incident.
        """
        answer = self._incidents.incident(id)
        origins = [one.incident.origin for one in reversed(answer.updates)][:MAX_EVENTS]
        found: list[IncidentEvent] = []
        for topic in dict.fromkeys(origin.topic for origin in origins):
            places = [Place(one.partition, one.offset) for one in origins if one.topic == topic]
            records = events_at(self._brokers, topic, places, None) if topic else {}
            for place in places:
                record = records.get(place)
                if record is not None and not isinstance(record, MissingEvent):
                    event = as_document(record.value or b"null")
                    found.append(IncidentEvent(topic or "", *place, "kafka", event, ""))
                else:
                    found.append(self._archived(topic or "", place, record))
        return IncidentEvents(id, tuple(found))

    def _archived(self, topic: str, place: Place, missing: MissingEvent | None) -> IncidentEvent:
        found = self._archive.at(place.partition, place.offset)
        if isinstance(found, ArchivedEvent):
            return IncidentEvent(topic, *place, "archive", found.document, "")
        why = missing.message if missing is not None else found.message
        return IncidentEvent(topic, *place, "none", None, why)
