"""Incidents of one partition as they stand: told when they open and rise, followed at every alert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from streamguard.alerts.incident import rfc3339
from streamguard.alerts.verdict import risk, severity, verdict
from streamguard.state.partition import Folded


@dataclass(slots=True)
class _Course:
    """An incident so far: as it was told last, and what has come since."""

    body: dict[str, Any]
    first_ms: int = 0
    last_ms: int = 0
    count: int = 0
    evidence: float = 0.0


class Incidents:
    """Follows the incidents of one partition, chunk after chunk.

    Parameters
    ----------
    most
        How many of the worst are wanted. Twice as many are held at the most; None: all are.

    Notes
    -----
    A chunk that begins within an incident that was told before belongs to nothing here: `follow` leaves it out
    until it rises. So it is with one that was among the least when there were too many.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._courses: dict[int, _Course] = {}

    def follow(self, folded: Folded) -> None:
        """Bring incidents up to date with a chunk's alerts; its incidents have their events attached."""
        told = {incident.index: incident.body for incident in folded.incidents}
        alerted = np.flatnonzero(folded.kind)
        numbers = folded.incident["first_offset"][alerted]
        evidence = verdict(folded.incident["evidence"][alerted], folded.forest[alerted])
        for i, number, bits in zip(alerted.tolist(), numbers.tolist(), evidence.tolist(), strict=True):
            if number not in self._courses:
                if i not in told:
                    continue
                if self._most is not None and len(self._courses) >= 2 * self._most:
                    self._forget_the_least(self._most)
                self._courses[number] = _Course(told[i])
            course = self._courses[number]
            course.body = told.get(i, course.body)
            incident = folded.incident[i]
            course.first_ms, course.count = int(incident["first_ms"]), int(incident["count"])
            course.last_ms = max(course.last_ms, int(folded.events[i].timestamp))
            course.evidence = max(course.evidence, bits)

    def _forget_the_least(self, most: int) -> None:
        worst = sorted(self._courses.items(), key=lambda item: (-item[1].evidence, -item[1].count, item[0]))
        self._courses = dict(worst[:most])

    def bodies(self) -> list[dict[str, Any]]:
        """As published last, with the count, the times and the risk that they have come to."""
        out = []
        for course in self._courses.values():
            body = dict(course.body)
            body["first_seen"] = rfc3339(course.first_ms)
            body["last_seen"] = rfc3339(course.last_ms)
            body["count"] = course.count
            body["risk"] = risk(course.evidence)
            body["severity"] = severity(course.evidence)
            body["evidence_bits"] = round(course.evidence, 2)
            out.append(body)
        return out


def worst_first(bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By risk, then events, then age."""
    return sorted(bodies, key=lambda body: (-body["risk"], -body["count"], body["first_seen"], body["id"]))
