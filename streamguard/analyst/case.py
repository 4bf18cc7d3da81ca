"""An incident with all that its updates show: what facts, rules and narrative look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from streamguard.alerts.explain import MAX_REASONS, MIN_REASON_BITS, Reason
from streamguard.alerts.incident import Incident, Involved, PatternMatch, encode
from streamguard.campaigns.participants import Participants
from streamguard.campaigns.sighting import Sighting
from streamguard.events.event import Event

MAX_UPDATES = 64
"""Updates of an incident that are looked at, the latest ones. An incident is published when its alerts double in
number or its evidence rises, so there are few."""

MAX_FACTS = 12
"""Reasons that become facts. Workers publish at most six; a record of another writer may have more."""
MAX_PATTERNS = 24
"""Patterns that become facts; more than exist."""


@dataclass(frozen=True)
class Case:
    """An incident and its earlier updates.

    Attributes
    ----------
    incident
        As last published.
    sighting
        The same, as the rules of campaigns see it.
    earlier
        Its earlier updates.
    """

    incident: Incident
    sighting: Sighting
    earlier: tuple[Sighting, ...]

    @classmethod
    def of(cls, incident: Incident, updates: Sequence[Incident] = ()) -> Case:
        """The case of an incident; updates of other incidents, and the incident itself, are left out."""
        known = [one for one in updates if one.id == incident.id and one != incident]
        known.sort(key=lambda one: (one.count, one.evidence_bits, encode(one)))
        return cls(incident, Sighting(incident), tuple(map(Sighting, known[-MAX_UPDATES:])))

    @property
    def event(self) -> Event | None:
        """The latest published event; None if it was too large to publish."""
        return self.sighting.event

    @property
    def seconds(self) -> float:
        """Seconds from the first alert to the last."""
        return (self.sighting.last_ms - self.sighting.first_ms) / 1000

    @cached_property
    def involved(self) -> Involved:
        """Who was tried and entered, as far as the updates show it."""
        participants = Participants()
        for one in (*self.earlier, self.sighting):
            one.show(participants)
        return participants.involved()

    @property
    def patterns(self) -> tuple[PatternMatch, ...]:
        """The patterns that become facts, the strongest first."""
        return self.incident.patterns[:MAX_PATTERNS]

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """The reasons that become facts, the strongest first."""
        return self.incident.reasons[:MAX_FACTS]

    @cached_property
    def earlier_reasons(self) -> tuple[Reason, ...]:
        """Reasons of earlier updates that the latest one does not state, each as it was strongest; these first."""
        shown = {reason.feature for reason in self.reasons}
        found: dict[str, Reason] = {}
        for one in self.earlier:
            for reason in one.incident.reasons:
                kept = found.get(reason.feature)
                if reason.feature not in shown and (kept is None or reason.bits > kept.bits):
                    found[reason.feature] = reason
        return tuple(sorted(found.values(), key=lambda reason: (-reason.bits, reason.feature))[:MAX_REASONS])

    @cached_property
    def strongest(self) -> dict[str, float]:
        """The largest weight of each reason over all updates, in bits."""
        bits: dict[str, float] = {}
        for one in (*self.earlier, self.sighting):
            for feature, weight in one.bits.items():
                bits[feature] = max(weight, bits.get(feature, 0.0))
        return bits

    @cached_property
    def unshown_bits(self) -> float:
        """Bits that a component of the latest alert can have at most if it is not among the reasons."""
        reasons = self.incident.reasons
        if len(reasons) < MAX_REASONS or any(reason.feature == "carried" for reason in reasons):
            return MIN_REASON_BITS  # `carried` stands last, so all others are shown
        return max(reasons[-1].bits, MIN_REASON_BITS)
