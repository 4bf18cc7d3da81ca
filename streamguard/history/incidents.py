"""The incidents of one partition over a whole history: published when they open or rise, followed at every alert."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from streamguard.alerts.incident import Incident, brought_up_to_date
from streamguard.alerts.verdict import verdict
from streamguard.state.partition import Folded


@dataclass(slots=True)
class _Course:
    """An incident as last published, and its counters since."""

    incident: Incident
    first_ms: int = 0
    last_ms: int = 0
    count: int = 0
    evidence: float = 0.0


class Incidents:
    """Follows the incidents of one partition, chunk after chunk.

    Parameters
    ----------
    limit
        How many of the worst incidents are needed; at most twice as many are held in memory. None: all.

    Notes
    -----
    An incident that was published before the first chunk is left out until it is published again. The same holds for
    an incident that was dropped because there were too many.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._courses: dict[int, _Course] = {}

    def follow(self, folded: Folded) -> None:
        """Bring incidents up to date with the alerts of a chunk."""
        published = {update.event: update.incident for update in folded.incidents}
        alerted = np.flatnonzero(folded.kind)
        numbers = folded.incident["first_offset"][alerted]
        evidence = verdict(folded.incident["evidence"][alerted], folded.forest[alerted])
        for i, number, bits in zip(alerted.tolist(), numbers.tolist(), evidence.tolist(), strict=True):
            if number not in self._courses:
                if i not in published:
                    continue
                if self._limit is not None and len(self._courses) >= 2 * self._limit:
                    self._keep_the_worst(self._limit)
                self._courses[number] = _Course(published[i])
            course = self._courses[number]
            course.incident = published.get(i, course.incident)
            counters = folded.incident[i]
            course.first_ms, course.count = int(counters["first_ms"]), int(counters["count"])
            course.last_ms = max(course.last_ms, int(folded.events[i].timestamp))
            course.evidence = max(course.evidence, bits)

    def _keep_the_worst(self, limit: int) -> None:
        worst = sorted(self._courses.items(), key=lambda item: (-item[1].evidence, -item[1].count, item[0]))
        self._courses = dict(worst[:limit])

    def incidents(self) -> list[Incident]:
        """Incidents as last published, brought up to date with all their alerts."""
        return [
            brought_up_to_date(
                course.incident,
                first_ms=course.first_ms,
                last_ms=course.last_ms,
                count=course.count,
                evidence=course.evidence,
            )
            for course in self._courses.values()
        ]


def worst_first(incidents: Iterable[Incident]) -> list[Incident]:
    """Incidents by evidence, which gives the order of their risks, too; then by number of alerts, then age."""
    return sorted(
        incidents, key=lambda one: (-one.evidence_bits, -one.risk, -one.count, one.first_seen, one.id)
    )
