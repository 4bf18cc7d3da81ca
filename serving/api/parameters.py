"""Query parameters that several routes share: filters of incidents, and how fresh an answer has to be."""

from __future__ import annotations

import functools
from typing import Annotated, Any

import msgspec
from litestar.params import Parameter, QueryParameter

from streamguard.errors import DataError
from streamguard.events.event_time import epoch_ms
from streamguard.serving.query import cursor
from streamguard.serving.query.filters import (
    MAX_VALUES,
    EntityKind,
    IncidentFilter,
    Severity,
    Status,
)

MAX_OFFSET = (1 << 63) - 1
"""Largest number that a database or a topic has."""

Names = Annotated[
    list[Annotated[str, msgspec.Meta(max_length=256)]] | None,
    Parameter(max_items=MAX_VALUES, description="Repeat the parameter for alternatives"),
]
Limit = Annotated[int, Parameter(ge=1, le=200, description="Rows of a page")]
After = Annotated[
    str | None, QueryParameter(name="cursor", pattern=cursor.PATTERN, description="`next` of the page before")
]
Time = Annotated[
    str | None,
    Parameter(
        max_length=40,
        description="Event time of the latest alert: RFC 3339, or a date such as 2026-11-30 (UTC)",
    ),
]
Staleness = Annotated[
    int | None,
    Parameter(
        gt=-1,  # Litestar leaves a bound of 0 out of the document
        le=86_400_000,
        description="Milliseconds; an answer that may be older is refused with 503 instead of being given",
    ),
]
Token = Annotated[
    str | None,
    QueryParameter(
        name="at_least",
        pattern=r"^d[0-9]{1,15}$",
        description="`token` of an earlier answer, whose state is included",
    ),
]
Text = Annotated[str, Parameter(max_length=200, description="Words that an incident contains")]
Id = Annotated[str, Parameter(max_length=200)]


class TimeError(DataError):
    """A parameter is not a time."""


def milliseconds(name: str, value: str | None) -> int | None:
    """The epoch milliseconds of a time; None for None.

    Raises
    ------
    TimeError
        If it is not a time.
    """
    if value is None or value == "":
        return None
    found = epoch_ms(value)
    if found is None:
        raise TimeError(f"`{name}` is not a time: write 2026-11-30 or 2026-11-30T08:00:00Z")
    return found


async def incident_filter(
    since: Time = None,
    until: Time = None,
    entity: Names = None,
    kind: Annotated[list[EntityKind] | None, Parameter(max_items=3)] = None,
    severity: Annotated[list[Severity] | None, Parameter(max_items=4)] = None,
    pattern: Names = None,
    technique: Names = None,
    status: Annotated[list[Status] | None, Parameter(max_items=3)] = None,
    assignee: Names = None,
    classification: Names = None,
    campaign: Annotated[str, Parameter(max_length=200)] = "",
    raised: Annotated[bool | None, Parameter(description="Whether a person is called")] = None,
    muted: Annotated[bool | None, Parameter(description="Whether a mute hides it")] = None,
    grouped: Annotated[
        bool,
        Parameter(
            description="One row for a campaign if any of its incidents matches all filters: that of the strongest of "
            "these"
        ),
    ] = False,
    text: Text = "",
    word: Annotated[
        str,
        Parameter(max_length=256, description="One whole word that an incident contains, such as an address"),
    ] = "",
    event: Annotated[
        str,
        Parameter(
            max_length=600,
            description="An event that the incident was published for: its id, `partition:offset` or "
            "`topic:partition:offset`",
        ),
    ] = "",
) -> IncidentFilter:
    """The filter that the query parameters of a request describe."""
    return IncidentFilter(
        since=milliseconds("since", since),
        until=milliseconds("until", until),
        entity=tuple(entity or ()),
        kind=tuple(kind or ()),
        severity=tuple(severity or ()),
        pattern=tuple(pattern or ()),
        technique=tuple(technique or ()),
        status=tuple(status or ()),
        assignee=tuple(assignee or ()),
        classification=tuple(classification or ()),
        campaign=campaign,
        raised=raised,
        muted=muted,
        grouped=grouped,
        text=text,
        word=word,
        event=event,
    )


@functools.wraps(incident_filter)
async def lenient_filter(**given: Any) -> IncidentFilter:
    """The filter of a page, which itself says which times are none: they select nothing here."""
    for name in ("since", "until"):
        try:
            milliseconds(name, given.get(name))
        except TimeError:
            given[name] = None
    return await incident_filter(**given)
