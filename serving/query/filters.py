"""What a list of incidents may be filtered by, and the conditions in SQL that this means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from streamguard.risk import SEVERITIES
from streamguard.serving.query import grouping
from streamguard.serving.query.condition import Condition, both

Name = Annotated[str, msgspec.Meta(max_length=256)]
Severity = Literal["low", "medium", "high", "critical"]
Status = Literal["new", "acknowledged", "closed"]
EntityKind = Literal["user", "source", "crowd"]
Sort = Literal["evidence", "time"]

OPEN: tuple[Status, ...] = ("new", "acknowledged")
"""Statuses of incidents that still need somebody."""
EventName = Annotated[str, msgspec.Meta(max_length=600)]
_PLACE = re.compile(r"(?:(?P<topic>.+):)?(?P<partition>[0-9]{1,9}):(?P<offset>[0-9]{1,18})", re.ASCII)

MAX_VALUES = 20
"""Values of one filter; a longer list is not a question that a person asks."""
MAX_WORD = 256
"""Characters of a word."""
MAX_WORDS = 8
"""Words of a search."""


class IncidentFilter(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Filters of a list; values of one filter are alternatives, and different filters must all hold.

    Attributes
    ----------
    since, until
        Event time of the latest alert, epoch milliseconds: from `since` (inclusive) to `until` (exclusive).
    entity
        Names of users or addresses, or of a crowd.
    kind
        Kinds of entities.
    severity
        Severities.
    pattern, technique
        Names of patterns, and ATT&CK techniques, among all alerts of the incident.
    status, assignee, classification
        What people have decided.
    campaign
        Id of a campaign, whose incidents are listed.
    raised
        Whether a person is called.
    muted
        Whether a mute hides it.
    grouped
        Whether a campaign of several incidents has one row. It has one if any of its incidents matches all filters, and
        the row is that of the strongest of these; open ones that are not hidden come before others.
    text
        Words that the incident contains; the last one may be incomplete.
    pseudonym
        Pseudonyms of users or addresses; an incident matches that one of `entity` or one of these selects.
    word
        One whole word that the incident contains, such as an address.
    event
        The event that it was published for: its id, or its place as `partition:offset` or `topic:partition:offset`.
    id
        Ids of incidents.
    """

    since: int | None = None
    until: int | None = None
    entity: tuple[Name, ...] = ()
    kind: tuple[EntityKind, ...] = ()
    severity: tuple[Severity, ...] = ()
    pattern: tuple[Name, ...] = ()
    technique: tuple[Name, ...] = ()
    status: tuple[Status, ...] = ()
    assignee: tuple[Name, ...] = ()
    classification: tuple[Name, ...] = ()
    campaign: Name = ""
    raised: bool | None = None
    muted: bool | None = None
    grouped: bool = False
    text: Name = ""
    pseudonym: tuple[Name, ...] = ()
    word: Name = ""
    event: EventName = ""
    id: tuple[Name, ...] = ()


class Conditions:
    """The WHERE clause of a filter, in the parts by which rows are found.

    Parameters
    ----------
    wanted
        The filter.

    Attributes
    ----------
    shapes
        Conditions on the table `shapes`.
    since, until, grouped
        As the filter has them.
    lead_decides
        Whether a campaign is selected if and only if the incident is that stands for it.
    window
        Conditions on the time of an incident.
    outside
        Conditions of which an incident outside of the window fulfils one.
    chosen
        Statements that select the numbers of incidents by id, entity, campaign or text; all must have an incident.
    """

    def __init__(self, wanted: IncidentFilter) -> None:
        self.shapes: list[Condition] = []
        self.window: list[Condition] = []
        self.chosen: list[Condition] = []
        self.outside: list[Condition] = []
        self.since, self.until = wanted.since, wanted.until
        self.grouped, self.lead_decides = wanted.grouped, _lead_decides(wanted)
        if wanted.since is not None:
            self.window.append(Condition("last_ms >= ?", (wanted.since,)))
            self.outside.append(Condition("last_ms < ?", (wanted.since,)))
        if wanted.until is not None:
            self.window.append(Condition("last_ms < ?", (wanted.until,)))
            self.outside.append(Condition("last_ms >= ?", (wanted.until,)))
        self._among("entity_kind", wanted.kind)
        self._among("severity", [SEVERITIES.index(one) for one in wanted.severity])
        self._any("patterns", wanted.pattern)
        self._any("techniques", wanted.technique)
        self._among("status", wanted.status)
        self._among("assignee", wanted.assignee)
        self._among("classification", wanted.classification)
        if wanted.raised is not None:
            self.shapes.append(Condition("raised = ?", (wanted.raised,)))
        if wanted.muted is not None:
            self.shapes.append(Condition("muted = ?", (wanted.muted,)))
        if wanted.entity or wanted.pseudonym:
            named = f"SELECT number FROM incidents WHERE entity IN ({_marks(wanted.entity)})"  # noqa: S608 - marks only
            if wanted.pseudonym:
                marks = _marks(wanted.pseudonym)
                named += f" UNION SELECT number FROM incidents WHERE pseudonym IN ({marks})"  # noqa: S608 - marks only
            self.chosen.append(Condition(named, (*wanted.entity, *wanted.pseudonym)))
        if wanted.id:
            text = f"SELECT number FROM incidents WHERE id IN ({_marks(wanted.id)})"  # noqa: S608 - marks only
            self.chosen.append(Condition(text, wanted.id))
        if wanted.campaign:
            text = (
                "SELECT number FROM incidents WHERE id IN (SELECT incident FROM members WHERE campaign = ?)"
            )
            self.chosen.append(Condition(text, (wanted.campaign,)))
        if wanted.event:
            self.chosen.append(of_event(wanted.event))
        if wanted.word:
            quoted = wanted.word.replace("\0", "").replace('"', '""')  # SQLite ends a search at a NUL
            self.chosen.append(Condition("SELECT rowid FROM words WHERE words MATCH ?", (f'"{quoted}"',)))
        if words := match(wanted.text):
            self.chosen.append(Condition("SELECT rowid FROM words WHERE words MATCH ?", (words,)))

    @property
    def rows(self) -> Condition:
        """The conditions on the table `incidents` as one."""
        matching = both(*self._of_shape(), *self.window, *self.numbered)
        return both(matching, grouping.shown(matching)) if self.grouped else matching

    @property
    def numbered(self) -> list[Condition]:
        """The conditions on the numbers of incidents."""
        return [Condition(f"number IN ({one.text})", one.values) for one in self.chosen]

    def _of_shape(self) -> list[Condition]:
        if not self.shapes:
            return []
        shape = both(*self.shapes)
        return [Condition(f"shape IN (SELECT number FROM shapes WHERE {shape.text})", shape.values)]  # noqa: S608

    def _among(self, column: str, values: Sequence[Any]) -> None:
        if values:
            self.shapes.append(Condition(f"{column} IN ({_marks(values)})", tuple(values)))

    def _any(self, column: str, values: tuple[str, ...]) -> None:
        if values:
            text = f"EXISTS (SELECT 1 FROM json_each({column}) WHERE value IN ({_marks(values)}))"  # noqa: S608
            self.shapes.append(Condition(text, values))


def of_event(event: str) -> Condition:
    """The statement that selects the incidents that were published for an event.

    Parameters
    ----------
    event
        Its id, or its place as `partition:offset` or `topic:partition:offset`.

    Examples
    --------
    >>> of_event("security-events:2:53355").values
    ('security-events:2:53355', 2, 53355, 'security-events')
    """
    by_id = "SELECT incident FROM updates WHERE event_id = ? AND event_id <> ''"
    place = _PLACE.fullmatch(event)
    if place is None:
        return Condition(f"SELECT number FROM incidents WHERE id IN ({by_id})", (event,))  # noqa: S608
    by_place = "SELECT incident FROM updates WHERE origin_partition = ? AND origin_offset = ?"
    values: tuple[Any, ...] = (event, int(place["partition"]), int(place["offset"]))
    if place["topic"]:
        by_place += " AND CAST(value AS TEXT) ->> '$.origin.topic' = ?"
        values += (place["topic"],)
    return Condition(f"SELECT number FROM incidents WHERE id IN ({by_id} UNION {by_place})", values)  # noqa: S608


def _lead_decides(wanted: IncidentFilter) -> bool:
    """Whether an incident of a campaign is selected if and only if the lead of the campaign is.

    All incidents of a campaign are raised or none is, and an open one that is not hidden leads if there is one.

    Examples
    --------
    >>> _lead_decides(IncidentFilter(raised=True, status=("new", "acknowledged"), muted=False))
    True
    >>> _lead_decides(IncidentFilter(raised=True, muted=False)), _lead_decides(IncidentFilter(entity=("ann",)))
    (False, False)
    """
    rest = msgspec.structs.replace(wanted, raised=None, grouped=False, status=(), muted=None)
    opened = set(wanted.status) == set(OPEN) and wanted.muted is False
    return rest == IncidentFilter() and (opened or (not wanted.status and wanted.muted is None))


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def match(text: str) -> str:
    """A query of SQLite's full-text search for words of a person, in which nothing has a special meaning.

    Examples
    --------
    >>> match('brute "ann OR bob')
    '"brute" "ann" "OR" "bob"*'
    """
    words = re.findall(r"[\w.@:-]+", text)[:MAX_WORDS]
    return " ".join(f'"{word}"' for word in words) + ("*" if words else "")
