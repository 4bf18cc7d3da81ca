"""The incidents of one partition over a whole history: published when they open or rise, followed at every alert."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from streamguard.alerts.explain import MIN_REASON_BITS
from streamguard.alerts.incident import Incident, brought_up_to_date
from streamguard.campaigns.participants import Participants
from streamguard.campaigns.sighting import Sighting
from streamguard.fold.components import COMPONENTS
from streamguard.fold.grouping import ENTITY_KINDS
from streamguard.fold.patterns import PATTERNS
from streamguard.state.partition import Folded

MAX_UPDATES = 1000
"""Earlier updates that are kept of an incident, about 3 KB each; who takes part in further alerts is kept, too."""


@dataclass(slots=True)
class _Course:
    """An incident as last published, and its counters since."""

    incident: Incident
    first_ms: int = 0
    last_ms: int = 0
    count: int = 0
    evidence: float = 0.0
    strongest: float = 0.0
    """Evidence of the strongest alert by statistics and patterns."""
    relieved: float = 0.0
    """The same after peers have lowered it."""
    participants: Participants = field(default_factory=Participants)
    earlier: list[Incident] = field(default_factory=list)

    @property
    def lowered(self) -> float:
        """Bits by which peers lower the evidence of the strongest alert."""
        return self.strongest - self.relieved


class Incidents:
    """Follows the incidents of one partition, chunk after chunk.

    Parameters
    ----------
    limit
        How many of the worst incidents are needed; at most twice as many are held in memory. None: all.
    involved
        Whether to keep all updates, and to state who takes part in the alerts of an incident (see
        `streamguard.campaigns.participants`).

    Notes
    -----
    An incident that was published before the first chunk is left out until it is published again. The same holds for
    an incident that was dropped because there were too many.
    """

    def __init__(self, limit: int | None = None, *, involved: bool = False) -> None:
        self._limit = limit
        self._involved = involved
        self._courses: dict[int, _Course] = {}

    def follow(self, folded: Folded) -> None:
        """Bring incidents up to date with the alerts of a chunk."""
        published = {update.event: update.incident for update in folded.incidents}
        alerted = np.flatnonzero(folded.kind)
        numbers = folded.incident["first_offset"][alerted]
        for i, number in zip(alerted.tolist(), numbers.tolist(), strict=True):
            if number not in self._courses:
                if i not in published:
                    continue
                if self._limit is not None and len(self._courses) >= 2 * self._limit:
                    self._keep_the_worst(self._limit)
                self._courses[number] = _Course(published[i])
                if folded.incident["count"][i] > 1:  # earlier alerts are unknown: they were not relieved
                    unknown = float(folded.incident["evidence"][i])
                    self._courses[number].strongest = self._courses[number].relieved = unknown
            course = self._courses[number]
            if i in published and published[i] is not course.incident:
                if self._involved and len(course.earlier) < MAX_UPDATES:
                    course.earlier.append(course.incident)
                course.incident = published[i]
            counters = folded.incident[i]
            course.first_ms, course.count = int(counters["first_ms"]), int(counters["count"])
            course.last_ms = max(course.last_ms, int(folded.events[i].timestamp))
            course.strongest = max(course.strongest, float(folded.strength[i]))
            course.relieved = max(course.relieved, float(folded.strength[i] - folded.relief[i]))
            course.evidence = max(course.evidence, float(counters["evidence"]) - course.lowered)
            if self._involved:
                _take_part(course.participants, folded, i)

    def _keep_the_worst(self, limit: int) -> None:
        worst = sorted(self._courses.items(), key=lambda item: (-item[1].evidence, -item[1].count, item[0]))
        self._courses = dict(worst[:limit])

    def incidents(self) -> list[Incident]:
        """Incidents as last published, brought up to date with all their alerts."""
        return list(self.by_first_offset().values())

    def updates(self) -> list[Incident]:
        """All updates as they were published, the latest of each incident brought up to date."""
        return [
            update
            for course in self._courses.values()
            for update in (*course.earlier, self._brought_up_to_date(course))
        ]

    def by_first_offset(self) -> dict[int, Incident]:
        """The incidents by the offset of their first alert."""
        return {number: self._brought_up_to_date(course) for number, course in self._courses.items()}

    def _brought_up_to_date(self, course: _Course) -> Incident:
        involved = None
        if self._involved:
            shown = Participants()
            Sighting(course.incident).show(shown)
            involved = course.participants.involved()
            if involved == shown.involved():
                involved = None
        return brought_up_to_date(
            course.incident,
            first_ms=course.first_ms,
            last_ms=course.last_ms,
            count=course.count,
            evidence=course.evidence,
            lowered=course.lowered,
            involved=involved,
        )


def _take_part(participants: Participants, folded: Folded, i: int) -> None:
    """Add an alert with all of its reasons, of which a published incident states only the strongest."""
    excess = folded.excess[i].tolist()
    bits = {name: value for name, value in zip(COMPONENTS, excess, strict=True) if value >= MIN_REASON_BITS}
    so_far = int(folded.incident["patterns"][i])
    patterns = frozenset(pattern.name for k, pattern in enumerate(PATTERNS) if so_far >> k & 1)
    participants.add(folded.events[i], ENTITY_KINDS[abs(int(folded.kind[i]))], bits, patterns)


def worst_first(incidents: Iterable[Incident]) -> list[Incident]:
    """Incidents by evidence, which gives the order of their risks, too; then by number of alerts, then age."""
    return sorted(
        incidents, key=lambda one: (-one.evidence_bits, -one.risk, -one.count, one.first_seen, one.id)
    )
