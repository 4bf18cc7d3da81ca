"""The one ranking of the report: users, addresses and crowds by evidence, each with its incidents and what names it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from streamguard.alerts.incident import Entity
from streamguard.events.address import ADDRESS
from streamguard.risk import risk, severity
from streamguard.runs.report import Report, ReportedIncident, User

INCIDENTS_SHOWN = 5
"""Incidents of an entry that are shown with their reasons, the strongest ones."""


class _Key(NamedTuple):
    kind: str
    name: str
    partition: int
    """-1 unless it is a user: addresses and crowds are the same in each partition."""


@dataclass(slots=True)
class Entry:
    """A user, an address or a crowd, with what is known against it.

    Attributes
    ----------
    place
        Place in the ranking, from 1; also in the anchor of the entry.
    entity
        Whose entry it is; a user without a name has the empty name.
    evidence, risk, severity
        That of the user, or of the strongest incident.
    user
        What the report says of the user; None for addresses, crowds, and users beyond the reported ones.
    incidents
        Its reported incidents, the strongest first.
    number, more
        Number of its incidents, and of those that the report does not show.
    related
        Entries that an incident of this one names, and entries of whose incidents one names this one.
    """

    entity: Entity
    place: int = 0
    evidence: float = 0.0
    user: User | None = None
    incidents: list[ReportedIncident] = field(default_factory=list)
    related: list[Entry] = field(default_factory=list)

    @property
    def risk(self) -> float:
        return self.user.risk if self.user is not None else risk(self.evidence)

    @property
    def severity(self) -> str:
        return severity(self.risk)

    @property
    def number(self) -> int:
        return max(self.user.incidents if self.user is not None else 0, len(self.incidents))

    @property
    def more(self) -> int:
        return self.number - len(self.incidents[:INCIDENTS_SHOWN])

    @property
    def patterns(self) -> list[str]:
        """Names of the patterns of its incidents, the strongest first."""
        return list(dict.fromkeys(p.name for one in self.incidents for p in one.patterns))


def ranking(report: Report) -> list[Entry]:
    """Everybody against whom there is evidence, the strongest first.

    A user has at least the evidence of the worst incident, so incidents need no ranking of their own.
    """
    found: dict[_Key, Entry] = {}
    for user in report.users:
        key = _Key("user", user.user, user.partition)
        found[key] = Entry(Entity("user", user.user), evidence=user.evidence_bits, user=user)
    for one in report.incidents:
        entry = found.setdefault(_key(one), Entry(one.entity))
        entry.incidents.append(one)
        if entry.user is None:
            entry.evidence = max(entry.evidence, one.evidence_bits)
    ordered = sorted(found.values(), key=lambda entry: -entry.evidence)
    for place, entry in enumerate(ordered, 1):
        entry.place = place
        entry.incidents.sort(key=lambda one: -one.evidence_bits)
    for entry in ordered:
        for other in _named(entry, found):
            _relate(entry, other)
            _relate(other, entry)
    return ordered


def _key(one: ReportedIncident) -> _Key:
    if one.entity.kind != "user":
        return _Key(one.entity.kind, one.entity.value, -1)
    return _Key("user", one.entity.value or f"source {_source(one.event)}", one.origin.partition)


def _named(entry: Entry, found: Mapping[_Key, Entry]) -> Iterator[Entry]:
    """The user and the address of the event of each incident, as far as they are entries."""
    for one in entry.incidents:
        names = one.event.get("user") if isinstance(one.event, dict) else None
        for key in (_Key("user", str(names), one.origin.partition), _Key("source", _source(one.event), -1)):
            if key in found and found[key] is not entry:
                yield found[key]


def _relate(entry: Entry, other: Entry) -> None:
    if all(one is not other for one in entry.related):
        entry.related.append(other)


def _source(event: Any) -> str:
    address = event.get("source_ip") if isinstance(event, dict) else None
    return ADDRESS[address][0] if isinstance(address, str) else ""
