"""Previews a decision: how many of a user's recent incidents have the value among their reasons."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from streamguard.alerts.explain import MAX_CHARACTERS
from streamguard.alerts.incident import Incident
from streamguard.decisions.values import of_event
from streamguard.events.event_time import epoch_ms
from streamguard.text import counted

PREVIEW_DAYS = 30
"""Days before the latest incident that a preview counts: a month holds what recurs every week and every month."""
_DAY_MS = 86_400_000


class Preview(NamedTuple):
    """Incidents of a user in the last `PREVIEW_DAYS`.

    Attributes
    ----------
    affected, total
        Those that have the value among their reasons, and all of them.
    """

    affected: int
    total: int

    def message(self, decision: str, user: str, field: str, value: str) -> str:
        """The preview in one sentence.

        Examples
        --------
        >>> Preview(14, 31).message("expected", "ann", "source", "10.0.0.1")
        'expected hides or lowers 14 of 31 incidents of ann in 30 days: those that have source 10.0.0.1 as a reason'
        """
        verb = "hides or lowers" if decision == "expected" else "confirms"
        incidents = f"{self.affected} of {counted(self.total, 'incident')}"
        which = f"those that have {field} {value} as a reason"
        return f"{decision} {verb} {incidents} of {user} in {PREVIEW_DAYS} days: {which}"


def preview(incidents: Iterable[Incident], user: str, field: str, value: str) -> Preview:
    """Count the incidents of a user; of each the records of the last days count, whatever their order.

    The days end with the latest incident of all users, in event time, so that a history is previewed like the present.
    """
    seen: list[tuple[int, str, bool]] = []
    now = 0
    for incident in incidents:
        at = epoch_ms(incident.last_seen) or 0
        now = max(now, at)
        if user_of(incident) == user:
            named = any(
                one.feature == field and one.actual == value[:MAX_CHARACTERS] for one in incident.reasons
            )
            seen.append((at, incident.id, named))
    recent = [(name, named) for at, name, named in seen if at >= now - PREVIEW_DAYS * _DAY_MS]
    return Preview(len({name for name, named in recent if named}), len({name for name, _ in recent}))


def user_of(incident: Incident) -> str:
    """The user of an incident: its entity, or the user of the event that was published with it."""
    if incident.entity.kind == "user":
        return incident.entity.value
    return of_event(document(incident))[0]


def document(incident: Incident) -> bytes:
    """The event of an incident as JSON."""
    return msgspec.json.encode(incident.event)
