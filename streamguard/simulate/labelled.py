"""A simulated event with its labels, which are kept apart from its bytes, and the campaign that it may belong to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class SimulatedEvent(NamedTuple):
    """One event; its labels are separate fields and never part of its bytes."""

    event_id: str
    user: str
    timestamp: int
    """Event time, epoch ms."""
    value: bytes
    """JSON of the event."""
    scenario: str | None
    """Attack that the event belongs to."""
    campaign: str | None
    """Run of the attack."""
    situation: str | None = None
    """Benign situation that the event belongs to."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """One run of a scenario."""

    id: str
    scenario: str
    technique: str
    start: int
    """First event, epoch ms."""
    end: int
    """Last event, epoch ms."""
    events: int
    users: frozenset[str]
